//! A line protocol: `PING`, `ECHO text`, `HITS`, `QUIT`; stopped by signals.
//!
//! ```text
//! cargo run --example line_server [ADDRESS]
//! ```

#![allow(clippy::print_stdout)] // it talks to whoever started it

use anyhow::Context;
use lastecho::{Connection, Server, Stop, signals};
use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The longest line, with its end. Without a bound, a client that never ends
/// its line would fill our memory.
const LONGEST: u64 = 1024;

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:48879");
    let stop = Stop::new();
    let _signals = signals::install(&stop)?;
    let server = Server::bind(address).context("cannot listen")?;
    for address in server.live().addresses() {
        println!("listening on {address}");
    }
    let hits = AtomicU64::new(0); // handlers borrow it: no Arc, no 'static
    let report = server.run(&stop, |conn| serve(conn, &hits))?;
    println!("{report} hits={}", hits.into_inner());
    Ok(())
}

fn serve(conn: &mut Connection, hits: &AtomicU64) -> io::Result<()> {
    let mut line = Vec::new();
    // Here, between two lines, a stop is honoured; a line begun is finished.
    while conn.next()? {
        line.clear();
        Read::by_ref(conn)
            .take(LONGEST)
            .read_until(b'\n', &mut line)?;
        if line.len() as u64 == LONGEST && !line.ends_with(b"\n") {
            return conn.write_all(b"ERR line too long\n");
        }
        let hit = hits.fetch_add(1, Relaxed) + 1;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let mut answer = match text.strip_suffix(b"\r").unwrap_or(text) {
            b"PING" => b"PONG".to_vec(),
            b"HITS" => hit.to_string().into(),
            b"QUIT" => return conn.write_all(b"BYE\n"),
            [b'E', b'C', b'H', b'O', b' ', text @ ..] => text.to_vec(),
            _ => b"ERR unknown command".to_vec(),
        };
        answer.push(b'\n');
        conn.write_all(&answer)?; // one write, so one packet
    }
    Ok(())
}
