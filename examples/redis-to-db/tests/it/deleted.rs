//! An SQLite file that is deleted while it is open.

use crate::account::Account;
use crate::programs::{Kept, Which, promise, start, stop};
use std::fs;

/// 100 messages; the files with these endings are deleted; 100 more, and a kill.
fn deleted(which: Which, suffixes: &[&str]) -> Kept {
    let mut account = Account::new();
    account.produce("before", 100);
    let program = start(which, &account, &[]);
    account.await_dry();
    for suffix in suffixes {
        fs::remove_file(format!("{}{suffix}", account.database)).unwrap();
    }
    if suffixes.contains(&"") {
        account.forget();
    }
    account.produce("after", 100);
    account.await_dry();
    let log = program.stderr();
    drop(program);
    let places = account.places();
    places.all_moved(&account, &places.written_twice())?;
    assert!(log.contains("deleted or replaced"), "{log}");
    Ok(format!("{} rows", places.rows.len()))
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn what_comes_after_a_file_was_deleted_is_in_a_new_one() {
    for suffixes in [&["", "-wal", "-shm"][..], &[""]] {
        promise(1, &[Which::Hasty], |which, _| deleted(which, suffixes));
    }
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn what_is_written_although_the_log_was_deleted_outlives_a_kill() {
    promise(1, &[Which::Hasty], |which, _| deleted(which, &["-wal"]));
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_file_that_was_replaced_by_another_database_is_written_to() {
    let mut account = Account::new();
    let program = start(Which::Ours, &account, &[]);
    let other = account.path("other.sqlite");
    let file = rusqlite::Connection::open(&other).unwrap();
    let table = "CREATE TABLE messages (key TEXT PRIMARY KEY, body, written); \
        INSERT INTO messages VALUES ('old-1', '', 1)";
    file.execute_batch(table).unwrap();
    drop(file);
    fs::rename(other, &account.database).unwrap();
    account.produce("old", 1);
    account.produce("new", 50);
    account.await_dry();
    assert_eq!(stop(program).code, Some(0));
    let places = account.places();
    let twice = places.all_moved(&account, &places.written_twice());
    assert_eq!((twice, places.rows["old-1"]), (Ok(1), 2));
}
