//! Two network namespaces, made and taken away by the test.

use super::relay::{Relay, Weather};
use crate::harness::{Program, Server, WATCHDOG, connect, run_to_end};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

/// The addresses at both ends; nobody outside of the namespaces sees them.
pub(super) const SERVER: &str = "10.83.0.1";
pub(super) const CLIENT: &str = "10.83.0.2";

/// A server's namespace and a clients' namespace, with a link between them.
pub(super) struct Joined {
    server: String,
    client: String,
    relay: Option<Relay>,
}

impl Joined {
    fn unlinked() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = |end: &str| format!("lastecho-{}-{number}-{end}", std::process::id());
        let joined = Self {
            server: name("s"),
            client: name("c"),
            relay: None,
        };
        for name in [&joined.server, &joined.client] {
            ip(&["netns", "add", name]);
        }
        joined
    }

    /// By a veth pair.
    pub(super) fn by_link() -> Self {
        let joined = Self::unlinked();
        let (server, client) = (&joined.server, &joined.client);
        let peer = ["type", "veth", "peer", "name", "wire", "netns", client];
        ip(&[&["-n", server, "link", "add", "name", "wire"][..], &peer].concat());
        for (name, address) in [(server, SERVER), (client, CLIENT)] {
            let address = format!("{address}/24");
            ip(&["-n", name, "address", "add", &address, "dev", "wire"]);
            ip(&["-n", name, "link", "set", "wire", "up"]);
        }
        joined
    }

    /// By a relay that treats packets like this.
    pub(super) fn through(weather: Weather) -> Self {
        let mut joined = Self::unlinked();
        let ends = [
            joined.command(&joined.server, "socat"),
            joined.command(&joined.client, "socat"),
        ];
        joined.relay = Some(Relay::start(ends, weather));
        joined
    }

    fn command(&self, name: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(program);
        command
    }

    pub(super) fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }

    /// A server in the server's namespace.
    pub(super) fn start(&self, program: Program, options: &[&str]) -> Server {
        let mut command = self.command(&self.server, program.path());
        command.args(options).arg(format!("{SERVER}:0"));
        Server::spawn(command, 1)
    }

    /// A client in the clients' namespace.
    pub(super) fn connect(&self, address: SocketAddr) -> TcpStream {
        let namespace = File::open(format!("/run/netns/{}", self.client)).unwrap();
        // A thread of its own, because a namespace is a thread's for good.
        let thread = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            connect(address).unwrap()
        });
        thread.join().unwrap()
    }

    /// Takes the clients' end of the link down, or up again: nobody is told.
    pub(super) fn set_link(&self, state: &str) {
        ip(&["-n", &self.client, "link", "set", "wire", state]);
    }

    /// What ss(8) says about the server's connections.
    pub(super) fn sockets(&self) -> String {
        let mut command = self.command(&self.server, "ss");
        let output = run_to_end(command.args(["-tno", "state", "connected"]), b"");
        assert!(output.status.success(), "ss (make deps): {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        drop(self.relay.take());
        for name in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = run_to_end(Command::new("ip").args(arguments), b"");
    assert!(
        output.status.success(),
        "ip {}: {}network namespaces and links need root (CAP_NET_ADMIN, CAP_SYS_ADMIN)",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A client that gives up neither reading nor writing before the watchdog.
pub(super) fn received(client: &mut TcpStream) -> Vec<u8> {
    use std::io::Read;
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
    let mut all = Vec::new();
    // A cut ends in a reset; what came before it counts.
    let _ = client.read_to_end(&mut all);
    all
}
