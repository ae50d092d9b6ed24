//! Under a limit of file sizes (`ulimit -f`, systemd's `LimitFSIZE=`).

use super::{assert_echoes, reach, redirected};
use crate::harness::{Program, Server, run_to_end, text};
use rustix::process::{Resource, Rlimit, prlimit};
use std::fs::File;
use std::process::Command;

/// What a file may hold.
const LIMIT: u64 = 8192;

/// Sets the limit for a server that runs.
fn limit(server: &Server) {
    let limit = Some(LIMIT);
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    prlimit(Some(server.pid()), Resource::Fsize, limit).unwrap();
}

#[test]
fn files_that_may_not_grow_cost_lines_and_not_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (log, errors, picture) = (at("log"), at("errors"), at("picture.svg"));
    for (redirection, options, file) in [
        ("", &["-v", "--log-file", &log][..], &log),
        (&format!("2>{errors}"), &["-v"], &errors),
        ("", &["-q", "--timeline", &picture], &picture),
    ] {
        let (mut server, address) = redirected(Program::Lastecho, redirection, options);
        let mut first = reach(&mut server, address).unwrap();
        limit(&server);
        // Each leaves lines in the log and a row in the picture.
        for _ in 0..100 {
            assert_echoes(&mut reach(&mut server, address).unwrap(), 1);
        }
        assert_echoes(&mut first, 1);
        drop(first);
        let ended = server.stop();
        assert_eq!(ended.code(), Some(0), "{file}: {ended:?}");
        assert_eq!(ended.count("accepted"), 101, "{file}");
        // The control: it came to the limit.
        let length = text(&File::open(file).unwrap()).len() as u64;
        assert_eq!(length, LIMIT, "{file}");
    }
}

#[test]
fn a_ping_whose_output_may_not_grow_ends_by_itself() {
    let server = Server::start(Program::Lastecho, &["-q"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out");
    let mut command = Command::new("sh");
    let script = format!("exec prlimit --fsize={LIMIT} \"$@\" >\"$OUT\"");
    command.args(["-c", &script, "sh"]).env("OUT", &file);
    command.arg(env!("CARGO_BIN_EXE_lastecho-ping"));
    command.args(["--interval", "0s", &server.address().to_string()]);
    let ended = run_to_end(&mut command, b"");
    assert!(ended.status.code().is_some(), "{ended:?}");
    assert_eq!(file.metadata().unwrap().len(), LIMIT);
}
