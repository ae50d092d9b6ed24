//! Where to listen.

use crate::cli::Address;
use anyhow::{Context, Result, anyhow};
use lastecho::Server;
use lastecho::handover::Inherited;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// Listens on all addresses, with the sockets that were passed for them where
/// there are any; the first that cannot be had is named. Without addresses it
/// serves what was passed, or the default.
pub(crate) fn listen(addresses: &[Address], inherited: &mut Inherited) -> Result<Server> {
    let default = [Address::default()];
    let addresses = if addresses.is_empty() {
        if let Some(server) = inherited.server() {
            return Ok(server);
        }
        &default
    } else {
        addresses
    };
    let mut bound: Vec<SocketAddr> = Vec::new();
    let mut all: Option<Server> = None;
    for address in addresses {
        let name = || format!("cannot listen on {address}");
        let servers = match address {
            Address::All(port) => vec![inherited.bind_all(*port).with_context(name)?],
            _ => {
                let mut resolved = address.resolve().with_context(name)?;
                // The same address twice, given so or resolved so, is once.
                resolved.retain(|new| new.port() == 0 || !bound.contains(new));
                bound.extend(&resolved);
                bind_each(&resolved, inherited).with_context(name)?
            }
        };
        all = servers.into_iter().fold(all, |all, server| match all {
            None => Some(server),
            Some(all) => Some(all.and(server)),
        });
    }
    all.ok_or_else(|| anyhow!("no address to listen on"))
}

/// A host may resolve to addresses that this machine lacks (IPv6 switched off,
/// say): those are passed over, as long as one of several is there.
fn bind_each(addresses: &[SocketAddr], inherited: &mut Inherited) -> io::Result<Vec<Server>> {
    let mut servers = Vec::new();
    let mut missing = Vec::new();
    for address in addresses {
        match inherited.bind(address) {
            Ok(server) => servers.push(server),
            Err(error) if is_missing(&error) => missing.push((address, error)),
            Err(error) => return Err(error),
        }
    }
    match missing.pop() {
        Some((_, error)) if servers.is_empty() => return Err(error),
        last => missing.extend(last),
    }
    for (address, error) in missing {
        log::warn!("not listening on {address}: {error}");
    }
    Ok(servers)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.kind() == ErrorKind::Unsupported
}
