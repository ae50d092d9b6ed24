//! An echo service that does wrong, each of its connections in its own way.

use crate::harness::{WATCHDOG, connect};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

/// What happens on one connection. Its end closes the connection.
pub(super) type Script = fn(&mut TcpStream);

/// Treats one connection after the other by its script; from the last one on
/// further ones are refused.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub(super) fn start(scripts: &'static [Script]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accept = |listener: &TcpListener| {
            let (client, _) = listener.accept().unwrap();
            client.set_read_timeout(Some(WATCHDOG)).unwrap();
            client
        };
        let thread = thread::spawn(move || {
            let (last, others) = scripts.split_last().unwrap();
            for script in others {
                script(&mut accept(&listener));
            }
            let mut client = accept(&listener);
            drop(listener);
            last(&mut client);
        });
        Self {
            address,
            thread: Some(thread),
        }
    }
}

impl Drop for Service {
    /// A script that failed is the test's failure. Connections that nobody
    /// made are made here, so that a test that failed does not hang.
    fn drop(&mut self) {
        let thread = self.thread.take().unwrap();
        while !thread.is_finished() {
            drop(connect(self.address));
            thread::yield_now();
        }
        if !thread::panicking() {
            thread.join().unwrap();
        }
    }
}

/// Reads one message of 56 bytes.
pub(super) fn take(client: &mut TcpStream) -> [u8; 56] {
    let mut message = [0; 56];
    client.read_exact(&mut message).unwrap();
    message
}

/// Answers so many messages as it should.
pub(super) fn echo(client: &mut TcpStream, messages: u32) {
    for _ in 0..messages {
        let message = take(client);
        client.write_all(&message).unwrap();
    }
}

/// Answers until the client ends, as it should.
pub(super) fn echo_on(client: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        client.write_all(&buffer[..count]).unwrap();
    }
}
