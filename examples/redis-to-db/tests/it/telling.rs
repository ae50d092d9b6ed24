//! Progress, and bad input.

use crate::account::Account;
use crate::harness::Program;
use crate::programs::{Which, start, stop};
use crate::servers::Postgres;
use std::collections::HashMap;
use std::process::Command;

#[test]
#[ignore = "needs redis-server: make deps"]
fn progress_is_shown_while_it_runs() {
    let mut account = Account::new();
    account.produce("progress", 400);
    let options = ["--work", "20ms", "--workers", "8", "--progress", "50ms"];
    let program = start(Which::Ours, &account, &options);
    let (mut moved, mut most_in_hand, mut busy) = (0, 0, 0);
    while moved < 400 {
        let line = program.await_line("progress ");
        let told: HashMap<_, _> = line
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let number = |key: &str| told[key].trim_end_matches("/s").parse::<u64>().unwrap();
        assert!(number("moved") >= moved, "{line}");
        // Each worker may have a message that is not counted at this moment.
        assert!(
            number("moved") + number("backlog") + number("in_hand") + 8 >= 400,
            "{line}"
        );
        moved = number("moved");
        most_in_hand = number("in_hand").max(most_in_hand);
        busy += u64::from(number("rate") > 0);
    }
    assert!(
        (1..=8).contains(&most_in_hand) && busy > 0,
        "{most_in_hand} {busy}"
    );
    assert_eq!(stop(program).count("moved"), 400);
}

/// `PostgreSQL` quotes the row that it refuses, as it came.
#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn what_a_message_says_forges_no_line_of_the_log() {
    let postgres = Postgres::start();
    let mut client = postgres.try_connect().unwrap();
    let table = "CREATE TABLE messages (key TEXT PRIMARY KEY, body BYTEA NOT NULL,
        written BIGINT NOT NULL, CHECK (key NOT LIKE 'bad%'))";
    client.batch_execute(table).unwrap();
    let account = Account::with(postgres.url());
    // No space: the key ends there.
    let message = "bad\n2026-01-01T00:00:00Z\u{a0}[ERROR]\u{a0}forged\u{1b}[31m\u{202e} x";
    account.redis_command::<i64>(&["LPUSH", "messages", message]);
    let program = start(Which::Ours, &account, &["--attempts", "1"]);
    program.await_log(r"forged\u{1b}[31m\u{202e}", 1);
    let log = stop(program).stderr;
    assert!(!log.contains("\n2026-01-01"), "{log}");
    let hostile = log.chars().find(|&c| c == '\u{1b}' || c == '\u{202e}');
    assert_eq!(hostile, None, "{log}");
}

#[test]
fn bad_input_is_named_in_one_line() {
    let cases: [(&[&str], i32, &str); 14] = [
        (&["--workers", "0"], 2, "--workers"),
        (&["--workers", "many"], 2, "many"),
        (&["--attempts", "0"], 2, "--attempts"),
        (&["--on-redis-error", "panic"], 2, "panic"),
        (&["--lease", "soon"], 2, "soon"),
        (&["--lease", "500us"], 2, "1s or more"),
        (&["--lease", "11m"], 2, "10m or less"),
        (&["--redis-cert", "mine.pem"], 2, "--redis-key"),
        (&["--redis-ca", "/nowhere/ca"], 1, "/nowhere/ca"),
        (&["--redis-ca", "/dev/null"], 1, "rediss://"),
        (&["--redis", "localhost"], 2, "write for example redis://"),
        (&["--database", "postgresql://host:port"], 2, "--database"),
        (&["--nonsense"], 2, "--nonsense"),
        (&["--database", "/nowhere/file"], 1, "/nowhere/file"),
    ];
    for (options, status, word) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redis-to-db"));
        let output = command.args(options).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{options:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{options:?}: {said}");
        assert!(
            said.contains(word) && output.stdout.is_empty(),
            "{options:?}: {said}"
        );
    }
}

/// Runs it with options that are wrong, and returns what it said.
fn refused(options: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-to-db"));
    command.args(options);
    let ended = Program::start(command).wait();
    let said = ended.stderr;
    assert!(matches!(ended.code, Some(1 | 2)), "{options:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{options:?}: {said}");
    said
}

#[test]
fn a_mistake_in_a_url_does_not_show_its_password() {
    let cases: [&[&str]; 10] = [
        &["--database", "postgresql://me:hunter2@host:port/name"],
        &["--database=postgresql://me:hunter2@host/name?ssl=1"],
        &["--database", "postgresql:/me:hunter2@host/name"],
        &["--database", "//me:hunter2@host/name"],
        &["--database", "host=host user=me password=hunter2"],
        &["--redis", "redis://:hunter2@host:port"],
        &["--redis=rediss//:hunter2@host"],
        &["--redis", "unix:/run/redis?db=one&pass=hunter2"],
        &["--workers", "postgresql://me:hunter2@host"],
        &["postgresql://me:hunter2@host/name\nsecond line"],
    ];
    for options in cases {
        let said = refused(options);
        assert!(!said.contains("hunter2"), "{options:?}: {said}");
    }
    // What is clearly a path is shown.
    let said = refused(&["--database", "/nowhere/me@work/file"]);
    assert!(said.contains("/nowhere/me@work/file"), "{said}");
}
