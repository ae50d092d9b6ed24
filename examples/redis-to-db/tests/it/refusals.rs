//! Messages that the database does not take: they end with the dead, and no
//! other waits for them.

use crate::account::{Account, NONE};
use crate::programs::{Kept, Which, promise, start, stop};
use crate::servers::Postgres;
use std::sync::Mutex;

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
