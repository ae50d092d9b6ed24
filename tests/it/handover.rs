//! Restarts that nobody notices: sockets from a predecessor or a supervisor,
//! and to a successor.

mod dying;
mod embedded;
mod failing;
mod family;
mod hanging;
mod manager;
mod misuse;
mod passed;
mod storm;
mod supervised;
mod systemd;
mod variables;
