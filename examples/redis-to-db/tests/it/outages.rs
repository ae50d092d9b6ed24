//! The database is down or locked for a while; or a message is no good.

use crate::account::{Account, NONE};
use crate::harness::WATCHDOG;
use crate::programs::{Kept, Which, launch, promise, start, stop};
use crate::servers::Postgres;
use rustix::process::Signal;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How often 32 workers may try what is down for so long: once each when it
/// begins, a few times while the waits grow to a second, then once a second.
pub(crate) fn most_tries(down: Duration) -> u64 {
    2 * 32 + 10 + 2 * down.as_secs()
}

/// Stands where PostgreSQL stood for so long, and counts who knocks.
fn count_tries(port: u16, time: Duration) -> u64 {
    let (tries, until) = (AtomicU64::new(0), Instant::now() + time);
    let door = TcpListener::bind(("127.0.0.1", port)).unwrap();
    door.set_nonblocking(true).unwrap();
    while Instant::now() < until {
        match door.accept() {
            Ok(_) => _ = tries.fetch_add(1, Relaxed),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    tries.into_inner()
}

/// 800 messages, and PostgreSQL is away for three seconds meanwhile.
fn postgres_away(which: Which, postgres: &mut Postgres) -> Kept {
    postgres.run("DROP TABLE IF EXISTS messages");
    let mut account = Account::with(postgres.url());
    account.produce("outage", 800);
    let program = start(which, &account, &["--work", "40ms"]);
    account.await_waiting(750);
    let since = Instant::now();
    postgres.end(Signal::INT);
    let tries = count_tries(postgres.port, Duration::from_secs(3));
    let (down, waiting) = (since.elapsed(), account.waiting());
    postgres.start_again();
    account.await_dry();
    let ended = stop(program);
    let most = most_tries(down);
    if tries > most || tries == 0 {
        return Err(format!("{tries} tries in {down:.1?}, {most} at most"));
    }
    // An answer that the outage cut off makes a message that is written twice.
    let places = account.places();
    let twice = places.all_moved(&account, &places.written_twice())?;
    assert!(waiting >= 100, "only {waiting} stayed in Redis: {ended:?}");
    assert!(twice <= 32, "{twice} written twice: {ended:?}");
    assert_eq!((ended.code, ended.count("dead")), (Some(0), 0), "{ended:?}");
    let failed = ended.count("failed");
    Ok(format!(
        "{tries} tries in {down:.1?}, {failed} put back, {waiting} waited in Redis"
    ))
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn a_database_that_is_down_is_waited_for_and_not_hammered() {
    let postgres = std::sync::Mutex::new(Postgres::start());
    promise(1, &[Which::Buffered], |which, _| {
        postgres_away(which, &mut postgres.lock().unwrap())
    });
}

/// Somebody else's lock on an `SQLite` file.
pub(crate) struct Lock(rusqlite::Connection);

impl Lock {
    /// Takes it once the present writer lets it.
    fn take(database: &str) -> Self {
        let file = rusqlite::Connection::open(database).unwrap();
        file.busy_timeout(WATCHDOG).unwrap();
        file.execute_batch("BEGIN EXCLUSIVE").unwrap();
        Self(file)
    }

    pub(crate) fn hold_for(database: &str, time: Duration) {
        let lock = Self::take(database);
        thread::sleep(time);
        lock.release();
    }

    fn release(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

/// A file that is locked, a stop meanwhile, a lock that ends.
fn locked(which: Which, _: u64) -> Kept {
    let mut account = Account::new();
    let program = start(which, &account, &[]);
    let lock = Lock::take(&account.database);
    let since = Instant::now();
    account.produce("locked", 200);
    thread::sleep(Duration::from_millis(2500));
    let ended = stop(program);
    let time = since.elapsed();
    account.places().each_in_one_place(&account)?;
    assert_eq!(
        (ended.code, ended.told("clean")),
        (Some(0), "true"),
        "{ended:?}"
    );
    let tries = ended.count("failed") as u64;
    if !(1..=most_tries(time)).contains(&tries) {
        return Err(format!("{tries} tries in {time:.1?}"));
    }

    let program = launch(which, &account.redis, &account.database, &[]);
    program.await_log("database is locked; trying again", 1);
    lock.release();
    program.await_line("moving");
    account.await_dry();
    assert_eq!(stop(program).code, Some(0));
    account.places().all_moved(&account, &NONE)?;
    Ok(format!("{tries} tries in {time:.1?}"))
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_locked_file_is_waited_for_and_a_stop_meanwhile_leaves_all_in_redis() {
    promise(1, &[Which::Buffered], locked);
}

/// Two messages that panic, one without a key, and only two workers.
fn poisoned(which: Which, _: u64) -> Kept {
    let mut account = Account::new();
    account.produce("poison", 2);
    account.redis_command::<u64>(&["RPUSH", "messages", "no-key-and-body"]);
    account.produce("good", 100);
    let options = ["--panic-on", "poison", "--workers", "2", "--attempts", "3"];
    let program = start(which, &account, &options);
    account.await_dry();
    let ended = stop(program);
    let mut places = account.places();
    places.none_lost(&account)?;
    places.dead.sort();
    assert_eq!(places.dead, ["no-key-and-body", "poison-1", "poison-2"]);
    assert_eq!(places.rows.len(), 100);
    let counts = ["panicked", "failed", "put_back", "dead", "moved"];
    assert_eq!(
        counts.map(|key| ended.count(key)),
        [6, 3, 6, 3, 100],
        "{ended:?}"
    );
    assert_eq!(
        (
            ended.code,
            account.redis_command::<u64>(&["EXISTS", "messages:failures"])
        ),
        (Some(0), 0)
    );
    Ok("6 panics, 3 dead".into())
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_message_that_panics_is_put_back_and_dead_in_the_end() {
    promise(1, &[Which::Buffered], poisoned);
}
