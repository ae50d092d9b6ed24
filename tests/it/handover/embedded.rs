//! Programs of one's own that hand over: this one, which starts itself again.

use crate::harness::{WATCHDOG, connect, eventually, read_to_end};
use crate::library::serve_until;
use lastecho::handover::{self, Inherited};
use lastecho::{Connection, Server, Stop};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::SIGUSR1;
use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What a successor is to do; this process is none where it is missing.
const ROLE: &str = "LASTECHO_TEST_ROLE";

/// Starts this program again, for one test.
fn successor(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--include-ignored"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Serves, but not for ever: the test may have failed.
fn succeed(server: Server, inherited: Inherited, handler: fn(&mut Connection) -> io::Result<()>) {
    let stop = Stop::new();
    let ours = stop.clone();
    thread::spawn(move || {
        thread::sleep(WATCHDOG);
        ours.set();
    });
    server.take_over(inherited).run(&stop, handler).unwrap();
}

/// Says which process it is, for each byte.
fn say_who(conn: &mut Connection) -> io::Result<()> {
    while conn.receive(&mut [0])? > 0 {
        conn.write_all(&std::process::id().to_ne_bytes())?;
    }
    Ok(())
}

fn ask_who(client: &mut (impl Read + Write)) -> u32 {
    client.write_all(b"?").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    u32::from_ne_bytes(answer)
}

fn two_servers(role: &str) {
    let mut words = role.split(' ');
    let mut next = || words.next().unwrap();
    let (how, mark) = (next(), next());
    let mut addresses = [next(), next()].map(|address| address.parse::<SocketAddr>().unwrap());
    addresses.reverse();
    let mut inherited = handover::inherited().unwrap();
    let [second, first] = addresses.map(|address| inherited.bind(address).unwrap());
    thread::spawn(|| second.run(&Stop::new(), say_who));
    thread::sleep(Duration::from_millis(200)); // it would accept by now
    fs::write(mark, "").unwrap();
    if how == "late" {
        thread::sleep(WATCHDOG);
    }
    succeed(first, inherited, say_who);
}

/// One of them takes over; the other has no client before that either, and
/// none is lost where the handover fails.
#[test]
fn two_servers_of_a_successor_wait_for_one_predecessor() {
    if let Ok(role) = env::var(ROLE) {
        return two_servers(&role);
    }
    let test = "handover::embedded::two_servers_of_a_successor_wait_for_one_predecessor";
    let local = || Server::bind("127.0.0.1:0").unwrap();
    let both = local().and(local());
    let (stop, handover) = (Stop::new(), both.handover().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let us = std::process::id();
    serve_until(&stop, both, say_who, |running| {
        let addresses = running.live.addresses();
        let spawn = |how: &str, mark: &Path, timeout| {
            let [one, two] = [addresses[0], addresses[1]];
            let role = format!("{how} {} {one} {two}", mark.display());
            handover.spawn(successor(test, &role), timeout, &stop)
        };
        // Once somebody was served, it serves.
        assert_eq!(ask_who(&mut running.connect()), us);
        let mark = directory.path().join("late");
        let mut clients = thread::scope(|scope| {
            let handing = scope.spawn(|| spawn("late", &mark, Duration::from_secs(5)).err());
            eventually("its second server runs", || mark.exists());
            let mut clients: Vec<_> = (0..20).map(|_| connect(addresses[1]).unwrap()).collect();
            assert!(clients.iter_mut().all(|client| ask_who(client) == us));
            let error = handing.join().unwrap().expect("it was late");
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            clients
        });
        assert!(clients.iter_mut().all(|client| ask_who(client) == us));
        drop(clients);
        let mark = directory.path().join("ready");
        let successor = spawn("ready", &mark, WATCHDOG).unwrap().id();
        for &address in addresses {
            assert_eq!(ask_who(&mut connect(address).unwrap()), successor);
        }
        let pid = Pid::from_raw(successor.cast_signed()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    });
}

/// The signals that the calling thread holds off.
fn held_off() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
}

/// What was held off for a successor's beginnings does not stay so for its
/// handlers, and what they start.
#[test]
fn a_successor_without_handlers_for_signals_holds_none_off() {
    const USR1: u64 = 1 << (SIGUSR1 - 1);
    if let Ok(address) = env::var(ROLE) {
        assert_eq!(held_off() & USR1, USR1, "so this shows nothing");
        let mut inherited = handover::inherited().unwrap();
        let server = inherited.bind(address).unwrap();
        return succeed(server, inherited, |conn| {
            conn.write_all(&held_off().to_ne_bytes())
        });
    }
    let test = "handover::embedded::a_successor_without_handlers_for_signals_holds_none_off";
    let flag = Arc::default();
    signal_hook::flag::register(SIGUSR1, flag).unwrap();
    let server = Server::bind("127.0.0.1:0").unwrap();
    let (stop, handover) = (Stop::new(), server.handover().unwrap());
    serve_until(
        &stop,
        server,
        |_| Ok(()),
        |running| {
            let address = running.address();
            // Once somebody was served, it serves.
            assert_eq!(read_to_end(&mut running.connect()).unwrap(), b"");
            let command = successor(test, &address.to_string());
            let successor = handover.spawn(command, WATCHDOG, &stop).unwrap().id();
            let mask = read_to_end(&mut connect(address).unwrap()).unwrap();
            let pid = Pid::from_raw(successor.cast_signed()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            let mask = u64::from_ne_bytes(mask.try_into().unwrap());
            assert_eq!(mask & USR1, 0);
        },
    );
}
