//! Connections to PostgreSQL: too few of them, and what is set on each.

use crate::account::{Account, NONE};
use crate::outages::most_tries;
use crate::programs::{Kept, Which, promise, start, stop};
use crate::servers::Postgres;
use rustix::process::Signal;
use std::sync::Mutex;
use std::time::Instant;

/// 2000 messages and 32 workers, of which 4 get a connection.
fn too_few(which: Which, postgres: &Postgres) -> Kept {
    postgres.run("DROP TABLE IF EXISTS messages");
    let refusals = || {
        postgres
            .log()
            .matches("too many connections for role")
            .count() as u64
    };
    let before = refusals();
    let mut account = Account::with(postgres.url().replace("postgres@", "few@"));
    account.produce("few", 2000);
    let since = Instant::now();
    let program = start(which, &account, &["--work", "5ms"]);
    account.await_dry();
    let ended = stop(program);
    let (time, refused) = (since.elapsed(), refusals() - before);
    account.places().all_moved(&account, &NONE)?;
    let most = most_tries(time);
    if !(1..=most).contains(&refused) {
        return Err(format!("{refused} tries in {time:.1?}, {most} at most"));
    }
    // A worker without a connection takes no message.
    assert_eq!(
        (ended.code, ended.count("failed")),
        (Some(0), 0),
        "{ended:?}"
    );
    Ok(format!("{refused} tries to connect in {time:.1?}"))
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn workers_without_a_connection_do_not_hold_up_those_with_one() {
    let postgres = Postgres::start();
    postgres.run("CREATE ROLE few LOGIN CONNECTION LIMIT 4; GRANT ALL ON SCHEMA public TO few");
    let postgres = Mutex::new(postgres);
    promise(1, &[Which::Buffered], |which, _| {
        too_few(which, &postgres.lock().unwrap())
    });
}

/// 300 messages, moved where commits do not wait for the disk, and a crash.
fn crash(which: Which, postgres: &mut Postgres) -> Kept {
    postgres.run("DROP TABLE IF EXISTS messages");
    let mut account = Account::with(postgres.url());
    account.produce("crash", 300);
    let program = start(which, &account, &[]);
    account.await_dry();
    postgres.end(Signal::QUIT); // it stops as after a crash
    let ended = stop(program);
    postgres.start_again();
    account.places().all_moved(&account, &NONE)?;
    Ok(format!("{:?}", ended.stdout.last()))
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn what_is_moved_outlives_a_crash_whatever_the_server_is_set_to() {
    let mut postgres = Postgres::start();
    // So far apart that it writes nothing by itself.
    postgres.run("ALTER SYSTEM SET wal_writer_delay = '10s'");
    postgres.run("ALTER SYSTEM SET bgwriter_delay = '10s'");
    postgres.run("ALTER ROLE postgres SET synchronous_commit = off");
    postgres.run("ALTER DATABASE postgres SET synchronous_commit = off");
    postgres.end(Signal::INT);
    postgres.start_again();
    let postgres = Mutex::new(postgres);
    promise(1, &[Which::Hasty], |which, _| {
        crash(which, &mut postgres.lock().unwrap())
    });
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn a_stronger_commit_that_is_set_already_is_kept() {
    let postgres = Postgres::start();
    postgres.run(
        "CREATE TABLE messages \
         (key TEXT PRIMARY KEY, body BYTEA NOT NULL, written INTEGER NOT NULL, \
         how TEXT DEFAULT current_setting('synchronous_commit'))",
    );
    for (set, seen) in [("off", "on"), ("remote_apply", "remote_apply")] {
        postgres.run(&format!(
            "ALTER ROLE postgres SET synchronous_commit = {set}"
        ));
        let mut account = Account::with(postgres.url());
        account.produce(set, 1);
        let program = start(Which::Ours, &account, &[]);
        account.await_dry();
        assert_eq!(stop(program).code, Some(0));
        let mut client = postgres.try_connect().unwrap();
        let row = client.query_one(
            "SELECT how FROM messages WHERE key = $1",
            &[&format!("{set}-1")],
        );
        assert_eq!(row.unwrap().get::<_, &str>(0), seen);
    }
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn a_role_that_may_only_read_and_write_the_table_can() {
    let postgres = Postgres::start();
    postgres.run(
        "CREATE TABLE messages \
         (key TEXT PRIMARY KEY, body BYTEA NOT NULL, written INTEGER NOT NULL); \
         CREATE ROLE writer LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
         GRANT SELECT, INSERT, UPDATE ON messages TO writer",
    );
    let mut account = Account::with(postgres.url());
    account.produce("role", 50);
    let superuser = account.database.clone();
    account.database = superuser.replace("postgres@", "writer@");
    let program = start(Which::Ours, &account, &[]);
    account.await_dry();
    assert_eq!(stop(program).code, Some(0));
    account.database = superuser;
    account.places().all_moved(&account, &NONE).unwrap();
}
