//! A Redis and a PostgreSQL of a test's own.

use crate::harness::WATCHDOG;
use lastecho::Stop;
use redis::Connection;
use redis_to_db::connection::uninterrupted;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Waits until `done`, which needs no exact moment.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + WATCHDOG;
    while !done() {
        assert!(Instant::now() < patience, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory in memory, where there is such a place: each write of a database
/// waits for the disk, and how fast that is is not what is tried.
pub(crate) fn memory() -> TempDir {
    let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new());
    dir.unwrap()
}

/// A port that is free and that the system does not give out by itself: a
/// server that is started again on it must find it free again.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Far apart for processes that follow each other.
    let first = u16::try_from(u64::from(std::process::id()) * 7_919 % 2_000).unwrap();
    loop {
        let port = 30_000 + (first + NEXT.fetch_add(1, Relaxed)) % 2_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A server's process. Dropping it kills it.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, dir: &Path) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"));
        let log = log.unwrap();
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log);
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}: run `make deps`")))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn end(mut self, signal: Signal) {
        self.signal(signal);
        eventually("the end of a server", || {
            self.0.try_wait().unwrap().is_some()
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis that loses nothing when it is killed: it writes before it answers.
/// (It does not fsync; nobody cuts the power here.)
pub(crate) struct Redis {
    server: Option<Server>,
    dir: TempDir,
    options: Vec<String>,
    pub(crate) port: u16,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further options of redis-server's.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let mut redis = Self::down();
        redis.options = options.iter().map(ToString::to_string).collect();
        redis.start_again();
        redis
    }

    /// One that is not there yet.
    pub(crate) fn down() -> Self {
        Self {
            server: None,
            dir: memory(),
            options: Vec::new(),
            port: free_port(),
        }
    }

    pub(crate) fn start_again(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", "no", "--save", ""]);
        command.arg("--dir").arg(self.dir.path());
        command.args(&self.options);
        self.server = Some(Server::start(&mut command, self.dir.path()));
        eventually("redis answers", || {
            let client = redis::Client::open(self.url()).unwrap();
            let connection = client.get_connection_with_timeout(Duration::from_secs(1));
            connection.is_ok_and(|mut c| redis::cmd("PING").exec(&mut c).is_ok())
        });
    }

    pub(crate) fn end(&mut self, signal: Signal) {
        self.server.take().unwrap().end(signal);
    }

    /// To the running server.
    pub(crate) fn signal(&self, signal: Signal) {
        self.server.as_ref().unwrap().signal(signal);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn connect(&self) -> Connection {
        let client = redis::Client::open(self.url()).unwrap();
        let connect = || client.get_connection_with_timeout(WATCHDOG);
        let connection = uninterrupted(&Stop::new(), connect).unwrap();
        connection.set_read_timeout(Some(WATCHDOG)).unwrap();
        connection
    }
}

/// A PostgreSQL, from Debian's package.
pub(crate) struct Postgres {
    server: Option<Server>,
    dir: TempDir,
    pub(crate) port: u16,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let dir = memory();
        if geteuid().is_root() {
            let id = Command::new("id")
                .args(["-u", "postgres"])
                .output()
                .unwrap();
            let id = String::from_utf8(id.stdout).unwrap().trim().parse();
            chown(
                dir.path(),
                Some(id.expect("no user postgres: run `make deps`")),
                None,
            )
            .unwrap();
        }
        let mut server = Self {
            server: None,
            dir,
            port: free_port(),
        };
        let mut initdb = server.command("initdb");
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
            "--encoding=UTF8",
        ]);
        initdb
            .args(["--locale=C", "--pgdata=data"])
            .stdout(Stdio::null());
        assert!(initdb.status().unwrap().success(), "{initdb:?}");
        server.start_again();
        server
    }

    /// A program of PostgreSQL's; it refuses to run as root.
    fn command(&self, program: &str) -> Command {
        let program = binary(program);
        let mut command = Command::new(if geteuid().is_root() {
            "setpriv".into()
        } else {
            program.clone()
        });
        if geteuid().is_root() {
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(program);
        }
        command.current_dir(self.dir.path());
        command
    }

    pub(crate) fn start_again(&mut self) {
        let mut command = self.command("postgres");
        command.args(["-D", "data", "-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=150",
            "fsync=off", // Nobody cuts the power here.
            // Its end waits for connections that have said nothing yet.
            "authentication_timeout=2s",
        ] {
            command.args(["-c", setting]);
        }
        self.server = Some(Server::start(&mut command, self.dir.path()));
        eventually("postgres answers", || self.try_connect().is_ok());
    }

    pub(crate) fn end(&mut self, signal: Signal) {
        self.server.take().unwrap().end(signal);
    }

    pub(crate) fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs statements as its superuser.
    pub(crate) fn run(&self, statements: &str) {
        let client = self.try_connect();
        client.unwrap().batch_execute(statements).unwrap();
    }

    /// Writes a file into its data directory, as its own.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let data = self.dir.path().join("data");
        let owner = fs::metadata(&data).unwrap();
        let file = data.join(name);
        fs::write(&file, text).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(crate) fn try_connect(&self) -> Result<postgres::Client, postgres::Error> {
        postgres::Client::connect(&self.url(), postgres::NoTls)
    }
}

impl Drop for Postgres {
    /// Its children end with it only if it is asked to.
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.end(Signal::QUIT);
        }
    }
}

/// Debian keeps the server's programs off the path.
fn binary(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let programs = versions.map(|version| version.unwrap().path().join("bin").join(name));
    let newest = programs.filter(|program| program.exists()).max();
    newest.unwrap_or_else(|| panic!("no {name} in /usr/lib/postgresql: run `make deps`"))
}
