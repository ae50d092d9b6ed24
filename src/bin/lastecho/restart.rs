//! USR2: a successor takes over.

use crate::manager::{Manager, SERVING};
use lastecho::handover::{Handover, Program, Successor};
use lastecho::{Stop, limits};
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub(crate) struct Restart {
    pub(crate) handover: Handover,
    /// It cannot be found without /proc, which only this needs.
    pub(crate) program: io::Result<Program>,
    pub(crate) timeout: Duration,
    pub(crate) stop: Stop,
    pub(crate) manager: Manager,
    /// Held by the one that may tell the manager how a handover goes.
    pub(crate) telling: Mutex<()>,
}

impl Restart {
    /// Hands over on a thread of its own: signals must not wait for it.
    pub(crate) fn begin(this: &Arc<Self>) {
        let restart = Arc::clone(this);
        let thread = thread::Builder::new().name("handover".into());
        let started = limits::can_start_thread();
        let started = started.and_then(|()| thread.spawn(move || restart.carry_out()));
        if let Err(error) = started {
            log::error!("no handover: cannot start a thread: {error}");
        }
    }

    fn carry_out(&self) {
        log::info!("SIGUSR2: handing over");
        // The manager hears of a handover that begins, and then how it ended: not
        // of one beside it, nor of one that is asked of a process that drains.
        let telling = self.telling.try_lock().ok();
        let telling = telling.filter(|_| !self.stop.is_set());
        if telling.is_some() {
            self.manager.reloading();
        }
        let outcome = self.hand_over();
        match (&outcome, telling) {
            (Ok(successor), Some(_)) => {
                let pid = successor.id();
                let done = format!("MAINPID={pid}\nREADY=1\nSTATUS={SERVING}");
                self.manager.tell(&done);
            }
            // A stop that came first has been told.
            (Err(error), Some(_)) if !self.stop.is_set() => self.manager.still_serving(error),
            _ => {}
        }
        match outcome {
            Ok(successor) => log::info!("handed over to process {}", successor.id()),
            Err(error) => log::error!("no handover: {error}"),
        }
    }

    fn hand_over(&self) -> io::Result<Successor<'_>> {
        let program = self.program.as_ref().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot find this program: {error}"))
        })?;
        let successor = program.command();
        self.handover.spawn(successor, self.timeout, &self.stop)
    }
}
