//! A successor's process, from its start until it is on its own.
//!
//! It is not our child but our child's (`sys::start_as_grandchild`). The child
//! between us tells its process number and how it ended; when that child is
//! gone, whoever waits for our system's orphans is the successor's parent: a
//! service manager that looks whether it is its own finds that it is.
//!
//! `Command::spawn` returns when the program runs, which may take for ever
//! where its file is on a network file system, or a scanner has a look at it
//! first. So it is called on a thread of its own.

use crate::deadline::Deadline;
use crate::passed::SLICE;
use crate::stop::Stop;
use crate::sys;
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::process::{kill_process, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a process that was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// A process that was started to take over.
pub(crate) struct Process {
    /// `None` until it is known.
    id: Option<Pid>,
    /// `None` until it is known, where it has ended before that, and where there
    /// are no handles of processes.
    handle: Option<OwnedFd>,
    /// `None` until it is known how it ended.
    ended: Option<ExitStatus>,
    /// What the child between us writes.
    report: PipeReader,
    /// Dropping it ends the child between us.
    keep: Sender<()>,
    starter: JoinHandle<()>,
    starter_id: Option<Pid>,
}

/// What must be arranged before the start of a process.
pub(crate) struct Birth {
    report: PipeReader,
    held: u64,
}

impl Birth {
    /// Makes `command` a successor's, which finds its letter on the other end
    /// of `letters`.
    ///
    /// # Errors
    /// What pipe(2) and duplicating a descriptor say.
    pub(crate) fn arrange(command: &mut Command, letters: impl AsFd) -> io::Result<Self> {
        let (report, reporter) = io::pipe()?;
        let letters = letters.as_fd().try_clone_to_owned()?;
        let held = caught_signals();
        sys::start_as_grandchild(command, reporter.into(), letters, held);
        Ok(Self { report, held })
    }
}

impl Process {
    /// Starts the program and waits until it runs. What it inherits does not
    /// stay open here. Blocks until the deadline and for a moment at most; the
    /// stop wakes it.
    ///
    /// # Errors
    /// It cannot be started, or not in time, or the stop came first.
    pub(crate) fn start(
        command: Command,
        birth: Birth,
        deadline: Deadline,
        stop: &Stop,
    ) -> io::Result<Self> {
        let (keep, kept) = channel();
        let (say, started) = channel();
        sys::can_start_thread()?;
        let starter = thread::Builder::new().name("successor".into());
        let starter = starter.spawn(move || start(command, birth.held, &say, &kept))?;
        let mut process = Self {
            id: None,
            handle: None,
            ended: None,
            report: birth.report,
            keep,
            starter,
            starter_id: None,
        };
        match process.await_start(&started, deadline, stop) {
            Ok(outcome) => outcome.map(|()| process),
            Err(error) => Err(process.give_up(error)),
        }
    }

    /// The outer error is ours, the inner one tells that there is no process.
    fn await_start(
        &mut self,
        started: &Receiver<Started>,
        deadline: Deadline,
        stop: &Stop,
    ) -> io::Result<io::Result<()>> {
        loop {
            go_on(deadline, stop)?;
            match started.recv_timeout(deadline.cap(SLICE)) {
                Ok(Started::By(thread)) => self.starter_id = Some(thread),
                Ok(Started::Runs) => {
                    self.identify();
                    // It was told before the program ran.
                    self.id.ok_or(ErrorKind::UnexpectedEof)?;
                    return Ok(Ok(()));
                }
                Ok(Started::Failed(error)) => return Ok(Err(error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the thread that starts it is gone"));
                }
            }
        }
    }

    /// Reads its number and gets a handle of it that no later process shares, if
    /// it can be had (Linux 5.3, and a sandbox may forbid it).
    fn identify(&mut self) {
        if self.id.is_some() {
            return;
        }
        self.id = self.next_report(Duration::ZERO).and_then(Pid::from_raw);
        if let Some(id) = self.id {
            let handle = pidfd_open(id, PidfdFlags::empty());
            // Where it has ended, the number may be another's.
            if !self.has_ended(Duration::ZERO) {
                self.handle = handle.ok();
            }
        }
    }

    /// Whether the child between us says, in time, how it ended.
    fn has_ended(&mut self, longest: Duration) -> bool {
        if self.id.is_some() && self.ended.is_none() {
            self.ended = self.next_report(longest).map(ExitStatus::from_raw);
        }
        self.ended.is_some()
    }

    /// What the child between us writes next, if it does so in time.
    fn next_report(&mut self, longest: Duration) -> Option<i32> {
        let deadline = Deadline::after(longest);
        while !sys::wait_readable(&self.report, deadline.cap(longest)) {
            if deadline.has_passed() {
                return None;
            }
        }
        let mut number = [0; 4];
        let read = self.report.read_exact(&mut number);
        read.ok().map(|()| i32::from_ne_bytes(number))
    }

    /// Leaves it to itself: when this returns, it is not our child's any more.
    /// Returns its process number. Blocks until the child between us has been
    /// killed, for a second at most.
    pub(crate) fn let_go(self) -> u32 {
        drop(self.keep);
        ends(&self.starter);
        let id = self.id.map(|id| id.as_raw_nonzero().get().unsigned_abs());
        id.unwrap_or(0)
    }

    /// Ends one that has not taken over, and says why it did not. Blocks for a
    /// moment, for 3 s at most, where the kernel cannot end it (an exec that
    /// hangs in a file system, say): it is left to end as soon as it can.
    pub(crate) fn give_up(mut self, error: io::Error) -> io::Error {
        self.identify();
        // One that has ended by itself tells more by how it did.
        let tells = error.kind() == ErrorKind::UnexpectedEof;
        self.has_ended(if tells { PATIENCE } else { Duration::ZERO });
        let name = match self.id {
            Some(id) => format!("the successor, process {id},"),
            None => "the successor".to_owned(),
        };
        let status = self.ended;
        let killed = self.end();
        let message = match status {
            Some(status) if tells => format!("{name} ended before it was ready: {status}"),
            Some(status) => format!("{name} ended by itself ({status}): {error}"),
            None if killed => format!("{name} was killed: {error}"),
            None => format!("{name} is left to end by itself: {error}"),
        };
        io::Error::new(error.kind(), message)
    }

    /// Ends it and the child between us. False where it was not killed.
    fn end(mut self) -> bool {
        let mut killed = self.kill();
        // Until the child between us has reaped it and ended.
        while self.id.is_some() && self.next_report(PATIENCE).is_some() {}
        drop(self.keep);
        // It hangs before it has told us anything, or cannot be killed.
        if self.id.is_none() || !ends(&self.starter) {
            if let Some(thread) = self.starter_id {
                killed |= kill_children(thread, &self.starter) && self.id.is_none();
            }
            ends(&self.starter);
        }
        killed
    }

    /// False where it has ended, and where nothing says that its number is its.
    fn kill(&self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let by_handle = self.handle.as_ref();
        let by_handle = by_handle.is_some_and(|it| pidfd_send_signal(it, Signal::KILL).is_ok());
        // The child between us reaps it only after it has told its end.
        let by_number =
            |id| sys::has_nothing(&self.report) && kill_process(id, Signal::KILL).is_ok();
        by_handle || self.id.is_some_and(by_number)
    }
}

/// How far a start is.
enum Started {
    /// The thread that starts it.
    By(Pid),
    Runs,
    Failed(io::Error),
}

/// Starts a program, and ends the child between us when `kept` is let go.
fn start(mut command: Command, held: u64, say: &Sender<Started>, kept: &Receiver<()>) {
    let _ = say.send(Started::By(rustix::thread::gettid()));
    sys::hold_signals(held);
    let child = command.spawn();
    let program = command.get_program().to_string_lossy().into_owned();
    drop(command); // and with it our copies of its descriptors
    match child {
        Ok(mut child) => {
            let _ = say.send(Started::Runs);
            let _ = kept.recv();
            let _ = child.kill();
            let _ = child.wait();
        }
        Err(error) => {
            let message = format!("cannot start {program}: {error}");
            let _ = say.send(Started::Failed(io::Error::new(error.kind(), message)));
        }
    }
}

/// Waits a moment for a thread's end, and says whether it has come.
fn ends(thread: &JoinHandle<()>) -> bool {
    let patience = Deadline::after(PATIENCE);
    while !thread.is_finished() && !patience.has_passed() {
        thread::sleep(Duration::from_millis(1));
    }
    thread.is_finished()
}

/// Kills what a thread of ours has started and not waited for. False if that is
/// nothing.
fn kill_children(thread: Pid, handle: &JoinHandle<()>) -> bool {
    // The number of a thread that has ended may be another's.
    let list = || match fs::read_to_string(format!("/proc/self/task/{thread}/children")) {
        Ok(list) if !handle.is_finished() => list,
        _ => String::new(),
    };
    let mut killed = false;
    for id in list().split_ascii_whitespace() {
        let Some(pid) = id.parse().ok().and_then(Pid::from_raw) else {
            continue;
        };
        let handle = pidfd_open(pid, PidfdFlags::empty());
        // A number that is still listed was its all the time.
        if list().split_ascii_whitespace().any(|other| other == id) {
            let by_handle = handle.is_ok_and(|it| pidfd_send_signal(it, Signal::KILL).is_ok());
            killed |= by_handle || kill_process(pid, Signal::KILL).is_ok();
        }
    }
    killed
}

/// A handover ends where a stop comes before its last step, and at its deadline.
pub(crate) fn go_on(deadline: Deadline, stop: &Stop) -> io::Result<()> {
    let refused = |kind, why| Err(io::Error::new(kind, why));
    if stop.is_set() {
        return refused(ErrorKind::Interrupted, "a stop came first");
    }
    if deadline.has_passed() {
        return refused(ErrorKind::TimedOut, "it was not ready in time");
    }
    Ok(())
}

/// The signals that this process has a handler for, a bit each: they do
/// nothing to it that it does not want, and would kill a program that has none
/// yet. Without those that a fault of its own raises. None without /proc.
fn caught_signals() -> u64 {
    const FAULTS: [i32; 7] = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
    ];
    let faults = FAULTS.iter().fold(0, |all, signal| all | 1 << (signal - 1));
    sys::signals("SigCgt") & !faults
}
