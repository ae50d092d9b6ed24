//! Connect, one echo, reset; over and over from several threads.

use super::{Seen, connect, gather, ping};
use crate::pattern;
use crate::window::Window;
use rustix::net::sockopt::set_socket_linger;
use std::net::SocketAddr;
use std::time::Duration;

/// A client that fails so often gives up.
const PATIENCE: u64 = 3;

pub(super) fn drive(clients: usize, address: SocketAddr, window: &Window) -> Seen {
    std::thread::scope(|scope| {
        let clients = (0..clients).map(|index| {
            scope.spawn(move || {
                let mut seen = Seen::default();
                let mut number = index;
                while !window.is_over() && seen.failed < PATIENCE {
                    seen = seen + cycle(address, number, window);
                    number += clients;
                }
                seen
            })
        });
        let clients = clients.collect();
        window.begin();
        gather(clients)
    })
}

fn cycle(address: SocketAddr, number: usize, window: &Window) -> Seen {
    let mut seen = Seen::default();
    let Ok(stream) = connect(address) else {
        seen.failed = 1;
        return seen;
    };
    if ping(&stream, pattern::start(number), &mut seen) {
        seen.count = u64::from(window.is_open());
    }
    // Closing resets, so that no TIME_WAIT uses the ports up.
    if set_socket_linger(&stream, Some(Duration::ZERO)).is_err() {
        seen.failed = 1;
    }
    seen
}
