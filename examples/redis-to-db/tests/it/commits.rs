//! A message leaves Redis when the database has said that it has it for good,
//! and not before: the row that a write returns comes earlier than its commit.

use crate::account::Account;
use crate::harness::Program;
use crate::programs::{Kept, Which, command, promise, start, stop};
use crate::servers::{Postgres, eventually, memory};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// A small file system in a mount namespace of its own. A process holds it.
struct Disk {
    holder: Child,
    dir: TempDir,
}

impl Disk {
    fn mount(size: &str) -> Self {
        let dir = memory();
        let mut holder = Command::new("unshare");
        let script =
            format!("mount -t tmpfs -o size={size} tmpfs \"$0\" && echo mounted && exec cat");
        holder.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        holder.arg(dir.path()).stdin(Stdio::piped());
        let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 8];
        let said = holder.stdout.as_mut().unwrap().read_exact(&mut line);
        said.expect("this test needs user and mount namespaces");
        Self { holder, dir }
    }

    fn database(&self) -> String {
        self.dir
            .path()
            .join("messages.sqlite")
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// The same command, where the file system is to be seen.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.holder.id().to_string()]);
        inside.args(["--user", "--preserve-credentials", "--mount", "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    fn make_room(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,size=64m"]).arg(self.dir.path());
        assert!(self.inside(&mount).status().unwrap().success());
    }

    /// Copies the database to where everybody sees it.
    fn copy(&self, to: &str) {
        let from = format!("/proc/{}/root{}", self.holder.id(), self.database());
        for suffix in ["", "-wal"] {
            if Path::new(&format!("{from}{suffix}")).exists() {
                fs::copy(format!("{from}{suffix}"), format!("{to}{suffix}")).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// 400 messages, a disk that has room for some of them, and more room later.
fn full_disk(which: Which, _: u64) -> Kept {
    let (mut account, disk) = (Account::new(), Disk::mount("300k"));
    account.produce("full", 400);
    let command = command(which, &account.redis, &disk.database(), &[]);
    let program = Program::start(disk.inside(&command));
    program.await_line("moving");
    let is_full = || program.stderr().contains("disk is full; trying again");
    eventually("the disk is full", || is_full() || account.is_dry());
    let waiting = account.waiting();
    disk.make_room();
    account.await_dry();
    let ended = stop(program);
    disk.copy(&account.database);
    let places = account.places();
    places.all_moved(&account, &places.written_twice())?;
    assert!(waiting > 0 && ended.code == Some(0), "{waiting} {ended:?}");
    Ok(format!("{waiting} of 400 waited for room"))
}

#[test]
#[ignore = "needs redis-server and unshare: make deps"]
fn a_disk_that_is_full_loses_nothing() {
    promise(1, &[Which::Hasty], full_disk);
}

/// strace(1) on a program: calls that fail until it is lifted.
struct Fault {
    strace: Child,
    trace: File,
}

impl Fault {
    fn inject(program: Pid, calls: &str, fault: &str) -> Self {
        let trace = tempfile::tempfile().unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-p", &program.to_string()]);
        strace.args(["-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:{fault}")]);
        strace
            .stdin(Stdio::null())
            .stderr(trace.try_clone().unwrap());
        let strace = strace.spawn().expect("strace: run `make deps`");
        Self { strace, trace }
    }

    /// How many calls it has made to fail so far.
    fn injected(&self) -> usize {
        let mut said = vec![0; usize::try_from(self.trace.metadata().unwrap().len()).unwrap()];
        self.trace.read_exact_at(&mut said, 0).unwrap();
        String::from_utf8_lossy(&said).matches("(INJECTED)").count()
    }

    fn lift(mut self) {
        kill_process(Pid::from_child(&self.strace), Signal::TERM).unwrap();
        eventually("strace lets go", || {
            self.strace.try_wait().unwrap().is_some()
        });
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// 1500 messages, and a disk that cannot sync for a while.
fn no_sync(which: Which, _: u64) -> Kept {
    let mut account = Account::new();
    account.produce("sync", 1500);
    let program = start(which, &account, &["--work", "2ms", "--workers", "4"]);
    account.await_waiting(1450);
    let fault = Fault::inject(program.pid(), "fsync,fdatasync", "error=EIO");
    eventually("calls failed", || fault.injected() >= 8);
    let (injected, _) = (fault.injected(), fault.lift());
    account.await_dry();
    let ended = stop(program);
    let places = account.places();
    places.all_moved(&account, &places.written_twice())?;
    assert_eq!((ended.code, ended.count("dead")), (Some(0), 0), "{ended:?}");
    let failed = ended.count("failed");
    assert!(failed > 0, "{ended:?}");
    Ok(format!(
        "{injected} calls failed, {failed} messages put back"
    ))
}

#[test]
#[ignore = "needs redis-server and strace: make deps"]
fn a_sync_that_fails_loses_nothing() {
    promise(1, &[Which::Hasty], no_sync);
}

/// Three messages that PostgreSQL refuses only when it commits: it has sent
/// the row by then.
fn refused_at_the_commit(which: Which, postgres: &Postgres) -> Kept {
    let table = "DROP TABLE IF EXISTS messages; \
        CREATE TABLE messages \
        (key TEXT PRIMARY KEY, body BYTEA NOT NULL, written INTEGER NOT NULL); \
        CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN RAISE 'too late' USING ERRCODE = 'check_violation'; END $$; \
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON messages \
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
        WHEN (NEW.key LIKE 'late%') EXECUTE FUNCTION refuse()";
    postgres.run(table);
    let mut account = Account::with(postgres.url());
    account.produce("late", 3);
    account.produce("good", 100);
    let program = start(which, &account, &["--attempts", "2"]);
    account.await_dry();
    let ended = stop(program);
    let mut places = account.places();
    places.none_lost(&account)?;
    places.dead.sort();
    assert_eq!(places.dead, ["late-1", "late-2", "late-3"], "{ended:?}");
    assert_eq!((ended.code, places.rows.len()), (Some(0), 100), "{ended:?}");
    Ok("3 dead, 100 moved".into())
}

#[test]
#[ignore = "needs redis-server and postgres: make deps"]
fn a_commit_that_is_refused_loses_nothing() {
    let postgres = Mutex::new(Postgres::start());
    promise(1, &[Which::Hasty], |which, _| {
        refused_at_the_commit(which, &postgres.lock().unwrap())
    });
}
