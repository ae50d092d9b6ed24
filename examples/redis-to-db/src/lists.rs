//! The lists in Redis. A message is always in one of them, until it is in the
//! database.
//!
//! | key | what |
//! |---|---|
//! | `LIST` | messages that wait; producers push on the left |
//! | `LIST:processing:HOST:PID:START:N` | what one worker has in hand |
//! | `LIST:leases` | until when each of those has an owner (a sorted set) |
//! | `LIST:failures` | how often a message failed (a hash) |
//! | `LIST:dead` | messages that failed too often |

use crate::check::{Fault, check};
use crate::connection::{Server, words};
use crate::options::{OnRedisError, Options};
use anyhow::Result;
use lastecho::{Episode, Stop};
use redis::{Connection, FromRedisValue, RedisError, RedisResult, Script, ScriptInvocation};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, process, thread};

/// How long Redis may take to answer, beyond what it was told to wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// What all workers of a process share.
pub struct Lists {
    server: Server,
    list: String,
    /// The lists of this process's workers begin so. No other process's ever
    /// do.
    instance: String,
    workers: usize,
    attempts: u32,
    lease: Duration,
    poll: Duration,
    policy: OnRedisError,
    /// Stops the program: the policy may.
    stop: Stop,
    /// Stops the workers; its cut is the end of all patience with Redis.
    drain: Stop,
    settle: Script,
    tend: Script,
    /// One for all: Redis in trouble is tried by one at a time.
    pub trouble: Episode,
    /// Why the policy stopped the process.
    pub fatal: OnceLock<String>,
}

/// How a worker is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is in the database.
    Done,
    /// It could not be tried: it is the next again.
    Back,
    /// It failed: it comes last, or goes to the dead.
    Failed,
}

/// What a look at all lists found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Messages put back that dead processes had in hand.
    pub recovered: u64,
    /// Messages that wait.
    pub backlog: u64,
}

impl Lists {
    /// Connects nowhere yet.
    ///
    /// # Errors
    /// The URL is none of Redis, or a certificate cannot be read.
    pub fn new(options: &Options, stop: &Stop, drain: &Stop) -> Result<Self> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        let started = started.unwrap_or_default().as_millis();
        let (list, pid) = (&options.redis.list, process::id());
        Ok(Self {
            server: Server::new(&options.redis)?,
            list: list.clone(),
            instance: format!("{list}:processing:{}:{pid}:{started}", host.trim()),
            workers: options.workers,
            attempts: options.attempts,
            lease: options.lease,
            poll: options.poll,
            policy: options.on_redis_error,
            stop: stop.clone(),
            drain: drain.clone(),
            settle: Script::new(include_str!("settle.lua")),
            tend: Script::new(include_str!("tend.lua")),
            trouble: Episode::new("redis"),
            fatal: OnceLock::new(),
        })
    }

    /// A connection of its own for a worker, by its number.
    pub fn link(&self, number: usize) -> Link<'_> {
        Link {
            lists: self,
            mine: self.processing(number),
            connection: None,
        }
    }

    fn processing(&self, number: usize) -> String {
        format!("{}:{number}", self.instance)
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}:{suffix}", self.list)
    }

    fn tending(&self, lease: Duration) -> ScriptInvocation<'_> {
        let mut script = self.tend.key(self.key("leases"));
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        script.key(&self.list).arg(millis);
        for number in 1..=self.workers {
            script.arg(self.processing(number));
        }
        script
    }

    fn failed(&self, error: &RedisError) {
        self.trouble.failed(&words(error));
        if self.policy == OnRedisError::Stop {
            let _ = self.fatal.set(format!("redis: {}", words(error)));
            self.stop.set();
        }
    }

    /// Blocks for 5 s at most.
    fn connect(&self) -> RedisResult<Connection> {
        let connection = self.server.connect(PATIENCE)?;
        connection.set_read_timeout(Some(self.poll + PATIENCE))?;
        Ok(connection)
    }
}

/// One worker's connection and the list of what it has in hand.
pub struct Link<'a> {
    lists: &'a Lists,
    mine: String,
    /// Made when it is needed, and anew after an error.
    connection: Option<Connection>,
}

impl Link<'_> {
    /// Looks at Redis before the first message.
    ///
    /// # Errors
    /// Messages cannot be moved with it, or not now.
    pub fn check(&self) -> Result<(), Fault> {
        let connection = self.lists.connect();
        let checked = connection
            .map_err(|error| Fault::new("", error))
            .and_then(|mut connection| check(&mut connection, &self.lists.list, &self.mine));
        if let Err(Fault::Passing(error)) = &checked {
            self.lists.failed(error);
        }
        checked
    }

    /// Waits for a message, for at most so long (and 5 s for the answer).
    ///
    /// Redis moves it into our list in the same step: there is no moment in
    /// which it is nowhere. If the answer is lost, the message is in our list
    /// and in nobody's hand; so what is there when we ask goes back first.
    ///
    /// # Errors
    /// What Redis says, or the connection to it.
    pub fn take(&mut self, longest: Duration) -> RedisResult<Option<Vec<u8>>> {
        let mut both = redis::pipe();
        let back = both.cmd("LMOVE").arg(&self.mine).arg(&self.lists.list);
        back.arg("LEFT").arg("RIGHT").ignore();
        let take = both.cmd("BLMOVE").arg(&self.lists.list).arg(&self.mine);
        take.arg("RIGHT").arg("LEFT").arg(longest.as_secs_f64());
        let answer = self.ask(|connection| both.query(connection));
        answer.map(|(message,)| message)
    }

    /// Takes the message out of our list, in one step with where it goes
    /// instead. Whether that was to the dead; `None` where Redis could not be
    /// told before the cut: then the message is done again by somebody else.
    ///
    /// Blocks until Redis can be told, or the cut.
    pub fn settle(&mut self, message: &[u8], how: How) -> Option<bool> {
        let lists = self.lists;
        let how = match how {
            How::Done => "done",
            How::Back => "back",
            How::Failed => "failed",
        };
        let mut script = lists.settle.key(self.mine.as_str());
        script.key(&lists.list);
        script.key(lists.key("failures")).key(lists.key("dead"));
        script.arg(message).arg(how).arg(lists.attempts);
        self.insist(&script)
    }

    /// Renews the leases of all our lists and puts back what processes that
    /// are gone had in hand.
    ///
    /// # Errors
    /// What Redis says, or the connection to it.
    pub fn tend(&mut self) -> RedisResult<Found> {
        let lists = self.lists;
        let script = lists.tending(lists.lease);
        let answer = self.ask(|connection| script.invoke(connection));
        answer.map(|(recovered, backlog)| Found { recovered, backlog })
    }

    /// Gives our leases up; what is in our lists is put back.
    ///
    /// Blocks as [`settle`](Self::settle); false where it gave up.
    pub fn release(&mut self) -> bool {
        let lists = self.lists;
        let script = lists.tending(Duration::ZERO);
        self.insist::<(u64, u64)>(&script).is_some()
    }

    /// Runs a script again and again, with back-off, until Redis has answered
    /// or the cut has come.
    fn insist<T: FromRedisValue>(&mut self, script: &ScriptInvocation<'_>) -> Option<T> {
        let lists = self.lists;
        loop {
            match lists.trouble.hold_off() {
                Some(wait) => thread::sleep(lists.drain.cut_at().cap(wait)),
                None => {
                    let answer = self.ask(|connection| script.invoke(connection));
                    if answer.is_ok() {
                        return answer.ok();
                    }
                }
            }
            if lists.drain.is_cut() {
                return None;
            }
        }
    }

    /// Asks once. After an error the connection is given up: nobody knows what
    /// it would answer next.
    fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let lists = self.lists;
        let connection = self.connection.take().map_or_else(|| lists.connect(), Ok);
        let answer = connection.and_then(|mut connection| {
            let answer = question(&mut connection)?;
            self.connection = Some(connection);
            Ok(answer)
        });
        match &answer {
            Ok(_) => lists.trouble.worked(),
            Err(error) => lists.failed(error),
        }
        answer
    }
}
