//! Whose fault it is where the database does not say it, judged by what else
//! was written.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// More are not remembered; then all are forgotten, and suspected anew. Of more
/// bad messages than this none would ever be found guilty. They take 4 MB.
const MOST: usize = 100_000;

/// Messages whose write failed for a reason that may be theirs.
#[derive(Default)]
pub struct Suspects {
    hasher: RandomState,
    /// How many messages had been written when each last failed; `None` for
    /// one that is guilty.
    known: Mutex<HashMap<u64, Option<u64>>>,
}

impl Suspects {
    /// Notes that a message failed, and says whether others were written
    /// between two of its failures: then it is the message, not the database,
    /// and stays so.
    pub fn is_guilty(&self, message: &[u8], written: u64) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        let message = self.hasher.hash_one(message);
        let last = known.entry(message).or_insert(Some(written));
        *last = last.filter(|last| *last == written);
        last.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_guilty_when_others_were_written_between_its_failures() {
        let suspects = Suspects::default();
        assert!(!suspects.is_guilty(b"one", 5));
        assert!(!suspects.is_guilty(b"one", 5), "nothing was written");
        assert!(!suspects.is_guilty(b"two", 9), "its first failure");
        assert!(suspects.is_guilty(b"one", 9));
        assert!(suspects.is_guilty(b"one", 9), "it stays so");
    }

    #[test]
    fn many_that_fail_in_turn_are_all_found_guilty() {
        let suspects = Suspects::default();
        let fail = |written| {
            let number = 0_u32..20_000;
            number
                .filter(|number| suspects.is_guilty(&number.to_le_bytes(), written))
                .count()
        };
        assert_eq!((fail(1), fail(2), fail(3)), (0, 20_000, 20_000));
    }

    #[test]
    fn it_remembers_no_more_than_its_limit() {
        let suspects = Suspects::default();
        for number in 0..3 * MOST {
            assert!(!suspects.is_guilty(&number.to_le_bytes(), 1));
        }
        assert!(suspects.known.into_inner().unwrap().len() <= MOST);
    }
}
