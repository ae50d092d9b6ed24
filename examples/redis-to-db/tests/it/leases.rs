//! A list that a worker may have put something into is looked at until it
//! cannot any more, and no look takes long.

use crate::account::{Account, NONE, ask};
use crate::harness::Program;
use crate::programs::{Kept, Which, command, command_at, start, stop};
use crate::relay::Relay;
use crate::servers::eventually;
use crate::unread::stop_unread_after;
use clap::Parser;
use lastecho::Stop;
use redis::Connection;
use redis_to_db::mover::Mover;
use redis_to_db::options::Options;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

const TEND: &str = include_str!("../../src/tend.lua");
const LOOKS: [&str; 6] = ["--workers", "2", "--lease", "1s", "--progress", "50ms"];

/// Two workers' demands are held back, the program stops by so many signals,
/// and then Redis hears the demands. `forgets`: the leases are gone by then, as
/// if the program had taken them out at its end.
fn strand(signals: usize, forgets: bool) -> Kept {
    let mut account = Account::new();
    let relay = Relay::start(&account.redis);
    let command = command_at(Which::Ours, &relay.url(), &account.database, &LOOKS);
    let program = Program::start(command);
    program.await_line("moving");
    relay.hold(2);
    for _ in 0..signals {
        program.term();
        program.await_log("stopping: ", 1);
        // Signals in quick succession are one request.
        thread::sleep(Duration::from_millis(250));
    }
    let ended = program.wait();
    // Two may be in our hands, and it does not say that none is.
    assert_eq!(
        (ended.code, ended.count("in_hand")),
        (Some(3), 2),
        "{ended:?}"
    );

    account.produce("late", 2);
    relay.let_go();
    eventually("redis heard the demands", || {
        account.places().in_hand.len() == 2
    });
    if forgets {
        account.redis_command::<u64>(&["DEL", "messages:leases"]);
    }
    let program = start(Which::Ours, &account, &LOOKS);
    for _ in 0..30 {
        program.await_line("progress");
        if account.is_dry() {
            break;
        }
    }
    stop(program);
    account.places().all_moved(&account, &NONE)?;
    Ok("both are put back".into())
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_demand_that_redis_hears_after_the_stop_strands_no_message() {
    for signals in [1, 2] {
        println!("{signals} signals: {}", strand(signals, false).unwrap());
    }
    let broken = strand(2, true).expect_err("without leases it is found all the same");
    println!("without leases: {broken}");
}

/// Milliseconds of Redis's clock.
fn now(redis: &mut Connection) -> i64 {
    let (seconds, micros): (i64, i64) = ask(redis, &["TIME"]);
    seconds * 1000 + micros / 1000
}

/// What an hour of restarts leaves behind: so many leases that are over, the
/// last but one with a message in its list.
fn crash_loop(redis: &mut Connection, count: usize, score: i64) {
    let name = |number| format!("messages:processing:host:1:{number:06}:1");
    for first in (0..count).step_by(1000) {
        let mut add = redis::cmd("ZADD");
        add.arg("messages:leases");
        for number in first..first + 1000 {
            add.arg(score).arg(name(number));
        }
        add.exec(redis).unwrap();
    }
    ask::<u64>(redis, &["RPUSH", &name(count - 2), "late-1 body"]);
}

/// How many commands a look runs at most, and how many looks it takes until the
/// message is put back.
fn looks(script: &str, redis: &mut Connection) -> (u64, u64) {
    let (mut at, mut most) = (7, 0);
    for look in 1.. {
        ask::<()>(redis, &["CONFIG", "RESETSTAT"]);
        let words = ["2", "messages:leases", "messages", "1000"];
        let mut eval = redis::cmd("EVAL");
        eval.arg(script).arg(&words).arg(at).arg("ours").arg("1");
        let (found, _, next): (u64, u64, u64) = eval.query(redis).unwrap();
        let told: String = ask(redis, &["INFO", "commandstats"]);
        let calls = told.lines().filter_map(|line| {
            let (calls, _) = line.split_once("calls=")?.1.split_once(',')?;
            calls.parse::<u64>().ok()
        });
        most = calls.sum::<u64>().max(most);
        if found == 1 {
            return (most, look);
        }
        at = next;
    }
    unreachable!()
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_look_at_the_leases_of_a_crash_loop_is_bounded_and_misses_none() {
    let account = Account::new();
    let mut redis = account.redis.connect();
    let young = now(&mut redis) - 5000;
    crash_loop(&mut redis, 30_000, young);
    let (most, count) = looks(TEND, &mut redis);
    println!("{most} commands at most, {count} looks");
    assert!(
        most < 3_000 && count <= 31,
        "{most} commands, {count} looks"
    );
    assert_eq!(
        ask::<u64>(&mut redis, &["ZCARD", "messages:leases"]),
        30_001
    );

    crash_loop(&mut redis, 1000, young);
    let unbounded = TEND.replace("AT_ONCE = 1000", "AT_ONCE = 1000000");
    let (most, _) = looks(&unbounded, &mut redis);
    assert!(most > 30_000, "the bound changes nothing: {most}");
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn leases_that_are_long_over_go_and_their_messages_come_back() {
    let account = Account::new();
    let mut redis = account.redis.connect();
    let now = now(&mut redis);
    crash_loop(&mut redis, 20_000, now - 11 * 60 * 1000);
    // Over, but not for long; and a list that is none.
    let add = |redis: &mut Connection, score: i64, name: &str| {
        ask::<u64>(
            redis,
            &["ZADD", "messages:leases", &score.to_string(), name],
        );
    };
    add(&mut redis, now - 9 * 60 * 1000, "messages:processing:young");
    add(&mut redis, 1, "messages:processing:strange");
    ask::<String>(&mut redis, &["SET", "messages:processing:strange", "1"]);
    let program = start(Which::Ours, &account, &LOOKS);
    eventually("the leases are gone", || {
        ask::<u64>(&mut redis, &["ZCARD", "messages:leases"]) == 4
    });
    let ended = stop(program);
    assert_eq!(
        (ended.count("recovered"), ended.count("moved")),
        (1, 1),
        "{ended:?}"
    );
    let left: Vec<String> = ask(&mut redis, &["ZRANGE", "messages:leases", "0", "1"]);
    assert_eq!(
        left,
        ["messages:processing:strange", "messages:processing:young"]
    );
    ask::<u64>(&mut redis, &["DEL", "messages:processing:strange"]);
}

/// A line of progress comes with each look. A wait of a second for the reader of
/// each would be more than this test's patience.
#[test]
#[ignore = "needs redis-server: make deps"]
fn leases_are_renewed_while_nothing_reads_the_progress() {
    let account = Account::new();
    let options = ["--workers", "1", "--progress", "1ms"];
    let command = command(Which::Ours, &account.redis, &account.database, &options);
    let ended = stop_unread_after(command, "moving ", || {
        account.redis_command::<()>(&["CONFIG", "RESETSTAT"]);
        eventually("200 looks", || {
            let told = account.redis_command::<String>(&["INFO", "commandstats"]);
            let calls = told.split("cmdstat_zcount:calls=").nth(1);
            let calls = calls.and_then(|calls| calls.split(',').next()?.parse().ok());
            calls.unwrap_or(0) >= 200
        });
    });
    assert_eq!(ended, Some(0));
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_lease_that_a_clock_put_far_ahead_ends_within_seconds() {
    let account = Account::new();
    let mut redis = account.redis.connect();
    let ahead = (now(&mut redis) + 24 * 3600 * 1000).to_string();
    ask::<u64>(
        &mut redis,
        &[
            "ZADD",
            "messages:leases",
            &ahead,
            "messages:processing:gone",
        ],
    );
    ask::<u64>(
        &mut redis,
        &["RPUSH", "messages:processing:gone", "late-1 body"],
    );
    let program = start(Which::Ours, &account, &LOOKS);
    eventually("it is moved", || account.is_dry());
    assert_eq!(stop(program).count("recovered"), 1);
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn processes_of_the_same_name_number_and_moment_have_their_own_lists() {
    let account = Account::new();
    let url = account.redis.url();
    let words = ["redis-to-db", "--redis", &url, "--workers", "3"];
    let options = [&words[..], &["--database", &account.database]].concat();
    let options = Options::parse_from(options);
    let stop = Stop::new();
    // As in containers, where all three are the same.
    let movers: Vec<_> = (0..10)
        .map(|_| Mover::new(options.clone(), &stop).unwrap())
        .collect();
    for mover in &movers {
        assert!(mover.begin().unwrap().is_some());
    }
    let lists: BTreeSet<String> = ask(
        &mut account.redis.connect(),
        &["ZRANGE", "messages:leases", "0", "-1"],
    );
    assert_eq!(lists.len(), 30, "{lists:?}");
}
