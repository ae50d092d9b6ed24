//! Whatever somebody types: no value makes the parsers panic, and what is
//! accepted means what it says.
//!
//! The texts are the same in every run; `PROPTEST_CASES` asks for more.

use crate::harness::{Program, run_to_end};
use clap::Parser;
use cli::{Address, Options};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

#[allow(dead_code)] // what the program needs of it besides
#[path = "../../src/bin/lastecho/cli.rs"]
mod cli;

/// The port of an address that names none.
const DEFAULT_PORT: u16 = 48879;

fn check<S: Strategy>(texts: &S, holds: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0xbeef),
        ..Config::with_cases(Config::default().cases.max(800))
    };
    let outcome = TestRunner::new(config).run(texts, holds);
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The options of a command line, or its mistake.
fn options<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Options, clap::Error> {
    Options::try_parse_from(["lastecho"].into_iter().chain(words))
}

fn with(option: &str, value: &str) -> Option<Options> {
    options([format!("{option}={value}").as_str()]).ok()
}

/// A host name that is no number and no address.
fn host() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,20}(\\.[a-z][a-z0-9]{0,9}){0,3}"
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(u16::MAX), any::<u16>()]
}

/// An address as README.md says that it may be written, and what it means.
fn written() -> impl Strategy<Value = (String, Address)> {
    let one = |ip: IpAddr, port| Address::One((ip, port).into());
    let v4 = || any::<Ipv4Addr>().prop_map(IpAddr::V4);
    let v6 = || any::<std::net::Ipv6Addr>().prop_map(IpAddr::V6);
    let ip = || prop_oneof![v4(), v6()];
    prop_oneof![
        (v4(), port()).prop_map(move |(ip, port)| (format!("{ip}:{port}"), one(ip, port))),
        (v6(), port()).prop_map(move |(ip, port)| (format!("[{ip}]:{port}"), one(ip, port))),
        (host(), port()).prop_map(|(h, p)| (format!("{h}:{p}"), Address::Host(h, p))),
        port().prop_map(|port| (format!(":{port}"), Address::All(port))),
        port().prop_map(move |p| (format!("{p}"), one(Ipv4Addr::LOCALHOST.into(), p))),
        ip().prop_map(move |ip| (format!("{ip}"), one(ip, DEFAULT_PORT))),
        v6().prop_map(move |ip| (format!("[{ip}]"), one(ip, DEFAULT_PORT))),
        host().prop_map(|host| (host.clone(), Address::Host(host, DEFAULT_PORT))),
    ]
}

#[test]
fn an_address_means_what_it_says_and_so_does_how_it_is_shown() {
    check(&written(), |(text, meaning)| {
        let address = text.parse::<Address>();
        prop_assert_eq!(&address, &Ok(meaning), "{}", text);
        let shown = address.unwrap().to_string();
        prop_assert_eq!(shown.parse(), text.parse::<Address>(), "{}", shown);
        Ok(())
    });
}

#[test]
fn any_text_is_an_address_that_can_be_shown_or_a_mistake_that_is_said() {
    let like = "(\\[?[0-9a-f.:%]{0,12}(lo|g|-|_)?\\]?){1,3}(:[0-9+]{0,6})?";
    let zoned = "\\[(fe80)?::[0-9a-f]{0,4}%?[a-z0-9]{0,4}\\](:[0-9]{1,3})?";
    let texts = prop_oneof![like, zoned, "\\PC{0,20}", ".{0,300}"];
    check(&texts, |text| {
        match text.parse::<Address>() {
            Err(mistake) => prop_assert!(!mistake.is_empty()),
            Ok(address) => {
                let shown = address.to_string();
                prop_assert_eq!(shown.parse(), Ok(address), "{} is shown as {}", text, shown);
            }
        }
        Ok(())
    });
}

/// Digits, perhaps with a fraction (the value is the first number through the
/// second), and the rest.
fn number(text: &str) -> Option<(u128, u128, &str)> {
    let digits = |text: &str| {
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let value = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some((value, scale, rest))
}

/// What a duration says, read strictly: numbers, each with its unit.
fn nanoseconds(text: &str) -> Option<u128> {
    let (mut rest, mut sum) = (text.trim(), 0_u128);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (value, scale, behind) = number(rest)?;
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_alphabetic());
        let (unit, behind) = behind.split_at(end.unwrap_or(behind.len()));
        // Nothing is nothing in any unit.
        let factor = if value == 0 && unit.is_empty() {
            0
        } else {
            unit_in_nanoseconds(unit)?
        };
        sum = sum.checked_add(value.checked_mul(factor)? / scale)?;
        rest = behind.trim_start();
    }
    Some(sum)
}

fn unit_in_nanoseconds(unit: &str) -> Option<u128> {
    const SECOND: u128 = 1_000_000_000;
    const DAY: u128 = 86_400 * SECOND;
    Some(match unit {
        "ns" | "nsec" | "nanos" => 1,
        "us" | "usec" | "µs" => 1_000,
        "ms" | "msec" | "millis" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600 * SECOND,
        "d" | "day" | "days" => DAY,
        "w" | "wk" | "wks" | "week" | "weeks" => 7 * DAY,
        "M" | "month" | "months" => DAY * 3_044 / 100,
        "y" | "yr" | "yrs" | "year" | "years" => DAY * 36_525 / 100,
        _ => return None,
    })
}

fn duration_texts() -> impl Strategy<Value = String> {
    let part = "[0-9]{0,3}([0-9]{6}|18446744073709551615)?(\\.[0-9]{0,4})?[ \\n]{0,1}(ns|us|µs|ms|s|m|h|d|w|M|y|sec|min|x)?";
    let parts = proptest::collection::vec(part, 1..4);
    let parts = (parts, prop_oneof![Just(""), Just(" ")]).prop_map(|(parts, gap)| parts.join(gap));
    let largest = (0..3_u64, "(ns|us|ms|s)", "1000000000ns|999ms|1s|0s");
    let largest =
        largest.prop_map(|(less, unit, more)| format!("{}{unit} {more}", u64::MAX - less));
    prop_oneof![8 => parts, 1 => largest, 2 => "\\PC{0,20}"]
}

#[test]
fn any_text_is_the_duration_that_it_says_or_a_mistake() {
    check(&duration_texts(), |text| {
        let accepted = with("--delay", &text).map(|options| options.delay);
        if let Some(duration) = accepted {
            prop_assert_eq!(Some(duration.as_nanos()), nanoseconds(&text), "{:?}", text);
        }
        let more_than_zero = accepted.filter(|duration| !duration.is_zero());
        let poll = with("--poll", &text).map(|options| options.poll);
        prop_assert_eq!(poll, more_than_zero);
        let idle = with("--idle-timeout", &text).map(|options| options.idle_timeout.0);
        prop_assert_eq!(idle, more_than_zero.map(Some));
        Ok(())
    });
}

#[test]
fn a_duration_is_understood_as_it_is_logged() {
    let durations = (0..u64::MAX / 4, 0..1_000_000_000_u32);
    let durations = durations.prop_flat_map(|(most, nanos)| (0..=most, 0..=nanos));
    check(&durations, |(seconds, nanos)| {
        let duration = Duration::new(seconds, nanos);
        let logged = humantime::format_duration(duration).to_string();
        let delay = with("--delay", &logged).map(|options| options.delay);
        prop_assert_eq!(delay, Some(duration), "{}", logged);
        Ok(())
    });
}

/// What a size says, read strictly: a number and perhaps a unit.
fn bytes(text: &str) -> Option<u128> {
    let plain = text.strip_prefix('+').unwrap_or(text);
    let (value, scale, unit) = number(plain)?;
    let unit = unit.trim_start().to_lowercase();
    let (letter, base) = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => ("", 1_u128),
        prefix => prefix
            .strip_suffix('i')
            .map_or((prefix, 1_000), |prefix| (prefix, 1_024)),
    };
    let power = ["", "k", "m", "g", "t", "p", "e"]
        .iter()
        .position(|known| *known == letter)?;
    let factor = base.pow(u32::try_from(power).ok()?);
    Some(value.checked_mul(factor)? / scale)
}

#[test]
fn any_text_is_the_size_that_it_says_or_a_mistake() {
    let like = "[+-]?[0-9]{1,9}(\\.[0-9]{1,3})?[ ]?(b|k|kb|kib|KiB|m|MB|MiB|Mi|g|GiB|EiB|x)?";
    let texts = prop_oneof![4 => like, 1 => "[0-9.]{1,40}[a-zA-Z]{0,3}", 1 => "\\PC{0,20}"];
    check(&texts, |text| {
        if let Some(options) = with("--buffer", &text) {
            prop_assert!((1..=16 * 1024 * 1024).contains(&options.buffer));
            let said = bytes(&text).map(|said| said.abs_diff(options.buffer as u128));
            // A fraction is read as a floating-point number.
            let most = u128::from(text.contains('.'));
            prop_assert!(said.is_some_and(|off| off <= most), "{:?}", text);
        }
        Ok(())
    });
    check(&(1..=16_777_216_usize), |size| {
        prop_assert_eq!(with("--buffer", &size.to_string()).unwrap().buffer, size);
        Ok(())
    });
}

#[test]
fn any_text_is_the_count_that_it_says_or_a_mistake() {
    let texts = prop_oneof!["[+-]?[0-9]{1,21}", "\\PC{0,10}", Just("none".to_owned())];
    check(&texts, |text| {
        let said = text.parse::<u64>().ok().filter(|&count| count > 0);
        let after = with("--exit-after", &text).map(|options| options.exit_after.unwrap().get());
        prop_assert_eq!(after, said);
        let per_peer = with("--max-per-peer", &text).map(|options| options.max_per_peer.0);
        let per_peer = per_peer.map(|limit| limit.map(|limit| limit.get() as u64));
        let none = (text == "none").then_some(None);
        prop_assert_eq!(per_peer, none.or(said.map(Some)));
        Ok(())
    });
}

/// Words of a command line, right and wrong ones.
fn words() -> impl Strategy<Value = Vec<String>> {
    let option = "--(poll|drain-timeout|idle-timeout|max-connections|max-per-peer|delay|exit-after|buffer|log-level|log-file|timeline|quiet|verbose|x)(=.{0,6})?";
    let word = prop_oneof![option, "-[qvx]{1,3}", "[0-9]{1,6}(ms|s|KiB)?", ".{0,12}"];
    proptest::collection::vec(word, 1..5)
}

#[test]
fn any_command_line_is_understood_or_refused_in_one_line_with_status_2() {
    let config = Config {
        cases: 60,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0xbeef),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&words(), |words| {
        let words: Vec<_> = words.iter().map(|word| word.replace('\0', "0")).collect();
        match options(words.iter().map(String::as_str)) {
            Err(mistake) if mistake.use_stderr() => {}
            _ => return Ok(()),
        }
        let said = run_to_end(Command::new(Program::Lastecho.path()).args(&words), b"");
        prop_assert_eq!(said.status.code(), Some(2), "{:?}", said);
        let text = String::from_utf8_lossy(&said.stderr);
        prop_assert_eq!(text.lines().count(), 1, "{}", text);
        prop_assert!(said.stdout.is_empty());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_largest_values_are_served_as_well() {
    let server = crate::harness::Server::start(
        Program::Lastecho,
        &[
            "--poll",
            "18446744073709551615s",
            "--drain-timeout",
            "18446744073709551615s",
            "--idle-timeout",
            "18446744073709551615s",
            "--max-connections",
            "18446744073709551615",
            "--max-per-peer",
            "18446744073709551615",
            "--exit-after",
            "18446744073709551615",
            "--buffer",
            "16MiB",
        ],
    );
    let mut client = server.connect();
    std::io::Write::write_all(&mut client, b"large").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let echo = crate::harness::read_to_end(&mut client).unwrap();
    assert_eq!(echo, b"large");
    drop(client);
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[test]
fn the_oracles_know_what_the_parsers_should() {
    assert_eq!(nanoseconds("1.5s 20 ms"), Some(1_520_000_000));
    assert_eq!(nanoseconds("1 2s").or(nanoseconds("1.5 5s")), None);
    assert_eq!(
        (bytes("1.5KiB"), bytes("2 kb"), bytes("x")),
        (Some(1536), Some(2000), None)
    );
    let lo: SocketAddr = "127.0.0.1:7".parse().unwrap();
    assert_eq!("7".parse(), Ok(Address::One(lo)));
}
