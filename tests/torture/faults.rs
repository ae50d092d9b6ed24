//! System-call faults, injected into the unmodified program.
//!
//! strace makes calls of a running server fail and lets go again, so each fault
//! has a beginning and an end; limits of descriptors, threads and memory are
//! the real ones. Throughout, a client of its own checks every byte of its
//! echoes, and others come while the fault lasts.

mod accepting;
mod connections;
mod limits;
mod observed;
mod stopping;
mod storms;
pub(crate) mod strace;
mod threads;
