//! A systemd of its own for each test, in namespaces: see boot.sh.

use crate::handover::family::children;
use crate::harness::{WATCHDOG, connect, eventually, run_to_end};
use rustix::process::{Pid, Signal, getuid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HERE: &str = env!("CARGO_MANIFEST_DIR");
/// What a unit's programs find on their PATH.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the units serve.
pub(super) const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7));

/// Dropping it ends all that runs in it.
pub(super) struct Machine {
    boot: Child,
    /// Its process 1, as we see it.
    init: Pid,
    _mount_point: TempDir,
    console: File,
}

/// Where the kernel has its version 2 of control groups.
fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let mut mount = fields.find(|fields| fields.clone().nth(2) == Some("cgroup2"))?;
    mount.nth(1).map(PathBuf::from)
}

/// Why there can be no systemd here.
fn obstacle() -> Option<String> {
    if !getuid().is_root() {
        return Some("needs root".into());
    }
    let Some(cgroups) = cgroups() else {
        return Some("needs cgroup2, and it is not mounted".into());
    };
    let probe = cgroups.join(format!("lastecho-probe-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe))
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Some(format!("needs {} to write to: {error}", cgroups.display()));
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--net", "--cgroup", "true"]);
    let told = run_to_end(&mut unshare, b"");
    (!told.status.success()).then(|| String::from_utf8_lossy(&told.stderr).trim().to_owned())
}

impl Machine {
    /// One that runs, of the tree in LASTECHO_SYSTEMD or of this system.
    /// `None` where that cannot be, which is said beside the results; where CI
    /// is set it fails.
    pub(super) fn boot() -> Option<Self> {
        if let Some(obstacle) = obstacle() {
            let test = thread::current();
            let name = test.name().unwrap_or_default();
            let notice = format!("\nNOT RUN, no systemd here: {name}: {obstacle}\n");
            assert!(std::env::var_os("CI").is_none(), "{notice}");
            // Past the harness, which shows what is printed by failures only.
            let _ = io::stderr().write_all(notice.as_bytes());
            return None;
        }
        let machine = Self::start();
        let ready = ["is-active", "--quiet", "basic.target"];
        eventually("systemd has booted", || {
            assert!(machine.lives(), "{}", machine.console());
            machine.try_systemctl(&ready).status.success()
        });
        Some(machine)
    }

    fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("lastecho-{}-{number}", std::process::id());
        let tree = std::env::var_os("LASTECHO_SYSTEMD").unwrap_or_else(|| "/".into());
        let mount_point = tempfile::tempdir().unwrap();
        let console = tempfile::tempfile().unwrap();
        let mut boot = Command::new("sh")
            .arg(Path::new(HERE).join("tests/it/handover/systemd/boot.sh"))
            .arg(cgroups().unwrap().join(name))
            .arg(tree)
            .arg(Path::new(HERE).join("examples/systemd"))
            .args([env!("CARGO_BIN_EXE_lastecho").as_ref(), mount_point.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(console.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut unshare = String::new();
        let mut said = BufReader::new(boot.stdout.take().unwrap());
        said.read_line(&mut unshare).unwrap();
        let unshare = unshare.trim().parse().ok().and_then(Pid::from_raw);
        let mut machine = Self {
            boot,
            init: unshare.unwrap(),
            _mount_point: mount_point,
            console,
        };
        let mut init = None;
        eventually("process 1 is systemd", || {
            assert!(machine.lives(), "{}", machine.console());
            let first = children(unshare.unwrap()).first().copied();
            let is_systemd = |pid: &i32| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm"));
                name.is_ok_and(|name| name == "systemd\n")
            };
            init = first.filter(is_systemd).and_then(Pid::from_raw);
            init.is_some()
        });
        machine.init = init.unwrap();
        machine
    }

    fn lives(&self) -> bool {
        Path::new("/proc").join(self.init.to_string()).exists()
    }

    fn console(&self) -> String {
        crate::harness::text(&self.console)
    }

    /// A command inside.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string()]);
        command.args(["-m", "-p", "-n", "-u", "-i", "-C", "-r", "-w"]);
        command.args(["env", "-i", PATH, "SYSTEMD_COLORS=0"]);
        command.args(arguments);
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> String {
        let output = run_to_end(&mut self.command(arguments), b"");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(super) fn try_systemctl(&self, arguments: &[&str]) -> Output {
        run_to_end(
            &mut self.command(&[&["systemctl"], arguments].concat()),
            b"",
        )
    }

    pub(super) fn systemctl(&self, arguments: &[&str]) {
        let output = self.try_systemctl(arguments);
        let (log, told) = (self.journal(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {told}{log}");
    }

    /// A property of the service.
    pub(super) fn show(&self, property: &str) -> String {
        self.run(&["systemctl", "show", "-P", property, "lastecho"])
    }

    pub(super) fn journal(&self) -> String {
        let arguments = ["journalctl", "--no-pager", "-u", "lastecho", "-n", "50"];
        let output = run_to_end(&mut self.command(&arguments), b"");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// systemd's own.
    pub(super) fn version(&self) -> u32 {
        let version = self.run(&["systemctl", "--version"]);
        let version = version.split_whitespace().nth(1).unwrap().to_owned();
        let digits = version.split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap().parse().unwrap()
    }

    /// Puts lines into the service's section, and lets it start as often as a
    /// test likes.
    pub(super) fn configure(&self, lines: &str) {
        let script = "mkdir -p $0 && printf '%s\n' \"$1\" >$0/test.conf";
        let lines = format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\n{lines}");
        let directory = "/etc/systemd/system/lastecho.service.d";
        self.run(&["sh", "-c", script, directory, &lines]);
        self.systemctl(&["daemon-reload"]);
    }

    /// Sends a signal to the main process.
    pub(super) fn signal_main(&self, signal: Signal) {
        let name = format!("--signal={}", signal.as_raw());
        self.systemctl(&["kill", "--kill-whom=main", &name, "lastecho"]);
    }

    /// Runs this in its network, on a thread of its own, which stays there.
    pub(super) fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.init)).unwrap();
        thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(network.as_fd(), kind).unwrap();
            work()
        })
    }

    /// A client from inside.
    pub(super) fn connect(&self) -> io::Result<TcpStream> {
        self.inside(|| connect(ADDRESS)).join().unwrap()
    }

    pub(super) fn echoes(&self) -> io::Result<()> {
        let mut client = self.connect()?;
        client.write_all(b"hello")?;
        let mut echo = [0; 5];
        client.read_exact(&mut echo)?;
        assert_eq!(&echo, b"hello");
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.boot.stdin.take());
        let patience = Instant::now() + WATCHDOG;
        while matches!(self.boot.try_wait(), Ok(None)) && Instant::now() < patience {
            thread::sleep(Duration::from_millis(2));
        }
        let gone = matches!(self.boot.try_wait(), Ok(Some(status)) if status.success());
        if !thread::panicking() {
            assert!(gone, "left over: {}", self.console());
        }
    }
}
