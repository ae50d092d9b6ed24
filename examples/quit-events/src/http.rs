//! The HTTP server: axum.

use crate::jobs::Jobs;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use std::io;
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Delay {
    #[serde(default)]
    delay_ms: u64,
}

async fn greet(
    State(jobs): State<Jobs>,
    Path(name): Path<String>,
    Query(Delay { delay_ms }): Query<Delay>,
) -> Result<String, (StatusCode, &'static str)> {
    let greeting = jobs.greet(&name, Duration::from_millis(delay_ms)).await;
    greeting.map_err(|busy| (StatusCode::SERVICE_UNAVAILABLE, busy))
}

/// Serves until `quit`, then sees the requests in hand through.
///
/// # Errors
/// What accept(2) says, where axum does not go on.
pub async fn serve(
    listener: TcpListener,
    jobs: Jobs,
    more_routes: Router,
    quit: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/greet/{name}", get(greet))
        .with_state(jobs)
        .merge(more_routes);
    axum::serve(listener, routes)
        .with_graceful_shutdown(quit)
        .await
}
