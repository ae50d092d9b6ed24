//! What the log and the picture are written to: files and pipes, full ones and
//! the same one twice.

use super::stop_unread;
use crate::harness::{Program, Server, eventually, run_to_end};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A directory, and a path in it.
fn place(name: &str) -> (TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    let text = path.to_str().unwrap().to_owned();
    (directory, path, text)
}

#[test]
fn a_named_pipe_as_log_file_may_have_its_reader_later_and_another_one_then() {
    let (_directory, path, name) = place("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Listens, although nothing reads the pipe yet.
    let mut server = Server::start(Program::Lastecho, &["--log-file", &name]);
    for word in ["poll 1s", "live: 0 connections"] {
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path)
            .unwrap();
        let mut text = String::new();
        eventually("the log has a reader", || {
            let _ = reader.read_to_string(&mut text); // what is there so far
            text.contains(word)
        });
        drop(reader);
        server.signal(Signal::USR1);
    }
    stop_unread(server).unwrap();
}

/// Starts it with these arguments; it must refuse them in one line.
fn refused(redirection: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]);
    command
        .arg(Program::Lastecho.path())
        .args(arguments)
        .arg("127.0.0.1:0");
    let output = run_to_end(&mut command, b"");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_log_that_is_the_picture_too_is_refused_whatever_its_name() {
    let (directory, path, name) = place("log");
    fs::write(&path, "kept\n").unwrap();
    let other = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (soft, hard) = (other("soft"), other("hard"));
    symlink(&path, &soft).unwrap();
    fs::hard_link(&path, &hard).unwrap();
    for picture in [&name, &soft, &hard] {
        let said = refused("", &["--log-file", &name, "--timeline", picture]);
        assert!(
            said.contains(picture.as_str()) && said.contains("is the log, too"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    refused(&format!("2>>{name}"), &["--timeline", &hard]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    let said = refused(&format!(">>{name}"), &["--timeline", &name]);
    assert!(said.contains("is standard output, too"), "{said}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("kept\n"));
}

/// Both name clients.
#[test]
fn log_and_picture_are_not_for_everybody_to_read() {
    let (directory, log, name) = place("log");
    let picture = directory.path().join("picture.svg");
    let options = ["--log-file", &name, "--timeline", picture.to_str().unwrap()];
    Server::start(Program::Lastecho, &options).stop();
    for path in [log, picture] {
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o137, 0, "{}: {mode:o}", path.display());
    }
}

/// As on a full disk: what does not fit is counted, and tears no other line.
#[test]
fn lines_that_do_not_fit_into_the_log_file_are_counted_and_tear_no_other() {
    let (_directory, path, name) = place("log");
    let mut server = Server::start(Program::Lastecho, &["--log-file", &name]);
    let size = || fs::metadata(&path).unwrap().len();
    eventually("the first line", || size() > 0);
    let full = size() + 30; // half a line
    limit_file_size(&server, Some(full));
    server.signal(Signal::USR1);
    eventually("half a line", || size() == full);
    limit_file_size(&server, None);
    let text = || fs::read_to_string(&path).unwrap();
    eventually("the count", || {
        server.signal(Signal::USR1);
        text().contains("\n(lost: 1, File too large")
    });
    server.stop();
    for line in text().lines() {
        let whole = line.starts_with("(lost: ") || line.matches("Z [INFO] ").count() == 1;
        assert!(whole || line.len() == 30, "{line:?}");
    }
}

fn limit_file_size(server: &Server, current: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limit = Rlimit { current, maximum };
    prlimit(Some(server.pid()), Resource::Fsize, limit).unwrap();
}
