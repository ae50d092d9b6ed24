//! Connections, and how long a client may take to say something.
//!
//! A server that stops waits for its connections. A framework's counts those
//! on which nothing was said yet, or half of something: one such client, a
//! browser's second connection for example, and no stop ends.

use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// How long an HTTP client may take for the head of a request, the time that a
/// kept connection is idle included.
pub(crate) const HEAD: Duration = Duration::from_secs(2);
/// How long a gRPC client may take for its preface, and for the answer to a PING.
pub(crate) const GRPC: Duration = Duration::from_secs(1);
/// From a look at what has arrived to the next one, and after an accept that
/// failed for want of descriptors, say.
const AGAIN: Duration = Duration::from_millis(10);
/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Waits for the next client.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            // It has gone already.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log::warn!("accept: {error}");
                sleep(100 * AGAIN).await;
            }
        }
    }
}

/// Waits until as many bytes have arrived as a preface has, and leaves them
/// where they are; false where they take too long.
pub(crate) async fn has_preface(client: &TcpStream) -> bool {
    let mut bytes = [0; PREFACE];
    let arrived = async {
        loop {
            match client.peek(&mut bytes).await {
                Ok(PREFACE) => return true,
                Ok(0) | Err(_) => return false,
                // What is there makes the next peek return at once.
                Ok(_) => sleep(AGAIN).await,
            }
        }
    };
    timeout(GRPC, arrived).await.unwrap_or(false)
}
