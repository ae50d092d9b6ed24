//! Whoever reads what the server says can be gone, full or asleep: serving and
//! stopping go on. And what it says goes where it belongs.

mod files;
mod limited;
mod told;

use crate::harness::{
    Broken, Ended, IN_TIME, Kept, Program, Server, connect, eventually, free_port, noise, promise,
    read_to_end,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Fills the pipe that the server's standard output is, until nothing fits.
pub(crate) fn stall_stdout(server: &Server) {
    fill(&format!("/proc/{}/fd/1", server.pid().as_raw_nonzero()));
}

/// Fills a pipe until nothing fits.
pub(crate) fn fill(path: &str) {
    let mut pipe = OpenOptions::new()
        .write(true)
        // Of our own opening only: the server's stays blocking.
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .unwrap();
    for size in [4096, 1] {
        let full = loop {
            if let Err(error) = pipe.write(&vec![b'.'; size]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
    }
}

/// A server whose outputs a shell redirects; it may have no way to say its port.
fn redirected(program: Program, redirection: &str, options: &[&str]) -> (Server, SocketAddr) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]);
    command
        .arg(program.path())
        .args(options)
        .arg(address.to_string());
    (Server::spawn(command, 0), address)
}

/// A named pipe, opened by us for reading and writing, so that opening it waits
/// for nobody, with `flags`.
pub(crate) fn named_pipe(flags: OFlags) -> (tempfile::TempDir, String, File) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&path)
        .unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path, pipe)
}

/// Connects as soon as somebody listens.
fn reach(server: &mut Server, address: SocketAddr) -> Result<TcpStream, Broken> {
    let mut reached = None;
    eventually("somebody listens, or has ended", || {
        reached = connect(address).ok();
        reached.is_some() || !server.is_running()
    });
    reached.ok_or_else(|| Broken::Died(format!("before serving: {}", server.stderr())))
}

fn echo(client: &mut TcpStream, bytes: usize) -> Kept {
    let data = noise(bytes, 5);
    let (mut sender, sent) = (client.try_clone().unwrap(), data.clone());
    let writer = thread::spawn(move || {
        let _ = sender.write_all(&sent); // the echo shows what became of it
        let _ = sender.shutdown(Shutdown::Write);
    });
    let echo = read_to_end(client);
    writer.join().unwrap();
    match echo? {
        echo if echo == data => Ok(()),
        echo => Err(Broken::Short(format!("{} of {bytes} bytes", echo.len()))),
    }
}

fn assert_echoes(client: &mut TcpStream, bytes: usize) {
    echo(client, bytes).unwrap_or_else(|broken| panic!("{broken}"));
}

/// Stops it without reading anything from it meanwhile.
fn stop_unread(mut server: Server) -> Result<Ended, Broken> {
    server.signal(Signal::TERM);
    let ended = wait_unread(server)?;
    match ended.code() {
        Some(0) => Ok(ended),
        _ => Err(Broken::Died(format!("{} {}", ended.status, ended.stderr))),
    }
}

/// Waits for its end without reading anything from it before.
pub(crate) fn wait_unread(mut server: Server) -> Result<Ended, Broken> {
    let patience = Instant::now() + IN_TIME;
    while server.is_running() {
        if Instant::now() > patience {
            return Err(Broken::TooLong(format!("still there after {IN_TIME:?}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(server.wait())
}

#[test]
fn closed_and_full_outputs_hurt_nobody() {
    promise(
        "closed and full outputs",
        1,
        // It dies at its first word, before or after a client has come.
        |broken| {
            matches!(
                broken,
                Broken::Died(_) | Broken::Reset(_) | Broken::Short(_)
            )
        },
        |program| {
            for redirection in [
                ">&-",
                "2>&-",
                ">&- 2>&-",
                "2>/dev/full",
                ">/dev/full",
                ">/dev/full 2>/dev/full",
            ] {
                let (mut server, address) = redirected(program, redirection, &["-vv"]);
                let mut client = reach(&mut server, address)?;
                echo(&mut client, 10_000)?;
                let ended = stop_unread(server)?;
                println!("{program:?} {redirection}: ended after {:?}", ended.took);
            }
            Ok(())
        },
    );
}

#[test]
fn a_reader_of_standard_output_may_leave() {
    promise(
        "a broken standard output",
        1,
        |broken| matches!(broken, Broken::Died(_)),
        |program| {
            let (_directory, path, mut pipe) = named_pipe(OFlags::NONBLOCK);
            let (mut server, address) = redirected(program, &format!(">{path}"), &[]);
            let (mut line, ready) = (String::new(), format!("listening on {address}\n"));
            eventually("the ready line", || {
                let _ = pipe.read_to_string(&mut line); // what is there so far
                line == ready
            });
            drop(pipe);
            echo(&mut reach(&mut server, address)?, 10_000)?;
            stop_unread(server).map(drop)
        },
    );
}

#[test]
fn a_reader_of_the_log_may_leave() {
    let (_directory, path, pipe) = named_pipe(OFlags::empty());
    let redirection = format!("2>{path}");
    let (mut server, address) = redirected(Program::Lastecho, &redirection, &["-vv"]);
    let mut client = reach(&mut server, address).unwrap();
    drop(pipe);
    assert_echoes(&mut client, 100_000);
    assert_eq!(stop_unread(server).unwrap().count("bytes_out"), 100_000);
}

#[test]
fn a_reader_of_standard_output_may_fall_asleep() {
    promise(
        "a stalled standard output",
        1,
        |broken| matches!(broken, Broken::TooLong(_)),
        |program| {
            let server = Server::start(program, &[]);
            stall_stdout(&server);
            echo(&mut server.connect(), 10_000)?;
            let ended = stop_unread(server)?;
            println!("{program:?}: ended after {:?}", ended.took);
            Ok(())
        },
    );
}

#[test]
fn a_reader_of_the_log_may_fall_asleep() {
    let (_directory, path, pipe) = named_pipe(OFlags::empty());
    let redirection = format!("2>{path}");
    let (mut server, address) = redirected(Program::Lastecho, &redirection, &["-vv"]);
    let mut client = reach(&mut server, address).unwrap();
    assert_echoes(&mut client, 4 << 20); // a dump of some 20 MiB, unread
    server.signal(Signal::USR1);
    assert_echoes(&mut reach(&mut server, address).unwrap(), 10_000);
    let ended = stop_unread(server).unwrap();
    println!("with a stalled log it ended after {:?}", ended.took);
    assert_eq!(ended.count("bytes_lost"), 0, "{ended:?}");
    drop(pipe);
}

#[test]
fn both_readers_may_fall_asleep() {
    let (_directory, path, pipe) = named_pipe(OFlags::empty());
    let redirection = format!(">{path} 2>&1");
    let (mut server, address) = redirected(Program::Lastecho, &redirection, &["-vv"]);
    assert_echoes(&mut reach(&mut server, address).unwrap(), 4 << 20);
    assert_echoes(&mut reach(&mut server, address).unwrap(), 10_000);
    let ended = stop_unread(server).unwrap();
    println!("with both stalled it ended after {:?}", ended.took);
    drop(pipe);
}

/// What was dropped is counted, and the count is told as soon as it can be.
#[test]
fn a_reader_of_the_log_who_wakes_up_is_told_what_was_missed() {
    const READ: usize = 1024;
    const BYTES: usize = 4 << 20;
    let (_directory, path, pipe) = named_pipe(OFlags::empty());
    let options = ["-vv", "--buffer", &READ.to_string()];
    let (mut server, address) = redirected(Program::Lastecho, &format!("2>{path}"), &options);
    let mut client = reach(&mut server, address).unwrap();
    assert_echoes(&mut client, BYTES); // a dump of some 20 MiB
    let reader = thread::spawn(move || {
        let (mut seen, mut dropped) = (0, 0);
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            seen += bytes_of_dump(&line);
            dropped += count_of_dropped(&line);
            // Each entry was one read, at most; each read was seen or counted.
            if seen + dropped * READ >= BYTES {
                break;
            }
        }
        (seen, dropped)
    });
    eventually("every read was seen or counted", || reader.is_finished());
    let (seen, dropped) = reader.join().unwrap();
    println!("of {BYTES} bytes {seen} were seen; {dropped} entries were dropped");
    assert!(dropped > 0);
    assert_echoes(&mut reach(&mut server, address).unwrap(), 1000);
}

/// `connection 1: 1024 bytes`
fn bytes_of_dump(line: &str) -> usize {
    let size = line
        .strip_suffix(" bytes")
        .and_then(|l| l.rsplit_once(": "));
    size.map_or(0, |(_, size)| size.parse().unwrap_or(0))
}

/// `(dropped while nobody read: 7)`
fn count_of_dropped(line: &str) -> usize {
    let count = line.strip_prefix("(dropped while nobody read: ");
    let count = count.and_then(|count| count.strip_suffix(')'));
    count.map_or(0, |count| count.parse().unwrap())
}
