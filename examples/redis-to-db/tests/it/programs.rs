//! Our programs and their controls, as processes.

use crate::account::Account;
use crate::harness::{Ended, Program};
use crate::servers::{Redis, eventually};
use std::path::PathBuf;
use std::process::Command;

/// Which program a test of a promise runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Ours,
    /// Without the library's stop.
    Abandon,
    /// With a buffer, as it is often written.
    Buffered,
    /// Takes the row that a write returns for its commit.
    Hasty,
}

impl Which {
    pub(crate) fn path(self) -> PathBuf {
        let name = match self {
            Self::Ours => return env!("CARGO_BIN_EXE_redis-to-db").into(),
            Self::Abandon => "redis-to-db-abandon",
            Self::Buffered => "redis-to-db-buffered",
            Self::Hasty => "redis-to-db-hasty",
        };
        let tests = std::env::current_exe().unwrap();
        let target = tests.parent().unwrap().parent().unwrap();
        let path = target.join("examples").join(name);
        assert!(
            path.exists(),
            "{name} is missing: run `cargo build --examples`"
        );
        path
    }
}

/// Starts a program that is to move messages; it has the leases by then.
pub(crate) fn start(which: Which, account: &Account, options: &[&str]) -> Program {
    let program = launch(which, &account.redis, &account.database, options);
    program.await_line("moving");
    program
}

/// The same, without waiting.
pub(crate) fn launch(which: Which, redis: &Redis, database: &str, options: &[&str]) -> Program {
    Program::start(command(which, redis, database, options))
}

pub(crate) fn command(which: Which, redis: &Redis, database: &str, options: &[&str]) -> Command {
    command_at(which, &redis.url(), database, options)
}

pub(crate) fn command_at(which: Which, redis: &str, database: &str, options: &[&str]) -> Command {
    let mut command = Command::new(which.path());
    command.args(["--redis", redis, "--database", database]);
    command.args(["--poll", "100ms"]).args(options);
    command
}

/// Runs the producer to its end.
pub(crate) fn produce(redis: &Redis, prefix: &str, count: u64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_produce"));
    command.args(["--redis", &redis.url(), "--prefix", prefix]);
    command.args(["--count", &count.to_string()]);
    let ended = Program::start(command).wait();
    assert_eq!(ended.stdout, [format!("produced {count}")], "{ended:?}");
}

/// Asks for a stop and waits for the end.
pub(crate) fn stop(program: Program) -> Ended {
    program.term();
    program.wait()
}

/// Runs a program until nothing is in the list and in nobody's hand.
pub(crate) fn run_dry(which: Which, account: &Account, options: &[&str]) -> Ended {
    let program = start(which, account, options);
    eventually("the list is empty", || account.is_dry());
    stop(program)
}

/// What a trial measured, or how the promise was broken.
pub(crate) type Kept = Result<String, String>;

/// Our program must keep it in all trials; each control must break it in one.
pub(crate) fn promise(trials: u64, controls: &[Which], trial: impl Fn(Which, u64) -> Kept) {
    for number in 0..trials {
        match trial(Which::Ours, number) {
            Ok(measured) => println!("trial {number}: {measured}"),
            Err(broken) => panic!("broken in trial {number}: {broken}"),
        }
    }
    for control in controls {
        let broken = (0..trials).find_map(|number| trial(*control, number).err());
        match broken {
            Some(broken) => println!("{control:?} breaks it: {broken}"),
            None => panic!("{control:?} kept it {trials} times: this test shows nothing"),
        }
    }
}
