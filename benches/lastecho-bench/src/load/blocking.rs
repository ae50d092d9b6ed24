//! A thread per connection that writes a message and blocks for its echo: the
//! method of <https://github.com/haraldh/rust_echo_bench>.

use super::{MESSAGE, Seen, gather, ping};
use crate::pattern;
use crate::window::Window;
use std::net::TcpStream;

pub(super) fn drive(streams: &[TcpStream], window: &Window) -> Seen {
    std::thread::scope(|scope| {
        let numbered = streams.iter().enumerate();
        let clients = numbered.map(|(index, stream)| {
            scope.spawn(move || ping_on(stream, pattern::start(index), window))
        });
        let clients = clients.collect();
        window.begin();
        gather(clients)
    })
}

fn ping_on(stream: &TcpStream, mut position: u64, window: &Window) -> Seen {
    let mut seen = Seen::default();
    while !window.is_over() && ping(stream, position, &mut seen) {
        position += MESSAGE as u64;
        seen.count += u64::from(window.is_open());
    }
    seen
}
