//! Thousands of connections at once, and one after the other.

use crate::crowd::Crowd;
use crate::gauge::{Gauge, Spent, kib, mib};
use crate::harness::{Broken, Kept, Program, Server, connect};
use crate::{alone, is_long, told};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// Resident memory that an idle connection may cost, twice what was measured.
const IDLE_COST: u64 = 32 * 1024;
/// Processor time that one wake-up may cost, five times what was measured.
const WAKEUP_COST: f64 = 50e-6;
/// Resident memory that thousands of connections may leave behind.
const LEFT_BEHIND: u64 = 2 << 20;

/// Connections held at once.
fn held() -> usize {
    if is_long() { 9000 } else { 2000 }
}

/// What a crowd costs while it says nothing, and while each says a word a second.
struct Costs {
    memory: u64,
    idle: Spent,
    echoing: Spent,
    /// From the signal to the end of the process.
    stop: Duration,
}

/// A word a second from each, for so many seconds.
fn echo_every_second(crowd: &mut Crowd, seconds: u32) -> Kept {
    for round in 0..seconds {
        let since = Instant::now();
        crowd.speak(round)?;
        crowd.listen(round)?;
        thread::sleep(Duration::from_secs(1).saturating_sub(since.elapsed()));
    }
    Ok(())
}

/// Holds a crowd, then stops the server with a word of each in flight.
fn hold(poll: &str, size: usize) -> Result<Costs, Broken> {
    let seconds = if is_long() { 10 } else { 2 };
    let mut server = Server::start(
        Program::Lastecho,
        &["--poll", poll, "--drain-timeout", "60s"],
    );
    let gauge = Gauge::of(&server);
    let before = gauge.memory();
    let mut crowd = Crowd::connect(&server, size);
    crowd.speak(u32::MAX)?;
    crowd.listen(u32::MAX)?;
    let memory = (gauge.memory() - before) / size as u64;
    let (idle, ()) = gauge.spent(|| thread::sleep(Duration::from_secs(seconds.into())));
    let (echoing, kept) = gauge.spent(|| echo_every_second(&mut crowd, seconds));
    kept?;
    crowd.speak(0)?;
    server.signal(Signal::TERM);
    crowd.listen_to_the_end(0)?;
    let ended = server.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    for (key, count) in [("accepted", size), ("drained", size), ("bytes_lost", 0)] {
        assert_eq!(ended.count(key), count as u64, "{key} in {ended:?}");
    }
    let stop = ended.took;
    Ok(Costs {
        memory,
        idle,
        echoing,
        stop,
    })
}

/// The crowd's costs are within their bounds; as a row for the table.
fn thousands_at_once(poll: &str, interval: Duration) {
    let _machine = alone();
    let size = held();
    let costs = hold(poll, size).unwrap_or_else(|broken| panic!("{broken}"));
    let Costs {
        memory,
        idle,
        echoing,
        stop,
    } = &costs;
    let measured = format!(
        "{} of memory each; idle: {:.0} wake-ups a second and {:.1} % of a core; echoing: \
         {:.1} % of a core; all stopped in {stop:.1?}",
        kib(*memory),
        idle.wakeups_per_second,
        idle.cores * 100.0,
        echoing.cores * 100.0,
    );
    told(
        &format!(
            "{size} connections at once, idle and each echoing once a second, `--poll {poll}`"
        ),
        "no failure, no reset, every echo, and few costs",
        &measured,
    );
    assert!(*memory < IDLE_COST, "{measured}");
    let wakeups = size as f64 / interval.as_secs_f64();
    assert!(
        idle.wakeups_per_second < 1.5 * wakeups + 100.0,
        "{measured}"
    );
    assert!(idle.cores < wakeups * WAKEUP_COST, "{measured}");
}

#[test]
fn thousands_at_once_polling_every_second() {
    thousands_at_once("1s", Duration::from_secs(1));
}

#[test]
fn thousands_at_once_polling_ten_times_a_second() {
    thousands_at_once("100ms", Duration::from_millis(100));
}

/// How a crowd's end is seen to fail: the server is killed, not asked.
#[test]
fn a_crowd_whose_server_is_killed_sees_it() {
    let _machine = alone();
    let mut server = Server::start(Program::Lastecho, &["--delay", "60s"]);
    let mut crowd = Crowd::connect(&server, 20);
    crowd.speak(0).unwrap();
    server.signal(Signal::KILL);
    let broken = crowd.listen_to_the_end(0).unwrap_err();
    println!("control: {broken}");
}

/// One connection after the other, on several addresses so that the ports of
/// the past do not run short; every `keep`th is kept open. How much memory was
/// left behind by all but the first tenth, and how long they took.
fn in_a_row(count: usize, keep: Option<usize>) -> (u64, Duration) {
    let addresses: Vec<_> = (1..=8).map(|host| format!("127.0.0.{host}:0")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let server = Server::listening_on(Program::Lastecho, &addresses, &[]);
    let gauge = Gauge::of(&server);
    let (mut before, mut kept, since) = (0, Vec::new(), Instant::now());
    for number in 0..count {
        if number == count / 10 {
            before = gauge.memory();
        }
        let mut client = connect(server.addresses[number % addresses.len()]).unwrap();
        let (word, mut echo) = ((number as u64).to_le_bytes(), [0; 8]);
        client.write_all(&word).unwrap();
        client.read_exact(&mut echo).unwrap();
        assert_eq!(echo, word);
        if keep.is_some_and(|keep| number % keep == 0) {
            kept.push(client);
        }
    }
    let (grown, took) = (gauge.memory().saturating_sub(before), since.elapsed());
    drop(kept);
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    for (key, count) in [("accepted", count), ("bytes_out", 8 * count), ("reset", 0)] {
        assert_eq!(ended.count(key), count as u64, "{key} in {ended:?}");
    }
    (grown, took)
}

#[test]
fn connections_one_after_the_other_leave_no_memory_behind() {
    let _machine = alone();
    let count = if is_long() { 200_000 } else { 20_000 };
    let (grown, took) = in_a_row(count, None);
    let measured = format!("{} more at the end, {took:.1?}", kib(grown));
    assert!(grown < LEFT_BEHIND, "{measured}");
    let (leaked, _) = in_a_row(1000, Some(2));
    let control = format!("where 450 are kept open: {} more", mib(leaked));
    assert!(leaked > LEFT_BEHIND, "the measure sees nothing: {control}");
    told(
        &format!("{count} connections one after the other"),
        "resident memory is flat, none fails",
        &format!("{measured}; {control}"),
    );
}
