//! What is often written: one thread pops messages from Redis into a buffer
//! for 256, others write what is in the buffer.
//!
//! A stop empties the buffer into nothing, and so does a kill; a message whose
//! write fails is gone, one whose write panics takes its thread with it, and
//! an error of Redis ends it all.

use clap::Parser;
use lastecho::{Deadline, Stop, signals};
use redis_to_db::database::Database;
use redis_to_db::options::Options;
use redis_to_db::output::{flush, say};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{error::Error, process, thread};

const BUFFER: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let stop = Stop::new();
    let _signals = signals::install(&stop)?;
    let database = Database::new(&options, &stop)?;
    let (sender, receiver) = sync_channel(BUFFER);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        for _ in 0..options.workers {
            scope.spawn(|| write(&options, &receiver, &database));
        }
        scope.spawn(|| {
            let _ended = stop.set_on_drop();
            read(&options, &sender)
        });
        say(format_args!("moving"));
        let _ = stop.wait(Deadline::NEVER);
        say(format_args!("stopped"));
        flush();
        process::exit(0)
    })
}

fn read(options: &Options, sender: &SyncSender<String>) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(options.redis.redis.as_str())?.get_connection()?;
    loop {
        let mut pop = redis::cmd("BRPOP");
        pop.arg(&options.redis.list).arg(options.poll.as_secs_f64());
        let popped: Option<(String, String)> = pop.query(&mut connection)?;
        if popped.is_some_and(|(_, message)| sender.send(message).is_err()) {
            return Ok(());
        }
    }
}

fn write(
    options: &Options,
    receiver: &Mutex<Receiver<String>>,
    database: &Database,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut writer = database.writer();
    loop {
        let message = receiver.lock().map_err(|_| "poisoned")?.recv()?;
        thread::sleep(options.work);
        let (key, body) = message.split_once(' ').unwrap_or((&message, ""));
        if let Some(word) = &options.panic_on {
            assert!(!key.contains(word), "on purpose");
        }
        if let Err(error) = writer.write(key, body.as_bytes()) {
            say(format_args!("{key}: {error}"));
        }
    }
}
