//! strace on a running server: calls that fail from now on, and work again.

use crate::harness::{WATCHDOG, eventually, text};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Which threads of a server are hit.
#[derive(Clone, Copy)]
pub(crate) enum Hit {
    /// All, and those that start meanwhile.
    All,
    /// The one that serves this connection, and no other.
    Connection(u64),
}

/// A fault that lasts until it is [lifted](Fault::lift).
pub(crate) struct Fault {
    strace: Child,
    trace: File,
    began: Instant,
}

/// A fault that is over.
pub(crate) struct Lifted {
    /// Calls that were made to fail.
    pub(crate) injected: usize,
    pub(crate) lasted: Duration,
}

impl Fault {
    /// Makes calls fail as strace(1) is told by `--inject`, and waits until it does.
    pub(crate) fn inject(server: Pid, hit: Hit, injection: &str) -> Self {
        let (trace, said) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let call = injection.split(':').next().unwrap();
        let mut command = Command::new("strace");
        match hit {
            // With whose call it is, and when, in each line.
            Hit::All => command.args(["-f", "-ttt", "-p", &server.to_string()]),
            Hit::Connection(id) => command.args(["-p", &thread_of(server, id).to_string()]),
        };
        // Its messages come first, then what it traces, both on standard error.
        command.args(["-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={injection}"), "-o", "/dev/fd/1"]);
        let command = command.stdin(Stdio::null());
        let mut strace = command
            .stdout(trace.try_clone().unwrap())
            .stderr(said.try_clone().unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("strace: {error}; install it with: make deps"));
        let mut over = false;
        eventually("strace attached", || {
            over = strace.try_wait().unwrap().is_some();
            over || text(&said).contains(" attached")
        });
        assert!(
            !over,
            "strace may not attach to a process here (needs root or CAP_SYS_PTRACE): {}",
            text(&said)
        );
        Self {
            strace,
            trace,
            began: Instant::now(),
        }
    }

    pub(crate) fn lasts(&self) -> Duration {
        self.began.elapsed()
    }

    /// How many calls it has made to fail so far.
    pub(crate) fn injected(&self) -> usize {
        text(&self.trace).matches("(INJECTED)").count()
    }

    /// When each thread made its failing calls, where all are hit.
    fn by_thread(&self) -> HashMap<String, Vec<f64>> {
        let mut threads: HashMap<String, Vec<f64>> = HashMap::new();
        for line in text(&self.trace).lines() {
            // "THREAD SECONDS CALL"
            let mut words = line.split_whitespace();
            if let (true, Some(thread)) = (line.contains("(INJECTED)"), words.next()) {
                let at = words.next().and_then(|at| at.parse().ok()).unwrap();
                threads.entry(thread.into()).or_default().push(at);
            }
        }
        threads
    }

    /// Whether no thread is in the middle of so many failing calls. (One that
    /// calls now and then is not.)
    pub(crate) fn is_over(&self, calls: u32) -> bool {
        let middle = 16..calls as usize;
        let mut threads = self.by_thread().into_values();
        !threads.any(|at| middle.contains(&at.len()))
    }

    /// Of the threads that are through with so many failing calls: how many a
    /// second the quickest one made, from its first to its last. Other programs
    /// can make it fewer, never more.
    pub(crate) fn quickest(&self, calls: u32) -> Option<f64> {
        let threads = self.by_thread();
        let through = threads.values().filter(|at| at.len() >= calls as usize);
        let rates = through.map(|at| f64::from(calls - 1) / (at[at.len() - 1] - at[0]));
        rates.reduce(f64::max)
    }

    /// Ends the fault: strace lets the server go.
    pub(crate) fn lift(mut self) -> Lifted {
        let lasted = self.lasts();
        kill_process(Pid::from_child(&self.strace), Signal::TERM).unwrap();
        let patience = Instant::now() + WATCHDOG;
        while self.strace.try_wait().unwrap().is_none() {
            assert!(Instant::now() < patience, "strace does not let go");
            std::thread::sleep(Duration::from_millis(1));
        }
        Lifted {
            injected: self.injected(),
            lasted,
        }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// The names of a process's threads, with their numbers.
pub(crate) fn threads(process: Pid) -> Vec<(i32, String)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let threads = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let number = task.file_name().to_str()?.parse().ok()?;
        Some((number, name.trim_end().to_owned()))
    });
    threads.collect()
}

/// The thread that serves this connection: the server names it so.
fn thread_of(server: Pid, connection: u64) -> i32 {
    let name = format!("conn {connection}");
    let mut found = None;
    eventually(&format!("a thread named {name:?}"), || {
        let all = threads(server);
        found = all.iter().find(|(_, n)| *n == name).map(|(tid, _)| *tid);
        found.is_some()
    });
    found.unwrap()
}
