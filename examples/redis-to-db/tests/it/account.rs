//! Where every message is.

use crate::servers::{Redis, eventually, memory};
use lastecho::Stop;
use redis::{Connection, FromRedisValue};
use redis_to_db::connection::uninterrupted;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;

/// A Redis, a database, and the messages that were produced.
pub(crate) struct Account {
    pub(crate) redis: Redis,
    pub(crate) database: String,
    produced: BTreeSet<String>,
    dir: TempDir,
}

/// The keys of messages, by place.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) waiting: Vec<String>,
    /// In the lists of workers.
    pub(crate) in_hand: BTreeSet<String>,
    pub(crate) dead: Vec<String>,
    /// In the database, and how often each was written.
    pub(crate) rows: BTreeMap<String, i64>,
}

impl Account {
    /// With an `SQLite` file.
    pub(crate) fn new() -> Self {
        let dir = memory();
        let file = dir.path().join("messages.sqlite");
        Self {
            redis: Redis::start(),
            database: file.to_str().unwrap().to_owned(),
            produced: BTreeSet::new(),
            dir,
        }
    }

    pub(crate) fn with(database: String) -> Self {
        Self {
            database,
            ..Self::new()
        }
    }

    /// Begins anew on the same Redis, with another database.
    pub(crate) fn renew(&mut self, database: String) {
        self.redis_command::<()>(&["FLUSHALL"]);
        self.produced.clear();
        self.database = database;
    }

    /// Expects the messages with these keys, which somebody else has produced.
    pub(crate) fn expect(&mut self, keys: impl IntoIterator<Item = String>) {
        self.produced.extend(keys);
    }

    /// A file for a test's own use.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn produce(&mut self, prefix: &str, count: u64) {
        crate::programs::produce(&self.redis, prefix, count);
        self.produced
            .extend((1..=count).map(|number| format!("{prefix}-{number}")));
    }

    /// Expects no more of the messages that were produced so far.
    pub(crate) fn forget(&mut self) {
        self.produced.clear();
    }

    /// The list is empty, and so are all workers' hands: asked at once, for
    /// what is taken back from a dead process's hands is in neither of two looks.
    pub(crate) fn is_dry(&self) -> bool {
        const ALL: &str = "local all = redis.call('LLEN', 'messages') \
            for _, hand in ipairs(redis.call('KEYS', 'messages:processing:*')) do \
            all = all + redis.call('LLEN', hand) end return all";
        self.redis_command::<u64>(&["EVAL", ALL, "0"]) == 0
    }

    /// Nothing is left that some process will look at: the list is empty, and
    /// so are the lists of workers that have an entry among the leases.
    pub(crate) fn has_none_to_move(&self) -> bool {
        const ALL: &str = "local all = redis.call('LLEN', 'messages') \
            for _, hand in ipairs(redis.call('ZRANGE', 'messages:leases', 0, -1)) do \
            all = all + redis.call('LLEN', hand) end return all";
        self.redis_command::<u64>(&["EVAL", ALL, "0"]) == 0
    }

    pub(crate) fn await_dry(&self) {
        eventually("the list is empty", || self.is_dry());
    }

    /// Waits until no more than so many wait.
    pub(crate) fn await_waiting(&self, most: u64) {
        let mut redis = self.redis.connect();
        eventually("messages were taken", || {
            length(&mut redis, "messages") <= most
        });
    }

    /// Messages that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.redis_command(&["LLEN", "messages"])
    }

    /// Asks Redis directly.
    pub(crate) fn redis_command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        ask(&mut self.redis.connect(), words)
    }

    pub(crate) fn places(&self) -> Places {
        let mut redis = self.redis.connect();
        Places {
            waiting: keys_in(&mut redis, "messages"),
            in_hand: in_hand(&mut redis),
            dead: keys_in(&mut redis, "messages:dead"),
            rows: self.rows(),
        }
    }

    fn rows(&self) -> BTreeMap<String, i64> {
        const ALL: &str = "SELECT key, CAST(written AS BIGINT) FROM messages";
        if self.database.starts_with("postgresql:") {
            let mut client = postgres::Client::connect(&self.database, postgres::NoTls).unwrap();
            let rows = client.query(ALL, &[]).unwrap_or_default();
            return rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        }
        let file = rusqlite::Connection::open(&self.database).unwrap();
        let Ok(mut all) = file.prepare(ALL) else {
            return BTreeMap::new(); // nothing was written yet
        };
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }
}

impl Places {
    /// Every message is somewhere.
    pub(crate) fn none_lost(&self, account: &Account) -> Result<(), String> {
        let mut found: BTreeSet<&String> = self.waiting.iter().chain(&self.dead).collect();
        found.extend(self.in_hand.iter().chain(self.rows.keys()));
        let mut lost = account.produced.iter().filter(|key| !found.contains(key));
        let Some(first) = lost.next() else {
            return Ok(());
        };
        let (lost, all) = (1 + lost.count(), account.produced.len());
        Err(format!("{lost} of {all} lost, {first:.60} among them"))
    }

    /// Every message is in the database or with the dead, and nothing is
    /// anywhere else.
    pub(crate) fn all_ended(&self, account: &Account) -> Result<(), String> {
        self.none_lost(account)?;
        let (waiting, in_hand) = (self.waiting.len(), self.in_hand.len());
        match self.waiting.first().or(self.in_hand.first()) {
            None => Ok(()),
            Some(key) => Err(format!(
                "{waiting} wait and {in_hand} are in lists that no process looks at, {key:.60} among them"
            )),
        }
    }

    /// Every message is in the database, and none was written twice but these;
    /// how many were.
    pub(crate) fn all_moved(
        &self,
        account: &Account,
        may_be_twice: &BTreeSet<String>,
    ) -> Result<usize, String> {
        self.none_lost(account)?;
        let (rows, produced) = (self.rows.len(), account.produced.len());
        if rows != produced {
            return Err(format!("{rows} of {produced} in the database"));
        }
        let twice = self.written_twice();
        match twice.iter().find(|key| !may_be_twice.contains(*key)) {
            Some(key) => Err(format!("{key} was written twice")),
            None => Ok(twice.len()),
        }
    }

    /// No message is in hand or in two places, none was written twice.
    pub(crate) fn each_in_one_place(&self, account: &Account) -> Result<(), String> {
        self.none_lost(account)?;
        let both = self
            .waiting
            .iter()
            .filter(|key| self.rows.contains_key(*key));
        let (both, in_hand) = (both.count(), self.in_hand.len());
        let twice = self.written_twice().len();
        if (twice, both, in_hand) != (0, 0, 0) {
            return Err(format!(
                "{twice} written twice, {both} written and waiting, {in_hand} in hand"
            ));
        }
        Ok(())
    }

    pub(crate) fn written_twice(&self) -> BTreeSet<String> {
        let rows = self.rows.iter().filter(|(_, written)| **written > 1);
        rows.map(|(key, _)| key.clone()).collect()
    }
}

/// No message may be written twice.
pub(crate) const NONE: BTreeSet<String> = BTreeSet::new();

pub(crate) fn ask<T: FromRedisValue>(redis: &mut Connection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    // The client throws the late answer away.
    uninterrupted(&Stop::new(), || command.query(redis)).unwrap()
}

fn length(redis: &mut Connection, list: &str) -> u64 {
    ask(redis, &["LLEN", list])
}

fn in_hand(redis: &mut Connection) -> BTreeSet<String> {
    let lists: Vec<String> = ask(redis, &["KEYS", "messages:processing:*"]);
    let lists = lists.iter();
    lists.flat_map(|list| keys_in(redis, list)).collect()
}

/// The keys of the messages in a list, the oldest first.
fn keys_in(redis: &mut Connection, list: &str) -> Vec<String> {
    let messages: Vec<Vec<u8>> = ask(redis, &["LRANGE", list, "0", "-1"]);
    messages.iter().rev().map(|message| key(message)).collect()
}

/// The key of a message, or all of it; it need not be UTF-8.
pub(crate) fn key(message: &[u8]) -> String {
    let key = message.split(|byte| *byte == b' ').next().unwrap();
    String::from_utf8_lossy(key).into_owned()
}
