//! The command line.

use crate::output::{complain, flush};
use clap::{Args, Parser, ValueEnum};
use std::env;
use std::path::PathBuf;
use std::time::Duration;

/// Moves messages from a Redis list into a database, at least once.
///
/// A message is its key, a space and its body. INT, TERM, QUIT and HUP ask for
/// a graceful stop, a further one cuts it short. Exit status: 0 clean, 1 could
/// not start, 2 usage, 3 stopped but something was left, or stopped by an
/// error of Redis.
#[derive(Clone, Debug, Parser)]
#[command(name = "redis-to-db", version)]
pub struct Options {
    /// Where the messages are.
    #[command(flatten)]
    pub redis: RedisOptions,

    /// A file (`SQLite`) or a postgresql:// URL
    #[arg(long, value_name = "PATH|URL", default_value = "messages.sqlite", value_parser = target)]
    pub database: Target,

    /// Certificates to trust (PEM) where the URL has sslmode=require; the system's otherwise
    #[arg(long, value_name = "FILE")]
    pub database_ca: Option<PathBuf>,

    /// Messages in hand at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    pub workers: usize,

    /// Failures of its own after which a message goes to KEY:dead
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,

    /// When Redis fails: try again with back-off, or stop
    #[arg(long, value_name = "POLICY", default_value = "retry")]
    pub on_redis_error: OnRedisError,

    /// How long after its end another process takes over what this one had in hand (1s to 10m)
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = lease)]
    pub lease: Duration,

    /// Longest that an idle worker waits before it looks at the stop flag (a quarter of --drain-timeout at most)
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub poll: Duration,

    /// Time between two lines of progress
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub progress: Duration,

    /// How long a stop may take before what is left is left behind
    #[arg(long, value_name = "DURATION", default_value = "8s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// A shell command to run when all workers have ended
    #[arg(long, value_name = "COMMAND")]
    pub before_exit: Option<String>,

    /// Think before each message: slow work, to watch a stop
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub work: Duration,

    /// For the tests: panic on messages that contain this.
    #[arg(long, hide = true)]
    pub panic_on: Option<String>,
}

/// Where the messages are.
#[derive(Clone, Debug, Args)]
pub struct RedisOptions {
    /// Where Redis is (6.2 or later): redis://, or rediss:// for TLS
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1:6379", value_parser = redis_url)]
    pub redis: String,

    /// The authority that Redis's certificate is from, in PEM, instead of the system's
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,

    /// Our certificate for Redis, in PEM
    #[arg(long, value_name = "FILE", requires = "redis_key")]
    pub redis_cert: Option<PathBuf>,

    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "redis_cert")]
    pub redis_key: Option<PathBuf>,

    /// The list of the messages; the left end is the newest
    #[arg(long, value_name = "KEY", default_value = "messages")]
    pub list: String,
}

/// What to do when Redis fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnRedisError {
    /// Try again, with back-off.
    Retry,
    /// Stop gracefully.
    Stop,
}

/// Where messages go.
#[derive(Clone, Debug)]
pub enum Target {
    /// An `SQLite` database.
    File(PathBuf),
    /// A `PostgreSQL` server's.
    Postgres(Box<tokio_postgres::Config>),
}

/// Says in one line what is wrong, and ends the process; help and version are
/// not wrong.
pub fn refuse(program: &str, error: &clap::Error) -> ! {
    if !error.use_stderr() {
        let _ = error.print();
        std::process::exit(0);
    }
    let arguments = env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let text = without_secrets(error.to_string(), arguments);
    let first = text.lines().take_while(|line| !line.is_empty());
    let first = first.map(str::trim).collect::<Vec<_>>().join(" ");
    let what = first.strip_prefix("error: ").unwrap_or(&first);
    complain(program, &format!("{what} (see --help)"));
    flush();
    std::process::exit(2);
}

fn redis_url(text: &str) -> Result<String, String> {
    let client = redis::Client::open(text);
    let client = client.map_err(|_| "write for example redis://127.0.0.1:6379");
    client.map(|_| text.to_owned()).map_err(str::to_owned)
}

fn target(text: &str) -> Result<Target, &'static str> {
    if text.starts_with("postgresql://") || text.starts_with("postgres://") {
        // With `require` the certificate is verified in full, too.
        let config = text
            .replace("sslmode=verify-full", "sslmode=require")
            .parse();
        let config = config.map_err(|_: tokio_postgres::Error| URL);
        return config.map(|config| Target::Postgres(Box::new(config)));
    }
    // A slip in a URL must not make a file that is named after a password.
    let is_path = ["/", "./", "../"]
        .iter()
        .any(|start| text.starts_with(start));
    if (!is_path || text.starts_with("//")) && may_hold_secret(text) {
        return Err(URL);
    }
    Ok(Target::File(text.into()))
}

/// What does not repeat anything of a URL.
const URL: &str = "write a path, or a URL with tokio-postgres's options, for example \
    postgresql://user:password@host:5432/name?sslmode=require";

/// Whether it may be a URL, or a part of one, with a password in it.
fn may_hold_secret(text: &str) -> bool {
    text.contains("://")
        || text.contains('@')
        || text.contains("password")
        || text.contains("pass=")
}

/// A message without the arguments in it that nobody else should read.
fn without_secrets(mut text: String, arguments: impl Iterator<Item = String>) -> String {
    for argument in arguments {
        let value = argument
            .split_once('=')
            .filter(|_| argument.starts_with('-'));
        let value = value.map_or(argument.as_str(), |(_, value)| value);
        if may_hold_secret(value) {
            text = text.replace(value, "…");
        }
    }
    text
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than zero".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}, write for example 250ms, 1s or 2m")),
    }
}

/// Not so short that a process which is only slow loses what it has in hand,
/// and not longer than its lists are looked at when it is gone (`tend.lua`).
fn lease(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        lease if lease < Duration::from_secs(1) => Err("must be 1s or more".into()),
        lease if lease > Duration::from_secs(600) => Err("must be 10m or less".into()),
        lease => Ok(lease),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1000) => Ok(number),
        _ => Err("must be a whole number from 1 to 1000".into()),
    }
}
