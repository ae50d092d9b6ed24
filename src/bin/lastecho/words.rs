//! What people write on a command line, and what they are told when it is
//! wrong; the same for both programs.

use bytesize::ByteSize;
use clap::Parser;
use clap::error::ErrorKind;
use lastecho::nonblocking_writer;
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

/// A larger buffer cannot make a read larger, nor a larger message a test better.
const LARGEST_SIZE: u64 = 16 * 1024 * 1024;

/// How long a line may take to its reader before the process ends.
pub(crate) const LAST_LINE: Duration = Duration::from_secs(1);

/// The command line's options; help, version and mistakes end the process
/// as DESIGN says: help on standard output with status 0, a mistake in one
/// line on standard error with status 2.
pub(crate) fn parse_or_exit<P: Parser>(complain: fn(&str)) -> P {
    P::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            let message = match error.kind() {
                ErrorKind::InvalidUtf8 => not_utf8::<P>(),
                _ => one_line(&error),
            };
            wrong(complain, &message);
        }
        let _ = error.print();
        std::process::exit(0);
    })
}

/// Ends the process because the command line is wrong.
pub(crate) fn wrong(complain: fn(&str), message: &str) -> ! {
    complain(message);
    std::process::exit(2);
}

/// Writes one line on standard error for people, wherever there is no log.
/// Waits at most a second for its reader.
pub(crate) fn complain(program: &str, message: &str) {
    if let Ok(stderr) = nonblocking_writer::stderr() {
        stderr.line(&format!("{program}: {message}"));
        stderr.flush_within(LAST_LINE);
    }
}

/// Clap does not say which argument it could not read: the one that it cannot
/// read with all others made readable. Some may be paths, which need not be.
fn not_utf8<P: Parser>() -> String {
    let arguments: Vec<_> = std::env::args_os().collect();
    let is_culprit = |&(at, argument): &(usize, &OsString)| {
        let lossy = |(other, argument): (usize, &OsString)| match other {
            _ if other == at => argument.clone(),
            _ => argument.to_string_lossy().into_owned().into(),
        };
        let others = arguments.iter().enumerate().map(lossy);
        let parsed = P::try_parse_from(others);
        argument.to_str().is_none()
            && parsed.is_err_and(|error| error.kind() == ErrorKind::InvalidUtf8)
    };
    let culprit = arguments.iter().enumerate().find(is_culprit);
    let culprit = culprit.map_or_else(OsString::new, |(_, argument)| argument.clone());
    format!("{culprit:?} is not UTF-8 (see --help)")
}

/// Clap's message without its usage and hints, in one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let lines =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("tip:"))
        .collect();
    let message = words.join(" ");
    format!(
        "{} (see --help)",
        message.strip_prefix("error: ").unwrap_or(&message)
    )
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("must be more than zero".into()),
        duration => Ok(duration),
    }
}

pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let sum = |sum: Duration, term| {
        let term = humantime::parse_duration(term).map_err(|error| error.to_string())?;
        sum.checked_add(term).ok_or_else(|| "too long".to_owned())
    };
    let duration = terms(text).into_iter().try_fold(Duration::ZERO, sum);
    duration.map_err(|error| format!("{error}, write for example 250ms, 1s or 2m"))
}

/// The terms of "1m 30s" or "1m30s". Given one by one, because humantime takes
/// "1 2s" for 12 s, and panics at the very longest sums.
fn terms(text: &str) -> Vec<&str> {
    let number = |c: char| c.is_ascii_digit() || c == '.';
    let (mut terms, mut begun, mut before) = (Vec::new(), 0, true);
    for (at, c) in text.trim_start().char_indices() {
        if number(c) && !before {
            terms.push(&text.trim_start()[begun..at]);
            begun = at;
        }
        before = number(c);
    }
    terms.push(&text.trim_start()[begun..]);
    terms
}

pub(crate) fn count<N: FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse()
        .map_err(|_| "must be a whole number above zero")
}

pub(crate) fn size(text: &str) -> Result<usize, String> {
    match text.parse::<ByteSize>().map(|size| size.as_u64()) {
        Ok(0) => Err("must be more than zero".into()),
        Ok(bytes) if bytes <= LARGEST_SIZE => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        Ok(_) => Err(format!("must be at most {}", ByteSize::b(LARGEST_SIZE))),
        Err(error) => Err(format!("{error}, write for example 4096, 16KiB or 1MiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("0s").is_err() && duration("5").is_err() && duration("-1s").is_err());
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("0").is_err() && size("17MiB").is_err() && size("much").is_err());
    }
}
