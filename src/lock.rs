//! What a poisoned lock means here, decided once.

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whether or not a thread panicked while it held the lock.
///
/// The critical sections of this library only move numbers and map entries;
/// none calls a handler, so none leaves a half-made state behind, and a panic
/// must stay with the connection that it happened on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
