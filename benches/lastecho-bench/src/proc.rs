//! Processor time and memory of a server and all its children, from /proc.

use std::fs;
use std::time::Duration;

/// What /proc/PID/stat says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// User and system time, in clock ticks.
    own: u64,
    /// The same of its children that ended and were waited for.
    buried: u64,
}

/// Processor time so far of a process, its ended children and its living
/// descendants.
pub(crate) fn cpu(pid: u32) -> Duration {
    let times = family(pid).into_iter().map(|stat| {
        // Ticks of 10 ms are too coarse for one of many small processes.
        // What the scheduler counted is exact, but of one thread only.
        let own = ticks(stat.own).max(on_main_thread(stat.pid));
        own + ticks(stat.buried)
    });
    times.sum()
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_secs_f64(count as f64 / per_second as f64)
}

fn on_main_thread(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Resident bytes of a process and its living descendants. A page that several
/// processes share counts once, split among them (Pss).
pub(crate) fn memory(pid: u32) -> u64 {
    let sizes = family(pid).into_iter().filter_map(|stat| {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", stat.pid)).ok()?;
        resident(&text)
    });
    sizes.sum()
}

/// A process and its living descendants.
pub(crate) fn pids(pid: u32) -> Vec<u32> {
    family(pid).iter().map(|stat| stat.pid).collect()
}

fn resident(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

fn family(pid: u32) -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    descendants(pid, pids.filter_map(stat).collect())
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Processes from `all` that descend from `pid`, with itself.
fn descendants(pid: u32, mut all: Vec<Stat>) -> Vec<Stat> {
    let mut found: Vec<Stat> = all.extract_if(.., |stat| stat.pid == pid).collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next].pid;
        found.extend(all.extract_if(.., |stat| stat.parent == parent));
        next += 1;
    }
    found
}

/// The fields 4 and 14 to 17 of proc_pid_stat(5). The name before them may
/// hold anything, blanks and brackets too.
fn parse(stat: &str) -> Option<Stat> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(14)? + ticks(15)?,
        buried: ticks(16)? + ticks(17)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_name_with_brackets() {
        let line = "42 (a) R b) S 7 42 42 0 -1 4194560 1 2 3 4 50 6 700 8 20 0 1 0 9 10 11";
        let stat = Stat {
            pid: 42,
            parent: 7,
            own: 56,
            buried: 708,
        };
        assert_eq!(parse(line), Some(stat));
        assert_eq!(parse("42 (a) S 7 42"), None);
    }

    #[test]
    fn a_family_is_all_that_descends() {
        let stat = |pid, parent| Stat {
            pid,
            parent,
            own: 1,
            buried: 0,
        };
        let all = vec![stat(4, 3), stat(1, 0), stat(3, 2), stat(2, 1), stat(5, 1)];
        let found: Vec<u32> = descendants(2, all).iter().map(|stat| stat.pid).collect();
        assert_eq!(found, [2, 3, 4]);
    }

    #[test]
    fn this_process_has_memory_and_uses_its_time() {
        let pid = std::process::id();
        assert!(memory(pid) > 100_000);
        let started = std::time::Instant::now();
        while cpu(pid) < Duration::from_millis(50) {
            assert!(started.elapsed() < Duration::from_secs(60));
        }
        assert_eq!(
            resident("Rss: 9 kB\nPss:          12 kB\nPss_Dirty: 1 kB"),
            Some(12_288)
        );
    }
}
