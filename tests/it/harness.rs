//! Servers in child processes, clients that check, and a watchdog on all of it.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Longer than anything here may take on the slowest machine. Only a hang
/// reaches it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// Longer than a busy machine takes for what is done in a second or two, and
/// half as long as what the broken promise would take: for tests of promises
/// that speak of time. A nearer bound would test the machine.
pub(crate) const IN_TIME: Duration = Duration::from_secs(15);

/// Which program a test of a promise runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Lastecho,
    /// The 2013 program's behaviour: see tests/control/main.rs.
    Control,
}

impl Program {
    pub(crate) fn path(self) -> PathBuf {
        match self {
            Self::Lastecho => env!("CARGO_BIN_EXE_lastecho").into(),
            Self::Control => example("control"),
        }
    }
}

/// An example's program; `cargo test` builds them beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --examples` first",
        path.display()
    );
    path
}

/// How a promise was broken: its own assertion, not just any failure.
#[derive(Clone, Debug)]
pub(crate) enum Broken {
    /// A client saw a reset.
    Reset(String),
    /// A client got less than (or something else than) it was owed.
    Short(String),
    /// A stop took longer than promised.
    TooLong(String),
    /// A client was refused where a server was promised.
    Refused(String),
    /// What was told is not what happened.
    NotTold(String),
    /// The server ended or stopped serving because of one connection.
    Died(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(what) => write!(f, "reset: {what}"),
            Self::Short(what) => write!(f, "echo short: {what}"),
            Self::TooLong(what) => write!(f, "took too long: {what}"),
            Self::Refused(what) => write!(f, "refused: {what}"),
            Self::NotTold(what) => write!(f, "told wrongly: {what}"),
            Self::Died(what) => write!(f, "server died: {what}"),
        }
    }
}

pub(crate) type Kept = Result<(), Broken>;

/// Runs a promise's trial against both programs: lastecho must keep it in all
/// of `trials`, and the control must break it, in the way expected, in at
/// least one of as many. The control's failure is printed.
pub(crate) fn promise(
    name: &str,
    trials: u32,
    expected: fn(&Broken) -> bool,
    trial: impl Fn(Program) -> Kept,
) {
    for number in 0..trials {
        if let Err(broken) = trial(Program::Lastecho) {
            panic!("{name}: broken by lastecho in trial {number}: {broken}");
        }
    }
    for number in 0..trials {
        match trial(Program::Control) {
            Ok(()) => {}
            Err(broken) if expected(&broken) => {
                println!("{name}: the control breaks it in trial {number}: {broken}");
                return;
            }
            Err(broken) => println!("{name}: the control fails otherwise: {broken}"),
        }
    }
    panic!("{name}: the control kept it in all of {trials} trials, so this test shows nothing");
}

/// A server in a child process. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: File,
    pub(crate) addresses: Vec<SocketAddr>,
    since_signal: Option<Instant>,
}

/// How a server ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The keys of the `stopped` line; empty where there was none.
    pub(crate) told: HashMap<String, String>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From the first signal to the end of the process.
    pub(crate) took: Duration,
}

impl Ended {
    /// The keys of a `stopped` line.
    pub(crate) fn pairs(line: &str) -> HashMap<String, String> {
        let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// A number from the `stopped` line.
    pub(crate) fn count(&self, key: &str) -> u64 {
        let value = self
            .told
            .get(key)
            .unwrap_or_else(|| panic!("no {key} in {self:?}"));
        value
            .parse()
            .unwrap_or_else(|_| panic!("{key}={value} is no number"))
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Server {
    /// Starts the program on a free loopback port and waits until it says that
    /// it listens.
    pub(crate) fn start(program: Program, options: &[&str]) -> Self {
        Self::listening_on(program, &["127.0.0.1:0"], options)
    }

    /// The same, on these addresses.
    pub(crate) fn listening_on(program: Program, addresses: &[&str], options: &[&str]) -> Self {
        let mut command = Command::new(program.path());
        command.args(options).args(addresses);
        Self::spawn(command, addresses.len())
    }

    /// Starts a command that is a server and reads `listeners` ready lines.
    pub(crate) fn spawn(mut command: Command, listeners: usize) -> Self {
        command.stdin(Stdio::null());
        Self::spawn_with_stdin(command, listeners)
    }

    /// The same, with the standard input that the command has.
    pub(crate) fn spawn_with_stdin(mut command: Command, listeners: usize) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut addresses = Vec::new();
        while addresses.len() < listeners {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            match line.trim_end().strip_prefix("listening on ") {
                Some(address) => addresses.push(address.parse().unwrap()),
                None => panic!(
                    "{command:?} said {line:?} instead of listening: {}",
                    text(&stderr)
                ),
            }
        }
        Self {
            child,
            stdout: Some(stdout),
            stderr,
            addresses,
            since_signal: None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address()).unwrap()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.since_signal.get_or_insert_with(Instant::now);
        kill_process(self.pid(), signal).unwrap();
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Waits until the log contains `needle`.
    pub(crate) fn await_log(&self, needle: &str) {
        eventually(&format!("{needle:?} in the log"), || {
            self.stderr().contains(needle)
        });
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks for a stop with TERM and waits for the end.
    pub(crate) fn stop(mut self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for the end, and for its last line.
    pub(crate) fn wait(mut self) -> Ended {
        let since = self.since_signal.unwrap_or_else(Instant::now);
        let mut stdout = String::new();
        let mut pipe = self.stdout.take().unwrap();
        let (sender, all) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = pipe.read_to_string(&mut stdout);
            let _ = sender.send(stdout);
        });
        let patience = Instant::now() + WATCHDOG;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > patience => panic!("hangs: {}", self.stderr()),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let took = since.elapsed();
        let stdout = all.recv_timeout(WATCHDOG);
        let stdout = stdout.expect("somebody else holds its standard output open");
        let line = stdout
            .lines()
            .find_map(|line| line.strip_prefix("stopped "))
            .unwrap_or("");
        Ended {
            status,
            told: Ended::pairs(line),
            stderr: self.stderr(),
            stdout,
            took,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that was written to a file so far, without moving the writer's place.
pub(crate) fn text(file: &File) -> String {
    String::from_utf8_lossy(&bytes(file)).into_owned()
}

/// The same, as it is.
pub(crate) fn bytes(file: &File) -> Vec<u8> {
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; length];
    let _ = file.read_exact_at(&mut bytes, 0);
    bytes
}

/// Runs a command with this input to its end; kills it after [`WATCHDOG`].
pub(crate) fn run_to_end(command: &mut Command, input: &[u8]) -> Output {
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(stdout.try_clone().unwrap())
        .stderr(stderr.try_clone().unwrap())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; outside programs: make deps"));
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // A child that ends without reading it all is the caller's to judge.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let patience = Instant::now() + WATCHDOG;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > patience => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{command:?} hangs: {}", text(&stderr));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    feeder.join().unwrap();
    Output {
        status,
        stdout: bytes(&stdout),
        stderr: bytes(&stderr),
    }
}

/// Waits until `done`, which needs no exact moment.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + WATCHDOG;
    while !done() {
        assert!(Instant::now() < patience, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tries until something takes less than this once: other programs can make any
/// try look slow, and none look quick.
pub(crate) fn once_within(limit: Duration, what: &str, mut attempt: impl FnMut() -> Duration) {
    eventually(&format!("{what} within {limit:?}"), || {
        let took = attempt();
        println!("{what}: {took:?}");
        took < limit
    });
}

/// A port that is free now and that the system does not give out by itself, so
/// that only somebody's fixed port could take it meanwhile. For servers that
/// cannot say which port they got.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Far apart for processes that follow each other.
    let first = u16::try_from(u64::from(std::process::id()) * 7_919 % 10_000).unwrap();
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// A client whose reads and writes cannot hang for ever.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let client = TcpStream::connect_timeout(&address, WATCHDOG)?;
    client.set_read_timeout(Some(WATCHDOG))?;
    client.set_write_timeout(Some(WATCHDOG))?;
    Ok(client)
}

/// Reads to the end. A reset is told apart from an orderly end.
pub(crate) fn read_to_end(client: &mut TcpStream) -> Result<Vec<u8>, Broken> {
    let mut all = Vec::new();
    match client.read_to_end(&mut all) {
        Ok(_) => Ok(all),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Broken::TooLong(format!(
            "no end of file within {WATCHDOG:?}"
        ))),
        Err(error) => Err(Broken::Reset(format!("{error} after {} bytes", all.len()))),
    }
}

/// Bytes that are worth checking: no two places alike, all values, from a seed.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24).to_le_bytes()[0]
        })
        .collect()
}
