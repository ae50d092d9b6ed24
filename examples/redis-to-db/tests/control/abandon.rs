//! `redis-to-db` without the library's `Shutdown`: it leaves at the signal,
//! whatever its workers have in hand.

use clap::Parser;
use lastecho::{Deadline, Stop, signals};
use redis_to_db::mover::Mover;
use redis_to_db::options::Options;
use redis_to_db::output::{flush, say};
use std::thread;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stop = Stop::new();
    let _signals = signals::install(&stop)?;
    let mover = Mover::new(Options::parse(), &stop)?;
    let keeper = mover.begin()?.ok_or("stopped")?;
    thread::scope(|scope| {
        scope.spawn(|| mover.keep(keeper, &Stop::new()));
        scope.spawn(|| mover.work());
        say(format_args!("moving"));
        let _ = stop.wait(Deadline::NEVER);
        say(format_args!("stopped {}", mover.counts));
        flush();
        std::process::exit(0)
    })
}
