//! Four servers, one `Stop`: discard, daytime, chargen and time (RFC 863, 867, 864, 868).
//!
//! `cargo run --example small_services [BASE]`, on BASE + 9, 13, 19 and 37; 9000 if not said
#![allow(clippy::print_stdout)] // it talks to whoever started it

use humantime::format_rfc3339_seconds;
use lastecho::{Connection, Server, Stop, signals};
use std::io::{self, Write};
use std::{thread, time::SystemTime};

type Service = fn(&mut Connection, &Stop) -> io::Result<()>;
const SERVICES: [(u16, Service); 4] = [(9, discard), (13, daytime), (19, chargen), (37, time)];

fn main() -> anyhow::Result<()> {
    let base = std::env::args().nth(1);
    let base: u16 = base.map_or(Ok(9000), |base| base.parse())?;
    let stop = &Stop::new();
    let _signals = signals::install(stop)?;
    let mut servers = Vec::new();
    for (port, service) in SERVICES {
        let port = base.checked_add(port).filter(|_| base > 0).unwrap_or(0); // 0: any
        let server = Server::bind(("127.0.0.1", port))?;
        println!("listening on {}", server.live().addresses()[0]);
        servers.push((server, service));
    }
    thread::scope(|scope| {
        let run = |(server, service): (Server, Service)| {
            scope.spawn(move || server.run(stop, |conn| service(conn, stop)))
        };
        let running: Vec<_> = servers.into_iter().map(run).collect();
        for server in running {
            let report = server.join().map_err(|_| io::Error::other("panicked"))??;
            println!("{report}");
        }
        Ok(())
    })
}

fn discard(conn: &mut Connection, _: &Stop) -> io::Result<()> {
    while conn.receive(&mut [0; 4096])? > 0 {}
    Ok(())
}

fn daytime(conn: &mut Connection, _: &Stop) -> io::Result<()> {
    conn.write_all(format!("{}\r\n", format_rfc3339_seconds(SystemTime::now())).as_bytes())
}

fn chargen(conn: &mut Connection, stop: &Stop) -> io::Result<()> {
    let printable: Vec<u8> = (b' '..=b'~').cycle().take(2 * 95).collect();
    for first in (0..95).cycle().take_while(|_| !stop.is_set()) {
        conn.write_all(&[&printable[first..first + 72], b"\r\n"].concat())?;
    }
    Ok(())
}

fn time(conn: &mut Connection, _: &Stop) -> io::Result<()> {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
    conn.write_all(&(since_1970.as_secs() + 2_208_988_800).to_be_bytes()[4..]) // since 1900
}
