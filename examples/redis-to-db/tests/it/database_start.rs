//! What no waiting mends is said at the start, in one line; all else is waited
//! for.

use crate::account::{Account, NONE};
use crate::certificates;
use crate::harness::{Ended, Program};
use crate::programs::{Which, command, launch, start, stop};
use crate::servers::{Postgres, Redis, eventually, memory};
use crate::start::assert_told;
use rustix::process::Signal;
use std::fs;
use std::process::Command;

/// Runs it until it ends by itself.
fn run(database: &str, options: &[&str]) -> Ended {
    launch(Which::Ours, &Redis::down(), database, options).wait()
}

#[test]
fn a_path_that_is_no_database_is_named_at_the_start() {
    let dir = memory();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(
        path("text"),
        "This is a text that is longer than a header. ".repeat(50),
    )
    .unwrap();
    for (name, key) in [
        ("other", "TEXT"),
        ("number", "NUMERIC PRIMARY KEY"),
        ("integer", "INTEGER PRIMARY KEY"),
        ("nocase", "TEXT COLLATE NOCASE PRIMARY KEY"),
        ("rtrim", "TEXT UNIQUE COLLATE RTRIM"),
    ] {
        let file = rusqlite::Connection::open(path(name)).unwrap();
        let table = format!("CREATE TABLE messages (key {key}, body BYTEA, written INTEGER)");
        file.execute_batch(&table).unwrap();
    }
    for (database, word) in [
        (path("text"), "file is not a database"),
        (path(""), "is not a file"),
        (path("missing/file"), "unable to open database file"),
        (path("other"), "does not match any PRIMARY KEY"),
        (path("number"), "takes two keys for one"),
        (path("integer"), "takes two keys for one"),
        (path("nocase"), "takes two keys for one"),
        (path("rtrim"), "takes two keys for one"),
        ("/dev/null".into(), "is not a file"),
        (":memory:".into(), "is not a file"),
    ] {
        let ended = run(&database, &[]);
        assert_told(&ended, word);
        assert!(ended.stderr.contains(&database), "{ended:?}");
    }
}

#[test]
#[ignore = "needs unshare"]
fn a_file_on_a_read_only_file_system_is_named_at_the_start() {
    let dir = memory();
    let database = dir.path().join("messages.sqlite");
    drop(
        rusqlite::Connection::open(&database)
            .unwrap()
            .execute_batch("PRAGMA user_version = 1"),
    );
    let ours = command(Which::Ours, &Redis::down(), database.to_str().unwrap(), &[]);
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command
        .arg(dir.path())
        .arg(ours.get_program())
        .args(ours.get_args());
    assert_told(
        &Program::start(command).wait(),
        "messages.sqlite: is read-only",
    );
}

#[test]
#[ignore = "needs postgres: make deps"]
fn a_postgres_that_will_never_do_is_told_at_once() {
    let postgres = Postgres::start();
    let hba = "host all secretive 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    postgres.put("pg_hba.conf", hba);
    postgres.run(
        "CREATE ROLE secretive LOGIN PASSWORD 'right'; CREATE ROLE poor LOGIN; \
         SELECT pg_reload_conf(); \
         CREATE TABLE messages (key TEXT PRIMARY KEY, body BYTEA NOT NULL, written INTEGER)",
    );
    postgres.run("CREATE DATABASE other");
    postgres.run(
        "CREATE COLLATION any_case \
         (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    );
    let url =
        |user: &str, rest: &str| format!("postgresql://{user}@127.0.0.1:{}/{rest}", postgres.port);
    eventually("the rules are read", || {
        postgres::Client::connect(&url("secretive:wrong", "postgres"), postgres::NoTls).is_err()
    });
    for (database, word) in [
        (
            url("secretive:wrong", "postgres"),
            "password authentication failed",
        ),
        (url("secretive", "postgres"), "password"),
        (
            url("unknown", "postgres"),
            "role \"unknown\" does not exist",
        ),
        (
            url("postgres", "unknown"),
            "database \"unknown\" does not exist",
        ),
        (
            url("postgres", "postgres?sslmode=require"),
            "does not support TLS",
        ),
        (
            url("poor", "postgres"),
            "permission denied for table messages",
        ),
        (url("poor", "other"), "permission denied for schema public"),
    ] {
        assert_told(&run(&database, &[]), word);
    }
    for (columns, word) in [
        ("key TEXT PRIMARY KEY, written INTEGER", "column \"body\""),
        (
            "key TEXT, body BYTEA, written INTEGER",
            "no unique or exclusion constraint",
        ),
        (
            "key TEXT PRIMARY KEY, body TEXT, written INTEGER",
            "[Text, Text], not text and bytea",
        ),
        (
            "key NAME PRIMARY KEY, body BYTEA, written INTEGER",
            "[Name, Bytea], not text and bytea",
        ),
        (
            "key TEXT COLLATE any_case PRIMARY KEY, body BYTEA, written INTEGER",
            "takes two keys for one",
        ),
        (
            "key TEXT PRIMARY KEY, body BYTEA, written TEXT",
            "text + integer",
        ),
    ] {
        postgres.run(&format!(
            "DROP TABLE messages; CREATE TABLE messages ({columns})"
        ));
        assert_told(&run(&url("postgres", "postgres"), &[]), word);
    }
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn a_start_waits_for_postgres_and_a_signal_ends_the_wait() {
    let mut postgres = Postgres::start();
    postgres.end(Signal::INT);
    let mut account = Account::with(postgres.url());
    account.produce("wait", 50);
    let launch = || {
        let program = launch(Which::Ours, &account.redis, &account.database, &[]);
        program.await_log("trying again", 1);
        program
    };
    let ended = stop(launch());
    assert_eq!((ended.code, account.waiting()), (Some(0), 50), "{ended:?}");

    // It accepts and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", postgres.port)).unwrap();
    let program = launch();
    assert!(
        program.stderr().contains("no answer in time"),
        "{}",
        program.stderr()
    );
    drop(silent);
    postgres.start_again();
    program.await_line("moving");
    account.await_dry();
    assert_eq!(stop(program).code, Some(0));
    account.places().all_moved(&account, &NONE).unwrap();
}

/// A stop while the server says nothing, for an hour.
fn assert_stops(program: Program, silent: &std::net::TcpListener) {
    let _asked = silent.accept().unwrap();
    let ended = stop(program);
    assert_eq!(
        (ended.code, ended.count("in_hand")),
        (Some(0), 0),
        "{ended:?}"
    );
}

#[test]
fn a_signal_ends_the_wait_for_an_answer() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let url = format!("postgresql://me@{at}/name?connect_timeout=3600");
    let program = launch(Which::Ours, &Redis::down(), &url, &[]);
    assert_stops(program, &silent);
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn a_postgres_that_falls_silent_holds_up_no_stop_of_workers_that_connect() {
    let mut postgres = Postgres::start();
    let url = format!("{}?connect_timeout=3600", postgres.url());
    let account = Account::with(url);
    let program = start(Which::Ours, &account, &["--workers", "4"]);
    postgres.end(Signal::INT);
    program.await_log("connecting to the database: ", 1);
    let silent = std::net::TcpListener::bind(("127.0.0.1", postgres.port)).unwrap();
    assert_stops(program, &silent);
}

#[test]
#[ignore = "needs redis-server, postgres and openssl: make deps"]
fn postgres_is_reached_by_tls_and_only_where_its_certificate_is_trusted() {
    let (postgres, dir, other) = (Postgres::start(), memory(), memory());
    certificates::make(dir.path(), "ours");
    certificates::make(other.path(), "strange");
    for (name, from) in [("server.crt", "cert.pem"), ("server.key", "key.pem")] {
        postgres.put(name, &fs::read_to_string(dir.path().join(from)).unwrap());
    }
    postgres.put(
        "pg_hba.conf",
        "hostssl all safe 127.0.0.1/32 trust\nhost all postgres all trust\n",
    );
    postgres.run("CREATE ROLE safe LOGIN; GRANT ALL ON SCHEMA public TO safe");
    postgres.run("ALTER SYSTEM SET ssl = on");
    postgres.run("SELECT pg_reload_conf()");
    let plain = postgres.url().replace("postgres@", "safe@");
    let url = format!("{plain}?sslmode=verify-full");
    let ca = |dir: &tempfile::TempDir| dir.path().join("ca.pem").to_str().unwrap().to_owned();
    eventually("it speaks TLS", || {
        run(&url, &[])
            .stderr
            .contains("invalid peer certificate: UnknownIssuer")
    });
    assert_told(
        &run(&url, &["--database-ca", &ca(&other)]),
        "invalid peer certificate",
    );
    assert_told(&run(&plain, &[]), "no encryption");
    let wrong_name = url.replace("127.0.0.1", "localhost");
    assert_told(
        &run(&wrong_name, &["--database-ca", &ca(&dir)]),
        "not valid for name",
    );
    for (file, word) in [
        ("/nowhere/ca", "/nowhere/ca"),
        ("/dev/null", "no certificate in it"),
    ] {
        assert_told(&run(&url, &["--database-ca", file]), word);
    }

    let mut account = Account::with(url);
    account.produce("tls", 50);
    let options = ["--database-ca", &ca(&dir)];
    let program = launch(Which::Ours, &account.redis, &account.database, &options);
    program.await_line("moving");
    account.await_dry();
    assert_eq!(stop(program).code, Some(0));
    account.database = postgres.url();
    account.places().all_moved(&account, &NONE).unwrap();
}
