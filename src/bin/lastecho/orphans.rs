//! The processes that process 1 gets: those whose parents have ended.

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::thread;
use std::time::Duration;

/// How often process 1 looks whether there are any.
const LOOK: Duration = Duration::from_secs(1);

/// Where we are process 1, waits for everybody else's orphans on a thread of
/// its own, so that they do not stay as zombies (in a container without an
/// init). Process 1 has no children of its own: it does not hand over.
pub(crate) fn reap() {
    if std::process::id() == 1 {
        let thread = thread::Builder::new().name("orphans".into());
        if let Err(error) = thread.stack_size(64 * 1024).spawn(wait_for_all) {
            log::warn!("orphans stay zombies: {error}");
        }
    }
}

/// Blocks while there are some, until one ends; else for [`LOOK`].
fn wait_for_all() {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => thread::sleep(LOOK), // there are none (ECHILD)
        }
    }
}
