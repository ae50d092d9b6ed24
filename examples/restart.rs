//! An embedded line server that restarts without anybody noticing: `kill -USR2`.
//!
//! ```text
//! cargo run --example restart [ADDRESS]
//! ```

#![allow(clippy::print_stdout)] // it talks to whoever started it

use lastecho::handover::{self, Program};
use lastecho::signals::{self, Request};
use lastecho::{Connection, Event, Stop};
use signal_hook::consts::SIGUSR2;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::time::Duration;

fn main() -> io::Result<()> {
    let mut inherited = handover::inherited()?; // before anything else is opened
    let program = Program::this()?;
    let address = std::env::args().nth(1);
    let address = address.unwrap_or("127.0.0.1:48879".to_owned());
    // The predecessor's socket if there is one, else a new one.
    let server = inherited.bind(address)?.take_over(inherited);
    let (stop, handover) = (Stop::new(), Arc::new(server.handover()?));
    let ours = stop.clone();
    let _signals = signals::install_with(&stop, &[SIGUSR2], move |_, request| {
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
    let us = std::process::id();
    let server = server.observe(move |event| {
        if let Event::Ready { addresses } = event {
            println!("listening on {}, process {us}", addresses[0]);
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
        Read::by_ref(conn).take(1024).read_line(&mut line)?;
        let answer = format!("process {}: {}\n", std::process::id(), line.trim_end());
        conn.write_all(answer.as_bytes())?;
    }
    Ok(())
}
