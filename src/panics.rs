//! Panics of code that is not ours, contained.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Logs as `log::log!` does. A logger is not ours either: where it panics, what
/// was to be logged is lost, and nothing else.
macro_rules! say {
    ($level:expr, $($words:tt)+) => {{
        let said = || log::log!($level, $($words)+);
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(said)) {
            std::mem::forget(panic); // dropping it may panic, too
        }
    }};
}
pub(crate) use say;

/// Runs `code`; a panic becomes an error with its message.
///
/// The default hook has already written it to standard error by then.
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let message = message(&*payload);
        // The payload is the panicking code's own value: dropping it may panic too.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        message
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "(no message)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload itself");
        }
    }

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        let number = 7;
        assert_eq!(
            caught(|| panic!("number {number}")),
            Err::<(), _>("number 7".to_owned())
        );
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        let caught = caught(|| std::panic::panic_any(Bomb));
        assert_eq!(caught, Err::<(), _>("(no message)".to_owned()));
    }
}
