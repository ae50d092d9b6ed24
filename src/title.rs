//! Whose a listening socket is, among the processes that have it.

use crate::sync::Mutex;
use crate::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
#[cfg(feature = "handover")]
use std::sync::TryLockError;

/// Whose a listening socket is. Its options, its queue and its end belong to
/// all processes that have a descriptor of it.
pub(crate) struct Title {
    /// It came from a supervisor, who keeps it: its options are left as they
    /// are, and we never end it.
    pub(crate) foreign: bool,
    /// Whether ending it is up to us: not before a predecessor has handed it
    /// over, and not after it was handed to a successor. Locked over a
    /// handover's last step, so that a stop comes before it or after it.
    pub(crate) ours: Mutex<bool>,
    /// Connections may come that have not inherited our options.
    early: AtomicBool,
    /// A handover is under way: from now on we wait for clients in short
    /// slices, so that soon after it none of our threads takes one.
    handing: AtomicBool,
    /// Threads that wait for longer.
    patient: AtomicUsize,
    /// Clients are a successor's, or about to be: we take none any more.
    left: AtomicBool,
    /// Held over a slice: whoever finds a client there can take it, because
    /// nobody else does.
    pub(crate) alone: Mutex<()>,
}

impl Title {
    /// Counts the caller in as long as it has what this returns; not while a
    /// handover is under way.
    pub(crate) fn be_patient(&self) -> Option<Patient<'_>> {
        // SeqCst: either we see that a handover has begun, or it sees us.
        self.patient.fetch_add(1, SeqCst);
        let patient = Patient(&self.patient);
        (!self.handing.load(SeqCst)).then_some(patient)
    }

    pub(crate) fn is_early(&self) -> bool {
        self.early.load(Relaxed)
    }

    pub(crate) fn note_early(&self) {
        self.early.store(true, Relaxed);
    }

    /// Begins a handover, or gives it up.
    #[cfg(feature = "handover")]
    pub(crate) fn hand(&self, begin: bool) {
        self.note_early();
        self.handing.store(begin, SeqCst);
    }

    /// Whether some of our threads wait for longer than a slice.
    #[cfg(feature = "handover")]
    pub(crate) fn is_patient(&self) -> bool {
        self.patient.load(SeqCst) > 0
    }

    /// Leaves the clients to a successor, or comes back to them. Once none of our
    /// threads [is in a slice](Self::is_in_slice), none takes a client any more.
    #[cfg(feature = "handover")]
    pub(crate) fn leave(&self, leave: bool) {
        self.left.store(leave, SeqCst);
    }

    /// Whether the clients are left to a successor. To be asked under the lock of
    /// a slice: a thread to which this says no is seen in its slice.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(SeqCst)
    }

    /// Whether one of our threads waits for a client in a slice.
    #[cfg(feature = "handover")]
    pub(crate) fn is_in_slice(&self) -> bool {
        matches!(self.alone.try_lock(), Err(TryLockError::WouldBlock))
    }

    pub(crate) fn new(foreign: bool, ours: bool) -> Self {
        Self {
            foreign,
            ours: Mutex::new(ours),
            early: AtomicBool::new(false),
            handing: AtomicBool::new(false),
            patient: AtomicUsize::new(0),
            left: AtomicBool::new(false),
            alone: Mutex::new(()),
        }
    }
}

/// One more thread that waits for longer than a slice.
pub(crate) struct Patient<'a>(&'a AtomicUsize);

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
