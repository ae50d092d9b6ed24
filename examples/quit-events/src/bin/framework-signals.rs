//! Second variant: the framework owns the signals, and calls us.
//!
//! tokio catches INT and TERM, for this program as for many others; axum's
//! graceful shutdown waits for them. All that is ours is a line in that hook.

use axum::Router;
use lastecho::Shutdown;
use quit_events::{cli, parts};
use std::error::Error;
use std::process::ExitCode;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

fn main() -> ExitCode {
    cli::main(|options| {
        let runtime = Runtime::new()?;
        let summary = runtime.block_on(run(options));
        runtime.shutdown_background();
        summary
    })
}

async fn run(options: &cli::Options) -> Result<cli::Summary, Box<dyn Error>> {
    let shutdown = Shutdown::new();
    let mut signals = Signals::catch()?;
    let event = shutdown.clone();
    let quit_hook = async move {
        signals.next().await;
        event.fire();
        tokio::spawn(async move {
            signals.next().await;
            event.stop().cut();
        });
    };
    let parts = parts::start(options, &shutdown, Router::new(), quit_hook).await?;
    // `run` blocks, so it has a thread for that.
    let timeout = options.timeout;
    let outcome = spawn_blocking(move || shutdown.run(timeout)).await?;
    Ok(parts.summary(outcome))
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.terminate.recv() => {} }
    }
}
