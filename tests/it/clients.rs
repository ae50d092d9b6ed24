//! Real clients, driven as people drive them.
//!
//! They come from outside: `make deps` installs them.

mod in_flight;
mod terminal;

use crate::harness::{IN_TIME, Program, Server, bytes, eventually, noise, run_to_end, text};
use rustix::process::Signal;
use std::fs::File;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;

/// Where an idle connection would be cut, a test would not end in time.
const IDLE: [&str; 4] = ["--poll", "100ms", "--drain-timeout", "30s"];

/// The client's command line, `HOST` and `PORT` filled in.
fn command(words: &str, server: &Server) -> Command {
    let address = server.address();
    let words = words
        .replace("HOST", &address.ip().to_string())
        .replace("PORT", &address.port().to_string());
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// Sends `input` through the client's standard input to its end; the client
/// must end by itself, in peace, with exactly that on its standard output.
fn assert_echoes(words: &str, input: &[u8]) {
    let server = Server::start(Program::Lastecho, &[]);
    let output = run_to_end(&mut command(words, &server), input);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}: {complaint}");
    assert!(
        output.stdout == input,
        "{words}: {} of {} bytes; {complaint}",
        output.stdout.len(),
        input.len()
    );
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("reset")),
        (Some(0), 0),
        "{ended:?}"
    );
    assert_eq!(ended.count("bytes_out"), input.len() as u64);
}

/// A client whose user sits in front of it: its standard input stays open.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: File,
    stderr: File,
}

impl Client {
    fn start(words: &str, server: &Server) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut child = command(words, server)
            .stdin(Stdio::piped())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{words}: {error}; make deps installs it"));
        Self {
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
        }
    }

    fn say(&mut self, words: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(words).unwrap();
    }

    fn await_echo(&self, words: &[u8]) {
        eventually("the echo", || bytes(&self.stdout) == words);
    }

    /// Ends its input and waits for its end.
    fn leave(mut self) -> (ExitStatus, Vec<u8>, String) {
        drop(self.stdin.take());
        let mut status = None;
        eventually("the client's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), bytes(&self.stdout), text(&self.stderr))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client whose user has typed a line and sits there, when the server stops.
/// The server ends in time and in peace; then the client does.
fn assert_idle_client_drains(words: &str) {
    let mut server = Server::start(Program::Lastecho, &IDLE);
    let mut client = Client::start(words, &server);
    client.say(b"one line\n");
    client.await_echo(b"one line\n");
    server.signal(Signal::TERM);
    let ended = server.wait();
    println!("{words}: the server ended after {:?}", ended.took);
    assert!(ended.took < IN_TIME, "{ended:?}");
    assert_eq!(
        (ended.code(), ended.count("drained")),
        (Some(0), 1),
        "{ended:?}"
    );
    assert_eq!(ended.told["clean"], "true");
    let (status, echo, complaint) = client.leave();
    assert_eq!(status.code(), Some(0), "{words}: {complaint}");
    assert_eq!(
        (echo.as_slice(), complaint.as_str()),
        (&b"one line\n"[..], "")
    );
}

#[test]
#[ignore = "needs nc: make deps"]
fn nc_with_a_pipe_for_input_gets_its_echo_and_ends_when_the_server_does() {
    let data = noise(200_000, 1);
    let mut server = Server::start(Program::Lastecho, &IDLE);
    let mut client = Client::start("nc.openbsd HOST PORT", &server);
    client.say(&data);
    drop(client.stdin.take()); // without -N it does not tell the server
    client.await_echo(&data);
    server.signal(Signal::TERM);
    let (status, echo, complaint) = client.leave();
    assert!(echo == data && status.success(), "{status} {complaint}");
    let ended = server.wait();
    assert_eq!(
        (ended.code(), ended.count("drained")),
        (Some(0), 1),
        "{ended:?}"
    );
}

#[test]
#[ignore = "needs nc: make deps"]
fn nc_that_closes_after_its_input_gets_all_of_it_back() {
    assert_echoes("nc.openbsd -N HOST PORT", b"a line\n");
    assert_echoes("nc.openbsd -N HOST PORT", &noise(1 << 20, 2));
    assert_echoes("nc.openbsd -N HOST PORT", b"");
}

#[test]
#[ignore = "needs nc: make deps"]
fn nc_that_waits_a_second_after_its_input_gets_all_of_it_back() {
    assert_echoes("nc.openbsd -q 1 HOST PORT", &noise(10_000, 3));
}

#[test]
#[ignore = "needs nc.traditional: make deps"]
fn traditional_nc_gets_all_of_it_back() {
    assert_echoes("nc.traditional -q 1 HOST PORT", &noise(10_000, 4));
}

#[test]
#[ignore = "needs nc: make deps"]
fn an_idle_nc_drains() {
    assert_idle_client_drains("nc.openbsd HOST PORT");
}

#[test]
#[ignore = "needs nc.traditional: make deps"]
fn an_idle_traditional_nc_drains() {
    assert_idle_client_drains("nc.traditional HOST PORT");
}

#[test]
#[ignore = "needs ncat: make deps"]
fn ncat_gets_all_of_it_back() {
    assert_echoes("ncat HOST PORT", b"a line\n");
    assert_echoes("ncat HOST PORT", &noise(1 << 20, 5));
}

#[test]
#[ignore = "needs ncat: make deps"]
fn an_idle_ncat_drains() {
    assert_idle_client_drains("ncat HOST PORT");
}

#[test]
#[ignore = "needs socat: make deps"]
fn socat_gets_all_of_it_back() {
    assert_echoes("socat - TCP:HOST:PORT", b"a line\n");
    assert_echoes("socat -t 20 - TCP:HOST:PORT", &noise(1 << 20, 6));
}

#[test]
#[ignore = "needs socat: make deps"]
fn an_idle_socat_drains() {
    assert_idle_client_drains("socat - TCP:HOST:PORT");
}

#[test]
#[ignore = "needs curl: make deps"]
fn an_idle_curl_drains() {
    assert_idle_client_drains("curl --silent --no-buffer telnet://HOST:PORT");
}

#[test]
#[ignore = "needs bash: make deps"]
fn bash_gets_its_line_back() {
    let server = Server::start(Program::Lastecho, &[]);
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{}; printf 'one\\0two\\n' >&3; head -c 8 <&3",
        server.address().port()
    );
    let output = run_to_end(Command::new("bash").args(["-c", &script]), b"");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"one\0two\n");
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("bytes_out")),
        (Some(0), 8),
        "{ended:?}"
    );
}

#[test]
#[ignore = "needs bash: make deps"]
fn an_open_bash_descriptor_drains() {
    let mut server = Server::start(Program::Lastecho, &IDLE);
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{}; echo hello >&3; read -r line <&3; echo \"$line\"; \
         cat <&3; echo end",
        server.address().port()
    );
    let bash = thread::spawn(move || run_to_end(Command::new("bash").args(["-c", &script]), b""));
    eventually("its line came and went", || {
        server.signal(Signal::USR1);
        server.stderr().contains("6 bytes in, 6 bytes out")
    });
    let ended = server.stop();
    let output = bash.join().unwrap();
    assert_eq!(output.stdout, b"hello\nend\n", "{output:?}");
    assert_eq!(
        (ended.code(), ended.count("drained")),
        (Some(0), 1),
        "{ended:?}"
    );
}
