//! Messages that the database does not take: they end with the dead, and no
//! other waits for them.

use crate::account::{Account, NONE};
use crate::harness::{Ended, Program};
use crate::programs::{Kept, Which, promise, start, stop};
use crate::servers::{Postgres, eventually};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Five that PostgreSQL refuses, each in its own way, and 200 others. The table
/// was there before, with a wider counter.
const TABLE: &str = "DROP TABLE IF EXISTS messages; \
    CREATE TABLE messages (key TEXT PRIMARY KEY, body BYTEA NOT NULL, written BIGINT); \
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
    IF NEW.key = 'raised-1' THEN RAISE 'not this one'; END IF; \
    IF NEW.key = 'own-code-1' THEN RAISE 'nor this' USING ERRCODE = 'ZZ123'; END IF; \
    IF NEW.key = 'forbidden-1' THEN RAISE 'nor this' USING ERRCODE = '42501'; END IF; \
    IF NEW.key = 'ignored-1' THEN RETURN NULL; END IF; \
    RETURN NEW; END $$; \
    CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse(); \
    ALTER TABLE messages ADD CHECK (key <> 'checked-1')";

/// Runs until all are in the database or dead.
fn poisoned(which: Which, mut account: Account, poison: &[&str]) -> Kept {
    for prefix in poison {
        account.produce(prefix, 1);
    }
    account.produce("good", 200);
    let options = ["--attempts", "3", "--workers", "4", "--work", "1ms"];
    let program = start(which, &account, &options);
    account.await_dry();
    let ended = stop(program);
    let mut places = account.places();
    places.none_lost(&account)?;
    places.dead.sort();
    let mut expected: Vec<_> = poison.iter().map(|prefix| format!("{prefix}-1")).collect();
    expected.sort();
    assert_eq!(places.dead, expected, "{ended:?}");
    assert_eq!(places.rows.len(), 200, "{ended:?}");
    assert_eq!(places.written_twice(), NONE);
    assert_eq!((ended.code, ended.count("dead")), (Some(0), poison.len()));
    Ok(format!("{} dead", poison.len()))
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn what_postgres_refuses_is_dead_in_the_end_and_stops_nothing() {
    let postgres = Mutex::new(Postgres::start());
    // Letters without a pattern, for the index compresses.
    let mut seed = 1_u64;
    let long = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + u8::try_from(seed >> 60).unwrap())
    });
    let long: String = long.take(9000).collect();
    let poison = [
        "raised",
        "own-code",
        "forbidden",
        "ignored",
        "checked",
        &long,
    ];
    promise(1, &[Which::Buffered], |which, _| {
        let postgres = postgres.lock().unwrap();
        postgres.run(TABLE);
        poisoned(which, Account::with(postgres.url()), &poison)
    });
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn what_sqlite_refuses_is_dead_in_the_end_and_stops_nothing() {
    let table = "CREATE TABLE messages (key TEXT PRIMARY KEY, body BYTEA, written TEXT); \
        CREATE TRIGGER aborted BEFORE INSERT ON messages WHEN NEW.key = 'aborted-1' \
        BEGIN SELECT RAISE(ABORT, 'not this one'); END; \
        CREATE TRIGGER ignored BEFORE INSERT ON messages WHEN NEW.key = 'ignored-1' \
        BEGIN SELECT RAISE(IGNORE); END; \
        CREATE TRIGGER odd BEFORE INSERT ON messages WHEN NEW.key = 'odd-1' \
        BEGIN SELECT json('{'); END";
    promise(1, &[Which::Buffered], |which, _| {
        let account = Account::new();
        let file = rusqlite::Connection::open(&account.database).unwrap();
        file.execute_batch(table).unwrap();
        drop(file);
        poisoned(which, account, &["aborted", "ignored", "odd"])
    });
}

/// Refuses all that is odd, with an error that does not say whose fault it is.
const ODD: &str = "CREATE TABLE messages (key TEXT PRIMARY KEY, body BYTEA, written TEXT); \
    CREATE TRIGGER odd BEFORE INSERT ON messages WHEN NEW.key LIKE 'odd-%' \
    BEGIN SELECT json('{'); END";

fn with_odd_table() -> Account {
    let account = Account::new();
    let file = rusqlite::Connection::open(&account.database).unwrap();
    file.execute_batch(ODD).unwrap();
    account
}

/// Waits until so many good ones are in the database, and then, for an odd one is
/// known by what is written between two of its failures, for the end of all.
fn end_all(account: &mut Account, program: Program, good: usize, odd: usize) -> Ended {
    eventually("the good ones are moved", || {
        account.places().rows.len() == good
    });
    let mut more = 0;
    eventually("the odd ones are dead", || {
        more += 1;
        let key = format!("more-{more}");
        account.redis_command::<u64>(&["LPUSH", "messages", &format!("{key} body")]);
        account.expect([key]);
        account.places().dead.len() == odd
    });
    account.await_dry();
    let ended = stop(program);
    let places = account.places();
    places.none_lost(account).unwrap();
    assert_eq!((places.rows.len(), places.dead.len()), (good + more, odd));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// A wait of up to a second for each would be more than a test's patience.
fn behind_odd_ones(mut account: Account, prefix: &str) {
    account.produce(prefix, 200);
    account.produce("good", 20);
    let program = start(Which::Ours, &account, &["--attempts", "2"]);
    end_all(&mut account, program, 20, 200);
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn good_messages_do_not_wait_for_the_odd_ones_in_front() {
    behind_odd_ones(with_odd_table(), "odd");
    let postgres = Postgres::start();
    postgres.run(&TABLE.replace("= 'forbidden-1'", "LIKE 'forbidden-%'"));
    behind_odd_ones(Account::with(postgres.url()), "forbidden");
}

/// Where nothing else can be written, nothing is known about them.
#[test]
#[ignore = "needs redis-server: make deps"]
fn odd_messages_alone_are_tried_less_and_less_and_hold_up_no_good_one() {
    let mut account = with_odd_table();
    account.produce("odd", 10);
    let (since, program) = (Instant::now(), start(Which::Ours, &account, &[]));
    thread::sleep(Duration::from_secs(4));
    account.produce("good", 20);
    let time = since.elapsed();
    let ended = end_all(&mut account, program, 20, 10);
    // A round of all after each wait; the workers have some of the next in hand.
    let most = (10 + usize::try_from(time.as_secs()).unwrap()) * (10 + 32);
    let tries = ended.count("failed");
    println!("{tries} tries in {time:.1?}, {most} at most");
    assert!(tries <= most, "{tries} tries in {time:.1?}: {ended:?}");
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_message_without_a_key_is_malformed() {
    let account = Account::new();
    for message in [" one", " two", "no-key"] {
        account.redis_command::<u64>(&["LPUSH", "messages", message]);
    }
    let program = start(Which::Ours, &account, &["--attempts", "1"]);
    account.await_dry();
    let ended = stop(program);
    assert_eq!(
        (ended.count("moved"), ended.count("dead")),
        (0, 3),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("\" one\": the key is empty"),
        "{ended:?}"
    );
}
