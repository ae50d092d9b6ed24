//! Where to listen.

use crate::cli::Address;
use anyhow::{Context, Result, anyhow};
use lastecho::Server;
use lastecho::handover::Inherited;
use rustix::io::Errno;
use std::io;
use std::net::{SocketAddr, TcpListener};

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
    let mut servers = Vec::new();
    for group in groups(addresses)? {
        let server = match &group {
            Group::All(port) => inherited
                .bind_all(*port)
                .with_context(|| format!("cannot listen on :{port}"))?,
            Group::These(addresses) => inherited
                .bind(&addresses[..])
                .map_err(|error| anyhow!("cannot listen on {error}"))?,
        };
        servers.push(server);
    }
    let all = servers.into_iter().reduce(Server::and);
    all.ok_or_else(|| anyhow!("no address to listen on"))
}

/// What is bound in one go.
enum Group {
    /// All addresses of this machine.
    All(u16),
    These(Vec<SocketAddr>),
}

/// Those with a port are one group, because they may overlap; those that are to
/// have one of the system's choice are a group for each argument.
fn groups(addresses: &[Address]) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    let (mut everywhere, mut fixed) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            Address::All(port) if everywhere.contains(port) => {}
            Address::All(port) => {
                everywhere.extend(Some(*port).filter(|port| *port > 0));
                groups.push(Group::All(*port));
            }
            _ => {
                let resolved = resolve(address)?;
                if resolved.iter().all(|one| one.port() == 0) {
                    groups.push(Group::These(resolved));
                } else {
                    fixed.extend(resolved);
                }
            }
        }
    }
    fixed.retain(|address: &SocketAddr| !everywhere.contains(&address.port()));
    if !fixed.is_empty() {
        groups.push(Group::These(fixed));
    }
    Ok(groups)
}

/// A host may resolve to addresses that this machine lacks (IPv6 switched off,
/// say): those are passed over, as long as one of several is there.
fn resolve(address: &Address) -> Result<Vec<SocketAddr>> {
    let resolved = address.resolve();
    let resolved = resolved.with_context(|| format!("cannot listen on {address}"))?;
    let lacking = |address: &SocketAddr| {
        let mut any_port = *address;
        any_port.set_port(0);
        TcpListener::bind(any_port).err().filter(is_missing)
    };
    if resolved.len() < 2 || resolved.iter().all(|one| lacking(one).is_some()) {
        return Ok(resolved);
    }
    let here = resolved.into_iter().filter(|address| {
        let missing = lacking(address);
        if let Some(error) = &missing {
            log::warn!("not listening on {address}: {error}");
        }
        missing.is_none()
    });
    Ok(here.collect())
}

fn is_missing(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}
