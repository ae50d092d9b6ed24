//! telnet, which wants a terminal and a user who types.

use super::command;
use crate::harness::{IN_TIME, Program, Server, eventually};
use rustix::fs::OFlags;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

/// A program in a terminal of its own, and what its screen shows.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(words: &str, server: &Server) -> Self {
        let keyboard =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(name.to_str().unwrap())
            .unwrap();
        let child = command(words, server)
            .stdin(tty.try_clone().unwrap())
            .stdout(tty.try_clone().unwrap())
            .stderr(tty)
            .spawn()
            .unwrap_or_else(|error| panic!("{words}: {error}; make deps installs it"));
        let keyboard = File::from(keyboard);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut glass, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        // Ends with an error once nobody has the terminal open any more.
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = glass.read(&mut buffer) {
                shown.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            child,
            keyboard,
            screen,
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until the screen shows `words` so many times.
    fn await_words(&self, words: &str, times: usize) {
        eventually(&format!("{words:?} {times} times on the screen"), || {
            self.screen().matches(words).count() >= times
        });
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the client's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A telnet that is connected and has had one line typed in and echoed.
fn telnet(server: &Server) -> Terminal {
    let mut telnet = Terminal::start("telnet HOST PORT", server);
    telnet.await_words("Escape character is", 1);
    telnet.type_in("hello, echo\n");
    telnet.await_words("hello, echo", 2); // the terminal's own, and ours
    telnet
}

#[test]
#[ignore = "needs telnet: make deps"]
fn telnet_shows_the_line_again_and_quits() {
    let server = Server::start(Program::Lastecho, &[]);
    let mut telnet = telnet(&server);
    telnet.type_in("\x1d");
    telnet.await_words("telnet> ", 1);
    telnet.type_in("quit\n");
    let status = telnet.wait();
    assert!(status.success(), "{status}");
    telnet.await_words("Connection closed.", 1);
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("reset")),
        (Some(0), 0),
        "{ended:?}"
    );
    // CR LF, as telnet sends the end of a line.
    assert_eq!(
        (ended.count("bytes_in"), ended.count("bytes_out")),
        (13, 13)
    );
}

#[test]
#[ignore = "needs telnet: make deps"]
fn an_open_telnet_is_told_that_the_server_has_closed() {
    let mut server = Server::start(Program::Lastecho, &super::IDLE);
    let mut telnet = telnet(&server);
    server.signal(Signal::TERM);
    telnet.await_words("Connection closed by foreign host", 1);
    telnet.wait();
    let ended = server.wait();
    assert!(ended.took < IN_TIME, "{ended:?}");
    assert_eq!(
        (ended.code(), ended.count("drained")),
        (Some(0), 1),
        "{ended:?}"
    );
    assert_eq!(ended.told["clean"], "true");
}
