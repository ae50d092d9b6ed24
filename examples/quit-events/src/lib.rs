//! One process of many parts, each with a way to stop of its own: an HTTP
//! server (axum), a gRPC server (tonic), threads that poll, a thread on a
//! channel, and a file to be closed.
//!
//! [`parts::start`] registers them with one [`lastecho::Shutdown`]. Three
//! programs differ in who begins the stop: `quit-events` (we own the signals),
//! `framework-signals` (the framework owns them and calls us), `server-fires`
//! (a server's own shutdown takes the rest with it).

pub mod cli;
pub mod grpc;
pub mod http;
mod incoming;
pub mod jobs;
pub mod parts;
pub mod workers;
