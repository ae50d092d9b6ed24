//! The two routes, and the counters that prove what ran.

use crate::http::{self, Request, Response};
use lastecho::Connection;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// What all connections share.
pub(crate) struct App {
    /// How long `/slow` takes.
    pub(crate) slow: Duration,
    /// Requests: each has its number from here, and tells it in its answer.
    pub(crate) requests: AtomicU64,
    /// Responses that were written completely.
    pub(crate) answered: AtomicU64,
    /// Test only: count as a program without atomics does.
    pub(crate) careless: bool,
}

impl App {
    /// Serves one connection: requests follow one another until the client
    /// closes, one of both says that it is the last, or a stop is seen.
    pub(crate) fn serve(&self, conn: &mut Connection) -> io::Result<()> {
        while http::await_request(conn)? {
            let Some(head) = http::read_head(conn)? else {
                return Ok(());
            };
            let more = match head {
                Ok(request) => self.exchange(conn, &request)?,
                Err(status) => {
                    http::write(conn, "", &Response::error(status), true)?;
                    false
                }
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Answers one request; says whether a further one may come.
    fn exchange(&self, conn: &mut Connection, request: &Request) -> io::Result<bool> {
        let outcome = self.answer(conn, request);
        match &outcome {
            Ok(_) => {
                self.answered.fetch_add(1, Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => log::warn!(
                "cut: {} {} of {} is not answered",
                request.method,
                request.target,
                conn.peer_addr()
            ),
            Err(_) => {}
        }
        outcome
    }

    fn answer(&self, conn: &mut Connection, request: &Request) -> io::Result<bool> {
        let number = self.count();
        let (method, target) = (&request.method, &request.target);
        log::debug!(
            "request {number}: {method} {target} of {}",
            conn.peer_addr()
        );
        let response = self.run(conn, request, number)?;
        // After a stop, what has arrived is still answered: a client may have
        // sent several requests at once. The last answer says that it is the
        // last, so that the client sends no more into a closing connection.
        let last = !request.keep_alive || conn.is_last()?;
        http::write(conn, method, &response, last)?;
        Ok(!last)
    }

    fn run(&self, conn: &Connection, request: &Request, number: u64) -> io::Result<Response> {
        let options = request.method == "OPTIONS";
        let pause = match request.path() {
            "/" => Duration::ZERO,
            "/slow" => self.slow,
            "*" if options => Duration::ZERO, // the server itself (RFC 9110, 9.3.7)
            _ => return Ok(Response::error("404 Not Found")),
        };
        if options {
            return Ok(Response {
                status: "200 OK",
                body: String::new(),
            });
        }
        if !matches!(&*request.method, "GET" | "HEAD") {
            return Ok(Response::error("405 Method Not Allowed"));
        }
        conn.pause(pause)?; // the work; a cut ends it
        Ok(Response {
            status: "200 OK",
            body: format!("request {number}: {}\n", request.target),
        })
    }

    fn count(&self) -> u64 {
        if self.careless {
            let seen = self.requests.load(Relaxed);
            thread::yield_now();
            self.requests.store(seen + 1, Relaxed);
            return seen + 1;
        }
        self.requests.fetch_add(1, Relaxed) + 1
    }
}
