//! The program that this process runs, to be started again.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What this process was started as: the path, `argv[0]`, and the arguments.
///
/// The path is the one that was given to whoever started it, links and all, so
/// that starting it again runs what is there then: a new version, say.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program of this process. Ask early: before it is replaced on disk,
    /// and before the working directory changes.
    ///
    /// # Errors
    /// What reading `/proc/self/exe` says.
    pub fn this() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let running = Path::new("/proc/self/exe");
        // What `argv[0]` says is believed only if it leads to what is running.
        let path = candidates(&name)
            .into_iter()
            .find(|path| is_same(path, running))
            .map_or_else(|| fs::read_link(running), Ok)?;
        Ok(Self {
            path,
            name,
            arguments: arguments.collect(),
        })
    }

    /// Starts it again: the same `argv[0]` and arguments; working directory,
    /// environment, and standard streams as this process has them.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments);
        command
    }
}

/// Where execvp(3) looks for a program of this name.
fn candidates(name: &OsStr) -> Vec<PathBuf> {
    if Path::new(name).components().count() > 1 {
        return std::path::absolute(name).into_iter().collect();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter_map(|directory| std::path::absolute(directory.join(name)).ok())
        .collect()
}

fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((file(one), file(other)), (Ok(one), Ok(other)) if one == other)
}
