//! What this process was started with: listening sockets, and the word of who
//! passed them (sd_listen_fds(3)); and the same for a successor.

use crate::listener::Listener;
use crate::sync::Arc;
use crate::sys;
use crate::title::Title;
use command_fds::{CommandFdExt, FdMapping};
use std::env;
use std::io::{self, ErrorKind};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Names the socket between predecessor and successor, and whose each listener
/// is: `5,of` for descriptor 5, an own listener and a supervisor's.
const VARIABLE: &str = "LASTECHO_HANDOVER";
const OWN: char = 'o';
const FOREIGN: char = 'f';
/// The successor's word for each listener.
pub(crate) const TAKEN: u8 = b'+';
pub(crate) const LEFT: u8 = b'-';
/// The predecessor's last word: one of these. One that dies says none.
pub(crate) const YOURS: u8 = b'!';
pub(crate) const DECLINED: u8 = b'x';
/// How often those who wait for the other process look at their own stop.
pub(crate) const SLICE: Duration = Duration::from_millis(20);
/// The first descriptor that is passed (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// More listeners than anybody has.
const MOST: usize = 256;

#[derive(Default)]
pub(crate) struct Passed {
    /// With their names.
    pub(crate) listeners: Vec<(String, Listener)>,
    /// The other end is the predecessor's, which waits for us.
    pub(crate) predecessor: Option<UnixStream>,
}

/// A listener that is passed to a successor.
pub(crate) struct Bequest {
    pub(crate) name: String,
    pub(crate) descriptor: OwnedFd,
    pub(crate) title: Arc<Title>,
}

/// The variables, as they are.
#[derive(Default)]
struct Variables {
    count: Option<String>,
    names: Option<String>,
    pid: Option<String>,
    handover: Option<String>,
}

/// What they say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Announced {
    names: Vec<String>,
    /// Whether it is a supervisor's, for each.
    foreign: Vec<bool>,
    predecessor: Option<RawFd>,
}

/// Takes over what the environment announces, once.
pub(crate) fn take() -> io::Result<Passed> {
    /// The variables may have to stay, see `forget_variables`; the descriptors
    /// are somebody's from the first time on.
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Ok(Passed::default());
    }
    let variable = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let variables = Variables {
        count: variable("LISTEN_FDS"),
        names: variable("LISTEN_FDNAMES"),
        pid: variable("LISTEN_PID"),
        handover: variable(VARIABLE),
    };
    sys::forget_variables(&["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", VARIABLE]);
    let announced = variables.read(std::process::id())?;
    let predecessor = announced.predecessor.map(inherit_socket).transpose()?;
    let mut listeners = Vec::new();
    let kinds = announced.names.into_iter().zip(announced.foreign);
    for (number, (name, foreign)) in (FIRST..).zip(kinds) {
        let socket = sys::inherit(number).and_then(|fd| Listener::inherit(fd, foreign));
        let socket =
            socket.map_err(|error| wrong(&format!("inherited descriptor {number}: {error}")))?;
        listeners.push((name, socket));
    }
    Ok(Passed {
        listeners,
        predecessor,
    })
}

/// Takes over the socket to the predecessor, with the letter that waits on it:
/// a variable that was for another process is not for us.
fn inherit_socket(number: RawFd) -> io::Result<UnixStream> {
    let complain = |error| wrong(&format!("{VARIABLE}, descriptor {number}: {error}"));
    let socket = UnixStream::from(sys::inherit(number).map_err(complain)?);
    let mut letter = [0; sys::LETTER];
    let letter = match sys::recv_now(&socket, &mut letter) {
        Ok(count) => sys::read_letter(&letter[..count]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => return Err(complain(error)),
    };
    let us = std::process::id();
    match letter {
        Some((addressee, held)) if addressee == us => {
            // Relaxed: a number of its own.
            HELD.store(held, Relaxed);
            Ok(socket)
        }
        Some((addressee, _)) => Err(wrong(&format!(
            "{VARIABLE} is for process {addressee}, and this is process {us}"
        ))),
        None => Err(complain(io::Error::other("it has no word for us"))),
    }
}

/// The signals that the predecessor holds off since before our program began,
/// so that they would not end it.
static HELD: AtomicU64 = AtomicU64::new(0);

/// Lets come what was held off, on the calling thread and those that it starts.
pub(crate) fn release_signals() {
    sys::release_signals(HELD.swap(0, Relaxed));
}

impl Variables {
    /// What was passed to us: nothing where LISTEN_PID names another process,
    /// or no process and there is no predecessor (sd_listen_fds(3)).
    fn read(&self, our_pid: u32) -> io::Result<Announced> {
        let handover = match (&self.pid, &self.handover) {
            (Some(pid), _) if is_ours(pid, our_pid)? => None,
            (None, Some(handover)) => Some(handover),
            _ => return Ok(Announced::default()),
        };
        let Some(count) = &self.count else {
            return match handover {
                None => Ok(Announced::default()),
                Some(_) => Err(wrong(&format!("{VARIABLE} without LISTEN_FDS"))),
            };
        };
        let count = bounded(count).ok_or_else(|| {
            wrong(&format!(
                "LISTEN_FDS={count:?} is not a number up to {MOST}"
            ))
        })?;
        let mut announced = Announced {
            names: self.names(count)?,
            foreign: vec![true; count],
            predecessor: None,
        };
        if let Some(handover) = handover {
            announced.read_handover(handover)?;
        }
        Ok(announced)
    }

    /// One for each of so many descriptors.
    fn names(&self, count: usize) -> io::Result<Vec<String>> {
        let Some(names) = &self.names else {
            return Ok(vec!["unknown".to_owned(); count]);
        };
        // An empty list and one empty name are written alike.
        if count == 0 && names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<_> = names.split(':').map(str::to_owned).collect();
        if names.len() == count {
            return Ok(names);
        }
        let count_of_names = names.len();
        Err(wrong(&format!(
            "LISTEN_FDNAMES has {count_of_names} names for {count} descriptors"
        )))
    }
}

/// Whether LISTEN_PID names this process.
fn is_ours(pid: &str, our_pid: u32) -> io::Result<bool> {
    let message = || wrong(&format!("LISTEN_PID={pid:?} is not a process number"));
    let pid: u32 = pid.parse().map_err(|_| message())?;
    Ok(pid == our_pid)
}

impl Announced {
    fn read_handover(&mut self, text: &str) -> io::Result<()> {
        let complain = || {
            wrong(&format!(
                "{VARIABLE}={text:?} is not as a predecessor writes it"
            ))
        };
        let (number, kinds) = text.split_once(',').ok_or_else(complain)?;
        let known = kinds.chars().all(|kind| kind == OWN || kind == FOREIGN);
        // It follows the listeners: a number of theirs would be taken twice.
        let follows = (FIRST..).nth(self.names.len());
        let follows = follows.filter(|follows| number == follows.to_string());
        if !known || kinds.len() != self.names.len() {
            return Err(complain());
        }
        self.predecessor = Some(follows.ok_or_else(complain)?);
        self.foreign = kinds.chars().map(|kind| kind == FOREIGN).collect();
        Ok(())
    }
}

/// A number in plain digits, of at most so many listeners.
fn bounded(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.filter(|&number| number <= MOST)
}

fn wrong(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, message)
}

/// Passes a successor the listeners and the other end of our socket.
pub(crate) fn equip(
    successor: &mut Command,
    bequests: &[Bequest],
    socket: OwnedFd,
) -> io::Result<()> {
    let count = bequests.len();
    if count > MOST {
        let message = format!("{count} listeners are more than can be passed ({MOST})");
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    let mut mappings = Vec::new();
    for bequest in bequests {
        mappings.push(bequest.descriptor.try_clone()?);
    }
    mappings.push(socket);
    let mappings = mappings.into_iter().zip(FIRST..);
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    let last = FIRST as usize + count;
    let kinds = bequests.iter();
    let kinds = kinds.map(|bequest| if bequest.title.foreign { FOREIGN } else { OWN });
    let names: Vec<_> = bequests.iter().map(|b| b.name.as_str()).collect();
    successor
        .fd_mappings(mappings.collect())
        .map_err(io::Error::other)?
        .env("LISTEN_FDS", count.to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .env(VARIABLE, format!("{last},{}", kinds.collect::<String>()))
        .env_remove("LISTEN_PID")
        .env_remove("WATCHDOG_PID");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: u32 = 4711;

    fn variables(texts: [Option<&str>; 4]) -> Variables {
        let [count, names, pid, handover] = texts.map(|text| text.map(str::to_owned));
        Variables {
            count,
            names,
            pid,
            handover,
        }
    }

    #[test]
    fn a_supervisors_and_a_predecessors_words_are_understood() {
        let none = variables([None, Some("a"), Some("1"), None]).read(US);
        assert_eq!(none.unwrap(), Announced::default());
        let supervised = variables([Some("2"), None, Some("4711"), None]).read(US);
        let expected = Announced {
            names: vec!["unknown".into(); 2],
            foreign: vec![true; 2],
            predecessor: None,
        };
        assert_eq!(supervised.unwrap(), expected);
        for not_ours in [
            [Some("x"), None, None, None],
            [Some("1"), None, Some("4712"), Some("4,o")],
            [Some("0"), Some(""), Some("4711"), None],
        ] {
            let announced = variables(not_ours).read(US);
            assert_eq!(announced.unwrap(), Announced::default());
        }
        let handed = variables([Some("2"), Some("a:b"), None, Some("5,of")]).read(US);
        let expected = Announced {
            names: vec!["a".into(), "b".into()],
            foreign: vec![false, true],
            predecessor: Some(5),
        };
        assert_eq!(handed.unwrap(), expected);
    }

    /// Texts that come close to what is right, and any others.
    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(prop_oneof![
            "[0-9]{1,4}",
            "[0-9]{1,3},[of]{0,3}",
            "[a-z]{0,3}(:[a-z]{0,3}){0,3}",
            "4711",
            any::<String>(),
        ])
    }

    proptest! {
        #[test]
        fn whatever_the_variables_say_is_bounded_or_an_error(
            count in text(), names in text(), pid in text(), handover in text()
        ) {
            let variables = Variables { count, names, pid, handover };
            match variables.read(US) {
                Err(error) => prop_assert!(!error.to_string().is_empty()),
                Ok(announced) => {
                    prop_assert!(announced.names.len() <= MOST);
                    prop_assert_eq!(announced.names.len(), announced.foreign.len());
                    prop_assert!(announced.predecessor.is_none_or(|number| number >= FIRST));
                    // Nothing is taken that was announced to another process.
                    let ours = variables.pid.is_none_or(|pid| pid.parse() == Ok(US));
                    prop_assert!(ours || announced.names.is_empty());
                }
            }
        }
    }
}
