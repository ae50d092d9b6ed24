//! The two routes on axum with its own graceful shutdown, behind the same
//! command line as far as the load test uses it.

use axum::Router;
use axum::extract::OriginalUri;
use axum::routing::get;
use clap::Parser;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Options {
    address: SocketAddr,
    #[arg(long, value_parser = humantime::parse_duration)]
    slow: Duration,
    /// axum has none.
    #[arg(long, value_parser = ["none"])]
    drain_timeout: String,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    answered: AtomicU64,
}

async fn answer(counts: Arc<Counts>, target: OriginalUri, pause: Duration) -> String {
    let number = counts.requests.fetch_add(1, Relaxed) + 1;
    tokio::time::sleep(pause).await;
    counts.answered.fetch_add(1, Relaxed);
    format!("request {number}: {}\n", target.0)
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    let _ = options.drain_timeout;
    let counts = Arc::new(Counts::default());
    let route = |pause| {
        let counts = Arc::clone(&counts);
        get(move |target| answer(counts, target, pause))
    };
    let routes = Router::new()
        .route("/", route(Duration::ZERO))
        .route("/slow", route(options.slow));
    let mut term = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(options.address).await?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    let stop = async move {
        term.recv().await;
    };
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await?;
    let (requests, answered) = (counts.requests.load(Relaxed), counts.answered.load(Relaxed));
    writeln!(
        io::stdout(),
        "stopped requests={requests} answered={answered}"
    )
}
