//! Third variant: a server's own shutdown fires the event.
//!
//! `POST /quit` asks the HTTP server to stop, as an administrator's page or a
//! supervisor's hook does. When it has served what it had, it takes the rest
//! of the process with it: see `event.fire()` in `parts.rs`. A page of another
//! site is refused. Signals still
//! work, for those who cannot wait for it.

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use lastecho::{Shutdown, signals};
use quit_events::http::is_foreign;
use quit_events::{cli, parts};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

fn main() -> ExitCode {
    cli::main(|options| {
        let shutdown = Shutdown::new();
        let _signals = signals::install(shutdown.stop())?;
        let runtime = Runtime::new()?;
        let asked = Arc::new(Notify::new());
        let quit = Arc::clone(&asked);
        let ask = async move |headers: HeaderMap| {
            if is_foreign(&headers) {
                return (StatusCode::FORBIDDEN, "not from here\n");
            }
            asked.notify_one();
            (StatusCode::OK, "stopping\n")
        };
        let routes = Router::new().route("/quit", post(ask));
        let start = parts::start(options, &shutdown, routes, async move {
            quit.notified().await;
        });
        let parts = runtime.block_on(start)?;
        let outcome = shutdown.run(options.timeout);
        runtime.shutdown_background();
        Ok(parts.summary(outcome))
    })
}
