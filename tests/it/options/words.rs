//! What the server says, where, and how much of it.

use crate::harness::{Program, Server, eventually, read_to_end, run_to_end};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// Every long option of the command line.
const OPTIONS: [&str; 15] = [
    "--poll",
    "--drain-timeout",
    "--idle-timeout",
    "--max-connections",
    "--max-per-peer",
    "--delay",
    "--exit-after",
    "--buffer",
    "--timeline",
    "--quiet",
    "--verbose",
    "--log-level",
    "--log-file",
    "--help",
    "--version",
];

/// What every stop by TERM says.
const STOPPING: &str = "SIGTERM: stopping";

/// What is logged about one client that sends these bytes.
fn log_of_one_client(options: &[&str], words: &[u8]) -> String {
    let server = Server::start(Program::Lastecho, options);
    let mut client = server.connect();
    client.write_all(words).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).unwrap(), words);
    let peer = format!("from {}", client.local_addr().unwrap());
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0));
    ended.stderr.replace(&peer, "from PEER")
}

fn lastecho(argument: &str) -> Output {
    run_to_end(Command::new(Program::Lastecho.path()).arg(argument), b"")
}

#[test]
fn by_default_the_start_and_the_stop_are_logged_and_no_connection() {
    let log = log_of_one_client(&[], b"hello");
    for words in ["lastecho ", "process ", STOPPING] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert!(!log.contains("PEER"), "{log}");
}

#[test]
fn quiet_is_silent_where_nothing_is_wrong() {
    assert_eq!(log_of_one_client(&["-q"], b"hello"), "");
    assert_eq!(log_of_one_client(&["--quiet"], b"hello"), "");
}

#[test]
fn verbose_logs_a_connection_when_it_is_accepted_and_when_it_has_ended() {
    let log = log_of_one_client(&["-v"], b"hello");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("PEER")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].ends_with("connection 1 from PEER: accepted"));
    for words in [
        "connection 1 from PEER",
        "5 bytes in",
        "5 bytes out",
        "ended",
    ] {
        assert!(lines[1].contains(words), "{words}: {}", lines[1]);
    }
}

/// What telnet says before its user does: IAC DO SUPPRESS-GO-AHEAD.
#[test]
fn twice_verbose_is_a_hex_dump_of_what_passes() {
    let log = log_of_one_client(&["-vv"], b"\xff\xfd\x03hello\r\n\0");
    assert!(
        log.contains("000000  ff fd 03 68 65 6c 6c 6f 0d 0a 00                 ...hello..."),
        "{log}"
    );
    let by_level = log_of_one_client(&["--log-level", "trace"], b"\xff\xfd\x03");
    assert!(by_level.contains("000000  ff fd 03 "), "{by_level}");
}

#[test]
fn a_log_level_says_how_much() {
    let info = |level| log_of_one_client(&["--log-level", level], b"hello").contains(STOPPING);
    let debug = |level| log_of_one_client(&["--log-level", level], b"hello").contains("PEER");
    for level in ["off", "error", "warn"] {
        assert!(!info(level) && !debug(level), "{level}");
    }
    assert!(info("info") && !debug("info"));
    assert!(info("debug") && debug("debug"));
}

#[test]
fn a_log_file_is_appended_to_and_kept_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]);
    command
        .arg(Program::Lastecho.path())
        .arg("--log-file")
        .arg(&path);
    command.arg("127.0.0.1:0");
    let ended = Server::spawn(command, 1).stop();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let first = fs::read_to_string(&path).unwrap();
    assert!(first.contains(STOPPING), "{first}");
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o640, "{mode:o}");

    let path = path.to_str().unwrap();
    let ended = Server::start(Program::Lastecho, &["--log-file", path]).stop();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let both = fs::read_to_string(path).unwrap();
    assert!(
        both.starts_with(&first) && both.len() > first.len(),
        "{both}"
    );
    assert_eq!(both.matches(STOPPING).count(), 2);
}

#[test]
fn a_log_file_tells_what_happens_as_it_happens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut server = Server::start(Program::Lastecho, &["--log-file", path.to_str().unwrap()]);
    server.signal(Signal::USR1);
    eventually("the list in the log", || {
        fs::read_to_string(&path).unwrap().contains("live: ")
    });
}

#[test]
fn help_names_every_option() {
    for argument in ["-h", "--help"] {
        let output = lastecho(argument);
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty());
        for option in OPTIONS {
            assert!(help.contains(option), "{argument} lacks {option}: {help}");
        }
        for default in ["1s", "8s", "127.0.0.1:48879"] {
            assert!(help.contains(default), "{argument} lacks {default}: {help}");
        }
    }
}

#[test]
fn version_is_the_packages() {
    for argument in ["-V", "--version"] {
        let output = lastecho(argument);
        let expected = format!("lastecho {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    }
}
