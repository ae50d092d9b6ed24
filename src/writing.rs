//! Whose turn it is to write on a connection, and when the last one is over.

use crate::lock::lock;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::collections::VecDeque;

/// Lets one write at a time, in the order in which they asked, until it is
/// closed.
///
/// A mutex is no queue: a thread that writes all the time takes it again before
/// the thread that it has woken is there. Nor can a mutex be closed. Where
/// no two write at once, a turn costs what locking a mutex twice costs, and no
/// system call.
#[derive(Default)]
pub(crate) struct Writing(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number that the next one who asks gets.
    next: u64,
    /// The number of the one whose turn it is, or will be.
    serving: u64,
    /// Those who wait, the first in front.
    waiting: VecDeque<Arc<Condvar>>,
    /// One has failed, and an unknown part of it is on its way.
    failed: bool,
    /// The connection ends.
    ended: bool,
}

impl Writing {
    /// Waits for the caller's turn, which ends when it is dropped.
    ///
    /// Blocks for as long as the writes take that asked before. Where it is
    /// closed this is an error: with the turn, in which to count what is not
    /// written, where one that asked before has failed and the end is yet to
    /// come; without, where the connection ends.
    pub(crate) fn begin(&self) -> Result<Turn<'_>, Option<Turn<'_>>> {
        let state = lock(&self.0);
        if state.ended {
            return Err(None);
        }
        let (state, turn) = self.take_turn(state);
        let (failed, ended) = (state.failed, state.ended);
        drop(state); // before the turn, which locks it
        match (failed, ended) {
            (true, _) => Err(Some(turn)),
            (_, true) => Err(None),
            _ => Ok(turn),
        }
    }

    /// Lets no further write begin, and waits until the last one is over.
    ///
    /// Blocks for as long as that one takes: whatever ends it ends the wait.
    /// Those who wait for their turn learn of it when it comes: they write nothing.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.0);
        state.ended = true;
        let (state, turn) = self.take_turn(state);
        drop(state);
        drop(turn);
    }

    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.0).failed
    }

    fn take_turn<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> (MutexGuard<'a, State>, Turn<'a>) {
        let number = state.next;
        state.next += 1;
        if state.serving != number {
            let mine = Arc::new(Condvar::new());
            state.waiting.push_back(Arc::clone(&mine));
            while state.serving != number {
                state = mine.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        (state, Turn(self))
    }
}

/// The turn of the one who has it, until it is dropped.
pub(crate) struct Turn<'a>(&'a Writing);

impl Turn<'_> {
    /// Lets no further write begin: this one has failed.
    pub(crate) fn fail(&self) {
        lock(&self.0.0).failed = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        state.serving += 1;
        if let Some(next) = state.waiting.pop_front() {
            next.notify_one();
        }
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
pub(crate) mod tests {
    use super::*;
    use std::thread;

    pub(crate) fn await_waiting(writing: &Writing, number: usize) {
        while lock(&writing.0).waiting.len() != number {
            thread::yield_now();
        }
    }

    #[test]
    fn turns_come_in_the_order_in_which_they_were_asked_for() {
        let (writing, order) = (Writing::default(), Mutex::new(Vec::new()));
        let note = |name| {
            let _turn = writing.begin().ok().unwrap();
            lock(&order).push(name);
        };
        thread::scope(|scope| {
            let first = writing.begin().ok().unwrap();
            for (at, name) in ["b", "c", "d"].into_iter().enumerate() {
                scope.spawn(move || note(name));
                await_waiting(&writing, at + 1);
            }
            lock(&order).push("a");
            drop(first);
            note("a again"); // as one does who writes all the time
        });
        assert_eq!(order.into_inner().unwrap(), ["a", "b", "c", "d", "a again"]);
    }

    #[test]
    fn closing_waits_for_the_one_in_hand_and_turns_the_others_away() {
        let (writing, over) = (Writing::default(), Mutex::new(false));
        thread::scope(|scope| {
            let turn = writing.begin().ok().unwrap();
            let waits = scope.spawn(|| writing.begin().is_err_and(|turn| turn.is_none()));
            await_waiting(&writing, 1);
            let closes = scope.spawn(|| {
                writing.close();
                *lock(&over)
            });
            await_waiting(&writing, 2);
            *lock(&over) = true;
            drop(turn);
            assert!(waits.join().unwrap(), "begun after the end");
            assert!(closes.join().unwrap(), "closed while one was in hand");
        });
        assert!(matches!(writing.begin(), Err(None)));
    }

    #[test]
    fn after_one_that_failed_none_begins() {
        let writing = Writing::default();
        writing.begin().ok().unwrap().fail();
        assert!(matches!(writing.begin(), Err(Some(_))));
        writing.close();
        assert!(matches!(writing.begin(), Err(None)));
    }
}
