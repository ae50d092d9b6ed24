//! A server in a child process.

use crate::proc;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to accept.
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(5);

/// Dropping it kills the process.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts the command and waits until somebody accepts on the address.
    pub(crate) fn start(mut command: Command, address: SocketAddr) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let mut running = Self { child, address };
        let patience = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            running.is_alive()?;
            if Instant::now() > patience {
                bail!("{command:?} does not accept on {address}");
            }
            std::thread::sleep(GLANCE);
        }
        running.is_alive()?;
        Ok(running)
    }

    /// An error if it has ended by itself.
    pub(crate) fn is_alive(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the server ended by itself: {ended:?}");
        Ok(())
    }

    /// Processor time used so far, children included.
    pub(crate) fn cpu(&self) -> Duration {
        proc::cpu(self.child.id())
    }

    /// Resident bytes, children included.
    pub(crate) fn memory(&self) -> u64 {
        proc::memory(self.child.id())
    }
}

impl Drop for Running {
    /// Ends it and its children, of which some may hang.
    fn drop(&mut self) {
        let pids = proc::pids(self.child.id());
        for pid in pids.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = self.child.wait();
    }
}
