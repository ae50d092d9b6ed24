//! Signals that ask a [`Stop`] to stop.

use crate::deadline::Deadline;
use crate::early::Early;
use crate::episode::Seldom;
use crate::panics::{self, say};
use crate::stop::Stop;
use crate::sys;
use signal_hook::consts::{FORBIDDEN, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::backend::{Handle, SignalDelivery};
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::ffi::c_int;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The signals that ask for a stop.
pub const STOP_SIGNALS: [c_int; 4] = [SIGINT, SIGTERM, SIGQUIT, SIGHUP];

/// Signals that follow one that counted within this time are the same request:
/// supervisors and timeout(1) send several.
const SAME_REQUEST: Duration = Duration::from_millis(200);
/// How often is looked whether a signal came whose wake-up was lost: the
/// handler notes the signal first, then sends a byte, which may fail.
const LOOK: Duration = Duration::from_secs(1);

type Incoming = SignalDelivery<UnixStream, SignalOnly>;

/// What a signal meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// The first: the stop was set.
    Stop,
    /// A further one: the cut was set.
    Cut,
    /// One after the cut: whoever sends it has lost patience. Nothing was done.
    Again,
    /// One of the other signals that were asked for. Nothing was done.
    Other,
}

/// Keeps the signals installed; dropping it uninstalls them.
///
/// Signals that arrive after that are lost, they do not end the process: the
/// handler is left in place (see signal-hook's documentation).
#[derive(Debug)]
pub struct Signals {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// Sets `stop` at the first INT, TERM, QUIT or HUP, and cuts at a further one.
///
/// Install them before the server says that it is ready. A signal that the
/// process ignores stays ignored, as its parent wants it to (`nohup`, a
/// script's background job); the log says so of INT and QUIT. One that the
/// parent left blocked is unblocked. Signals are handled on a thread of their
/// own, so nothing but a byte in a pipe happens in the handler.
///
/// SIGXFSZ, which a write beyond the limit of a file's size sends
/// (`ulimit -f`, `LimitFSIZE=`), no longer ends the process: the write fails
/// (EFBIG, setrlimit(2)), and the connections live on.
///
/// # Errors
/// What sigaction(2), socketpair(2) and starting a thread say. The signals
/// then do what they did before.
pub fn install(stop: &Stop) -> io::Result<Signals> {
    install_with(stop, &[], |_, _| {})
}

/// Like [`install`], catches `others` as well, and tells `observer` on the
/// signals' thread which signal came and what it meant. Its panic is caught and
/// logged, and changes nothing for the signals.
///
/// # Errors
/// As [`install`], and [`InvalidInput`](io::ErrorKind::InvalidInput) where one
/// of `others` is no signal, or one that cannot be caught (KILL, STOP) or means
/// a fault of the thread that it comes to (SEGV, ILL, FPE).
pub fn install_with(
    stop: &Stop,
    others: &[c_int],
    mut observer: impl FnMut(c_int, Request) + Send + 'static,
) -> io::Result<Signals> {
    check(others)?;
    let ignored = sys::signals("SigIgn");
    let is_ignored = |signal: c_int| ignored & (1 << (signal - 1)) != 0;
    warn_of_ignored(is_ignored);
    let others = others.to_vec();
    let wanted = STOP_SIGNALS.iter().chain(&others).chain(&[SIGXFSZ]);
    let wanted: Vec<_> = wanted.copied().filter(|&s| !is_ignored(s)).collect();
    let (read, write) = UnixStream::pair()?;
    let mut asked = Asked::new(stop.clone());
    let ours = wanted.clone();
    let hear = move |incoming| {
        // One thread that they are not blocked in is enough (signal(7)).
        sys::unblock_signals(&ours);
        keep_hearing(incoming, |signal| {
            let request = if STOP_SIGNALS.contains(&signal) {
                asked.again(Instant::now())
            } else {
                others.contains(&signal).then_some(Request::Other)
            };
            if let Some(request) = request {
                observer(signal, request);
            }
        });
    };
    // First the thread: what is registered no longer ends the process by
    // itself, and somebody must hear it.
    let (give, take) = sync_channel(1);
    let thread = sys::can_start_thread().and_then(|()| {
        let thread = thread::Builder::new().name("signals".into());
        thread.spawn(move || take.recv().into_iter().for_each(hear))
    })?;
    let incoming = Incoming::with_pipe(read, write, SignalOnly, &wanted)?;
    let handle = incoming.handle();
    let _ = give.send(incoming); // its thread waits for it
    Ok(Signals { handle, thread })
}

/// Refuses what cannot be caught, before anything is changed.
fn check(signals: &[c_int]) -> io::Result<()> {
    // Between 31 and the first of them the C library keeps some for itself.
    let is_known = |signal| (1..32).contains(&signal) || is_real_time(signal);
    let is_wrong = |signal: &&c_int| !is_known(**signal) || FORBIDDEN.contains(signal);
    match signals.iter().find(is_wrong) {
        None => Ok(()),
        Some(signal) => {
            let message = format!("signal {signal} cannot be caught");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

fn is_real_time(signal: c_int) -> bool {
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal)
}

/// Gives out every signal, until the handle is closed, whatever panics
/// meanwhile: without this thread nobody could stop the program any more.
fn keep_hearing(mut incoming: Incoming, mut each: impl FnMut(c_int)) {
    let handle = incoming.handle();
    let (seldom, mut early) = (Seldom::default(), Early::default());
    while !handle.is_closed() {
        if let Err(message) = panics::caught(|| each_signal(&mut incoming, &mut each)) {
            let level = seldom.level(log::Level::Error);
            say!(
                level,
                "the signals' thread panicked, and goes on: {message:.1000}"
            );
            early.note(LOOK);
        }
    }
}

/// Gives out every signal, until the handle is closed.
///
/// Blocks for at most [`LOOK`]; a signal wakes it. signal-hook's own iterator
/// panics where its pipe cannot be read, and nobody could stop the server any
/// more; here a pipe that fails costs a short nap.
fn each_signal(incoming: &mut Incoming, each: &mut impl FnMut(c_int)) {
    let mut early = Early::default();
    while !incoming.handle().is_closed() {
        sys::wait_readable(incoming.get_read(), LOOK);
        let mut came = false;
        for signal in incoming.pending() {
            came = true;
            each(signal);
        }
        if !came {
            early.note(LOOK);
        }
    }
}

impl Drop for Signals {
    /// Blocks until the signals' thread has ended, for a second at most.
    fn drop(&mut self) {
        self.handle.close();
        let patience = Deadline::after(Duration::from_secs(1));
        while !self.thread.is_finished() && !patience.has_passed() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How often a stop was asked for.
struct Asked {
    stop: Stop,
    times: u32,
    last: Option<Instant>,
}

impl Asked {
    fn new(stop: Stop) -> Self {
        Self {
            stop,
            times: 0,
            last: None,
        }
    }

    /// Carries out one more request; `None` if it is the same as the last.
    fn again(&mut self, now: Instant) -> Option<Request> {
        if self.last.is_some_and(|last| now - last < SAME_REQUEST) {
            return None;
        }
        self.last = Some(now);
        self.times += 1;
        Some(match self.times {
            1 => {
                self.stop.set();
                Request::Stop
            }
            2 => {
                self.stop.cut();
                Request::Cut
            }
            _ => Request::Again,
        })
    }
}

/// Who types a server into a script, as a background job, wonders why Ctrl-C or
/// `kill -INT` does nothing (POSIX: such a job is started with both ignored).
fn warn_of_ignored(is_ignored: impl Fn(c_int) -> bool) {
    let keys = [SIGINT, SIGQUIT].into_iter().filter(|&s| is_ignored(s));
    let names: Vec<_> = keys.map(name).collect();
    if !names.is_empty() {
        let names = names.join(" and ");
        log::info!("{names} ignored, as at the start (a script's background job): use SIGTERM");
    }
}

/// The usual name of a signal, `SIGTERM` for example.
#[must_use]
pub fn name(signal: c_int) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_in_quick_succession_are_one_request() {
        let stop = Stop::new();
        let mut asked = Asked::new(stop.clone());
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(asked.again(ms(0)), Some(Request::Stop));
        assert_eq!(asked.again(ms(199)), None);
        assert!(stop.is_set() && !stop.is_cut());
        assert_eq!(asked.again(ms(250)), Some(Request::Cut));
        assert!(stop.is_cut());
        assert_eq!(asked.again(ms(300)), None);
        assert_eq!(asked.again(ms(500)), Some(Request::Again));
    }
}
