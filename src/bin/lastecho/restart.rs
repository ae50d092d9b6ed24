//! USR2: a successor takes over.

use crate::manager::Manager;
use lastecho::Stop;
use lastecho::handover::{Handover, Program};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub(crate) struct Restart {
    pub(crate) handover: Handover,
    /// It cannot be found without /proc, which only this needs.
    pub(crate) program: io::Result<Program>,
    pub(crate) timeout: Duration,
    pub(crate) stop: Stop,
    pub(crate) manager: Manager,
}

impl Restart {
    /// Hands over on a thread of its own: signals must not wait for it.
    pub(crate) fn begin(this: &Arc<Self>) {
        let restart = Arc::clone(this);
        let thread = thread::Builder::new().name("handover".into());
        if let Err(error) = thread.spawn(move || restart.carry_out()) {
            log::error!("SIGUSR2: no handover, cannot start a thread: {error}");
        }
    }

    fn carry_out(&self) {
        log::info!("SIGUSR2: handing over");
        let command = match &self.program {
            Ok(program) => program.command(),
            Err(error) => {
                log::error!("no handover: cannot find this program: {error}");
                return;
            }
        };
        match self.handover.spawn(command, self.timeout, &self.stop) {
            Ok(successor) => {
                let pid = successor.id();
                self.manager.tell(&format!("MAINPID={pid}"));
                log::info!("handed over to process {pid}");
            }
            Err(error) => log::error!("no handover: {error}"),
        }
    }
}
