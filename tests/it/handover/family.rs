//! A server and its successors, each started by the one before.

use crate::harness::{Ended, connect, eventually, text};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, waitpid,
};
use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

pub(crate) struct Family {
    directory: TempDir,
    stdout: File,
    stderr: File,
    /// Oldest first.
    pub(crate) members: Vec<Pid>,
    /// How those ended that were waited for.
    ended: HashMap<Pid, WaitStatus>,
    handed_over: usize,
}

impl Family {
    /// Starts the program, from a file of its own that a test may replace.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    pub(crate) fn start_with(arguments: &[&str], adjust: impl FnOnce(&mut Command)) -> Self {
        Self::of(env!("CARGO_BIN_EXE_lastecho").as_ref(), arguments, adjust)
    }

    /// The same with another program.
    pub(crate) fn of(
        program: &Path,
        arguments: &[&str],
        adjust: impl FnOnce(&mut Command),
    ) -> Self {
        // Successors whose parents have ended are ours to wait for.
        set_child_subreaper(Some(getpid())).unwrap();
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let linked = directory.path().join("lastecho");
        // Linked, not copied: a file that somebody has open for writing, a
        // child of another test included, cannot be executed.
        fs::hard_link(program, &linked).unwrap();
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut command = Command::new(&linked);
        command.args(arguments).stdin(Stdio::null());
        adjust(&mut command);
        #[allow(clippy::zombie_processes)] // `wait` and `stop` wait for it
        let child = command
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        let family = Self {
            directory,
            stdout,
            stderr,
            members: vec![Pid::from_child(&child)],
            ended: HashMap::new(),
            handed_over: 0,
        };
        eventually("the first one listens", || !family.addresses().is_empty());
        family
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("lastecho")
    }

    /// Puts a script in the program's place. A shell writes it: see `start`.
    pub(crate) fn replace(&self, script: &str) {
        let new = self.directory.path().join("new");
        let write = "printf '%s\n' \"$2\" > \"$1\" && chmod +x \"$1\"";
        let written = Command::new("sh")
            .args(["-c", write, "sh"])
            .args([new.as_os_str(), script.as_ref()])
            .status();
        assert!(written.unwrap().success());
        fs::rename(&new, self.program()).unwrap();
    }

    /// Puts the real program back.
    pub(crate) fn restore(&self) {
        let new = self.directory.path().join("new");
        fs::hard_link(env!("CARGO_BIN_EXE_lastecho"), &new).unwrap();
        fs::rename(&new, self.program()).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        text(&self.stderr)
    }

    pub(crate) fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// All that were announced, those of successors after those before.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let text = self.stdout();
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        whole
            .filter_map(|line| line.trim_end().strip_prefix("listening on "))
            .filter_map(|rest| rest.split(',').next()?.parse().ok())
            .collect()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address()).unwrap()
    }

    pub(crate) fn youngest(&self) -> Pid {
        *self.members.last().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.youngest(), signal).unwrap();
    }

    /// Asks the youngest to hand over, and waits until it has.
    pub(crate) fn hand_over(&mut self) -> Pid {
        let before = self.log().len();
        self.signal(Signal::USR2);
        let told = |log: &str| -> Vec<i32> {
            let marks = log.split("handed over to process ").skip(1);
            marks
                .filter_map(|rest| rest.split_once('\n'))
                .map(|(pid, _)| pid.parse().unwrap())
                .collect()
        };
        let mut successor = None;
        eventually("a handover", || {
            let log = self.log();
            assert!(!log[before..].contains("no handover"), "{log}");
            // The program says it in its log, the example on standard output.
            successor = told(&(log + &self.stdout())).get(self.handed_over).copied();
            successor.is_some()
        });
        self.handed_over += 1;
        let pid = Pid::from_raw(successor.unwrap()).unwrap();
        self.members.push(pid);
        pid
    }

    /// Asks the youngest to hand over, which must fail, and returns why.
    pub(crate) fn fail_to_hand_over(&self) -> String {
        let before = self.log().len();
        self.signal(Signal::USR2);
        let mut why = None;
        eventually("a handover that fails", || {
            let log = self.log();
            let line = log[before..]
                .lines()
                .find(|line| line.contains("no handover: "));
            why = line.map(|line| line.split_once("no handover: ").unwrap().1.to_owned());
            assert!(!log[before..].contains("handed over to"), "{log}");
            why.is_some() && log.ends_with('\n')
        });
        why.unwrap()
    }

    /// Waits for the end of a member.
    pub(crate) fn wait(&mut self, pid: Pid) -> WaitStatus {
        let mut status = self.ended.get(&pid).copied();
        eventually("the end of a process", || {
            if status.is_none() {
                // Not ours to wait for while its parent lives.
                let waited = waitpid(Some(pid), WaitOptions::NOHANG);
                status = waited.ok().flatten().map(|(_, status)| status);
            }
            status.is_some()
        });
        self.ended.insert(pid, status.unwrap());
        status.unwrap()
    }

    /// Stops the youngest and waits for all. All must have ended with 0.
    pub(crate) fn stop(mut self) -> Vec<HashMap<String, String>> {
        self.signal(Signal::TERM);
        for pid in self.members.clone() {
            let status = self.wait(pid);
            assert_eq!(status.exit_status(), Some(0), "{}", self.log());
        }
        told(&self.stdout())
    }
}

/// The `stopped` lines, in the order of their ends.
pub(crate) fn told(stdout: &str) -> Vec<HashMap<String, String>> {
    let lines = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("stopped "));
    lines.map(Ended::pairs).collect()
}

/// What all of them told, added up.
pub(crate) fn sum(told: &[HashMap<String, String>], key: &str) -> u64 {
    told.iter()
        .map(|told| told[key].parse::<u64>().unwrap())
        .sum()
}

/// The descriptors of a process and what they are.
pub(crate) fn descriptors(pid: Pid) -> Vec<(i32, PathBuf)> {
    let directory = Path::new("/proc").join(pid.to_string()).join("fd");
    let entries = fs::read_dir(directory).unwrap();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            Some((number, fs::read_link(&path).ok()?))
        })
        .collect();
    found.sort();
    found
}

/// Processes whose parent this is, zombies included.
pub(crate) fn children(pid: Pid) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap();
    let parent =
        |stat: &str| -> Option<i32> { stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok() };
    processes
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            let stat = fs::read_to_string(path.join("stat")).ok()?;
            (parent(&stat)? == pid.as_raw_nonzero().get()).then_some(number)
        })
        .collect()
}

/// Processes that this one has started to take over: its children's children.
pub(crate) fn successors(pid: Pid) -> Vec<i32> {
    let between = children(pid).into_iter().filter_map(Pid::from_raw);
    between.flat_map(children).collect()
}

impl Drop for Family {
    fn drop(&mut self) {
        for &pid in self.members.iter().rev() {
            if !self.ended.contains_key(&pid) {
                // Those that it has not handed over to would be left to themselves.
                let waiting = successors(pid).into_iter().filter_map(Pid::from_raw);
                for pid in waiting.chain([pid]) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }
}
