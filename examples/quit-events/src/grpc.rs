//! The gRPC server: tonic, with code from `proto/greeter.proto`.

use crate::jobs::Jobs;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
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
/// # Errors
/// What tonic says.
pub async fn serve(
    listener: TcpListener,
    jobs: Jobs,
    quit: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    Server::builder()
        .add_service(GreeterServer::new(jobs))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), quit)
        .await
}
