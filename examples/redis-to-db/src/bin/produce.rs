//! `produce`: puts numbered messages into the list, for `redis-to-db` to move.

use anyhow::{Context, Result, bail};
use clap::Parser;
use lastecho::{Deadline, Episode, Stop, signals};
use redis_to_db::connection::{Server, is_interrupted, is_permanent, words};
use redis_to_db::options::{RedisOptions, refuse};
use redis_to_db::output::{complain, flush, say, start_log};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Messages that are sent to Redis in one piece.
const PIECE: u64 = 100;

/// Puts messages into a Redis list: `PREFIX-1 message 1`, and so on.
///
/// When Redis fails, or SIGSTOP interrupts the call, it tries again, and may so
/// put messages in twice: their keys are the same, so the database has each once.
#[derive(Parser)]
#[command(name = "produce", version)]
struct Options {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    count: u64,

    /// How many in a second, at most
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,

    /// What their keys begin with
    #[arg(long, default_value = "message")]
    prefix: String,

    #[command(flatten)]
    redis: RedisOptions,
}

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| refuse("produce", &error));
    let status = match start_log().and_then(|()| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain("produce", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    };
    flush();
    status
}

/// Produces until all are in the list, or the stop.
fn run(options: &Options) -> Result<()> {
    let stop = Stop::new();
    let _signals = signals::install(&stop).context("cannot catch signals")?;
    let server = Server::new(&options.redis)?;
    let trouble = Episode::new("redis");
    let (started, mut produced, mut connection) = (Instant::now(), 0, None);
    while produced < options.count && !stop.is_set() {
        let piece = PIECE.min(options.rate).min(options.count - produced);
        match push(
            options,
            &server,
            &mut connection,
            produced + 1..=produced + piece,
        ) {
            Ok(()) => {
                trouble.worked();
                produced += piece;
                let due = Duration::from_secs_f64(produced as f64 / options.rate as f64);
                let _ = stop.wait(Deadline::at(started + due));
            }
            Err(error) if is_permanent(&error) => bail!("redis: {}", words(&error)),
            Err(error) if is_interrupted(&error) => connection = None,
            Err(error) => {
                connection = None;
                let _ = stop.wait(Deadline::after(trouble.failed(&words(&error))));
            }
        }
    }
    say(format_args!("produced {produced}"));
    Ok(())
}

/// Puts these numbers into the list, all or (as far as we know) none.
fn push(
    options: &Options,
    server: &Server,
    connection: &mut Option<redis::Connection>,
    numbers: impl Iterator<Item = u64>,
) -> redis::RedisResult<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(server.connect(Duration::from_secs(5))?),
    };
    let mut push = redis::cmd("LPUSH");
    push.arg(&options.redis.list);
    for number in numbers {
        push.arg(format!("{}-{number} message {number}", options.prefix));
    }
    push.query(connection)
}
