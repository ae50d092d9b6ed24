//! What becomes of results that cannot be written, and of a stop whose outputs
//! nothing reads.

use crate::app::{Ended, Process, eventually, good};
use crate::unread::{await_line, fill, stop_unread};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

const OURS: &str = env!("CARGO_BIN_EXE_log-pipeline");

#[test]
fn outputs_that_nothing_reads_hold_up_no_stop() {
    let mut command = Command::new(OURS);
    command.args(["127.0.0.1:0", "--drain-timeout", "2s"]);
    assert_eq!(stop_unread(command, "listening on "), Some(0));
}

#[test]
fn more_consumers_than_can_start_are_told_before_it_listens() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 1500000; exec \"$0\" \"$@\"", OURS]);
    command.args(["127.0.0.1:0", "--consumers", "1000"]);
    let ended = command.output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    // It may say first which signals it found ignored.
    let lines: Vec<_> = said
        .lines()
        .filter(|line| !line.contains("[INFO]"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("1000 workers"), "{said}");
    assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
}

/// They wait for their reader, as in life, until the deadline: then they are cut.
#[test]
fn results_that_nothing_reads_are_cut_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let (output, stdout) = io::pipe().unwrap();
    let mut command = Command::new(OURS);
    command.args(["127.0.0.1:0", "--drain-timeout", "1s"]);
    command.stdout(stdout.try_clone().unwrap());
    let mut program = Process::spawn(command.stderr(File::create(&log).unwrap()));
    let address = await_line(output.try_clone().unwrap(), "listening on ");
    fill(&stdout);
    send(&address, 0, 10);
    program.signal(Signal::TERM);
    assert_eq!(program.ended().code(), Some(3));
    let log = fs::read_to_string(log).unwrap();
    // Not all had left the kernel: the one that is announced stalls its sender.
    let sums = log.lines().find(|line| line.contains("] received "));
    let sums = sums.unwrap_or_else(|| panic!("no sums: {log}"));
    let received = sums.split_once("received ").unwrap().1;
    let received = received.split(' ').next().unwrap();
    assert_ne!(received, "0", "{log}");
    let cut = format!(
        "received {received} = processed 0 + failed {received} (of which cut {received}, lost 0)"
    );
    assert!(log.contains(&cut), "{log}");
    drop(output);
}

/// Sends lines that are numbered from `first`.
fn send(address: &str, first: usize, count: usize) {
    let mut sender = TcpStream::connect(address).unwrap();
    let lines = good(first + count);
    for line in lines.split_inclusive('\n').skip(first) {
        sender.write_all(line.as_bytes()).unwrap();
    }
}

/// The program with its standard output on a disk of 16 KiB, half of it taken:
/// a tmpfs in a mount namespace of its own.
fn on_a_small_disk(disk: &Path, log: &Path) -> Process {
    let script = r#"mount -t tmpfs -o size=16k none "$0" && head -c 8192 /dev/zero >"$0/filler" &&
        exec "$@" >"$0/out""#;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(disk).args([OURS, "127.0.0.1:0"]);
    Process::spawn(command.stderr(File::create(log).unwrap()))
}

/// What is on the disk so far.
fn read(out: &File) -> String {
    let mut text = String::new();
    let mut out = out.try_clone().unwrap();
    io::Seek::rewind(&mut out).unwrap();
    out.read_to_string(&mut text).unwrap();
    text
}

#[test]
#[ignore = "needs unshare"]
fn results_that_do_not_fit_on_the_disk_are_failed_and_tear_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let log = directory.path().join("log");
    let mut program = on_a_small_disk(&disk, &log);
    let inside = format!("/proc/{}/root{}", program.id(), disk.display());
    let mut out = None;
    eventually("it listens", || {
        out = File::open(format!("{inside}/out")).ok();
        out.as_ref().is_some_and(|out| read(out).ends_with('\n'))
    });
    let out = out.unwrap();
    let listening = read(&out);
    let address = listening.trim_end().strip_prefix("listening on ").unwrap();
    // Half of these fit, and the rest into what the filler takes.
    send(address, 0, 80);
    let told = || fs::read_to_string(&log).unwrap();
    eventually("results are lost", || told().contains("results are lost"));
    fs::remove_file(format!("{inside}/filler")).unwrap();
    send(address, 80, 10);
    eventually("there is room again", || {
        read(&out).contains("consumer 90 ")
    });
    program.signal(Signal::TERM);
    let ended = Ended {
        code: program.ended().code(),
        stdout: read(&out),
        stderr: told(),
    };
    println!("on a small disk: {}", ended.summary());
    assert_eq!((ended.code, ended.told("clean")), (Some(3), "false"));
    let [received, processed, failed, lost] =
        ["received", "processed", "failed", "lost"].map(|key| ended.count(key));
    assert_eq!((received, failed), (90, lost), "{ended:?}");
    assert_eq!(received, processed + failed, "{ended:?}");
    assert_eq!(results(&ended.stdout), processed, "{ended:?}");
}

/// Results that are there from end to end, with nothing of another line: each
/// line that was sent says its number three times.
fn results(text: &str) -> u64 {
    let whole = |line: &&str| {
        let page = line.split_once(" path=/page/");
        let n = page.and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
        n.is_some_and(|n| {
            let host = n % 250;
            let end =
                format!(" host=192.0.2.{host} method=GET path=/page/{n} status=200 bytes={n}");
            line.starts_with("consumer ") && line.ends_with(&end) && line.matches(' ').count() == 6
        })
    };
    text.lines().filter(whole).count() as u64
}
