//! System calls that neither the standard library nor socket2 offers in the
//! form needed here. The only module that may hold `unsafe`.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

/// Reads once; blocks at most for the socket's receive timeout, after which it
/// fails with [`WouldBlock`](io::ErrorKind::WouldBlock).
pub(crate) fn recv(socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    let (count, _) = rustix::net::recv(socket, buf, RecvFlags::empty())?;
    Ok(count)
}

/// Reads once what is already there; never blocks.
pub(crate) fn recv_now(socket: impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    let (count, _) = rustix::net::recv(socket, buf, RecvFlags::DONTWAIT)?;
    Ok(count)
}

/// Writes once; blocks at most for the socket's send timeout.
///
/// A timeout after some bytes went out returns their count, one before any
/// fails with [`WouldBlock`](io::ErrorKind::WouldBlock) (socket(7), SO_SNDTIMEO).
pub(crate) fn send(socket: impl AsFd, buf: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, buf, SendFlags::NOSIGNAL)?)
}

/// Bytes that have arrived and were not read yet (FIONREAD, tcp(7)).
pub(crate) fn pending(socket: &TcpStream) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(socket)?)
}

/// Bytes that were written and that the peer has not acknowledged yet; our FIN
/// counts as one (SIOCOUTQ, tcp(7)). Zero where the kernel does not say.
#[allow(unsafe_code)]
pub(crate) fn unacknowledged(socket: &TcpStream) -> u64 {
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411; // the number of TIOCOUTQ
    // SAFETY: SIOCOUTQ writes one C int through its argument and touches
    // nothing else (net/ipv4/tcp.c, tcp_ioctl); `Getter` gives it room for
    // exactly that, and the borrowed socket keeps the descriptor open.
    let count = unsafe {
        let request = rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new();
        rustix::ioctl::ioctl(socket, request)
    };
    count.ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

/// How long ago the peer acknowledged anything, be it for the first time or
/// again (TCP_INFO, tcp(7)). Just now, where the kernel does not say.
#[allow(unsafe_code)]
pub(crate) fn last_acknowledged(socket: &TcpStream) -> Duration {
    use std::os::fd::AsRawFd;
    // SAFETY: plain numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    // SAFETY: it writes at most `length` bytes of the structure, which lives
    // until it returns, and the borrowed socket keeps the descriptor open.
    // Where it fails or writes less, zeros stay.
    unsafe {
        let socket = socket.as_raw_fd();
        let info = (&raw mut info).cast();
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info,
            &raw mut length,
        )
    };
    Duration::from_millis(info.tcpi_last_ack_recv.into())
}

/// Whether both sides have sent FIN, or the connection was reset (POLLHUP,
/// poll(2)). Never blocks.
pub(crate) fn is_hung_up(socket: &TcpStream) -> bool {
    wait(socket, PollFlags::empty(), Duration::ZERO).contains(PollFlags::HUP)
}

/// Whether the peer has sent FIN, or the connection was reset (POLLRDHUP,
/// poll(2)). Never blocks.
pub(crate) fn is_hung_up_by_peer(socket: &TcpStream) -> bool {
    !wait(socket, PollFlags::RDHUP, Duration::ZERO).is_empty()
}

/// Blocks until there is something to read (bytes, FIN or an error) or the
/// timeout passes; a signal may end it early. True where there is something.
pub(crate) fn wait_readable(socket: impl AsFd, timeout: Duration) -> bool {
    !wait(socket, PollFlags::IN, timeout).is_empty()
}

/// Blocks until there is room to write or an error, like [`wait_readable`].
pub(crate) fn wait_writable(socket: impl AsFd, timeout: Duration) -> bool {
    !wait(socket, PollFlags::OUT, timeout).is_empty()
}

/// Whether there is nothing to read, for certain: where the kernel has no
/// memory for the look, there may be. Never blocks.
pub(crate) fn has_nothing(socket: impl AsFd) -> bool {
    try_wait(socket, PollFlags::IN, Duration::ZERO).is_ok_and(|events| events.is_empty())
}

/// Which of the events there is, or an error or hang-up, within the timeout.
fn wait(socket: impl AsFd, events: PollFlags, timeout: Duration) -> PollFlags {
    // A signal, or no memory for the wait: callers look again either way.
    try_wait(socket, events, timeout).unwrap_or(PollFlags::empty())
}

fn try_wait(socket: impl AsFd, events: PollFlags, timeout: Duration) -> io::Result<PollFlags> {
    let timeout = Timespec::try_from(timeout).ok();
    let mut look = [PollFd::new(&socket, events)];
    poll(&mut look, timeout.as_ref())?;
    Ok(look[0].revents())
}

/// Whether a thread that is started now would find memory for its beginnings.
///
/// At the start of a thread std maps a small signal stack, protects a guard
/// page below it and *aborts* the process where either fails, and starting it
/// may well succeed before, because the C library keeps the stacks of ended
/// threads. So this tries a mapping of a generous size first, and a guard page
/// in its middle: near the limit of maps (`vm.max_map_count`) a mapping that
/// joins its neighbour still succeeds, and splitting it fails (mprotect(2)).
/// Another thread may still take the memory in between.
#[allow(unsafe_code)]
pub(crate) fn can_start_thread() -> io::Result<()> {
    if cfg!(miri) {
        return Ok(()); // it knows no such limits, nor these system calls
    }
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
    use rustix::mm::{mmap_anonymous, mprotect, munmap};
    const ROOM: usize = 256 * 1024;
    let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new private mapping at an address of the kernel's choice,
    // which nobody else knows, is given back untouched; the guard lies inside.
    unsafe {
        let mapping = mmap_anonymous(std::ptr::null_mut(), ROOM, access, kind)?;
        let middle = mapping.byte_add(ROOM / 2);
        let guarded = mprotect(middle, rustix::param::page_size(), MprotectFlags::empty());
        munmap(mapping, ROOM)?;
        guarded?;
    }
    Ok(())
}

/// Takes over a descriptor that this process was started with; from now on its
/// own children do not inherit it.
///
/// # Errors
/// There is no such descriptor.
#[allow(unsafe_code)]
#[cfg(feature = "handover")]
pub(crate) fn inherit(number: std::os::fd::RawFd) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
    // SAFETY: the borrow ends with this block; a number without a descriptor
    // behind it is what the call is to find out, and it changes nothing else.
    unsafe {
        let descriptor = BorrowedFd::borrow_raw(number);
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
    }
    // SAFETY: it is open, as was just seen, and the caller asks for each number
    // once, for numbers only that whoever started this process has announced as
    // this process's to take (sd_listen_fds(3)), before it opens others.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes variables out of the environment, so that children do not take them
/// for theirs. Does nothing where this process has more than one thread.
#[allow(unsafe_code)]
#[cfg(feature = "handover")]
pub(crate) fn forget_variables(names: &[&str]) {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads == 1 {
        for name in names {
            // SAFETY: nobody else can be reading the environment, for there is
            // no other thread.
            unsafe { std::env::remove_var(name) };
        }
    }
}

/// Makes `command` start its program as our grandchild, which becomes an orphan
/// when the child between us ends.
///
/// That child has nothing open but `report`. It writes the program's process
/// number there at once, and its wait status (wait(2)) when it ends, before it
/// reaps it; so a process of that number is the program until there is a
/// status. It ends with it, and with the thread that started it. No signal but
/// KILL and STOP reaches it.
///
/// The program finds its own process number and `held` on the other end of
/// `letters`: `LISTEN_PID` and more, which cannot be known before the fork.
#[allow(unsafe_code)]
#[cfg(feature = "handover")]
pub(crate) fn start_as_grandchild(
    command: &mut std::process::Command,
    report: std::os::fd::OwnedFd,
    letters: std::os::fd::OwnedFd,
    held: u64,
) {
    use std::os::unix::process::CommandExt;
    let us = rustix::process::getpid();
    let fork_again = move || {
        // SAFETY: this process has one thread, and std's fork(2) has left its C
        // library in order, so it may fork as often as it likes; the default of
        // a signal runs no code. An ignored SIGCHLD would hide how the child ends.
        let child = unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::fork()
        };
        match rustix::process::Pid::from_raw(child) {
            _ if child < 0 => Err(io::Error::last_os_error()),
            Some(child) => stand_between(us, child, &report),
            None => {
                let letter = letter(held);
                rustix::net::send(&letters, &letter, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
                Ok(())
            }
        }
    };
    // SAFETY: what runs between fork and exec are system calls, and code that
    // neither allocates nor takes a lock nor panics.
    unsafe { command.pre_exec(fork_again) };
}

/// What a successor finds on its socket.
#[cfg(feature = "handover")]
pub(crate) const LETTER: usize = 12;

/// Its own process number, and the signals that were held off.
#[cfg(feature = "handover")]
fn letter(held: u64) -> [u8; LETTER] {
    let mut letter = [0; LETTER];
    letter[..4].copy_from_slice(&std::process::id().to_ne_bytes());
    letter[4..].copy_from_slice(&held.to_ne_bytes());
    letter
}

/// Whose number and which signals a letter has; `None` if it is none.
#[cfg(feature = "handover")]
pub(crate) fn read_letter(letter: &[u8]) -> Option<(u32, u64)> {
    let (number, held) = letter.split_first_chunk()?;
    let held = held.try_into().ok()?;
    Some((u32::from_ne_bytes(*number), u64::from_ne_bytes(held)))
}

/// The life of the child between us and the program, after fork(2).
#[allow(unsafe_code)]
#[cfg(feature = "handover")]
fn stand_between(us: rustix::process::Pid, child: rustix::process::Pid, report: impl AsFd) -> ! {
    use rustix::process::{self, Signal, WaitId, WaitIdOptions, WaitOptions};
    use std::os::fd::{AsRawFd, BorrowedFd};
    let _ = process::set_parent_process_death_signal(Some(Signal::KILL));
    hold_signals(u64::MAX);
    // Before anything is closed: std waits for the end of a pipe of its own.
    let _ = rustix::io::write(&report, &child.as_raw_nonzero().get().to_ne_bytes());
    // SAFETY: nothing of this process uses a descriptor after this but the one
    // that is kept; it has one thread, which never returns.
    let report = unsafe {
        libc::dup2(report.as_fd().as_raw_fd(), 0);
        if libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0) != 0 {
            let most = libc::sysconf(libc::_SC_OPEN_MAX)
                .try_into()
                .unwrap_or(i32::MAX);
            for number in 1..most {
                libc::close(number);
            }
        }
        BorrowedFd::borrow_raw(0)
    };
    // Else nobody is left who would listen.
    if process::getppid() == Some(us) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let ended = process::waitid(WaitId::Pid(child), options).ok().flatten();
        if let Some(status) = ended.map(|ended| wait_status(&ended)) {
            let _ = rustix::io::write(report, &status.to_ne_bytes());
            let _ = process::waitpid(Some(child), WaitOptions::empty());
        }
    }
    // SAFETY: it ends this process without running anything of it.
    unsafe { libc::_exit(0) }
}

/// How wait(2) says what waitid(2) has said.
#[cfg(feature = "handover")]
fn wait_status(ended: &rustix::process::WaitIdStatus) -> i32 {
    match (ended.exit_status(), ended.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if ended.dumped() => signal | 0x80,
        (None, signal) => signal.unwrap_or(0),
    }
}

/// A name for a new thread, which must not hold NUL.
pub(crate) fn thread_name(name: &str) -> String {
    name.replace('\0', "?")
}

/// Names the calling thread, so that `ps -L` and `top -H` say what it serves;
/// 15 bytes at most (prctl(2), PR_SET_NAME). A failure changes nothing.
pub(crate) fn name_thread(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// From now on the calling thread waits for its turn when it wakes, instead of
/// interrupting the thread that runs (SCHED_BATCH, sched(7)); its share of the
/// processor stays the same. Threads that it starts do likewise. Does nothing
/// where another policy than the usual one was chosen; a failure changes nothing.
#[allow(unsafe_code)]
pub(crate) fn take_turns() {
    // SAFETY: it asks about the calling thread (0) and touches no memory.
    let usual = unsafe { libc::sched_getscheduler(0) } == libc::SCHED_OTHER;
    if usual {
        set_policy(libc::SCHED_BATCH);
    }
}

/// The calling thread's, one of those without a priority.
#[allow(unsafe_code)]
fn set_policy(policy: std::ffi::c_int) {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: it reads the parameter, which lives until it returns, and changes
    // nothing but the calling thread's policy (0).
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
}

/// Lets the calling thread take these signals, whatever mask it inherited: a
/// signal to the process goes to any thread that does not block it (signal(7)).
/// Numbers that are no signals are left out.
#[cfg(feature = "signals")]
pub(crate) fn unblock_signals(signals: &[std::ffi::c_int]) {
    change_mask(libc::SIG_UNBLOCK, signals.iter().copied());
}

/// From now on these signals, a bit each, wait for the calling thread, and for
/// what it starts.
#[cfg(feature = "handover")]
pub(crate) fn hold_signals(signals: u64) {
    change_mask(libc::SIG_BLOCK, numbers(signals));
}

/// Takes [`hold_signals`] back.
#[cfg(feature = "handover")]
pub(crate) fn release_signals(signals: u64) {
    change_mask(libc::SIG_UNBLOCK, numbers(signals));
}

#[cfg(feature = "handover")]
fn numbers(signals: u64) -> impl Iterator<Item = std::ffi::c_int> {
    (1..=64).filter(move |number| signals & (1 << (number - 1)) != 0)
}

#[allow(unsafe_code)]
#[cfg(any(feature = "signals", feature = "handover"))]
fn change_mask(how: std::ffi::c_int, signals: impl Iterator<Item = std::ffi::c_int>) {
    // SAFETY: sigset_t is plain data, all zeroes are one, and sigemptyset makes
    // it the empty set; sigaddset refuses other numbers (EINVAL), and the mask
    // that is changed is the calling thread's. Nothing is kept of the set.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// A set of signals of this process, a bit each, as proc(5) names it (`SigIgn`,
/// say); none where that cannot be read.
#[cfg(any(feature = "signals", feature = "handover"))]
pub(crate) fn signals(set: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};

    /// A connection over loopback: our end and the peer's.
    pub(crate) fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, peer)
    }

    /// A listener whose clients stay in the middle of their handshake until
    /// they send something, though their connect has succeeded
    /// (TCP_DEFER_ACCEPT, tcp(7)).
    pub(crate) fn deferring(address: &str) -> TcpListener {
        defer(TcpListener::bind(address).unwrap())
    }

    /// Makes a listener one of that kind.
    #[allow(unsafe_code)]
    pub(crate) fn defer(listener: TcpListener) -> TcpListener {
        use std::os::fd::AsRawFd;
        let seconds: std::ffi::c_int = 600;
        // SAFETY: it reads one C int, which lives until it returns.
        let outcome = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                4,
            )
        };
        assert_eq!(outcome, 0);
        listener
    }

    #[test]
    fn pending_counts_what_arrived() {
        let (socket, mut peer) = pair();
        assert_eq!(pending(&socket).unwrap(), 0);
        peer.write_all(b"seven b").unwrap();
        assert!(wait_readable(&socket, Duration::from_secs(5)));
        assert_eq!(pending(&socket).unwrap(), 7);
    }

    #[test]
    fn unacknowledged_counts_what_a_peer_has_no_room_for() {
        let (mut socket, mut peer) = pair();
        socket.set_nonblocking(true).unwrap();
        let chunk = [0_u8; 65_536];
        let mut written = 0;
        while let Ok(n) = socket.write(&chunk) {
            written += n as u64;
        }
        let left = unacknowledged(&socket);
        assert!(left > 0 && left <= written, "{left} of {written}");
        socket.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() as u64, written);
        while unacknowledged(&socket) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_acknowledgement_is_as_old_as_the_last_byte_that_was_taken() {
        let (mut socket, mut peer) = pair();
        let begun = std::time::Instant::now();
        std::thread::sleep(Duration::from_millis(50));
        // The clocks of the kernel have a grain of some milliseconds.
        assert!(last_acknowledged(&socket) >= Duration::from_millis(40));
        socket.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
        while unacknowledged(&socket) > 0 {
            std::thread::yield_now();
        }
        let (age, most) = (last_acknowledged(&socket), begun.elapsed());
        assert!(
            age + Duration::from_millis(40) < most,
            "{age:?} of {most:?}"
        );
    }

    #[test]
    fn hung_up_is_what_both_sides_have_ended() {
        let (socket, peer) = pair();
        assert!(!is_hung_up(&socket));
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(wait_readable(&socket, Duration::from_secs(5)));
        assert!(!is_hung_up(&socket));
        socket.shutdown(Shutdown::Write).unwrap();
        assert!(is_hung_up(&socket));
    }

    #[test]
    fn a_wait_without_an_event_ends_with_its_timeout() {
        let (socket, _peer) = pair();
        assert!(!wait_readable(&socket, Duration::from_millis(5)));
        assert!(wait_writable(&socket, Duration::from_secs(5)));
        assert_eq!(
            recv_now(&socket, &mut [0; 8]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    /// The signals that the calling thread blocks (proc_pid_status(5)).
    #[cfg(feature = "signals")]
    fn blocked() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mut lines = status.lines();
        lines
            .find(|line| line.starts_with("SigBlk:"))
            .unwrap()
            .to_owned()
    }

    #[test]
    #[cfg(feature = "signals")]
    fn unblocking_changes_the_calling_thread_and_these_signals_only() {
        let inherited = std::thread::spawn(|| {
            let all_open = blocked();
            let held = [libc::SIGTERM, libc::SIGUSR1];
            change_mask(libc::SIG_BLOCK, held.into_iter());
            let both = blocked();
            let other = std::thread::spawn(|| {
                unblock_signals(&[libc::SIGTERM, libc::SIGUSR1, 0, -1, 4096]);
                blocked()
            });
            assert_eq!(other.join().unwrap(), all_open);
            assert_eq!(blocked(), both);
            unblock_signals(&[libc::SIGTERM]);
            assert!(blocked() != both && blocked() != all_open);
        });
        inherited.join().unwrap();
    }

    #[test]
    #[cfg(feature = "handover")]
    fn a_grandchild_has_a_letter_and_its_end_is_reported() {
        for (script, expected) in [("exit 7", 7 << 8), ("kill -TERM $$", libc::SIGTERM)] {
            let (mut report, reporter) = io::pipe().unwrap();
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]);
            start_as_grandchild(&mut command, reporter.into(), ours.into(), 1 << 63);
            let mut between = command.spawn().unwrap();
            drop(command);
            let mut reported = Vec::new();
            report.read_to_end(&mut reported).unwrap();
            assert!(between.wait().unwrap().success());
            let (number, status) = reported.split_at(4);
            assert_eq!(status, expected.to_ne_bytes());
            let number = u32::from_ne_bytes(number.try_into().unwrap());
            assert_ne!(number, between.id());
            let mut letter = [0; LETTER + 1];
            let length = recv_now(&theirs, &mut letter).unwrap();
            assert_eq!(read_letter(&letter[..length]), Some((number, 1 << 63)));
        }
        assert_eq!(read_letter(&[0; LETTER - 1]), None);
        assert_eq!(read_letter(&[0; LETTER + 1]), None);
    }

    /// Of the calling thread (proc_pid_stat(5), field 41).
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn taking_turns_changes_the_usual_policy_only() {
        let policy_after = |chosen| {
            set_policy(chosen);
            assert_eq!(policy(), chosen);
            take_turns();
            policy()
        };
        // On a thread of its own, for a user may not take SCHED_IDLE back.
        std::thread::scope(|scope| {
            let after = scope.spawn(|| [libc::SCHED_OTHER, libc::SCHED_IDLE].map(policy_after));
            let kept = [libc::SCHED_BATCH, libc::SCHED_IDLE];
            assert_eq!(after.join().unwrap(), kept);
        });
    }
}
