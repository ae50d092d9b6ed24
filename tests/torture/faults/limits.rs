//! Limits of the system that are really reached, without strace: descriptors,
//! threads, processes of a control group, address space.

use super::observed::{Observed, assert_unharmed};
use super::strace::{Lifted, threads};
use crate::client::{close, echo, has_heard, hear};
use crate::gauge::burnt;
use crate::harness::{Broken, Program, Server, eventually, run_to_end};
use crate::{is_long, shared, told};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const POLL: [&str; 2] = ["--poll", "200ms"];

/// Sets a soft limit of another process of ours.
fn limit(process: Pid, resource: Resource, current: Option<u64>) {
    let maximum = rustix::process::getrlimit(resource).maximum;
    prlimit(Some(process), resource, Rlimit { current, maximum }).unwrap();
}

/// Clients come while nothing is to be had, wait, and are served afterwards;
/// one more episode of the log has a beginning and an end.
fn starve(
    mut observed: Observed,
    shut: impl Fn(Pid),
    open: impl Fn(Pid),
) -> Result<String, Broken> {
    let process = observed.server.pid();
    observed.await_calm();
    let before = burnt(process).unwrap();
    shut(process);
    let began = Instant::now();
    let mut clients: Vec<_> = (0..5).map(|_| observed.server.connect()).collect();
    for client in &mut clients {
        std::io::Write::write_all(client, b"patience").unwrap();
    }
    thread::sleep(Duration::from_secs(if is_long() { 30 } else { 2 }));
    let waiting = clients.iter().filter(|client| !has_heard(client)).count();
    assert!(waiting > 0, "everybody was served: the limit holds nothing");
    let lasted = began.elapsed();
    let burnt = burnt(process).unwrap() - before;
    open(process);
    let served = clients.into_iter().try_for_each(|mut client| {
        hear(&mut client, b"patience")?;
        close(client)
    });
    observed.assert_alive();
    served?;
    await_its_end(&observed.server)?;
    observed.note(
        &Lifted {
            injected: 0,
            lasted,
        },
        burnt,
    );
    let (seen, ended) = observed.stop()?;
    seen.assert_calm();
    seen.assert_quiet();
    assert_eq!(seen.lines, 2, "{ended:?}");
    assert_unharmed(&ended);
    let waited = format!("{waiting} of 5 clients waited {lasted:.1?}; ");
    Ok(waited + &seen.in_words())
}

/// The log says that it is over to whoever comes two seconds later.
fn await_its_end(server: &Server) -> Result<(), Broken> {
    let mut outcome = Ok(());
    eventually("the end of the episode", || {
        // More than one at once, so that a thread has to be started.
        let mut clients: [TcpStream; 3] = std::array::from_fn(|_| server.connect());
        for client in &mut clients {
            outcome = echo(client, b"and now?");
        }
        // Threads that wait in vain for a poll interval retire.
        drop(clients);
        thread::sleep(Duration::from_millis(500));
        outcome.is_err() || server.stderr().contains("works again after")
    });
    outcome
}

fn tell(what: &str, outcome: Result<String, Broken>) {
    let measured = outcome.unwrap_or_else(|broken| panic!("{what}: {broken}"));
    let expected = "clients wait and are served afterwards; under 5 % of a core; two log lines";
    told(what, expected, &measured);
}

#[test]
fn without_descriptors_clients_wait_and_are_served_afterwards() {
    let _machine = shared();
    let observed = Observed::start(Program::Lastecho, &POLL);
    let shut = |process| {
        let open = |fd: &u64| Path::new(&format!("/proc/{process}/fd/{fd}")).is_symlink();
        let first_free = (0..).find(|fd| !open(fd));
        limit(process, Resource::Nofile, first_free);
    };
    let open = |process| limit(process, Resource::Nofile, Some(1000));
    tell(
        "no descriptor left (RLIMIT_NOFILE)",
        starve(observed, shut, open),
    );
}

#[test]
fn without_address_space_clients_wait_and_are_served_afterwards() {
    let _machine = shared();
    let observed = Observed::start(Program::Lastecho, &POLL);
    let shut = |process| {
        let statm = fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        limit(
            process,
            Resource::As,
            Some(pages * rustix::param::page_size() as u64),
        );
    };
    let open = |process| limit(process, Resource::As, None);
    tell(
        "no address space left (RLIMIT_AS)",
        starve(observed, shut, open),
    );
}

/// A user whom nobody is: limits of processes count a user's threads, and do
/// not hold for root (setrlimit(2), RLIMIT_NPROC).
struct Nobody(u32);

impl Nobody {
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        let user = [format!("--reuid={}", self.0), format!("--regid={}", self.0)];
        command.args(user).arg("--clear-groups").arg(program);
        command
    }

    /// Its own server, from a copy that it may read.
    fn start(&self, place: &Path) -> Observed {
        let tried = run_to_end(&mut self.command("true"), b"");
        assert!(tried.status.success(), "needs root: {tried:?}");
        let program = place.join("lastecho");
        fs::copy(Program::Lastecho.path(), &program).unwrap();
        fs::set_permissions(place, Permissions::from_mode(0o755)).unwrap();
        let mut command = self.command(program);
        command.args(POLL).arg("127.0.0.1:0");
        Observed::over(Server::spawn(command, 1))
    }

    /// The soft limit of threads: another user may not set it.
    fn limit(&self, process: Pid, threads: &str) {
        let mut command = self.command("prlimit");
        command.args([
            "--pid",
            &process.to_string(),
            &format!("--nproc={threads}:"),
        ]);
        let outcome = run_to_end(&mut command, b"");
        assert!(outcome.status.success(), "{outcome:?}");
    }
}

#[test]
#[ignore = "takes another user's place, which needs root: make test"]
fn without_threads_of_ones_own_clients_wait_and_are_served_afterwards() {
    let _machine = shared();
    let place = tempfile::tempdir().unwrap();
    let nobody = Nobody((1 << 30) + std::process::id());
    let observed = nobody.start(place.path());
    let shut = |process| nobody.limit(process, &threads(process).len().to_string());
    let open = |process| nobody.limit(process, "1000");
    tell(
        "no thread left (RLIMIT_NPROC)",
        starve(observed, shut, open),
    );
}

/// A control group that limits processes and threads; it ends with its last process.
struct Group(PathBuf);

impl Group {
    fn new() -> std::io::Result<Self> {
        let parents = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        let parent = if parents[0].exists() {
            parents[0]
        } else {
            parents[1]
        };
        let group = parent.join(format!("lastecho-torture-{}", std::process::id()));
        fs::create_dir(&group)?;
        let group = Self(group);
        fs::metadata(group.0.join("pids.max"))?;
        Ok(group)
    }

    fn set(&self, file: &str, value: &str) {
        let path = self.0.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "makes a control group, which needs root: make test"]
fn under_a_pids_limit_clients_wait_and_are_served_afterwards() {
    let _machine = shared();
    let what = "no thread left (pids limit of a control group)";
    let group = match Group::new() {
        Ok(group) => group,
        Err(error) => {
            return told(
                what,
                "where the machine allows one",
                &format!("not here: {error}"),
            );
        }
    };
    let observed = Observed::start(Program::Lastecho, &POLL);
    group.set("cgroup.procs", &observed.server.pid().to_string());
    let shut = |_| {
        let current = fs::read_to_string(group.0.join("pids.current")).unwrap();
        group.set("pids.max", &current);
    };
    tell(
        what,
        starve(observed, shut, |_| group.set("pids.max", "max")),
    );
}
