//! Redis takes fewer connections than there are workers.

use crate::account::{Account, NONE, ask};
use crate::programs::{Which, start, stop};
use crate::servers::eventually;
use redis::Connection;

/// The connections of the program, the oldest first.
fn connections(redis: &mut Connection) -> Vec<u64> {
    let list: String = ask(redis, &["CLIENT", "LIST"]);
    let mine: u64 = ask(redis, &["CLIENT", "ID"]);
    let ids = list.lines().filter_map(|line| {
        let (id, _) = line.strip_prefix("id=")?.split_once(' ')?;
        id.parse().ok()
    });
    ids.filter(|id| *id != mine).collect()
}

/// Our connection and eight of the program's.
const MOST: &str = "9";

#[test]
#[ignore = "needs redis-server: make deps"]
fn workers_without_a_connection_do_not_delay_those_with_one() {
    let mut account = Account::new();
    account.produce("crowded", 4000);
    let mut redis = account.redis.connect();
    ask::<()>(&mut redis, &["CONFIG", "SET", "maxclients", MOST]);
    let program = start(Which::Ours, &account, &["--work", "2ms", "--lease", "4s"]);
    eventually("the list is empty", || {
        ask::<u64>(&mut redis, &["LLEN", "messages"]) == 0
    });
    let used = connections(&mut redis).len();
    ask::<()>(&mut redis, &["CONFIG", "SET", "maxclients", "100"]);
    let ended = stop(program);
    assert_eq!((used, ended.code), (8, Some(0)), "{ended:?}");
    assert!(ended.stderr.contains("max number of clients"), "{ended:?}");
    assert!(
        !ended.stdout.iter().any(|line| line.contains("unknown")),
        "{ended:?}"
    );
    account.places().all_moved(&account, &NONE).unwrap();
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn the_keeper_gets_its_connection_back_from_the_workers() {
    let mut account = Account::new();
    account.produce("keeper", 100);
    let mut redis = account.redis.connect();
    ask::<()>(&mut redis, &["CONFIG", "SET", "maxclients", MOST]);
    let program = start(Which::Ours, &account, &["--work", "100ms"]);
    for _ in 0..3 {
        eventually("all are used", || connections(&mut redis).len() == 8);
        let keeper = connections(&mut redis)[0].to_string();
        ask::<u64>(&mut redis, &["CLIENT", "KILL", "ID", &keeper]);
        let (seconds, _): (u64, u64) = ask(&mut redis, &["TIME"]);
        let renewed = (seconds * 1000 + 11_000).to_string();
        eventually("the leases are renewed", || {
            ask::<u64>(&mut redis, &["ZCOUNT", "messages:leases", &renewed, "+inf"]) == 32
        });
    }
    ask::<()>(&mut redis, &["CONFIG", "SET", "maxclients", "100"]);
    eventually("the list is empty", || account.is_dry());
    let ended = stop(program);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let places = account.places();
    places.all_moved(&account, &places.written_twice()).unwrap();
}
