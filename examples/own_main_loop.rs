//! A server inside a tool that has its own main loop: it samples the system's
//! load, and whoever connects may ask for the last sample.
//!
//! `cargo run --example own_main_loop [ADDRESS [SAMPLES]]`, and then: `nc 127.0.0.1 48879`
#![allow(clippy::print_stdout)] // it talks to whoever started it

use lastecho::{Connection, Deadline, Server, Stop, signals};
use std::io::{self, BufRead, Write};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use std::{fs, thread};

const PAUSE: Duration = Duration::from_millis(100);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:48879".into());
    let samples: u64 = arguments.next().map_or(Ok(u64::MAX), |n| n.parse())?;
    let (stop, last) = (Stop::new(), RwLock::new(String::new()));
    let _signals = signals::install(&stop)?;
    let server = Server::bind(address)?;
    println!("listening on {}", server.live().addresses()[0]);
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let _stop = stop.set_on_drop(); // the loop does not go on without the server
            server.run(&stop, |conn| serve(conn, &last))
        });
        let sampled = sample(samples, &stop, &last);
        stop.set(); // nor the server without the loop, which has finished or failed
        let report = serving.join().map_err(|_| io::Error::other("panicked"))??;
        println!("{report}\nsampled {} times", sampled?);
        Ok(())
    })
}

/// The tool's own loop: it ends with its work, or when the stop is set.
fn sample(most: u64, stop: &Stop, last: &RwLock<String>) -> io::Result<u64> {
    for count in 0..most {
        let load = fs::read_to_string("/proc/loadavg")?;
        *last.write().unwrap_or_else(PoisonError::into_inner) = load;
        if stop.wait(Deadline::after(PAUSE)) {
            return Ok(count + 1);
        }
    }
    Ok(most)
}

/// An answer to each line, whatever it says.
fn serve(conn: &mut Connection, last: &RwLock<String>) -> io::Result<()> {
    while conn.next()? {
        conn.skip_until(b'\n')?;
        let load = last.read().unwrap_or_else(PoisonError::into_inner).clone();
        conn.write_all(load.as_bytes())?;
    }
    Ok(())
}
