//! A load generator that is not ours: redis-benchmark.
//!
//! A Redis command is an array of strings, and so is a valid reply: a plain
//! echo server answers whatever redis-benchmark asks. It checks the form of
//! the replies, not each byte.

use super::MESSAGE;
use anyhow::{Context, Result, ensure};
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const PROGRAM: &str = "redis-benchmark";
/// Only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(1);
/// `*2\r\n$4\r\nECHO\r\n$43\r\n`…`\r\n` makes a message.
const WORD: usize = MESSAGE - 21;

/// Has `requests` messages echoed over so many connections; the answer is how
/// many it says there were per second.
pub(crate) fn run(address: SocketAddr, connections: usize, requests: u64) -> Result<u64> {
    let mut command = Command::new(PROGRAM);
    command
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(["-c", &connections.to_string()])
        .args(["-n", &requests.to_string()])
        .args(["--csv", "ECHO", &"x".repeat(WORD)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().context(PROGRAM)?;
    let patience = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < patience => std::thread::sleep(GLANCE),
            None => {
                child.kill()?;
                break child.wait()?;
            }
        }
    };
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text)?;
    }
    ensure!(status.success(), "{PROGRAM}: {status}");
    rate(&text).with_context(|| format!("{PROGRAM} said {text:?}"))
}

/// The second field of the last line, without its fraction.
fn rate(csv: &str) -> Option<u64> {
    let field = csv.lines().last()?.split(',').nth(1)?;
    let whole = field.trim_matches('"').split('.').next()?;
    whole.parse().ok().filter(|rate| *rate > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_in_the_csv() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"ECHO xxx\",\"811.03\",\"5.885\"\n";
        assert_eq!(rate(csv), Some(811));
        assert_eq!(rate("\"test\",\"rps\"\n"), None);
        assert_eq!(rate(""), None);
    }
}
