//! The HTTP server: axum's routes on hyper's connections.

use crate::incoming::{self, HEAD};
use crate::jobs::Jobs;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
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
/// A client has two seconds for each head. `axum::serve` has no such limit, and
/// waits for half a head without end; so the loop that it is, is here.
pub async fn serve(
    listener: TcpListener,
    jobs: Jobs,
    more_routes: Router,
    quit: impl Future<Output = ()> + Send + 'static,
) {
    let routes = Router::new()
        .route("/greet/{name}", get(greet))
        .with_state(jobs)
        .merge(more_routes);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let connections = GracefulShutdown::new();
    let mut quit = pin!(quit);
    loop {
        let client = tokio::select! {
            client = incoming::accept(&listener) => client,
            () = &mut quit => break,
        };
        let service = TowerToHyperService::new(routes.clone());
        let connection = http.serve_connection(TokioIo::new(client), service);
        let connection = connections.watch(connection);
        // An error is the client's: it went away, or took too long.
        tokio::spawn(async move { connection.await.ok() });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Whether a request comes from a page of another site, in a browser that
/// visits it: such a page may send requests to every address that the browser
/// can reach. Programs say no origin.
///
/// A name would not do as our own: its owner can let it point here.
#[must_use]
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    !host.is_some_and(|host| is_address(host) && *origin == format!("http://{host}"))
}

fn is_address(host: &str) -> bool {
    let name = host.split(':').next();
    name == Some("localhost")
        || host.parse::<IpAddr>().is_ok()
        || host.parse::<SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let headers = headers.iter().map(|&(name, value)| {
            let value = value.parse().unwrap();
            (name.parse().unwrap(), value)
        });
        headers.collect()
    }

    #[test]
    fn a_page_of_another_site_is_foreign_and_a_program_is_not() {
        let here = ("host", "127.0.0.1:8081");
        assert!(!is_foreign(&request(&[here])));
        assert!(!is_foreign(&request(&[
            here,
            ("origin", "http://127.0.0.1:8081")
        ])));
        let local = ("host", "localhost:8081");
        assert!(!is_foreign(&request(&[
            local,
            ("origin", "http://localhost:8081")
        ])));
        for origin in [
            "http://evil.test",
            "null",
            "http://127.0.0.1:9999",
            "https://127.0.0.1:8081",
        ] {
            assert!(
                is_foreign(&request(&[here, ("origin", origin)])),
                "{origin}"
            );
        }
    }

    /// The name of the page's own site points to us (DNS rebinding).
    #[test]
    fn a_name_that_points_here_is_foreign() {
        let name = ("host", "evil.test:8081");
        assert!(is_foreign(&request(&[
            name,
            ("origin", "http://evil.test:8081")
        ])));
        assert!(is_foreign(&request(&[("origin", "http://127.0.0.1:8081")])));
    }
}
