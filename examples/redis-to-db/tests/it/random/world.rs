//! The servers, the disk and the relays of a run, and the faults that happen to
//! them.

use super::disk::Disk;
use super::fault::{Fault, Launch, Side, Store};
use super::plan::Plan;
use super::relay::Relay;
use crate::account::Account;
use crate::harness::Program;
use crate::programs::Which;
use crate::servers::{Postgres, Redis, eventually};
use rustix::process::Signal;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The programs' user of Redis, from whom rights are taken.
const MOVER: &str = "mover";

/// A program, perhaps with a strace that makes some of its calls fail.
pub(super) struct Launched {
    pub(super) program: Program,
    /// Lets it go when it is dropped.
    _tracer: Option<Tracer>,
}

struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Started once and used for many runs, one after the other.
pub(super) struct World {
    pub(super) account: Account,
    postgres: Postgres,
    disk: Disk,
    to_redis: Relay,
    to_postgres: Relay,
    store: Store,
    /// Connections that make a fault last, or can end it.
    locking: Option<postgres::Client>,
    admitted: Option<redis::Connection>,
}

impl World {
    pub(super) fn new() -> Self {
        let (mut account, postgres) = (Account::new(), Postgres::start());
        let user = ["--user", MOVER, "on", "nopass", "~*", "&*", "+@all"];
        account.redis = Redis::start_with(&user);
        Self {
            to_redis: Relay::to(account.redis.port),
            to_postgres: Relay::to(postgres.port),
            disk: Disk::mount(),
            store: Store::Sqlite,
            locking: None,
            admitted: None,
            account,
            postgres,
        }
    }

    /// Empties everything for the next run.
    pub(super) fn renew(&mut self, plan: &Plan) {
        self.store = plan.store;
        self.disk.remove_database();
        self.execute("DROP TABLE IF EXISTS messages");
        let waits = if plan.is_lax { "off" } else { "on" };
        self.set("synchronous_commit", waits);
        self.account.renew(self.postgres.url());
    }

    /// Starts a program behind the relays.
    pub(super) fn launch(&self, which: Which, launch: &Launch) -> Launched {
        let mut command = self.disk.inside();
        command.arg(which.path()).env("RUST_BACKTRACE", "0");
        let redis = format!("redis://{MOVER}:x@127.0.0.1:{}", self.to_redis.port);
        self.targets(&mut command, &redis, self.to_postgres.port);
        command.args(&launch.options);
        let program = Program::start(command);
        let tracer = launch.injected.map(|injected| {
            let (call, how) = injected.for_strace();
            // While the program starts already: any of its calls may be hit.
            let mut strace = Command::new("strace");
            strace.args(["-f", "-q", "-q", "-p", &program.pid().to_string()]);
            strace.args(["-e", &format!("trace={call}"), "-o", "/dev/null"]);
            strace.args(["-e", &format!("inject={call}:{how}")]);
            let silent = strace.stdin(Stdio::null()).stderr(Stdio::null());
            Tracer(silent.spawn().unwrap())
        });
        Launched {
            program,
            _tracer: tracer,
        }
    }

    /// Starts one of ours that talks to the servers directly.
    pub(super) fn launch_clean(&self) -> Program {
        let mut command = self.disk.inside();
        command.arg(Which::Ours.path());
        self.targets(&mut command, &self.account.redis.url(), self.postgres.port);
        command.args(["--workers", "4", "--poll", "20ms", "--lease", "1s"]);
        Program::start(command)
    }

    fn targets(&self, command: &mut Command, redis: &str, postgres: u16) {
        let postgres = format!("postgresql://postgres@127.0.0.1:{postgres}/postgres");
        command.args(["--redis", redis, "--panic-on", "panic", "--database"]);
        match self.store {
            Store::Sqlite => command.arg(self.disk.database()),
            Store::Postgres => command.arg(postgres),
        };
    }

    pub(super) fn relay(&self, side: Side) -> &Relay {
        match side {
            Side::Redis => &self.to_redis,
            Side::Postgres => &self.to_postgres,
        }
    }

    /// Begins what lasts for a while. (The run lets programs sleep.)
    pub(super) fn begin(&mut self, fault: Fault) {
        let redis = &mut self.account.redis;
        match fault {
            Fault::ProgramAsleep(_) => {}
            Fault::RedisAsleep => redis.signal(Signal::STOP),
            Fault::RedisAway(signal) => redis.end(signal),
            Fault::PostgresAway => self.postgres.end(Signal::QUIT),
            Fault::HeldBack(side, held) => self.relay(side).hold(held),
            Fault::Refused(command) => self.allow(&format!("-{command}")),
            Fault::WrongType(key) => {
                // Where there is a list or a hash already, it stays.
                let key = format!("messages:{key}");
                self.account.redis_command::<()>(&["SETNX", &key, "text"]);
            }
            Fault::NoMemory => self.limit_memory("1"),
            Fault::NoConnections => {
                self.admitted = Some(self.account.redis.connect());
                self.limit_clients("1");
            }
            Fault::ReadOnly => self.set("default_transaction_read_only", "on"),
            Fault::Locked => {
                let lock = "SET lock_timeout = '100ms'; BEGIN; LOCK TABLE messages";
                let mut client = self.postgres.try_connect().unwrap();
                // There may be no table yet.
                let _ = client.batch_execute(lock);
                self.locking = Some(client);
            }
            Fault::DiskFull(left) => self.disk.fill(left),
        }
    }

    pub(super) fn end(&mut self, fault: Fault) {
        const DELETE: &str = "if redis.call('TYPE', KEYS[1]).ok == 'string' \
            then redis.call('DEL', KEYS[1]) end";
        match fault {
            Fault::ProgramAsleep(_) => {}
            Fault::RedisAsleep => self.account.redis.signal(Signal::CONT),
            Fault::RedisAway(_) => self.account.redis.start_again(),
            Fault::PostgresAway => self.postgres.start_again(),
            Fault::HeldBack(side, _) => self.relay(side).release(),
            Fault::Refused(_) => self.allow("+@all"),
            Fault::WrongType(key) => {
                let key = format!("messages:{key}");
                self.account
                    .redis_command::<()>(&["EVAL", DELETE, "1", &key]);
            }
            Fault::NoMemory => self.limit_memory("0"),
            Fault::NoConnections => {
                self.limit_clients("10000");
                self.admitted = None;
            }
            Fault::ReadOnly => self.set("default_transaction_read_only", "off"),
            Fault::Locked => self.locking = None,
            Fault::DiskFull(_) => self.disk.make_room(),
        }
    }

    fn allow(&self, rule: &str) {
        self.account
            .redis_command::<()>(&["ACL", "SETUSER", MOVER, rule]);
    }

    fn limit_memory(&self, bytes: &str) {
        self.account
            .redis_command::<()>(&["CONFIG", "SET", "maxmemory", bytes]);
    }

    fn limit_clients(&mut self, most: &str) {
        let mut limit = redis::cmd("CONFIG");
        let limit = limit.arg("SET").arg("maxclients").arg(most);
        limit.exec(self.admitted.as_mut().unwrap()).unwrap();
    }

    /// Sets what holds for new connections to PostgreSQL.
    fn set(&self, setting: &str, value: &str) {
        self.execute(&format!("ALTER ROLE postgres SET {setting} = {value}"));
    }

    /// Executes a statement in PostgreSQL, for good, whatever is [set](Self::set).
    fn execute(&self, statement: &str) {
        let mut client = self.postgres.try_connect().unwrap();
        let write = "SET default_transaction_read_only = off";
        for statement in [write, "SET synchronous_commit = on", statement] {
            client.batch_execute(statement).unwrap();
        }
    }

    /// Waits until nothing of any program is on its way or running.
    pub(super) fn await_quiet(&self) {
        self.to_redis.await_idle();
        self.to_postgres.await_idle();
        eventually("only we are connected to Redis", || {
            let clients: String = self.account.redis_command(&["CLIENT", "LIST"]);
            clients.lines().count() == 1
        });
        let mut client = self.postgres.try_connect().unwrap();
        eventually("only we are connected to PostgreSQL", || {
            let count =
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
            client.query_one(count, &[]).unwrap().get::<_, i64>(0) == 1
        });
    }

    /// Fetches the database for [`Account::places`].
    pub(super) fn fetch_database(&mut self) {
        if self.store == Store::Sqlite {
            let file = self.account.path("copy");
            let dir = Path::new(&file).parent().unwrap();
            let copy = self.disk.copy_database(dir);
            self.account.database = copy.to_str().unwrap().to_owned();
        }
    }
}
