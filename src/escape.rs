//! Control characters in texts that come from outside.
//!
//! A name, a request or an error's text may hold a line end, which forges a
//! line of the log (CWE-117), an escape sequence, which the reader's terminal
//! obeys, or a change of direction, which shows the text in another order
//! (CVE-2021-42574). [`escaped`] makes all of them visible.
//!
//! [`NonBlockingWriter`](crate::NonBlockingWriter) does it with everything that
//! it is given, so that no caller can forget it. A line's own end is the
//! exception: the writer cannot know which one was meant. In the log,
//! [`EscapedLog`] knows it: a record is one line, unless its target is [`LINES`].

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};
use std::borrow::Cow;
use std::fmt::Write;

/// The target of log records that are several lines on purpose, such as a hex
/// dump. Whatever else such a record holds must be known to hold no line end.
pub const LINES: &str = "lastecho::lines";

/// Returns the text with its control characters escaped as Rust writes them,
/// `\n` or `\u{1b}`. Text without any is returned as it is, a backslash too.
///
/// These are C0, DEL, C1, the line and paragraph separators (U+2028 and
/// U+2029), and the marks, embeddings, overrides and isolates of bidirectional
/// text (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069).
///
/// ```
/// use lastecho::escape::escaped;
///
/// assert_eq!(escaped("a name\n[ERROR] forged"), r"a name\n[ERROR] forged");
/// assert_eq!(escaped("\u{1b}[31m red"), r"\u{1b}[31m red");
/// ```
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    escape(text, is_hostile)
}

/// The same with what is not UTF-8 as `\xff`, and with line ends left as they are.
pub(crate) fn escaped_lines(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escape(text, |c| c != '\n' && is_hostile(c));
    }
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&escape(chunk.valid(), |c| c != '\n' && is_hostile(c)));
        for byte in chunk.invalid() {
            let _ = write!(safe, "\\x{byte:02x}"); // a String takes everything
        }
    }
    Cow::Owned(safe)
}

fn escape(text: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hostile(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Passes log records on, each as one line.
///
/// A logger writes a record's text as it is, and what comes after it then
/// stands on a line of its own, as if the program had said it. Records whose
/// target is [`LINES`] keep their line ends.
#[derive(Debug)]
pub struct EscapedLog<L>(L);

impl<L: Log + 'static> EscapedLog<L> {
    /// Makes `logger` the program's log, and lets panics tell through it: the
    /// standard library's hook writes to standard error, and waits for its reader.
    ///
    /// ```
    /// use lastecho::escape::EscapedLog;
    /// use log::LevelFilter;
    /// use simplelog::{Config, WriteLogger};
    ///
    /// let log = lastecho::nonblocking_writer::stderr()?;
    /// let logger = WriteLogger::new(LevelFilter::Info, Config::default(), log.clone());
    /// EscapedLog::start(LevelFilter::Info, *logger)?;
    /// log::info!("one line, {:?}", "whatever it holds");
    /// log.flush_within(std::time::Duration::from_secs(1)); // at the very end
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The program has a log already.
    pub fn start(level: LevelFilter, logger: L) -> Result<(), SetLoggerError> {
        log::set_logger(Box::leak(Box::new(Self(logger))))?;
        log::set_max_level(level);
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
        Ok(())
    }
}

impl<L: Log> Log for EscapedLog<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if record.target() == LINES || !self.enabled(record.metadata()) {
            return self.0.log(record);
        }
        let text = record.args().to_string();
        let text = escaped(&text);
        let mut same = Record::builder();
        same.metadata(record.metadata().clone())
            .module_path(record.module_path())
            .file(record.file())
            .line(record.line());
        self.0.log(&same.args(format_args!("{text}")).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn what_a_terminal_would_obey_is_made_visible() {
        let hostile = "\0\t\r\u{7f}\u{9b}\u{61c}\u{200e}\u{2028}\u{202e}\u{2066}\u{2069}";
        assert_eq!(
            escaped(hostile),
            r"\u{0}\t\r\u{7f}\u{9b}\u{61c}\u{200e}\u{2028}\u{202e}\u{2066}\u{2069}"
        );
        let plain = "Grüße, 世界 \\ \u{200b}\u{2070}";
        assert!(matches!(escaped(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn escaping_twice_is_escaping_once() {
        let once = escaped("a\nb\u{1b}").into_owned();
        assert_eq!(escaped(&once), once);
    }

    #[test]
    fn lines_keep_their_ends_and_show_what_is_not_utf_8() {
        assert_eq!(escaped_lines(b"one\ntwo\x1b\n"), "one\ntwo\\u{1b}\n");
        assert_eq!(escaped_lines(b"\x9b31m\xc2\x9b\n"), "\\x9b31m\\u{9b}\n");
    }

    /// Keeps what it is given.
    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl Log for Kept {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_record_is_one_line_unless_its_target_says_otherwise() {
        let log = EscapedLog(Kept::default());
        for target in ["a part", LINES] {
            let mut record = Record::builder();
            let record = record.target(target);
            log.log(&record.args(format_args!("a\nb")).build());
        }
        assert_eq!(*log.0.0.lock().unwrap(), [r"a\nb", "a\nb"]);
    }
}
