//! A stop finishes what each worker holds, and leaves the rest in Redis.

use crate::account::{Account, NONE};
use crate::harness::{Ended, Program};
use crate::programs::{Kept, Which, promise, run_dry, start, stop};
use crate::servers::eventually;
use crate::unread::stop_unread;
use rustix::process::Signal;
use std::fs;
use std::process::Command;

const SIGNALS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::QUIT, Signal::HUP];

/// 600 messages; three stops, each by another signal after some more of them
/// were taken.
fn stop_three_times(which: Which, number: u64) -> Kept {
    let mut account = Account::new();
    account.produce("stop", 600);
    let (mut moved, mut told) = (0, String::new());
    for part in 0..3 {
        let program = start(which, &account, &["--work", "10ms"]);
        account.await_waiting(560 - 150 * part - 29 * number);
        program.signal(SIGNALS[usize::try_from(part + number).unwrap() % 4]);
        let ended = program.wait();
        let places = account.places();
        places.each_in_one_place(&account)?;
        moved += ended.count("moved");
        assert_eq!(moved, places.rows.len(), "{ended:?}");
        assert_clean(&ended);
        told += &format!("{moved} moved, {} wait; ", places.waiting.len());
    }
    run_dry(which, &account, &[]);
    assert_eq!(account.places().all_moved(&account, &NONE), Ok(0));
    Ok(told)
}

fn assert_clean(ended: &Ended) {
    assert_eq!(
        (ended.code, ended.told("clean")),
        (Some(0), "true"),
        "{ended:?}"
    );
    assert_eq!(ended.count("in_hand"), 0, "{ended:?}");
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_stop_finishes_what_each_worker_holds_and_no_more() {
    promise(3, &[Which::Abandon, Which::Buffered], stop_three_times);
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_command_runs_when_the_workers_have_ended() {
    let mut account = Account::new();
    account.produce("hook", 300);
    let copy = account.path("copy.sqlite");
    // What the command sees is the end: it copies the database.
    let command = format!("cp {} {copy}; echo hook >&1", account.database);
    let options = ["--work", "5ms", "--before-exit", &command];
    let program = start(Which::Ours, &account, &options);
    account.await_waiting(200);
    let ended = stop(program);
    assert_clean(&ended);
    assert!(ended.stderr.contains("hook\n"), "{ended:?}");
    assert!(!ended.stdout.contains(&"hook".to_owned()), "{ended:?}");
    assert!(fs::metadata(&copy).unwrap().len() > 0);

    // What it has started is killed with it.
    let pids = account.path("pids");
    let hangs = format!("sleep 600 & echo $$ $! > {pids}; wait");
    for (command, time, why) in [
        ("exit 7", "20s", "exit status: 7"),
        (&hangs, "1s", "killed"),
    ] {
        let options = ["--before-exit", command, "--drain-timeout", time];
        let ended = stop(start(Which::Ours, &account, &options));
        assert_eq!(
            (ended.code, ended.told("clean")),
            (Some(3), "false"),
            "{ended:?}"
        );
        let told = format!("before-exit: failed: {command}: {why}");
        assert!(ended.stderr.contains(&told), "{ended:?}");
    }
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        // Until it is waited for by whatever inherits it, it is a zombie.
        let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        eventually("it is gone", || {
            let status = status();
            status.is_empty() || status.contains("State:\tZ")
        });
    }
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_second_signal_leaves_what_is_in_hand_to_the_next_process() {
    let mut account = Account::new();
    account.produce("cut", 100);
    let options = ["--work", "10m", "--drain-timeout", "10m", "--lease", "2s"];
    let options = [&options[..], &["--progress", "50ms"]].concat();
    let program = start(Which::Ours, &account, &options);
    eventually("all have one in hand", || {
        program.await_line("progress ").ends_with("in_hand=32")
    });
    program.term();
    program.await_log("stopping: 32 messages in hand", 1);
    // Signals in quick succession are one request.
    std::thread::sleep(std::time::Duration::from_millis(300));
    program.term();
    let ended = program.wait();
    assert_eq!(
        (ended.code, ended.count("in_hand")),
        (Some(3), 32),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("workers: stuck"), "{ended:?}");
    account.places().none_lost(&account).unwrap();
    run_dry(Which::Ours, &account, &[]);
    assert_eq!(account.places().all_moved(&account, &NONE), Ok(0));
}

/// Redis answers a demand that nothing comes for only at its end, and a worker
/// that waits for it ends no sooner.
#[test]
#[ignore = "needs redis-server: make deps"]
fn idle_workers_end_in_time_however_long_the_poll_interval() {
    let account = Account::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-to-db"));
    command.args(["--redis", &account.redis.url()]);
    command.args(["--database", &account.database]);
    command.args(["--poll", "1h", "--lease", "10m"]);
    let program = Program::start(command);
    program.await_line("moving");
    program.await_line("progress");
    let ended = stop(program);
    assert_eq!(
        (ended.code, ended.count("in_hand")),
        (Some(0), 0),
        "{ended:?}"
    );
}

/// Standard error is full from the start, standard output from the first line on.
#[test]
#[ignore = "needs redis-server: make deps"]
fn outputs_that_nothing_reads_hold_up_no_stop() {
    let account = Account::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-to-db"));
    command.args([
        "--redis",
        &account.redis.url(),
        "--database",
        &account.database,
    ]);
    command.args(["--poll", "100ms", "--drain-timeout", "2s"]);
    assert_eq!(stop_unread(command, "moving "), Some(0));
}
