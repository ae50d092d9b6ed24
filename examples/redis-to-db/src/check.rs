//! What is looked at before the first message: whether Redis knows all that we
//! will ask, lets us ask it, and has nothing else under our keys.

use crate::connection::{is_permanent, words};
use redis::{Connection, RedisError};

/// Why it cannot be begun.
#[derive(Debug)]
pub enum Fault {
    /// Waiting does not mend it.
    Permanent(String),
    /// It may be over at the next try.
    Passing(RedisError),
}

impl Fault {
    /// Judges what Redis answered, and names what it answered to.
    #[must_use]
    pub fn new(what: &str, error: RedisError) -> Self {
        if is_permanent(&error) {
            return Self::Permanent(format!("redis: {what}{}", words(&error)));
        }
        Self::Passing(error)
    }
}

/// Checks the keys that belong to a list, and every command, with one of its
/// workers' lists. The connection is good for nothing afterwards.
///
/// # Errors
/// The first that is wrong.
pub fn check(connection: &mut Connection, list: &str, mine: &str) -> Result<(), Fault> {
    let leases = &format!("{list}:leases");
    let failures = &format!("{list}:failures");
    let dead = &format!("{list}:dead");
    for (key, kind) in [
        (list, "list"),
        (leases, "zset"),
        (failures, "hash"),
        (dead, "list"),
    ] {
        look_at_type(connection, key, kind)?;
    }
    // In a transaction Redis checks each command as it comes, and runs none
    // before the end, which never comes. (ACL DRYRUN is only in Redis 7.)
    let commands: [&[&str]; 17] = [
        &["MULTI"],
        &["EVALSHA", "none", "0"],
        &["SCRIPT", "LOAD", "return 0"],
        &["BLMOVE", list, mine, "RIGHT", "LEFT", "1"],
        &["LMOVE", mine, list, "LEFT", "RIGHT"],
        &["LMOVE", mine, dead, "LEFT", "LEFT"],
        &["LINDEX", mine, "0"],
        &["LREM", mine, "1", ""],
        &["LLEN", list],
        &["HINCRBY", failures, "", "1"],
        &["HDEL", failures, ""],
        &["TIME"],
        &["ZADD", leases, "0", mine],
        &["ZCOUNT", leases, "0", "0"],
        &["ZRANGE", leases, "0", "0"],
        &["ZREM", leases, mine],
        &["TYPE", mine],
    ];
    for command in commands {
        let name = command[0];
        let queued = redis::cmd(name).arg(&command[1..]).exec(connection);
        queued.map_err(|error| Fault::new(&format!("{name}: "), error))?;
    }
    Ok(())
}

fn look_at_type(connection: &mut Connection, key: &str, wanted: &str) -> Result<(), Fault> {
    let kind: Result<String, _> = redis::cmd("TYPE").arg(key).query(connection);
    let kind = kind.map_err(|error| Fault::new("TYPE: ", error))?;
    if kind == "none" || kind == wanted {
        return Ok(());
    }
    let what = format!("redis: WRONGTYPE {key} is a {kind} and not a {wanted}");
    Err(Fault::Permanent(what))
}
