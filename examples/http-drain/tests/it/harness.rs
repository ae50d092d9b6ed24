//! Programs in child processes, curl, and a watchdog on all of it.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here may take on the slowest machine. Only a hang
/// reaches it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// A program in a child process. Dropping it kills the process.
pub(crate) struct Program {
    child: Child,
    stdout: Receiver<String>,
    stderr: File,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// What it said after the lines that were taken before.
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: String,
}

impl Ended {
    /// The value of a key in the `stopped` line.
    pub(crate) fn told(&self, key: &str) -> &str {
        let line = self.stdout.iter().find(|line| line.starts_with("stopped "));
        let mut pairs = line.into_iter().flat_map(|line| line.split(' '));
        let value = pairs.find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    pub(crate) fn count(&self, key: &str) -> usize {
        self.told(key).parse().unwrap()
    }
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (lines, stdout) = channel();
        let pipe = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            pipe.lines()
                .map_while(Result::ok)
                .try_for_each(|line| lines.send(line))
        });
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Waits for the next line on standard output; it must begin so. Returns
    /// what comes after that.
    pub(crate) fn await_line(&self, prefix: &str) -> String {
        let line = self.stdout.recv_timeout(WATCHDOG);
        let line = line.unwrap_or_else(|_| panic!("no {prefix:?}: {}", self.stderr()));
        let rest = line.strip_prefix(prefix);
        let rest = rest.unwrap_or_else(|| panic!("no {prefix:?} in {line:?}"));
        rest.to_owned()
    }

    /// The same, where an address comes after it.
    pub(crate) fn await_address(&self, prefix: &str) -> SocketAddr {
        self.await_line(prefix).parse().unwrap()
    }

    pub(crate) fn term(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    #[allow(dead_code)] // only quit-events asks
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    #[allow(dead_code)] // only redis-to-db asks
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        let length = usize::try_from(self.stderr.metadata().unwrap().len()).unwrap();
        let mut bytes = vec![0; length];
        let _ = self.stderr.read_exact_at(&mut bytes, 0);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has logged `needle` so many times.
    pub(crate) fn await_log(&self, needle: &str, times: usize) {
        let patience = Instant::now() + WATCHDOG;
        while self.stderr().matches(needle).count() < times {
            assert!(
                Instant::now() < patience,
                "no {times} times {needle:?}: {}",
                self.stderr()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Ended {
        let patience = Instant::now() + WATCHDOG;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > patience => panic!("hangs: {}", self.stderr()),
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        Ended {
            code: status.code(),
            stdout: self.stdout.iter().collect(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A curl that is on its way. Dropping it kills the process.
pub(crate) struct Curl(Option<Child>);

impl Curl {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "60"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn();
        Self(Some(child.unwrap_or_else(|error| {
            panic!("curl cannot be started, install it with `make deps`: {error}")
        })))
    }

    /// Waits for its end: at most curl's own `--max-time`.
    pub(crate) fn finish(mut self) -> Answer {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        output.into()
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What curl got. With `--include`, `text` begins with the head.
#[derive(Debug)]
pub(crate) struct Answer {
    /// curl's exit status: 0, or 7 could not connect, 52 empty reply.
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
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
