//! A command that runs before the exit.

use lastecho::Shutdown;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// What is left of the time when it is killed: nothing of it may be there when
/// we have ended.
const TO_KILL: Duration = Duration::from_millis(100);

/// Registers a shell command as the last phase. When its time is over it is
/// killed, with all that it has started and that is still in its process group.
pub fn run_before_exit(command: String, shutdown: &Shutdown) {
    shutdown.phase("before-exit", move |deadline| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&command).stdin(Stdio::null());
        // Our standard output is for our own lines.
        let mut child = shell.stdout(io::stderr()).process_group(0).spawn()?;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{command}: {status}").into()),
                None if deadline.remaining().is_some_and(|left| left < TO_KILL) => break,
                None => thread::sleep(deadline.cap(Duration::from_millis(10))),
            }
        }
        // Its number is the shell's, which is not waited for yet.
        kill_process_group(Pid::from_child(&child), Signal::KILL)?;
        child.wait()?;
        Err(format!("{command}: killed").into())
    });
}
