//! The lists in Redis. A message is always in one of them, until it is in the
//! database.
//!
//! | key | what |
//! |---|---|
//! | `LIST` | messages that wait; producers push on the left |
//! | `LIST:processing:HOST:PID:ID:N` | what one worker has in hand |
//! | `LIST:leases` | until when each of those has an owner (a sorted set) |
//! | `LIST:failures` | how often a message failed (a hash) |
//! | `LIST:dead` | messages that failed too often |

use crate::check::{Fault, check};
use crate::connection::{Server, is_interrupted, is_unheard, uninterrupted, words};
use crate::demand::{Demand, Demands};
use crate::options::{OnRedisError, Options};
use crate::settling::{How, Settled};
use anyhow::{Context, Result};
use lastecho::{Episode, Stop};
use redis::{Connection, FromRedisValue, RedisError, RedisResult, Script, ScriptInvocation};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{fs, process, thread};

/// How long Redis may take to answer, beyond what it was told to wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// The shortest that Redis can wait: to it, less is for ever.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// How often a worker looks whether the leases are renewed again.
const LOOK: Duration = Duration::from_millis(50);

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
    /// How long Redis waits for a message on our behalf.
    wait: Duration,
    policy: OnRedisError,
    /// Stops the program: the policy may.
    stop: Stop,
    /// Stops the workers; its cut is the end of all patience with Redis.
    drain: Stop,
    settle: Script,
    tend: Script,
    /// Where the first look at the leases begins.
    first_look: u64,
    /// One for all that have no connection that works: they try one at a time.
    trouble: Episode,
    /// How many those are.
    without: AtomicUsize,
    /// The leases cannot be renewed: no worker takes a message or a connection.
    keeper_is_without: AtomicBool,
    /// What Redis may have given to workers that do not know.
    pub demands: Demands,
    /// Why the policy stopped the process.
    pub fatal: OnceLock<String>,
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
    /// The URL is none of Redis, a certificate cannot be read, or the system
    /// gives no random number.
    pub fn new(options: &Options, stop: &Stop, drain: &Stop) -> Result<Self> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        // In containers, host, process and start are the same again and again.
        let id = getrandom::u64().context("no random number")?;
        let (list, pid) = (&options.redis.list, process::id());
        let wait = options.poll.min(options.lease / 3);
        Ok(Self {
            server: Server::new(&options.redis)?,
            list: list.clone(),
            instance: format!("{list}:processing:{}:{pid}:{id:016x}", host.trim()),
            workers: options.workers,
            attempts: options.attempts,
            lease: options.lease,
            // A worker that waits sees no stop, which must have time for it.
            wait: wait.min(options.drain_timeout / 4).max(SHORTEST_WAIT),
            policy: options.on_redis_error,
            stop: stop.clone(),
            drain: drain.clone(),
            settle: Script::new(include_str!("settle.lua")),
            tend: Script::new(include_str!("tend.lua")),
            first_look: id >> 32,
            trouble: Episode::new("redis"),
            without: AtomicUsize::new(0),
            keeper_is_without: AtomicBool::new(false),
            demands: Demands::default(),
            fatal: OnceLock::new(),
        })
    }

    /// A connection of its own for a worker, by its number; 0 is the keeper.
    pub fn link(self: &Arc<Self>, number: usize) -> Link {
        Link {
            lists: Arc::clone(self),
            is_keeper: number == 0,
            mine: format!("{}:{number}", self.instance),
            connection: None,
            is_without: false,
            demand: Demand::Answered,
            look: self.first_look,
        }
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}:{suffix}", self.list)
    }
}

/// One worker's connection and the list of what it has in hand.
pub struct Link {
    lists: Arc<Lists>,
    is_keeper: bool,
    mine: String,
    /// Made when it is needed, and anew after an error.
    connection: Option<Connection>,
    /// Its last connection failed, and no other works yet.
    is_without: bool,
    demand: Demand,
    /// Where the next look at the leases begins.
    look: u64,
}

impl Link {
    /// How long to leave Redis alone. A worker whose connection works need not;
    /// one that has none waits for its turn, and all wait where the leases are
    /// not renewed: what they took would be another's soon, and the keeper may
    /// lack the connection that they have.
    pub fn hold_off(&mut self) -> Option<Duration> {
        if self.lists.keeper_is_without.load(Relaxed) && !self.is_keeper {
            self.connection = None;
            return Some(LOOK);
        }
        let turn = self.is_without.then(|| self.lists.trouble.hold_off());
        turn.flatten()
    }

    /// Looks at Redis before the first message.
    ///
    /// # Errors
    /// Messages cannot be moved with it, or not now.
    pub fn check(&mut self) -> Result<(), Fault> {
        let connection = self.connect().map_err(|error| Fault::new("", error));
        let (list, mine) = (&self.lists.list, &self.mine);
        let checked = connection.and_then(|mut redis| check(&mut redis, list, mine));
        if let Err(Fault::Passing(error)) = &checked {
            self.failed(error);
        }
        checked
    }

    /// Waits for a message, for at most the poll interval, a third of the lease
    /// or a quarter of the drain timeout (and 5 s for the answer).
    ///
    /// Redis moves it into our list in the same step: there is no moment in
    /// which it is nowhere. If the answer is lost, the message is in our list
    /// and in nobody's hand; so what is there when we ask goes back first. Redis
    /// may refuse that and give us the next all the same: so after an error
    /// nothing is taken before all is back.
    ///
    /// # Errors
    /// What Redis says, or the connection to it.
    pub fn take(&mut self) -> RedisResult<Option<Vec<u8>>> {
        let lists = Arc::clone(&self.lists);
        let mut back = redis::cmd("LMOVE");
        back.arg(&self.mine).arg(&lists.list);
        back.arg("LEFT").arg("RIGHT");
        let mut is_after_error = self.connection.is_none();
        let mut both = redis::pipe();
        both.add_command(back.clone()).ignore();
        let take = both.cmd("BLMOVE").arg(&lists.list).arg(&self.mine);
        take.arg("RIGHT").arg("LEFT").arg(lists.wait.as_secs_f64());
        let (mut demand, mut is_broken) = (self.demand, false);
        let answer = self.ask(|connection| {
            while is_after_error && back.query::<Option<Vec<u8>>>(connection)?.is_some() {}
            is_after_error = true; // where it is asked again
            lists.demands.change(&mut demand, Demand::Waiting);
            let answer = both.query(connection);
            is_broken = answer.as_ref().is_err_and(|error| !is_unheard(error));
            answer
        });
        match &answer {
            Ok(_) => lists.demands.change(&mut demand, Demand::Answered),
            Err(_) if is_broken => lists.demands.change(&mut demand, Demand::Broken),
            Err(_) => {}
        }
        self.demand = demand;
        answer.map(|(message,)| message)
    }

    /// Takes the message out of our list, in one step with where it goes
    /// instead. `None` where Redis could not be told before the cut: then the
    /// message is done again by somebody else.
    ///
    /// Blocks until Redis can be told, or the cut.
    pub fn settle(&mut self, message: &[u8], how: How) -> Option<Settled> {
        let lists = Arc::clone(&self.lists);
        let mut script = lists.settle.key(self.mine.as_str());
        script.key(&lists.list);
        script.key(lists.key("failures")).key(lists.key("dead"));
        script.arg(message).arg(how.word()).arg(lists.attempts);
        self.insist(&script).map(Settled::new)
    }

    /// Renews the leases of all our lists and puts back what processes that
    /// are gone had in hand.
    ///
    /// # Errors
    /// What Redis says, or the connection to it.
    pub fn tend(&mut self) -> RedisResult<Found> {
        let lists = Arc::clone(&self.lists);
        let script = self.look(&lists, lists.lease);
        let answer = self.ask(|connection| script.invoke(connection));
        let (recovered, backlog, look) = answer?;
        self.look = look;
        Ok(Found { recovered, backlog })
    }

    /// Gives our leases up; what is in our lists is put back. They are still
    /// looked at for some minutes: Redis may yet hear a demand that it did not
    /// hear before, and put a message into one of them.
    ///
    /// Blocks as [`settle`](Self::settle); false where it gave up.
    pub fn release(&mut self) -> bool {
        let lists = Arc::clone(&self.lists);
        let script = self.look(&lists, Duration::ZERO);
        let released = self.insist::<(u64, u64, u64)>(&script).is_some();
        if released {
            lists.demands.release();
        }
        released
    }

    /// It has few arguments: of a connection that has not logged in, Redis
    /// takes no more than ten.
    fn look<'a>(&self, lists: &'a Lists, lease: Duration) -> ScriptInvocation<'a> {
        let mut script = lists.tend.key(lists.key("leases"));
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        script.key(&lists.list).arg(millis).arg(self.look);
        script.arg(&lists.instance).arg(lists.workers);
        script
    }

    /// Runs a script again and again, with back-off, until Redis has answered
    /// or the cut has come.
    fn insist<T: FromRedisValue>(&mut self, script: &ScriptInvocation<'_>) -> Option<T> {
        loop {
            match self.hold_off() {
                Some(wait) => thread::sleep(self.lists.drain.cut_at().cap(wait)),
                None => {
                    let answer = self.ask(|connection| script.invoke(connection));
                    if answer.is_ok() {
                        return answer.ok();
                    }
                }
            }
            if self.lists.drain.is_cut() {
                return None;
            }
        }
    }

    /// Asks once, and again where that was interrupted, until the cut. After an
    /// error the connection is given up: nobody knows what it would answer next.
    fn ask<T>(
        &mut self,
        mut question: impl FnMut(&mut Connection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let drain = self.lists.drain.clone();
        let answer = uninterrupted(&drain, || {
            let connection = self.connection.take().map_or_else(|| self.connect(), Ok);
            let mut connection = connection?;
            let answer = question(&mut connection)?;
            self.connection = Some(connection);
            Ok(answer)
        });
        match &answer {
            Ok(_) => self.worked(),
            Err(error) => self.failed(error),
        }
        answer
    }

    /// Blocks for 5 s at most; for the keeper half a lease, so that there is
    /// time for a second try.
    fn connect(&self) -> RedisResult<Connection> {
        let Lists { server, lease, .. } = &*self.lists;
        let patience = PATIENCE.min(if self.is_keeper { *lease / 2 } else { PATIENCE });
        let mut connection = server.connect(patience)?;
        // Of several commands at once, a Redis that has no connection left
        // answers only the first.
        redis::cmd("TIME").exec(&mut connection)?;
        if !self.is_keeper {
            connection.set_read_timeout(Some(self.lists.wait + patience))?;
        }
        Ok(connection)
    }

    fn worked(&mut self) {
        let lists = &self.lists;
        let was_without = std::mem::take(&mut self.is_without);
        if was_without {
            lists.without.fetch_sub(1, Relaxed);
        }
        if self.is_keeper {
            lists.keeper_is_without.store(false, Relaxed);
        }
        // The others that have none still wait, as long as some fail.
        if was_without || (self.is_keeper && lists.without.load(Relaxed) == 0) {
            lists.trouble.worked();
        }
    }

    /// An interruption is no failure of Redis.
    fn failed(&mut self, error: &RedisError) {
        if is_interrupted(error) {
            return;
        }
        let lists = &self.lists;
        if !std::mem::replace(&mut self.is_without, true) {
            lists.without.fetch_add(1, Relaxed);
        }
        if self.is_keeper {
            lists.keeper_is_without.store(true, Relaxed);
        }
        lists.trouble.failed(&words(error));
        if lists.policy == OnRedisError::Stop {
            let _ = lists.fatal.set(format!("redis: {}", words(error)));
            lists.stop.set();
        }
    }
}
