//! The program and its senders in child processes.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here may take on the slowest machine. Only a hang
/// reaches it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// Waits until `done`, which needs no exact moment.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + WATCHDOG;
    while !done() {
        assert!(Instant::now() < patience, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A child process. Dropping it kills it.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program from a package; a missing one is an error that says
    /// how to get it.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => panic!("{command:?}: {error}: run `make deps`"),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its end, but not for ever.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the end of a process", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `log-pipeline`.
pub(crate) struct App {
    process: Process,
    dir: TempDir,
    pub(crate) address: SocketAddr,
}

impl App {
    /// Starts it on a free port and waits until it listens.
    pub(crate) fn start(options: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let file = |name| File::create(dir.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_log-pipeline"));
        command
            .args(["127.0.0.1:0", "--poll", "100ms"])
            .args(options);
        command.stdout(file("stdout")).stderr(file("stderr"));
        let process = Process::spawn(&mut command);
        let address = ([127, 0, 0, 1], 0).into();
        let mut app = Self {
            process,
            dir,
            address,
        };
        eventually("it listens", || app.stdout().contains('\n'));
        let listening = app.stdout();
        let address = listening
            .lines()
            .next()
            .unwrap()
            .strip_prefix("listening on ");
        app.address = address.expect(&listening).parse().unwrap();
        app
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.dir.path().join("stdout")).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks for a stop and waits for the end.
    pub(crate) fn stop(mut self, signal: Signal) -> Ended {
        self.signal(signal);
        self.ended()
    }

    pub(crate) fn ended(&mut self) -> Ended {
        let code = self.process.ended().code();
        Ended {
            code,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// Sends a file with util-linux's logger, and waits until it is sent.
    pub(crate) fn logger(&self, lines: &str) {
        self.logger_with(&[], lines);
    }

    /// The same with further options of logger's.
    pub(crate) fn logger_with(&self, options: &[&str], lines: &str) {
        let input = self.input("logger", lines);
        let mut command = Command::new("logger");
        command.args(["--tcp", "--server", "127.0.0.1", "--tag", "httpd"]);
        command.args(options);
        command.args(["--port", &self.address.port().to_string()]);
        assert!(Process::spawn(command.stdin(input)).ended().success());
    }

    /// Sends a file with netcat, which ends when we have closed.
    pub(crate) fn nc(&self, lines: &str) -> Process {
        let input = self.input("nc", lines);
        let mut command = Command::new("nc.openbsd");
        command.args(["-N", "127.0.0.1", &self.address.port().to_string()]);
        Process::spawn(command.stdin(input).stdout(Stdio::null()))
    }

    fn input(&self, name: &str, lines: &str) -> File {
        let path = self.dir.path().join(name);
        fs::write(&path, lines).unwrap();
        File::open(path).unwrap()
    }
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it told about its end. (The control goes on printing after it.)
    pub(crate) fn summary(&self) -> &str {
        let mut lines = self.stdout.lines();
        lines
            .find(|line| line.starts_with("stopped "))
            .unwrap_or_default()
    }

    /// A value of the summary.
    pub(crate) fn told(&self, key: &str) -> &str {
        let mut pairs = self
            .summary()
            .split(' ')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(name, _)| *name == key)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn count(&self, key: &str) -> u64 {
        self.told(key)
            .parse()
            .unwrap_or_else(|_| panic!("no {key} in {self:?}"))
    }

    /// The numbers of the lines that begin with this word, and how often.
    pub(crate) fn numbers(&self, word: &str) -> BTreeMap<u64, u64> {
        let mut numbers = BTreeMap::new();
        let lines = self.stdout.lines().map(|line| line.split(' '));
        for mut words in lines {
            if words.next() == Some(word) {
                let number = words.next().unwrap().parse().unwrap();
                *numbers.entry(number).or_default() += 1;
            }
        }
        numbers
    }

    /// Every line that was received is processed or failed, once, and the
    /// lines on standard output say the same.
    pub(crate) fn conserved(&self) -> Result<(), String> {
        let [received, processed, failed] =
            ["received", "processed", "failed"].map(|key| self.count(key));
        if received != processed + failed {
            return Err(format!(
                "received {received} ≠ processed {processed} + failed {failed}"
            ));
        }
        let expected: BTreeMap<_, _> = (1..=received).map(|number| (number, 1)).collect();
        if self.numbers("consumer") != expected {
            return Err(format!("consumer lines: {:?}", self.numbers("consumer")));
        }
        Ok(())
    }
}

/// Lines that are access log lines.
pub(crate) fn good(count: usize) -> String {
    let line = |n| {
        format!(
            "192.0.2.{} - - [10/Oct/2000:13:55:36 -0700] \"GET /page/{n} HTTP/1.1\" 200 {n} \
             \"-\" \"curl/8.0\"\n",
            n % 250
        )
    };
    (0..count).map(line).collect()
}
