//! gRPC calls, with tonic's client on a runtime of their own.

use crate::harness::WATCHDOG;
use quit_events::grpc::proto::GreetRequest;
use quit_events::grpc::proto::greeter_client::GreeterClient;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use tokio::runtime::Builder;

pub(crate) const CANNOT_CONNECT: &str = "cannot connect";

/// What came of a call: the message, or what went wrong.
pub(crate) type Outcome = Result<String, String>;

/// A call that is on its way.
pub(crate) struct Call(Receiver<Outcome>);

impl Call {
    pub(crate) fn start(address: SocketAddr, name: &str, delay_ms: u64) -> Self {
        let (done, outcome) = channel();
        let name = name.to_owned();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            done.send(runtime.block_on(greet(address, name, delay_ms)))
        });
        Self(outcome)
    }

    pub(crate) fn finish(self) -> Outcome {
        let outcome = self.0.recv_timeout(WATCHDOG);
        outcome.expect("the gRPC call hangs")
    }
}

async fn greet(address: SocketAddr, name: String, delay_ms: u64) -> Outcome {
    let client = GreeterClient::connect(format!("http://{address}")).await;
    let mut client = client.map_err(|_| CANNOT_CONNECT)?;
    let reply = client.greet(GreetRequest { name, delay_ms }).await;
    let reply = reply.map_err(|status| status.to_string())?;
    Ok(reply.into_inner().message)
}
