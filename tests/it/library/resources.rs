//! Threads that cannot be had, and what waiting costs.

use super::{Watchdog, alone, ask, echo_lines, local, read_line, serve};
use crate::harness::{WATCHDOG, connect};
use lastecho::{Connection, Deadline, Event, Shutdown, Stop};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{BufRead, ErrorKind, Write};
use std::time::{Duration, Instant};

/// More than any address space holds.
const NO_SUCH_STACK: usize = 1 << 50;
/// So large that the limit set here allows for one, and little else matters.
const STACK: usize = 1 << 30;

#[test]
fn run_fails_where_not_even_one_thread_can_be_had() {
    let server = local().and(local()).stack_size(NO_SUCH_STACK);
    let addresses = server.live().addresses().to_vec();
    let _watchdog = Watchdog::new();
    let error = server.run(&Stop::new(), echo_lines).unwrap_err();
    println!("{error}");
    for address in addresses {
        let refused = connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

/// Limits this process's address space to what it has and so much more.
pub(crate) fn allow_more(bytes: u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kilobytes = size.unwrap().trim().trim_end_matches(" kB");
    let current = Some(kilobytes.parse::<u64>().unwrap() * 1024 + bytes);
    let maximum = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current, maximum }).unwrap();
}

/// Echoes lines; `more` gives the process all the memory it may have.
fn echo_or_allow(conn: &mut Connection) -> std::io::Result<()> {
    let mut line = String::new();
    while conn.next()? {
        line.clear();
        conn.read_line(&mut line)?;
        if line == "more\n" {
            allow_more(64 * STACK as u64);
        }
        conn.write_all(line.as_bytes())?;
    }
    Ok(())
}

#[test]
fn a_server_that_cannot_start_threads_serves_with_what_it_has_and_comes_back() {
    if !alone(
        "library::resources::a_server_that_cannot_start_threads_serves_with_what_it_has_and_comes_back",
    ) {
        return;
    }
    let ready = Stop::new();
    let told = ready.clone();
    let server = local().stack_size(STACK).poll(Duration::from_millis(20));
    let server = server.observe(move |event| {
        if let Event::Ready { .. } = event {
            told.set();
        }
    });
    let (report, ()) = serve(server, echo_or_allow, |running| {
        assert!(ready.wait(Deadline::after(WATCHDOG)));
        allow_more(STACK as u64 / 2);
        let mut first = running.connect();
        assert_eq!(ask(&mut first, "first\n"), "first\n");
        // Nobody can follow: the next one waits, and is not lost.
        let mut second = running.connect();
        second.write_all(b"second\n").unwrap();
        second
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let waits = second.peek(&mut [0]).unwrap_err();
        assert_eq!(waits.kind(), ErrorKind::WouldBlock, "a thread was had");
        second.set_read_timeout(Some(WATCHDOG)).unwrap();
        assert_eq!(ask(&mut first, "still here\n"), "still here\n");
        drop(first);
        assert_eq!(read_line(&mut second), "second\n");
        // With memory again, many are served at once.
        assert_eq!(ask(&mut second, "more\n"), "more\n");
        let mut many: Vec<_> = (0..5).map(|_| running.connect()).collect();
        for client in &mut many {
            assert_eq!(ask(client, "many\n"), "many\n");
        }
    });
    assert_eq!((report.accepted, report.refused), (7, 0), "{report}");
    assert!(report.is_clean(), "{report}");
}

/// A journal that is not written because of a lack of threads is lost.
#[test]
fn phases_run_where_no_thread_can_be_started_and_their_panics_too() {
    if !alone("library::resources::phases_run_where_no_thread_can_be_started_and_their_panics_too")
    {
        return;
    }
    let _watchdog = Watchdog::new();
    let shutdown = Shutdown::new();
    let inner = shutdown.clone();
    shutdown.phase("panics", |_| panic!("on purpose"));
    shutdown.phase("journal", move |deadline| {
        assert!(!deadline.has_passed());
        assert_eq!(inner.run(None).phases.len(), 1);
        Ok(())
    });
    shutdown.fire();
    allow_more(64 * 1024);
    let outcome = shutdown.run(Duration::from_secs(8));
    allow_more(1 << 30);
    assert_eq!(outcome.to_string(), "panics: panicked, journal: done");
}

/// The processor time of this process so far: user's and system's, in ticks
/// of 10 ms (proc(5), /proc/self/stat).
pub(crate) fn burnt() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let ticks = after_name.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn waiting_costs_little_whatever_the_intervals() {
    if !alone("library::resources::waiting_costs_little_whatever_the_intervals") {
        return;
    }
    for (poll, drain) in [
        (Duration::ZERO, Duration::from_secs(8)),
        (Duration::from_secs(1), Duration::ZERO),
    ] {
        let server = local().poll(poll).drain_timeout(drain).max_connections(1);
        serve(server, echo_lines, |running| {
            let mut client = running.connect();
            assert_eq!(ask(&mut client, "hello\n"), "hello\n");
            let (before, begun) = (burnt(), Instant::now());
            std::thread::sleep(Duration::from_millis(500));
            let (burnt, all) = (burnt() - before, begun.elapsed());
            println!("poll {poll:?}, drain timeout {drain:?}: {burnt:?} of {all:?}");
            assert!(burnt < all / 2, "{burnt:?} of {all:?}");
        });
    }
}

#[test]
fn a_run_that_fails_half_way_does_not_wait_for_its_clients() {
    if !alone("library::resources::a_run_that_fails_half_way_does_not_wait_for_its_clients") {
        return;
    }
    // The second listener's thread cannot be had; the first's may have been
    // quick enough to serve a client, who will say nothing and stay.
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        allow_more(STACK as u64 * 3 / 2);
        for _ in 0..200 {
            let server = local().and(local()).stack_size(STACK);
            let _client = connect(server.live().addresses()[0]).unwrap();
            let failed = server.run(&Stop::new(), echo_lines).is_err();
            done.send(failed).unwrap();
        }
    });
    for turn in 0..200 {
        let failed = ended.recv_timeout(WATCHDOG / 4);
        assert_eq!(failed, Ok(true), "run {turn} of 200");
    }
}

/// The policy of the thread that asks (proc_pid_stat(5), field 41).
fn policy() -> String {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(38).unwrap().to_owned()
}

#[test]
fn a_servers_threads_take_turns() {
    let handler = |conn: &mut Connection| writeln!(conn, "{}", policy());
    let (_, theirs) = serve(local(), handler, |running| {
        read_line(&mut running.connect())
    });
    // SCHED_BATCH instead of SCHED_OTHER; another one stays.
    let expected = policy().replace('0', "3");
    assert_eq!(theirs, expected + "\n");
}
