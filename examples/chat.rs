//! A chat room: what one client says all read; two threads a client.
//! `cargo run --example chat [ADDRESS]`, and then, several times: `nc 127.0.0.1 48879`
#![allow(clippy::print_stdout)] // it talks to whoever started it

use lastecho::{Connection, Server, Stop, limits, signals};
use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, Builder};

const MOST: u64 = 1024; // bytes of a line, with its end
const UNREAD: usize = 64; // lines that wait for a client; it misses further ones
type Clients = HashMap<u64, mpsc::SyncSender<String>>;

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or("127.0.0.1:48879".into());
    let (stop, room) = (Stop::new(), Mutex::default());
    let _signals = signals::install(&stop)?;
    let server = Server::bind(address)?.max_connections(limits::connections(2 << 20) / 2);
    println!("listening on {}", server.live().addresses()[0]);
    println!("{}", server.run(&stop, |conn| visit(conn, &room))?);
    Ok(())
}

/// One client's stay: this thread reads, another writes what is said.
fn visit(conn: &mut Connection, room: &Mutex<Clients>) -> io::Result<()> {
    let (mut writer, (sender, lines)) = (conn.writer(), mpsc::sync_channel::<String>(UNREAD));
    let pour = move || lines.iter().try_for_each(|line| write!(writer, "{line}"));
    thread::scope(|scope| {
        Builder::new().spawn_scoped(scope, pour)?;
        lock(room).insert(conn.id(), sender);
        tell(room, conn.id(), "is here");
        let ended = talk(conn, room);
        lock(room).remove(&conn.id()); // the other thread writes what waits, and ends
        tell(room, conn.id(), "has left");
        ended
    })
}

fn talk(conn: &mut Connection, room: &Mutex<Clients>) -> io::Result<()> {
    while conn.next()? {
        let mut line = Vec::new();
        Read::take(&mut *conn, MOST).read_until(b'\n', &mut line)?;
        tell(room, conn.id(), String::from_utf8_lossy(&line).trim_end());
    }
    Ok(())
}

/// Never blocks on a client: one that does not read costs nobody but itself.
fn tell(room: &Mutex<Clients>, from: u64, what: &str) {
    for client in lock(room).values() {
        let _ = client.try_send(format!("{from}: {what}\n"));
    }
}

fn lock(room: &Mutex<Clients>) -> MutexGuard<'_, Clients> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}
