//! A small file system of a run's own, which can really be full.

use crate::servers::memory;
use rustix::process::geteuid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Enough for what one run writes.
const SIZE: &str = "size=16m";
/// What an `SQLite` database consists of.
const FILES: [&str; 3] = [
    "messages.sqlite",
    "messages.sqlite-wal",
    "messages.sqlite-shm",
];

/// A tmpfs in a mount namespace of its own: it goes away with the process that
/// holds the namespace, and that one with us.
pub(super) struct Disk {
    holder: Child,
    place: TempDir,
}

impl Disk {
    pub(super) fn mount() -> Self {
        let place = memory();
        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        // `cat` ends when its standard input does.
        let script = format!("mount -t tmpfs -o {SIZE} tmpfs \"$0\" && echo mounted && exec cat");
        command.args(["--mount", "sh", "-c", &script]);
        let command = command.arg(place.path()).stdin(Stdio::piped());
        let mut holder = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(holder.stdout.as_mut().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "needs the right to mount: {command:?}");
        Self { holder, place }
    }

    /// The database's path, for a program that runs [inside](Self::inside).
    pub(super) fn database(&self) -> PathBuf {
        self.place.path().join(FILES[0])
    }

    /// Runs what follows as its arguments where the file system is mounted.
    pub(super) fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        if !geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--mount", "--target", &self.holder.id().to_string()]);
        command
    }

    /// A file of it as we see it. `SQLite` would follow this link itself, and
    /// end up in our own file system.
    fn outside(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = self.place.path().join(name);
        root.join(inside.strip_prefix("/").unwrap())
    }

    /// Fills it but for so many bytes.
    pub(super) fn fill(&self, left: u64) {
        let mut filler = File::create(self.outside("filler")).unwrap();
        for size in [1 << 16, 1 << 12] {
            let full = loop {
                if let Err(error) = filler.write_all(&vec![0; size]) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull);
        }
        let size = filler.metadata().unwrap().len();
        filler.set_len(size.saturating_sub(left)).unwrap();
    }

    pub(super) fn make_room(&self) {
        fs::remove_file(self.outside("filler")).unwrap();
    }

    /// Copies the database, which no program may use now; its path.
    pub(super) fn copy_database(&self, to: &Path) -> PathBuf {
        for name in FILES {
            let copy = to.join(name);
            let _ = fs::remove_file(&copy);
            let _ = fs::copy(self.outside(name), copy);
        }
        to.join(FILES[0])
    }

    pub(super) fn remove_database(&self) {
        for name in FILES {
            let _ = fs::remove_file(self.outside(name));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
