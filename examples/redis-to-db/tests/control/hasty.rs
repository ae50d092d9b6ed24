//! What is often written: a message is done when its write has returned a row.
//!
//! The row comes before the commit. What the commit fails with is in the rest
//! of the answer, and that is thrown away here.

use clap::Parser;
use lastecho::{Deadline, Stop, signals};
use postgres::NoTls;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use redis_to_db::options::{Options, Target};
use redis_to_db::output::{flush, say};
use std::error::Error;
use std::{process, thread};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS messages \
    (key TEXT PRIMARY KEY, body BYTEA NOT NULL, written INTEGER NOT NULL)";
const WRITE: &str = "INSERT INTO messages (key, body, written) VALUES ($1, $2, 1) \
    ON CONFLICT (key) DO UPDATE SET written = messages.written + 1 RETURNING written";

const HAND: &str = "messages:processing:hasty";

type Writer = Box<dyn FnMut(&str, &[u8]) -> Result<(), Box<dyn Error>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let stop = Stop::new();
    let _signals = signals::install(&stop)?;
    thread::spawn(move || {
        if let Err(error) = take(&options) {
            say(format_args!("{error}"));
        }
    });
    say(format_args!("moving"));
    let _ = stop.wait(Deadline::NEVER);
    say(format_args!("stopped"));
    flush();
    process::exit(0)
}

fn take(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut connection = redis::Client::open(options.redis.redis.as_str())?.get_connection()?;
    let mut write = writer(&options.database)?;
    loop {
        let mut take = redis::cmd("BLMOVE");
        take.arg(&options.redis.list).arg(HAND);
        take.arg("RIGHT").arg("LEFT").arg(0.1);
        let Some(message) = take.query::<Option<String>>(&mut connection)? else {
            continue;
        };
        thread::sleep(options.work);
        let (key, body) = message.split_once(' ').unwrap_or((&message, ""));
        let settled = if write(key, body.as_bytes()).is_ok() {
            redis::cmd("RPOP").arg(HAND).exec(&mut connection)
        } else {
            let mut back = redis::cmd("RPOPLPUSH");
            back.arg(HAND)
                .arg(&options.redis.list)
                .exec(&mut connection)
        };
        settled?;
    }
}

fn writer(target: &Target) -> Result<Writer, Box<dyn Error>> {
    Ok(match target {
        Target::File(path) => {
            let file = rusqlite::Connection::open(path)?;
            file.pragma_update(None, "journal_mode", "WAL")?;
            file.pragma_update(None, "synchronous", "FULL")?;
            file.execute(TABLE, [])?;
            Box::new(move |key, body| {
                let mut statement = file.prepare_cached(WRITE)?;
                Ok(statement.query_row((key, body), |_| Ok(()))?)
            })
        }
        Target::Postgres(config) => {
            let mut client = postgres::Config::from(*config.clone()).connect(NoTls)?;
            client.batch_execute(TABLE)?;
            Box::new(move |key, body| {
                let mut rows = client.query_raw(WRITE, [&key as &dyn ToSql, &body])?;
                rows.next()?.map(|_| ()).ok_or_else(|| "no row".into())
            })
        }
    })
}
