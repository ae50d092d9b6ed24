//! A server whose program handles the signals: TERM stops, INT gives clients a
//! second more, QUIT none, and HUP does something else (reads a file again, say).
//!
//! `cargo run --example own_signals [ADDRESS]`, and then: `kill -HUP PID`
#![allow(clippy::print_stdout)] // it talks to whoever started it

use lastecho::{Connection, Deadline, Server, Stop};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

const MOST: u64 = 1024; // bytes of a line, with its end
const GRACE: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:48879");
    let (stop, version) = (Stop::new(), AtomicU64::new(1));
    // Before "listening": whoever reads that may send a signal at once.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let handle = signals.handle();
    // Idle connections see the stop within a poll interval: well before the cut.
    let server = Server::bind(address)?.poll(GRACE / 4);
    println!("listening on {}", server.live().addresses()[0]);
    let report = thread::scope(|scope| {
        scope.spawn(|| {
            for signal in &mut signals {
                match signal {
                    SIGHUP => drop(version.fetch_add(1, Relaxed)),
                    SIGINT => stop.set_by(Deadline::after(GRACE)),
                    SIGQUIT => stop.cut(),
                    _ => stop.set(), // the server's drain timeout holds
                }
            }
        });
        let report = server.run(&stop, |conn| serve(conn, &version));
        handle.close(); // ends the thread of the signals
        report
    })?;
    println!("{report}");
    Ok(())
}

/// Says each line back, and which version said it.
fn serve(conn: &mut Connection, version: &AtomicU64) -> io::Result<()> {
    while conn.next()? {
        let mut line = format!("{}: ", version.load(Relaxed)).into_bytes();
        Read::take(&mut *conn, MOST).read_until(b'\n', &mut line)?;
        conn.write_all(&line)?;
    }
    Ok(())
}
