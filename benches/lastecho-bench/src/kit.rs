//! The programs of the servers, found or built, and a port for each start.

use crate::running::Running;
use crate::servers::{Server, Source, xinetd_config};
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use tempfile::TempDir;

/// Where Debian puts servers; not on everybody's PATH.
const SERVERS: &str = "/usr/sbin";
const GO_SOURCE: &str = include_str!("../peers/echo.go");

/// What it takes to start servers.
pub(crate) struct Kit {
    /// For xinetd's configuration and the Go program.
    directory: TempDir,
    lastecho: Option<PathBuf>,
}

impl Kit {
    /// `lastecho` is where the program is, if it is not beside the runner.
    pub(crate) fn new(lastecho: Option<PathBuf>) -> Result<Self> {
        Ok(Self {
            directory: tempfile::tempdir()?,
            lastecho,
        })
    }

    /// The program of a server, built if need be.
    pub(crate) fn program(&self, server: &Server) -> Result<PathBuf> {
        match server.source {
            Source::Lastecho => match &self.lastecho {
                Some(path) => built(path.clone()),
                None => built(beside("lastecho")?),
            },
            Source::Beside(name) => built(beside(name)?),
            Source::Installed(name) => installed(name).with_context(|| name.to_owned()),
            Source::Go => self.build_go(),
        }
    }

    /// Starts a server on a free loopback port and waits until it accepts.
    pub(crate) fn start(&self, server: &Server, program: &Path) -> Result<Running> {
        let port = free_port();
        let config = self.directory.path().join("xinetd.conf");
        std::fs::write(&config, xinetd_config(port))?;
        let fill = |argument: &&str| {
            let argument = argument.replace("{port}", &port.to_string());
            argument.replace("{config}", &config.to_string_lossy())
        };
        let mut command = Command::new(program);
        command.args(server.arguments.iter().map(fill));
        Running::start(command, (Ipv4Addr::LOCALHOST, port).into())
            .with_context(|| format!("start {}", server.name))
    }

    fn build_go(&self) -> Result<PathBuf> {
        let program = self.directory.path().join("peer-go");
        if program.exists() {
            return Ok(program);
        }
        let source = self.directory.path().join("echo.go");
        std::fs::write(&source, GO_SOURCE)?;
        let mut command = Command::new("go");
        command.arg("build").arg("-o").arg(&program).arg(&source);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "go build: {said}");
        Ok(program)
    }
}

/// A program of this name on the machine.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([SERVERS.into()]);
    let mut programs = directories.map(|directory| directory.join(name));
    programs.find(|program| program.is_file())
}

fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

fn built(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.is_file(),
        "{} is missing: `make bench` builds it",
        path.display()
    );
    Ok(path)
}

/// A port that is free now, another each time, and none that the system gives
/// to clients: those would sit on it after a measurement.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Far apart for runners that follow each other.
    let first = u16::try_from(u64::from(std::process::id()) * 7_919 % 10_000).unwrap_or(0);
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path() {
        assert_eq!(installed("no-such-program"), None);
        assert!(installed("sh").unwrap().is_file());
    }
}
