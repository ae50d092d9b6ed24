//! How many connections and threads this process can carry.

use crate::sys;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;

/// Descriptors that are kept back for listeners, logs and the runtime.
const RESERVED_DESCRIPTORS: u64 = 32;
/// Memory maps that a thread needs: stack and guard, signal stack and guard.
const MAPS_PER_THREAD: u64 = 4;
/// Threads' worth of memory maps kept back for the program itself.
const RESERVED_MAPS: u64 = 1000;
/// Processes kept back where threads count against a limit of processes.
const RESERVED_TASKS: u64 = 64;
/// Address space that a thread takes beside its stack: guards, signal stack, heap.
const SPACE_PER_THREAD: u64 = 160 * 1024;
/// Connections carried where no limit can be read.
const FALLBACK: u64 = 1000;

/// The most connections that this process can carry, by its present limits,
/// where each has a thread with a stack of so many bytes.
///
/// A connection needs a descriptor and a thread: so this is the least of
/// `RLIMIT_NOFILE` − 32 (getrlimit(2)) and [`threads`]. At least one.
#[must_use]
pub fn connections(stack_size: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map(|n| n.saturating_sub(RESERVED_DESCRIPTORS));
    let files = files.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    threads(stack_size).min(files).max(1)
}

/// The most threads that this process can have, by its present limits, where
/// each has a stack of so many bytes.
///
/// A thread needs four memory maps and address space; a Rust process *aborts*
/// when it runs out of those. So this is the least of `vm.max_map_count` / 4 −
/// 1000, half of what `RLIMIT_AS` and `RLIMIT_DATA` leave, and `RLIMIT_NPROC`,
/// `kernel.threads-max` and the pids limits of the process's control groups
/// less a reserve (getrlimit(2), proc_sys_vm(5), cgroups(7)). At least one.
#[must_use]
pub fn threads(stack_size: usize) -> usize {
    let maps = number("/proc/sys/vm/max_map_count")
        .map(|n| (n / MAPS_PER_THREAD).saturating_sub(RESERVED_MAPS));
    let tasks = [
        getrlimit(Resource::Nproc).current,
        number("/proc/sys/kernel/threads-max"),
        number("/proc/sys/kernel/pid_max"),
        pids_max(),
    ];
    let tasks = tasks.into_iter().flatten().min();
    let tasks = tasks.map(|n| n - RESERVED_TASKS.min(n / 4));
    let space = free_space().map(|n| n / 2 / (stack_size as u64).saturating_add(SPACE_PER_THREAD));
    let all = [maps, tasks, space];
    let least = all.into_iter().flatten().min().unwrap_or(FALLBACK);
    usize::try_from(least).unwrap_or(usize::MAX).max(1)
}

/// Tries whether a thread that is started now would find memory for its
/// beginnings. Without it the standard library *aborts* the process, though
/// starting the thread has succeeded. Ask before a thread is started while the
/// server runs.
///
/// # Errors
/// There is no memory for it, or no further memory map.
pub fn can_start_thread() -> io::Result<()> {
    sys::can_start_thread()
}

/// Bytes that the limits of address space and data leave; `None`: no limit.
fn free_space() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm
        .split(' ')
        .map(|n| n.trim().parse::<u64>().unwrap_or(0));
    let page = rustix::param::page_size() as u64;
    // proc(5): the first field is the whole size, the sixth data and stack.
    let (size, data) = (pages.next().unwrap_or(0), pages.nth(4).unwrap_or(0));
    [(Resource::As, size), (Resource::Data, data)]
        .into_iter()
        .filter_map(|(limit, used)| Some(getrlimit(limit).current?.saturating_sub(used * page)))
        .min()
}

/// Raises the soft limit of open descriptors to the hard one, for the whole
/// process, and returns the limit that then holds (`None`: no limit).
///
/// # Errors
/// What setrlimit(2) says.
pub fn raise_descriptors() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(limit.maximum)
}

/// The least `pids.max` of this process's control groups, up to the root.
fn pids_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups
        .lines()
        .filter_map(group_directory)
        .flat_map(limits_up_to_root)
        .min()
}

/// The directory behind a line of /proc/self/cgroup that may limit pids.
fn group_directory(line: &str) -> Option<String> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    match controllers {
        "" => Some(format!("/sys/fs/cgroup{path}")),
        "pids" => Some(format!("/sys/fs/cgroup/pids{path}")),
        _ => None,
    }
}

fn limits_up_to_root(directory: String) -> Vec<u64> {
    std::path::Path::new(&directory)
        .ancestors()
        .take_while(|up| up.starts_with("/sys/fs/cgroup"))
        .filter_map(|up| number(up.join("pids.max")))
        .collect()
}

fn number(path: impl AsRef<std::path::Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_below_every_limit_that_it_is_made_of() {
        let limit = connections(0) as u64;
        assert!(limit >= 1);
        if let Some(files) = getrlimit(Resource::Nofile).current {
            assert!(limit <= files.max(33) - 32);
        }
        if let Some(maps) = number("/proc/sys/vm/max_map_count") {
            assert!(limit <= (maps / 4).max(1001) - 1000);
        }
    }

    #[test]
    fn larger_stacks_never_allow_more_connections() {
        assert!(connections(1 << 30) <= connections(1 << 17));
    }

    #[test]
    fn control_groups_of_both_versions_are_understood() {
        assert_eq!(
            group_directory("0::/a/b").as_deref(),
            Some("/sys/fs/cgroup/a/b")
        );
        assert_eq!(
            group_directory("7:pids:/a").as_deref(),
            Some("/sys/fs/cgroup/pids/a")
        );
        assert_eq!(group_directory("3:cpu,cpuacct:/a"), None);
        assert_eq!(group_directory("garbage"), None);
    }
}
