//! The smallest server: the echo, stopped by signals, with a report at the end.
//!
//! ```text
//! cargo run --example echo [ADDRESS]
//! ```

#![allow(clippy::print_stdout)] // it talks to whoever started it

use anyhow::Context;
use lastecho::{Echo, Server, Stop, signals};

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:48879");
    let stop = Stop::new();
    // Before "listening": whoever reads that may send a signal at once.
    let _signals = signals::install(&stop)?;
    let server = Server::bind(address).context("cannot listen")?;
    for address in server.live().addresses() {
        println!("listening on {address}");
    }
    let echo = Echo::default();
    let report = server.run(&stop, |conn| echo.serve(conn))?;
    println!("{report}");
    Ok(())
}
