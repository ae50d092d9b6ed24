//! Redis fails, is slow, is not there yet.

use crate::account::{Account, NONE, ask};
use crate::harness::Program;
use crate::programs::{Kept, Which, command_at, launch, promise, run_dry, start, stop};
use crate::servers::{Redis, eventually, memory};
use crate::start::rules;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

/// Ends Redis, orderly or not, and starts it again a little later.
pub(crate) fn restart(redis: &mut Redis, seed: u64) {
    redis.end(if seed.is_multiple_of(2) {
        Signal::TERM
    } else {
        Signal::KILL
    });
    thread::sleep(Duration::from_millis(200));
    redis.start_again();
}

/// 1200 messages, and Redis is away twice meanwhile.
fn restart_twice(which: Which, number: u64) -> Kept {
    let mut account = Account::new();
    account.produce("restart", 1200);
    let mut program = start(which, &account, &["--work", "20ms"]);
    for part in [0, 1] {
        let most = 1000 - 400 * part - 50 * number;
        eventually("messages were taken, or the program ended", || {
            account.waiting() <= most || !program.is_running()
        });
        restart(&mut account.redis, part);
    }
    eventually("the list is empty, or the program", || {
        account.is_dry() || !program.is_running()
    });
    let ended = if program.is_running() {
        stop(program)
    } else {
        program.wait()
    };
    account.places().all_moved(&account, &NONE)?;
    assert_eq!(
        (ended.code, ended.told("clean")),
        (Some(0), "true"),
        "{ended:?}"
    );
    Ok(format!("{:?}", ended.stdout.last()))
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_redis_that_is_restarted_neither_ends_the_workers_nor_loses_a_message() {
    promise(2, &[Which::Buffered], restart_twice);
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn the_policy_stop_stops_at_an_error_and_loses_nothing() {
    let mut account = Account::new();
    account.produce("policy", 2000);
    let hook = account.path("hook");
    let touch = format!("touch {hook}");
    let options = [
        "--on-redis-error",
        "stop",
        "--work",
        "50ms",
        "--lease",
        "4s",
    ];
    let bounds = ["--drain-timeout", "2s", "--before-exit", &touch];
    let program = start(Which::Ours, &account, &[&options[..], &bounds].concat());
    account.await_waiting(1900);
    account.redis.end(Signal::TERM);
    let ended = program.wait(); // by itself
    assert_eq!(
        (ended.code, ended.told("clean")),
        (Some(3), "false"),
        "{ended:?}"
    );
    assert!(std::fs::exists(hook).unwrap(), "no hook: {ended:?}");
    account.redis.start_again();
    let in_hand = account.places().in_hand;
    // Not the same number: Redis did what it could not answer any more.
    assert!((1..=32).contains(&ended.count("in_hand")), "{ended:?}");
    run_dry(Which::Ours, &account, &[]);
    let twice = account.places().all_moved(&account, &in_hand).unwrap();
    println!(
        "policy stop: {} in hand, {twice} written twice",
        in_hand.len()
    );
}

/// Starts with a Redis that is not there, or not answering.
fn wait_for_redis(redis: &Redis, database: &str) -> Program {
    let program = launch(Which::Ours, redis, database, &[]);
    program.await_log("trying again", 1);
    program
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_start_waits_for_redis_and_a_signal_ends_the_wait() {
    let (mut redis, dir) = (Redis::down(), memory());
    let database = dir.path().join("messages.sqlite");
    let database = database.to_str().unwrap();
    let ended = stop(wait_for_redis(&redis, database));
    assert_eq!(
        (ended.code, ended.count("moved")),
        (Some(0), 0),
        "{ended:?}"
    );

    // It accepts and never answers.
    let silent = TcpListener::bind(("127.0.0.1", redis.port)).unwrap();
    let program = wait_for_redis(&redis, database);
    drop(silent);
    redis.start_again();
    program.await_line("moving");
    assert_eq!(stop(program).code, Some(0));
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_command_that_is_forbidden_for_a_while_loses_no_message() {
    let mut account = Account::new();
    let mut admin = account.redis.connect();
    let mut allow = |rules: &[&str]| {
        ask::<()>(&mut admin, &[&["ACL", "SETUSER", "mover"], rules].concat());
    };
    let all = rules("");
    allow(&all);
    let url = format!("redis://mover:secret@127.0.0.1:{}", account.redis.port);
    let options = ["--panic-on", "poison", "--workers", "4", "--attempts", "2"];
    let options = [&options[..], &["--lease", "1s"]].concat();
    let program = Program::start(command_at(Which::Ours, &url, &account.database, &options));
    program.await_line("moving");
    let commands = all.iter().filter_map(|word| word.strip_prefix('+'));
    for (number, command) in commands.enumerate() {
        allow(&[&format!("-{command}")]);
        account.produce(&format!("good{number}"), 20);
        account.produce(&format!("poison{number}"), 2);
        thread::sleep(Duration::from_millis(200));
        allow(&[&format!("+{command}")]);
    }
    account.await_dry();
    let ended = stop(program);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("can't run this command") || ended.stderr.contains("NOPERM"));
    let places = account.places();
    places.none_lost(&account).unwrap();
    let dead: BTreeSet<_> = places.dead.iter().collect();
    assert_eq!(
        (places.rows.len(), dead.len()),
        (16 * 20, 16 * 2),
        "{ended:?}"
    );
}

/// Stops a program, and lets it go on once it stands still.
fn interrupt(program: &mut Program) {
    program.signal(Signal::STOP);
    let status = format!("/proc/{}/status", program.id());
    eventually("it stands still", || {
        assert!(program.is_running(), "{}", program.stderr());
        let status = std::fs::read_to_string(&status).unwrap();
        status.contains("State:\tT")
    });
    program.signal(Signal::CONT);
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_moment_without_the_processor_is_no_error_of_redis() {
    let mut account = Account::new();
    let options = ["--on-redis-error", "stop"];
    // It asks its first question, and has no answer yet.
    account.redis.signal(Signal::STOP);
    let mut program = launch(Which::Ours, &account.redis, &account.database, &options);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(20));
        interrupt(&mut program);
    }
    account.redis.signal(Signal::CONT);
    program.await_line("moving");
    // Its workers wait for messages, and get some.
    for round in 0..20 {
        account.produce(&format!("round{round}"), 50);
        interrupt(&mut program);
    }
    account.await_dry();
    let ended = stop(program);
    assert_eq!(
        (ended.code, ended.told("clean")),
        (Some(0), "true"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("nterrupted"), "{ended:?}");
    account.places().all_moved(&account, &NONE).unwrap();
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn what_was_put_back_is_what_redis_put_back() {
    let account = Account::new();
    account.redis_command::<u64>(&["LPUSH", "messages", "malformed"]);
    let program = start(Which::Ours, &account, &["--work", "3s"]);
    eventually("it is in hand", || !account.places().in_hand.is_empty());
    // As a restart of a Redis that keeps nothing.
    account.redis_command::<()>(&["FLUSHALL"]);
    program.await_log("malformed", 1);
    let ended = stop(program);
    let counts = ["failed", "put_back", "dead", "not_ours"];
    assert_eq!(
        counts.map(|key| ended.count(key)),
        [1, 0, 0, 1],
        "{ended:?}"
    );
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_worker_that_may_not_put_back_takes_no_more() {
    let mut account = Account::new();
    let mut admin = account.redis.connect();
    let mut allow = |rules: &[&str]| {
        ask::<()>(&mut admin, &[&["ACL", "SETUSER", "mover"], rules].concat());
    };
    allow(&rules(""));
    let url = format!("redis://mover:secret@127.0.0.1:{}", account.redis.port);
    let options = ["--workers", "2"];
    let program = Program::start(command_at(Which::Ours, &url, &account.database, &options));
    program.await_line("moving");
    allow(&["-lmove"]);
    account.produce("kept", 100);
    eventually("it was refused again and again", || {
        let told: String = account.redis_command(&["INFO", "errorstats"]);
        let count = told.split("errorstat_NOPERM:count=").nth(1);
        let count = count.and_then(|count| count.lines().next()?.parse().ok());
        count.unwrap_or(0) >= 10
    });
    let in_hand = account.places().in_hand;
    assert!(in_hand.len() <= 2, "{in_hand:?}");
    allow(&["+lmove"]);
    account.await_dry();
    assert_eq!(stop(program).code, Some(0));
    account.places().all_moved(&account, &NONE).unwrap();
}
