//! First variant: we own the signals.

use axum::Router;
use lastecho::{Shutdown, signals};
use quit_events::{cli, parts};
use std::future::pending;
use std::process::ExitCode;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    cli::main(|options| {
        let shutdown = Shutdown::new();
        let _signals = signals::install(shutdown.stop())?;
        let runtime = Runtime::new()?;
        let start = parts::start(options, &shutdown, Router::new(), pending());
        let parts = runtime.block_on(start)?;
        let outcome = shutdown.run(options.timeout);
        // What is stuck in the runtime was named; it does not hold us.
        runtime.shutdown_background();
        Ok(parts.summary(outcome))
    })
}
