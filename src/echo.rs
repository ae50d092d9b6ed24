//! The echo service of RFC 862.

use crate::connection::Connection;
use crate::escape::LINES;
use crate::event::bytes;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

/// The first buffer of a connection; a read that fills it gets the whole one.
const SMALL: usize = 2048;

/// Sends back whatever it receives (RFC 862).
///
/// ```no_run
/// use lastecho::{Echo, Server, Stop};
///
/// # fn main() -> std::io::Result<()> {
/// let echo = Echo::default();
/// Server::bind("127.0.0.1:48879")?.run(&Stop::new(), |conn| echo.serve(conn))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Echo {
    /// The largest single read, in bytes. 61,440 by default: larger reads than
    /// 60 KiB are slower, and 65,536 halves throughput on loopback.
    pub buffer: usize,
    /// How long to think before each echo; the cut ends it early.
    pub delay: Duration,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            buffer: 61_440,
            delay: Duration::ZERO,
        }
    }
}

impl Echo {
    /// Echoes until the peer closes, the idle timeout passes or a stop is seen.
    ///
    /// What passes is logged as a hex dump at trace level.
    ///
    /// # Errors
    /// The peer's reset, the idle timeout inside an echo, or the cut.
    pub fn serve(&self, conn: &mut Connection) -> io::Result<()> {
        let most = self.buffer.max(1);
        let mut buffer = zeroed(most.min(SMALL))?;
        loop {
            let count = conn.receive(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if log::log_enabled!(target: LINES, log::Level::Trace) {
                log::trace!(
                    target: LINES,
                    "connection {}: {}{}",
                    conn.id(),
                    bytes(count as u64),
                    hex(&buffer[..count])
                );
            }
            if !self.delay.is_zero() {
                conn.pause(self.delay)?;
            }
            conn.write_all(&buffer[..count])?;
            if count == buffer.len() && count < most {
                // Without memory for more it goes on as it is.
                buffer = zeroed(most).unwrap_or(buffer);
            }
        }
    }
}

/// A buffer, or an error that stays with its connection where `vec!` would
/// abort the process.
fn zeroed(length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length)?;
    buffer.resize(length, 0);
    Ok(buffer)
}

/// Bytes as people read them: offset, hexadecimal, text; 16 to a line.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 5 + 80);
    for (row, line) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "\n  {:06x} ", row * 16);
        for column in 0..16 {
            let _ = match line.get(column) {
                Some(byte) => write!(text, " {byte:02x}"),
                None => write!(text, "   "),
            };
        }
        text.push_str("  ");
        text.extend(line.iter().map(|&b| {
            if b == b' ' || b.is_ascii_graphic() {
                char::from(b)
            } else {
                '.'
            }
        }));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telnets_negotiation_is_made_visible() {
        assert_eq!(
            hex(b"\xff\xfd\x03hello, world 123"),
            "\n  000000  ff fd 03 68 65 6c 6c 6f 2c 20 77 6f 72 6c 64 20  ...hello, world \
             \n  000010  31 32 33                                         123"
        );
    }
}
