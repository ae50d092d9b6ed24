//! Workers that move messages from a Redis list into a database, at least
//! once.
//!
//! [`lists`] knows where a message is in Redis, which [`connection`] reaches and
//! [`check`] looks at first, [`database`] writes it, and [`mover`] is the workers
//! between the two, with their stop.

pub mod check;
pub mod connection;
pub mod database;
pub mod demand;
pub mod hook;
pub mod lists;
pub mod message;
pub mod mover;
pub mod options;
pub mod outcome;
pub mod output;
pub mod settling;
pub mod suspects;
pub mod trouble;
