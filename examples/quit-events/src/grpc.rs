//! The gRPC server: tonic, with code from `proto/greeter.proto`.

use crate::incoming;
use crate::jobs::Jobs;
use std::io;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Error, Server};
use tonic::{Request, Response, Status};

/// What the build script made.
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod proto {
    tonic::include_proto!("greeter");
}

use proto::greeter_server::{Greeter, GreeterServer};
use proto::{GreetReply, GreetRequest};

#[tonic::async_trait]
impl Greeter for Jobs {
    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetReply>, Status> {
        let GreetRequest { name, delay_ms } = request.into_inner();
        let greeting = Jobs::greet(self, &name, Duration::from_millis(delay_ms)).await;
        let message = greeting.map_err(Status::unavailable)?;
        Ok(Response::new(GreetReply { message }))
    }
}

/// Serves until `quit`, then sees the calls in hand through.
///
/// A client has a second for its preface, and one for the answer to each PING:
/// tonic's graceful shutdown would wait for it without end (hyper's issue 4170).
///
/// # Errors
/// What tonic says.
pub async fn serve(
    listener: TcpListener,
    jobs: Jobs,
    quit: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (heard, clients) = channel(1);
    tokio::spawn(hear(listener, heard));
    Server::builder()
        .http2_keepalive_interval(Some(incoming::GRPC))
        .http2_keepalive_timeout(Some(incoming::GRPC))
        .add_service(GreeterServer::new(jobs))
        .serve_with_incoming_shutdown(ReceiverStream::new(clients), quit)
        .await
}

/// Passes on the clients that have sent a preface, until tonic takes no more:
/// then the listener is closed, and those that have not are dropped.
async fn hear(listener: TcpListener, heard: Sender<io::Result<TcpStream>>) {
    let mut waiting = JoinSet::new();
    loop {
        let client = tokio::select! {
            client = incoming::accept(&listener) => client,
            Some(_) = waiting.join_next() => continue,
            () = heard.closed() => return,
        };
        let heard = heard.clone();
        waiting.spawn(async move {
            if incoming::has_preface(&client).await {
                let _ = heard.send(Ok(client)).await;
            }
        });
    }
}
