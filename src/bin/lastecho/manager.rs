//! The service manager, told what becomes of us (sd_notify(3)).

use humantime::format_rfc3339_millis;
use lastecho::{Live, NonBlockingWriter, limits};
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// What `systemctl status` shows of one that does.
pub(crate) const SERVING: &str = "serving";
/// How long the last message may take on its way.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Between two pings of the watchdog.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// A way to the service manager, if there is one. Its messages leave on a
/// thread of their own: a manager that does not read holds nobody up.
#[derive(Clone)]
pub(crate) struct Manager(Option<NonBlockingWriter>);

impl Manager {
    /// The manager that `NOTIFY_SOCKET` names.
    pub(crate) fn from_environment() -> Self {
        let Ok(name) = env::var("NOTIFY_SOCKET") else {
            return Self(None);
        };
        let writer = connect(&name).and_then(|socket| NonBlockingWriter::new(File::from(socket)));
        if let Err(error) = &writer {
            log::warn!("NOTIFY_SOCKET={name:?}: {error}");
        }
        Self(writer.ok())
    }

    /// Queues assignments such as `READY=1`, one a line; those of one call arrive
    /// together. Never blocks.
    pub(crate) fn tell(&self, assignments: &str) {
        if let Some(writer) = &self.0 {
            let _ = writeln!(writer.clone(), "{assignments}"); // it only queues
        }
    }

    /// A handover begins. `Type=notify-reload` takes only a word that is younger
    /// than its own wish (`MONOTONIC_USEC`), so it carries the time.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=handing over"
        ));
    }

    /// A handover has failed. The time makes it another word than that of the
    /// last one that failed: see ExecReload in examples/systemd.
    pub(crate) fn still_serving(&self, error: &io::Error) {
        let now = format_rfc3339_millis(SystemTime::now());
        let why = error.to_string().replace('\n', " ");
        self.tell(&format!(
            "READY=1\nSTATUS={SERVING}; no handover at {now}: {why}"
        ));
    }

    /// Waits a moment until everything has left.
    pub(crate) fn flush(&self) {
        if let Some(writer) = &self.0 {
            writer.flush_within(LAST_WORD);
        }
    }

    /// Pings the manager's watchdog, if it has one for us, for as long as
    /// accepting goes round on every listener, which it does at least once per
    /// poll interval (the one that is used).
    pub(crate) fn watch(&self, live: Live, poll: Duration) {
        let (Some(_), Some(limit)) = (&self.0, watchdog()) else {
            return;
        };
        // No manager needs it more often, and the thread must not spin.
        let interval = (limit / 3).max(SHORTEST_INTERVAL);
        if poll > interval {
            log::warn!("a poll interval of {poll:?} is long for a watchdog of {limit:?}");
        }
        let manager = self.clone();
        let watch = move || {
            let mut rounds = Rounds::default();
            loop {
                // Between two rounds there may be a whole poll interval.
                if rounds.longest_pause(&live.rounds()) < interval.saturating_add(poll) {
                    manager.tell("WATCHDOG=1");
                }
                thread::sleep(interval);
            }
        };
        let thread = thread::Builder::new().name("watchdog".into());
        let started = limits::can_start_thread().and_then(|()| thread.spawn(watch));
        if let Err(error) = started {
            log::warn!("no watchdog: {error}");
        }
    }
}

/// How often accepting came round on each listener, and since when it is that often.
#[derive(Default)]
struct Rounds(Vec<(u64, Instant)>);

impl Rounds {
    /// How long the listener has stood still that has done so for longest.
    fn longest_pause(&mut self, rounds: &[u64]) -> Duration {
        let now = Instant::now();
        self.0.resize(rounds.len(), (0, now));
        for (seen, &count) in self.0.iter_mut().zip(rounds) {
            if seen.0 != count {
                *seen = (count, now);
            }
        }
        let pauses = self.0.iter().map(|(_, since)| now - *since);
        pauses.max().unwrap_or_default()
    }
}

/// How often the manager wants to hear from this process.
fn watchdog() -> Option<Duration> {
    if let Ok(pid) = env::var("WATCHDOG_PID")
        && pid != std::process::id().to_string()
    {
        return None;
    }
    let text = env::var("WATCHDOG_USEC").ok()?;
    let limit = text.parse().ok().filter(|&microseconds| microseconds > 0);
    if limit.is_none() {
        log::warn!("WATCHDOG_USEC={text:?} is not a number of microseconds");
    }
    limit.map(Duration::from_micros)
}

/// A socket of the file system, or an abstract one (`@name`).
fn connect(name: &str) -> io::Result<OwnedFd> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_listener_that_stands_still_is_seen_beside_others() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.longest_pause(&[0, 0]), Duration::ZERO);
        let moment = Duration::from_millis(20);
        thread::sleep(moment);
        assert!(rounds.longest_pause(&[1, 0]) >= moment);
        thread::sleep(moment);
        assert!(rounds.longest_pause(&[2, 0]) >= 2 * moment);
        assert_eq!(rounds.longest_pause(&[3, 1]), Duration::ZERO);
    }
}
