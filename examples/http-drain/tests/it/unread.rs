//! A program whose outputs are full, and that nothing reads: a stop ends all
//! the same. Each of the systems is tried.

use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a program whose standard error is full, fills its standard output
/// once that has a line that begins with `ready`, and stops it with one signal.
/// Returns its exit status.
///
/// # Panics
/// It does not end.
pub(crate) fn stop_unread(command: Command, ready: &str) -> Option<i32> {
    stop_unread_after(command, ready, || {})
}

/// The same, with something to do before the signal, while both are full.
pub(crate) fn stop_unread_after(
    mut command: Command,
    ready: &str,
    meanwhile: impl FnOnce(),
) -> Option<i32> {
    let (output, stdout) = io::pipe().unwrap();
    let (_unread, stderr) = io::pipe().unwrap();
    fill(&stderr);
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr);
    let mut program = Killed(command.spawn().unwrap());
    await_line(output.try_clone().unwrap(), ready);
    fill(&stdout);
    meanwhile();
    kill_process(Pid::from_child(&program.0), Signal::TERM).unwrap();
    let patience = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            drop(output);
            return status.code();
        }
        assert!(
            Instant::now() < patience,
            "no stop ends while nothing reads: {command:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Writes until nothing fits.
pub(crate) fn fill(mut pipe: &PipeWriter) {
    ioctl_fionbio(pipe, true).unwrap();
    for size in [4096, 1] {
        let full = loop {
            if let Err(error) = pipe.write(&vec![b'.'; size]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
    }
    ioctl_fionbio(pipe, false).unwrap();
}

/// Waits for a line that begins with `ready`; returns what follows in it.
pub(crate) fn await_line(mut pipe: PipeReader, ready: &str) -> String {
    ioctl_fionbio(&pipe, true).unwrap();
    let (patience, mut text) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        let _ = pipe.read_to_end(&mut text); // what is there so far
        let text = String::from_utf8_lossy(&text);
        let rest = text.lines().find_map(|line| line.strip_prefix(ready));
        if let (Some(rest), true) = (rest, text.ends_with('\n')) {
            return rest.to_owned();
        }
        assert!(Instant::now() < patience, "no {ready:?} in {text:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A child process. Dropping it kills it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
