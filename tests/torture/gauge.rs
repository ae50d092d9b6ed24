//! What a server costs, read from outside: proc(5).

use crate::harness::Server;
use rustix::process::Pid;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The costs of one process.
pub(crate) struct Gauge {
    process: Pid,
    /// Its directory below /proc.
    files: PathBuf,
}

/// What was spent between two moments.
pub(crate) struct Spent {
    /// Shares of one core.
    pub(crate) cores: f64,
    pub(crate) wakeups_per_second: f64,
}

impl Gauge {
    pub(crate) fn of(server: &Server) -> Self {
        let process = server.pid();
        Self {
            process,
            files: format!("/proc/{process}").into(),
        }
    }

    /// Bytes of its own that are resident: heap and stacks, not the program's file.
    pub(crate) fn memory(&self) -> u64 {
        self.status("RssAnon:") * 1024
    }

    pub(crate) fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    /// Open descriptors, sockets among them.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.files.join("fd")).unwrap().count()
    }

    /// What it spends meanwhile.
    pub(crate) fn spent<T>(&self, meanwhile: impl FnOnce() -> T) -> (Spent, T) {
        let (wakeups, processor, since) =
            (self.wakeups(), burnt(self.process).unwrap(), Instant::now());
        let value = meanwhile();
        let processor = burnt(self.process)
            .unwrap()
            .saturating_sub(processor)
            .as_secs_f64();
        let elapsed = since.elapsed().as_secs_f64();
        // A thread that ended meanwhile takes its count with it.
        let wakeups = self.wakeups().saturating_sub(wakeups) as f64;
        let spent = Spent {
            cores: processor / elapsed,
            wakeups_per_second: wakeups / elapsed,
        };
        (spent, value)
    }

    /// How often its threads have waited for something so far.
    fn wakeups(&self) -> u64 {
        let tasks = fs::read_dir(self.files.join("task")).unwrap();
        let status = tasks.filter_map(|task| {
            // A thread may end while we look.
            fs::read_to_string(task.ok()?.path().join("status")).ok()
        });
        status
            .filter_map(|status| field(&status, "voluntary_ctxt_switches:"))
            .sum()
    }

    fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(self.files.join("status")).unwrap();
        field(&status, key).unwrap()
    }
}

/// Bytes that all TCP sockets of this machine hold, both ends of ours among them.
pub(crate) fn socket_memory() -> u64 {
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap();
    let pages = sockets.lines().find(|line| line.starts_with("TCP:"));
    let (_, pages) = pages.unwrap().rsplit_once(" mem ").unwrap();
    pages.trim().parse::<u64>().unwrap() * rustix::param::page_size() as u64
}

/// Bytes in the queues of the sockets of a server's port, those among them that
/// the server has closed and the kernel has not.
pub(crate) fn queued(server: &Server) -> u64 {
    let port = format!(":{:04X}", server.address().port());
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets = sockets.lines().map(|line| line.split_whitespace());
    let queues = sockets.filter_map(|mut socket| {
        let local = socket.nth(1)?;
        local.ends_with(&port).then(|| socket.nth(2)).flatten()
    });
    let bytes = |hex| u64::from_str_radix(hex, 16).unwrap();
    queues
        .filter_map(|queues| queues.split_once(':'))
        .map(|(send, receive)| bytes(send) + bytes(receive))
        .sum()
}

/// The most that the kernel lets one TCP socket hold: (received, to be sent).
pub(crate) fn socket_limits() -> (u64, u64) {
    let most = |name| {
        let sizes = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        sizes.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    (most("tcp_rmem"), most("tcp_wmem"))
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

pub(crate) fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}

fn field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The processor time of a process so far: user's and system's, in ticks of
/// 10 ms (proc(5), /proc/PID/stat). `None` where it has ended.
pub(crate) fn burnt(process: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let ticks = after_name.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Some(Duration::from_millis(ticks * 10))
}
