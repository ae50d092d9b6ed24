//! What cannot be done is refused in one line that names it, with the right status.

use crate::harness::{Program, run_to_end};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// The command line itself is wrong.
const USAGE: i32 = 2;
/// The command line is right, but the server cannot be started.
const CANNOT: i32 = 1;

/// Runs it and checks status, silence on standard output and the one line, which
/// must contain all of `names`. Returns that line.
fn refused(status: i32, arguments: &[&OsStr], names: &[&str]) -> String {
    let output = run_to_end(Command::new(Program::Lastecho.path()).args(arguments), b"");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(status),
        "{arguments:?}: {complaint:?}"
    );
    assert!(
        output.stdout.is_empty(),
        "{arguments:?} wrote on standard output"
    );
    assert!(
        complaint.ends_with('\n') && complaint.lines().count() == 1,
        "{arguments:?}: not one line: {complaint:?}"
    );
    for name in names {
        assert!(
            complaint.contains(name),
            "{arguments:?}: {complaint:?} does not name {name:?}"
        );
    }
    complaint
}

/// The same for a command line as one writes it.
fn refused_words(status: i32, words: &str, names: &[&str]) {
    let arguments: Vec<_> = words.split(' ').map(OsStr::new).collect();
    refused(status, &arguments, names);
}

#[test]
fn a_malformed_duration_is_refused_with_its_option_and_value() {
    for option in ["--poll", "--drain-timeout", "--idle-timeout", "--delay"] {
        for value in [
            "5",
            "-1s",
            "1x",
            "1s2",
            "soon",
            "s",
            "1,5s",
            "99999999999999999999s",
        ] {
            refused_words(USAGE, &format!("{option} {value} 0"), &[option, value]);
        }
        refused(USAGE, &[option, "", "0"].map(OsStr::new), &[option, "''"]);
    }
}

#[test]
fn a_zero_duration_is_refused_where_it_would_mean_nothing() {
    for option in ["--poll", "--drain-timeout", "--idle-timeout"] {
        for value in ["0s", "0ms"] {
            refused_words(USAGE, &format!("{option} {value} 0"), &[option, value]);
        }
    }
}

#[test]
fn none_is_refused_where_there_must_be_a_value() {
    for option in ["--poll", "--delay", "--max-connections", "--exit-after"] {
        refused_words(USAGE, &format!("{option} none 0"), &[option, "none"]);
    }
}

#[test]
fn a_count_that_is_no_number_above_zero_is_refused() {
    for option in ["--max-connections", "--max-per-peer", "--exit-after"] {
        for value in ["0", "-1", "many", "1.5", "99999999999999999999999"] {
            refused_words(USAGE, &format!("{option} {value} 0"), &[option, value]);
        }
    }
}

#[test]
fn a_size_that_is_none_is_refused() {
    for value in [
        "0",
        "0KiB",
        "-1",
        "much",
        "1XB",
        "17MiB",
        "99999999999999999999",
    ] {
        refused_words(USAGE, &format!("--buffer {value} 0"), &["--buffer", value]);
    }
}

#[test]
fn a_log_level_that_is_none_is_refused() {
    for value in ["loud", "5", "infos"] {
        refused_words(
            USAGE,
            &format!("--log-level {value} 0"),
            &["--log-level", value],
        );
    }
}

#[test]
fn an_option_that_there_is_not_is_refused() {
    for option in ["--nonsense", "-x", "--pol", "--Poll"] {
        refused_words(USAGE, &format!("{option} 0"), &[option]);
    }
}

#[test]
fn an_option_without_its_value_is_refused() {
    for option in [
        "--poll",
        "--drain-timeout",
        "--idle-timeout",
        "--max-connections",
        "--max-per-peer",
        "--delay",
        "--exit-after",
        "--buffer",
        "--log-level",
        "--log-file",
        "--timeline",
    ] {
        refused_words(USAGE, &format!("0 {option}"), &[option]);
    }
}

#[test]
fn a_value_for_an_option_that_takes_none_is_refused() {
    refused_words(USAGE, "--quiet=3 0", &["--quiet", "3"]);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (words, names) in [
        ("-q -v 0", ["--quiet", "--verbose"]),
        ("-q --log-level info 0", ["--quiet", "--log-level"]),
        ("-v --log-level info 0", ["--verbose", "--log-level"]),
    ] {
        refused_words(USAGE, words, &names);
    }
}

#[test]
fn an_option_given_twice_is_refused() {
    for (option, value) in [
        ("--poll", "1s"),
        ("--drain-timeout", "none"),
        ("--idle-timeout", "1s"),
        ("--max-connections", "1"),
        ("--max-per-peer", "1"),
        ("--delay", "1s"),
        ("--exit-after", "1"),
        ("--buffer", "1KiB"),
        ("--log-level", "info"),
        ("--log-file", "/dev/null"),
        ("--timeline", "/dev/null"),
    ] {
        refused_words(
            USAGE,
            &format!("{option} {value} {option} {value} 0"),
            &[option],
        );
    }
    refused_words(USAGE, "-q -q 0", &["--quiet"]);
}

#[test]
fn an_address_that_is_none_is_refused() {
    for address in [
        "65536",
        ":65536",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:http",
        "256.1.1.1:80",
        "1.2.3.4.5",
        "localhost:",
        ":",
        "a:b:80",
        "[::1]80",
        "[::1",
        "::1:x",
        "http://localhost:80",
        "7000-7010",
        "0xBEEF",
        "0xBEEF:80",
        "127.0.0.1:7000-7010",
        "1.2",
    ] {
        refused_words(USAGE, address, &[address, "ADDR"]);
    }
    refused(USAGE, &[OsStr::new("")], &["''", "ADDR"]);
    refused(USAGE, &[OsStr::new("two words:80")], &["two words"]);
}

#[test]
fn what_is_meant_for_a_port_is_told_how_it_is_written() {
    refused_words(USAGE, "0xBEEF", &["0xBEEF", "write 48879"]);
    refused_words(USAGE, "7000-7010", &["7000-7010", "name each"]);
}

#[test]
fn an_address_that_is_none_is_refused_also_after_a_good_one() {
    refused_words(USAGE, "127.0.0.1:0 256.1.1.1:80", &["256.1.1.1:80"]);
    refused_words(CANNOT, "127.0.0.1:0 192.0.2.1:0", &["192.0.2.1:0"]);
}

#[test]
fn an_address_that_is_not_ours_cannot_be_listened_on() {
    refused_words(CANNOT, "192.0.2.1:0", &["192.0.2.1:0", "annot assign"]);
}

#[test]
fn a_host_that_nobody_knows_cannot_be_listened_on() {
    refused_words(CANNOT, "nohost.invalid:0", &["nohost.invalid:0"]);
}

#[test]
fn a_port_in_use_is_refused_by_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused_words(CANNOT, &address, &[&address, "in use"]);
    let port = taken.local_addr().unwrap().port().to_string();
    refused_words(CANNOT, &port, &[&address, "in use"]);
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing/log");
    for path in [missing.as_path(), directory.path()] {
        let path = path.to_str().unwrap();
        refused_words(CANNOT, &format!("--log-file {path} 0"), &[path]);
    }
}

/// Nor does it wait for somebody who reads a pipe.
#[test]
fn a_timeline_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing/life.svg");
    let pipe = directory.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for path in [missing.as_path(), directory.path(), pipe.as_path()] {
        let path = path.to_str().unwrap();
        refused_words(CANNOT, &format!("--timeline {path} 0"), &["timeline", path]);
    }
}

#[test]
fn what_is_no_utf_8_is_refused_by_its_name() {
    let broken = OsStr::from_bytes(b"\xffno-text");
    for arguments in [
        vec![broken],
        vec![OsStr::new("--poll"), broken],
        vec![OsStr::new("--max-connections"), broken, OsStr::new("0")],
    ] {
        refused(USAGE, &arguments, &["no-text"]);
    }
    // A path may be anything, so it is not what cannot be read.
    let path = OsStr::from_bytes(b"/tmp/\xfe-a-path");
    for arguments in [
        [OsStr::new("--log-file"), path, OsStr::new("--poll"), broken],
        [OsStr::new("--poll"), broken, OsStr::new("--timeline"), path],
    ] {
        refused(USAGE, &arguments, &["\\xFFno-text"]);
    }
}

#[test]
fn a_line_break_in_a_value_does_not_make_two_lines() {
    refused(USAGE, &[OsStr::new("one\ntwo:80")], &["one", "two:80"]);
    let arguments = ["--poll", "1s\n2x", "0"].map(OsStr::new);
    refused(USAGE, &arguments, &["--poll", "2x"]);
    let path = OsString::from("/missing/one\ntwo");
    let arguments = [OsStr::new("--log-file"), &path, OsStr::new("0")];
    refused(CANNOT, &arguments, &["/missing/one", "two"]);
}

#[test]
fn a_number_in_two_pieces_is_no_duration() {
    for option in ["--poll", "--delay"] {
        let arguments = [option, "1 2s", "0"].map(OsStr::new);
        refused(USAGE, &arguments, &[option, "1 2s"]);
    }
}
