//! Where a message ends: the two framings of syslog over TCP (RFC 6587, 3.4).

use std::io::{self, BufRead, Read};
use std::mem::take;

/// A longer message is taken as several.
const LONGEST: u64 = 16 * 1024;
/// Digits of a count that is believed.
const MOST_DIGITS: usize = 7;

/// Reads messages from one sender, in either framing: `LENGTH <PRI>MESSAGE`
/// (octet counting), or a message that ends with a line feed.
///
/// A plain line may begin with a number, too. So a count is one only where a
/// space and a priority's `<` follow it, as they do in every syslog message.
#[derive(Default)]
pub(crate) struct Framing {
    /// Bytes of a counted message that are still to come.
    left: u64,
    /// A piece of a plain message was read, and its line feed is still to come.
    is_cut: bool,
    /// A counted message has just ended.
    counted: bool,
}

impl Framing {
    /// Whether a message has begun whose end is still to come.
    pub(crate) fn is_inside(&self) -> bool {
        self.left > 0 || self.is_cut
    }

    /// Reads the next message; `None` is a line feed that followed a counted
    /// one, which some senders add, or the end of a sender inside of a message.
    ///
    /// Blocks for as long as the sender takes; its end ends the message.
    pub(crate) fn read(&mut self, from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        if !self.is_inside() {
            if take(&mut self.counted) && peek(from)? == Some(b'\n') {
                from.consume(1);
                return Ok(None);
            }
            self.left = read_count(from, &mut text)?;
        }
        if self.left == 0 {
            let longest = LONGEST - text.len() as u64;
            Read::take(from, longest).read_until(b'\n', &mut text)?;
            self.is_cut = text.len() as u64 == LONGEST && !text.ends_with(b"\n");
        } else {
            let piece = self.left.min(LONGEST);
            let read = Read::take(from, piece).read_to_end(&mut text)? as u64;
            self.left = if read < piece { 0 } else { self.left - piece };
            self.counted = self.left == 0;
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

/// Reads the count of a counted message, with its space. Where there is none it
/// is zero, and `text` has what was read of the plain line.
fn read_count(from: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<u64> {
    while let Some(digit @ b'0'..=b'9') = peek(from)?
        && text.len() < MOST_DIGITS
        && (digit != b'0' || !text.is_empty())
    {
        from.consume(1);
        text.push(digit);
    }
    if text.is_empty() || peek(from)? != Some(b' ') {
        return Ok(0);
    }
    from.consume(1);
    let count = String::from_utf8_lossy(text).parse().unwrap_or(0);
    text.push(b' ');
    if peek(from)? != Some(b'<') {
        return Ok(0);
    }
    text.clear();
    Ok(count)
}

fn peek(from: &mut impl BufRead) -> io::Result<Option<u8>> {
    Ok(from.fill_buf()?.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All messages, whether they come in one piece or byte by byte.
    fn messages(bytes: &[u8]) -> Vec<String> {
        let read = |from: &mut dyn BufRead| {
            let (mut framing, mut messages, mut from) = (Framing::default(), Vec::new(), from);
            while peek(&mut from).unwrap().is_some() {
                let message = framing.read(&mut from).unwrap();
                messages.extend(message.map(|text| String::from_utf8(text).unwrap()));
            }
            messages
        };
        let whole = read(&mut &*bytes);
        let pieces = read(&mut io::BufReader::with_capacity(1, bytes));
        assert_eq!(whole, pieces);
        whole
    }

    #[test]
    fn counted_messages_may_hold_line_feeds_and_follow_each_other() {
        assert_eq!(messages(b"7 <13>a\nb6 <13>cd"), ["<13>a\nb", "<13>cd"]);
        assert_eq!(messages(b"5 <13>a\n5 <13>b\n"), ["<13>a", "<13>b"]);
    }

    #[test]
    fn both_framings_may_be_mixed() {
        assert_eq!(
            messages(b"<13>a\n5 <13>b<13>c\nd"),
            ["<13>a\n", "<13>b", "<13>c\n", "d"]
        );
    }

    #[test]
    fn a_number_at_the_beginning_of_a_line_is_no_count() {
        for line in [
            "192.0.2.7 - -\n",
            "12 monkeys\n",
            "0 <13>a\n",
            "7\n",
            "7",
            "7 ",
        ] {
            assert_eq!(messages(line.as_bytes()), [line]);
        }
        let huge = "99999999 <13>a\n";
        assert_eq!(messages(huge.as_bytes()), [huge]);
    }

    #[test]
    fn an_end_in_the_middle_ends_the_message() {
        assert_eq!(messages(b"500 <13>half"), ["<13>half"]);
    }

    #[test]
    fn a_long_message_is_taken_as_several() {
        let long = format!("<{}", "x".repeat(40_000));
        let counted = format!("{} {long}5 <13>a", long.len());
        let lengths = |bytes: &str| -> Vec<usize> {
            let messages = messages(bytes.as_bytes());
            messages.iter().map(String::len).collect()
        };
        let pieces = lengths(&counted);
        assert_eq!(pieces, [16_384, 16_384, 7_233, 5]);
        let pieces = lengths(&long);
        assert_eq!(pieces, [16_384, 16_384, 7_233]);
        let number = format!("{}5 <13>a", "x".repeat(16_384));
        assert_eq!(lengths(&number), [16_384, 7], "no count inside of a line");
    }

    #[test]
    fn the_end_of_a_sender_inside_of_a_message_is_no_message() {
        for begin in ["<", "20000 <"] {
            let bytes = format!("{begin}{}", "x".repeat(16_383));
            let (mut framing, mut from) = (Framing::default(), bytes.as_bytes());
            assert_eq!(framing.read(&mut from).unwrap().unwrap().len(), 16_384);
            assert!(framing.is_inside(), "{begin}");
            assert_eq!(framing.read(&mut from).unwrap(), None);
            assert!(!framing.is_inside(), "{begin}");
        }
    }
}
