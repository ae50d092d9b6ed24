//! What no waiting mends is said at the start, in one line.

use crate::account::{Account, NONE, ask};
use crate::certificates;
use crate::harness::{Ended, Program};
use crate::programs::{Which, command_at, stop};
use crate::servers::{Redis, free_port, memory};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

const README: &str = include_str!("../../README.md");

/// Runs it until it ends by itself.
fn run(url: &str, options: &[&str]) -> Ended {
    let dir = memory();
    let database = dir.path().join("messages.sqlite");
    let database = database.to_str().unwrap();
    Program::start(command_at(Which::Ours, url, database, options)).wait()
}

/// One line, and this in it.
pub(crate) fn assert_told(ended: &Ended, word: &str) {
    assert_eq!(
        (ended.code, ended.stderr.lines().count()),
        (Some(1), 1),
        "{ended:?}"
    );
    assert!(ended.stderr.contains(word), "no {word}: {ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_redis_that_will_never_do_is_told_at_once() {
    let old = Redis::start_with(&["--rename-command", "BLMOVE", ""]);
    assert_told(&run(&old.url(), &[]), "BLMOVE: unknown command");

    let redis = Redis::start();
    let mut admin = redis.connect();
    assert_told(
        &run(&format!("{}/99", redis.url()), &[]),
        "DB index is out of range",
    );
    for key in [
        "messages",
        "messages:leases",
        "messages:failures",
        "messages:dead",
    ] {
        ask::<()>(&mut admin, &["SET", key, "another's"]);
        assert_told(&run(&redis.url(), &[]), &format!("{key} is a string"));
        ask::<u64>(&mut admin, &["DEL", key]);
    }
    let with_password = format!("redis://:secret@127.0.0.1:{}", redis.port);
    assert_told(&run(&with_password, &[]), "AUTH");
    ask::<()>(&mut admin, &["CONFIG", "SET", "requirepass", "other"]);
    assert_told(&run(&with_password, &[]), "WRONGPASS");
    assert_told(&run(&redis.url(), &[]), "NOAUTH");
    let mut produce = Command::new(env!("CARGO_BIN_EXE_produce"));
    produce.args(["--redis", &redis.url()]);
    assert_told(&Program::start(produce).wait(), "NOAUTH");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", other.local_addr().unwrap());
    thread::spawn(move || {
        for client in other.incoming().map_while(Result::ok) {
            let _ = (&client).read(&mut [0; 1000]);
            let _ = (&client).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    assert_told(&run(&url, &[]), "no Redis");
}

#[test]
fn what_an_answer_says_reaches_no_terminal() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", other.local_addr().unwrap());
    thread::spawn(move || {
        for client in other.incoming().map_while(Result::ok) {
            let _ = (&client).read(&mut [0; 1000]);
            let _ = (&client).write_all("-NOAUTH \u{1b}[31m\u{202e}\r\n".as_bytes());
        }
    });
    let mut produce = Command::new(env!("CARGO_BIN_EXE_produce"));
    produce.args(["--redis", &url]);
    for ended in [run(&url, &[]), Program::start(produce).wait()] {
        assert_told(&ended, r"NOAUTH \u{1b}[31m\u{202e}");
    }
}

/// The words of README's ACL, without one of them.
pub(crate) fn rules(without: &str) -> Vec<&'static str> {
    let line = README
        .lines()
        .find(|line| line.starts_with("ACL SETUSER mover "));
    let words = line.unwrap().split(' ').skip(3);
    words
        .map(|word| word.trim_matches('\''))
        .filter(|word| *word != without)
        .collect()
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_command_that_the_user_may_not_run_is_named_at_the_start() {
    let mut account = Account::new();
    let mut admin = account.redis.connect();
    let url = format!("redis://mover:secret@127.0.0.1:{}", account.redis.port);
    let mut allow = |without: &str| {
        let user = ["ACL", "SETUSER", "mover", "reset"];
        ask::<()>(&mut admin, &[&user[..], &rules(without)].concat());
    };
    let all = rules("");
    let commands: Vec<_> = all.iter().filter(|word| word.starts_with('+')).collect();
    assert_eq!(commands.len(), 16);
    for command in commands {
        allow(command);
        let ended = run(&url, &[]);
        let name = command[1..].split('|').next().unwrap();
        assert_told(&ended, "NOPERM");
        assert!(ended.stderr.to_lowercase().contains(name), "{ended:?}");
    }
    for keys in ["~messages", "~messages:*"] {
        allow(keys);
        assert_told(&run(&url, &[]), "NOPERM");
    }
    // And with all of them, it does all that it ever does.
    allow("");
    account.produce("good", 100);
    account.produce("poison", 1);
    account.redis_command::<u64>(&["ZADD", "messages:leases", "1", "messages:processing:gone"]);
    let options = ["--panic-on", "poison"];
    let program = Program::start(command_at(Which::Ours, &url, &account.database, &options));
    program.await_line("moving");
    account.await_dry();
    let ended = stop(program);
    assert_eq!((ended.code, ended.count("dead")), (Some(0), 1), "{ended:?}");
    assert!(!ended.stderr.contains("trying again"), "{ended:?}");
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn more_workers_than_can_start_are_told_at_once_and_leave_no_lease() {
    let mut account = Account::new();
    account.produce("kept", 10);
    let url = account.redis.url();
    let options = ["--workers", "1000"];
    let command = command_at(Which::Ours, &url, &account.database, &options);
    let ended = Program::start(limited("ulimit -v 1500000", &command)).wait();
    assert_told(&ended, "1000 workers");
    let mut redis = account.redis.connect();
    let held: u64 = ask(&mut redis, &["ZCOUNT", "messages:leases", "1", "+inf"]);
    let (seconds, _): (u64, u64) = ask(&mut redis, &["TIME"]);
    let later = (seconds * 1000 + 1000).to_string();
    let later: u64 = ask(&mut redis, &["ZCOUNT", "messages:leases", &later, "+inf"]);
    assert_eq!((held, later), (1000, 0));
    assert_eq!(account.waiting(), 10);
}

/// The same under a limit of the shell's.
fn limited(limit: &str, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_redis_that_is_full_of_clients_is_waited_for() {
    let account = Account::new();
    let mut admin = account.redis.connect();
    ask::<()>(&mut admin, &["CONFIG", "SET", "requirepass", "secret"]);
    ask::<()>(&mut admin, &["CONFIG", "SET", "maxclients", "1"]);
    let url = format!("redis://:secret@127.0.0.1:{}", account.redis.port);
    let program = Program::start(command_at(Which::Ours, &url, &account.database, &[]));
    program.await_log("max number of clients", 1);
    ask::<()>(&mut admin, &["CONFIG", "SET", "maxclients", "100"]);
    program.await_line("moving");
    assert_eq!(stop(program).code, Some(0));
}

#[test]
#[ignore = "needs redis-server and openssl: make deps"]
fn messages_are_moved_by_tls_and_only_to_whom_the_authority_knows() {
    let (dir, other) = (memory(), memory());
    certificates::make(dir.path(), "ours");
    certificates::make(other.path(), "strange");
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(file);
    let port = free_port().to_string();
    let options = ["--tls-port", &port, "--tls-cert-file", &cert];
    let options = [
        &options[..],
        &["--tls-key-file", &key, "--tls-ca-cert-file", &ca],
    ]
    .concat();
    let mut account = Account::new();
    account.redis = Redis::start_with(&options);
    account.produce("secret", 300);

    let url = format!("rediss://127.0.0.1:{port}");
    let strange = other.path().join("ca.pem");
    let strange = ["--redis-ca", strange.to_str().unwrap()];
    assert_told(&run(&url, &strange), "UnknownIssuer");
    // Redis wants to know who we are, too.
    assert_told(&run(&url, &["--redis-ca", &ca]), "CertificateRequired");
    let ours = [
        "--redis-ca",
        &ca,
        "--redis-cert",
        &cert,
        "--redis-key",
        &key,
    ];
    let program = Program::start(command_at(Which::Ours, &url, &account.database, &ours));
    program.await_line("moving");
    account.await_dry();
    assert_eq!(stop(program).code, Some(0));
    account.places().all_moved(&account, &NONE).unwrap();
}
