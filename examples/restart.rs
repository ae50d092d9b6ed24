//! An embedded line server that restarts without anybody noticing: `kill -USR2`.
//!
//! ```text
//! cargo run --example restart [ADDRESS]
//! ```

#![allow(clippy::print_stdout)] // it talks to whoever started it

use lastecho::handover::{self, Program};
use lastecho::signals::{self, Request};
use lastecho::{Connection, Event, Stop};
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::time::Duration;

/// The longest line, with its end.
const LONGEST: u64 = 1024;

fn main() -> io::Result<()> {
    let mut inherited = handover::inherited()?; // before anything else is opened
    let program = Program::this()?;
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:48879");
    // The predecessor's socket if there is one, else a new one.
    let server = inherited.bind(address)?.take_over(inherited);
    let (stop, handover) = (Stop::new(), Arc::new(server.handover()?));
    let ours = stop.clone();
    let usr2 = signal_hook::consts::SIGUSR2;
    let _signals = signals::install_with(&stop, &[usr2], move |_, request| {
        if request == Request::Other {
            let (handover, program, stop) = (handover.clone(), program.command(), ours.clone());
            // On a thread of its own: a second signal must not wait for it.
            std::thread::spawn(move || {
                match handover.spawn(program, Duration::from_secs(10), &stop) {
                    Ok(successor) => println!("handed over to process {}", successor.id()),
                    Err(error) => println!("no handover, serving on: {error}"),
                }
            });
        }
    })?;
    let server = server.observe(|event| {
        if let Event::Ready { addresses } = event {
            println!(
                "listening on {}, process {}",
                addresses[0],
                std::process::id()
            );
        }
    });
    println!("{}", server.run(&stop, answer)?);
    Ok(())
}

/// Says which process it is, once per line.
fn answer(conn: &mut Connection) -> io::Result<()> {
    let mut line = String::new();
    while conn.next()? {
        line.clear();
        Read::by_ref(conn).take(LONGEST).read_line(&mut line)?;
        let answer = format!("process {}: {}\n", std::process::id(), line.trim_end());
        conn.write_all(answer.as_bytes())?;
    }
    Ok(())
}
