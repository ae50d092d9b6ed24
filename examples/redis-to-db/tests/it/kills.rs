//! Kills lose nothing, and what they make twice is what was in hand.

use crate::account::Account;
use crate::outages::Lock;
use crate::programs::{Kept, Which, promise, run_dry, start, stop};
use crate::redis_errors::restart;
use crate::servers::{Postgres, eventually};
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// A killed process's messages are back after that. Long enough that a slow
/// machine does not take a living process for a dead one.
const LEASE: [&str; 2] = ["--lease", "4s"];

/// 900 messages and three kills.
fn kill_three_times(which: Which, number: u64) -> Kept {
    let mut account = Account::new();
    account.produce("kill", 900);
    let mut killed = BTreeSet::new();
    for part in 0..3 {
        let program = start(which, &account, &[&["--work", "20ms"], &LEASE[..]].concat());
        account.await_waiting(800 - 250 * part - 37 * number);
        drop(program);
        killed.extend(account.places().in_hand);
    }
    let ended = run_dry(which, &account, &LEASE);
    let twice = account.places().all_moved(&account, &killed)?;
    assert!(killed.len() >= 3, "nothing was in hand: {ended:?}");
    let killed = killed.len();
    Ok(format!("{killed} in hand at kills, {twice} written twice"))
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_kill_loses_nothing_and_duplicates_at_most_what_was_in_hand() {
    promise(2, &[Which::Buffered], kill_three_times);
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn processes_that_share_a_redis_take_over_from_one_that_is_killed() {
    let postgres = Postgres::start();
    let mut account = Account::with(postgres.url());
    account.produce("shared", 3000);
    let options = [&["--work", "40ms", "--progress", "50ms"], &LEASE[..]].concat();
    let [one, two, killed] = [0; 3].map(|_| start(Which::Ours, &account, &options));
    account.await_waiting(2600);
    eventually("it has messages in hand", || {
        !killed.await_line("progress ").ends_with("in_hand=0")
    });
    drop(killed);
    // What the others have in hand is in it too.
    let in_hand = account.places().in_hand;
    account.await_dry();
    let ended = [one, two].map(stop);
    let twice = account.places().all_moved(&account, &in_hand).unwrap();
    let moved = ended.each_ref().map(|ended| ended.count("moved"));
    let recovered: usize = ended.iter().map(|ended| ended.count("recovered")).sum();
    println!("shared: moved {moved:?}, {recovered} recovered, {twice} written twice");
    assert!(
        moved.iter().all(|moved| *moved > 0) && recovered > 0,
        "{ended:?}"
    );
}

/// Whatever happens in whatever order: the seed decides.
fn chaos(mut seed: u64) {
    let mut account = Account::new();
    account.produce("chaos", 4000);
    let options = [&["--work", "15ms"], &LEASE[..]].concat();
    let mut program = start(Which::Ours, &account, &options);
    let (mut killed, mut story) = (BTreeSet::new(), String::new());
    for _ in 0..8 {
        // Knuth's MMIX generator.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005);
        seed = seed.wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_millis(seed >> 56));
        let what = ["stop", "kill", "restart", "lock"][usize::try_from(seed >> 33 & 3).unwrap()];
        story = story + what + ", ";
        match what {
            "restart" => restart(&mut account.redis, seed >> 40),
            "lock" => Lock::hold_for(&account.database, Duration::from_millis(300)),
            "kill" => {
                drop(program);
                killed.extend(account.places().in_hand);
                program = start(Which::Ours, &account, &options);
            }
            _ => {
                let ended = stop(program);
                assert_eq!(ended.count("in_hand"), 0, "{ended:?}");
                program = start(Which::Ours, &account, &options);
            }
        }
    }
    account.await_dry();
    assert_eq!(stop(program).code, Some(0));
    let twice = account.places().all_moved(&account, &killed).unwrap();
    println!(
        "{story}{} in hand at kills, {twice} written twice",
        killed.len()
    );
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn stops_kills_restarts_and_locks_in_any_order_lose_nothing() {
    for seed in [3, 7] {
        chaos(seed);
    }
}
