//! A handler and its tests: it adds the numbers of each line.
//!
//! `cargo run --example tested_handler [ADDRESS]`; `cargo test --example tested_handler`
#![allow(clippy::print_stdout)] // it talks to whoever started it

use lastecho::{Connection, Server, Stop, signals};
use std::io::{self, BufRead, Read, Write};

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:48879");
    let stop = Stop::new();
    let _signals = signals::install(&stop)?;
    let server = Server::bind(address)?;
    println!("listening on {}", server.live().addresses()[0]);
    println!("{}", server.run(&stop, add)?);
    Ok(())
}

fn add(conn: &mut Connection) -> io::Result<()> {
    while conn.next()? {
        let mut line = String::new();
        Read::by_ref(conn).take(1024).read_line(&mut line)?;
        let numbers = line.split_whitespace().map(|n| n.parse::<i32>());
        let sum: Result<i64, _> = numbers.map(|n| n.map(i64::from)).sum();
        let answer = sum.map_or("ERR".into(), |sum| sum.to_string());
        conn.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown::Write as Sending, TcpStream};

    #[test]
    fn a_line_is_answered_with_its_sum() -> io::Result<()> {
        let (mut conn, mut client) = Connection::pair(&Stop::new())?; // no server
        client.write_all(b"1 2 3\nx\n-5")?;
        client.shutdown(Sending)?;
        add(&mut conn)?;
        drop(conn);
        assert_eq!(io::read_to_string(client)?, "6\nERR\n-5\n");
        Ok(())
    }

    #[test]
    fn what_had_arrived_is_answered_when_the_server_stops() -> io::Result<()> {
        let stop = Stop::new();
        let server = Server::bind("127.0.0.1:0")?;
        let mut client = TcpStream::connect(server.live().addresses()[0])?;
        client.write_all(b"40 2\n")?;
        stop.set(); // before `run`: it serves who is connected, and returns
        let report = server.run(&stop, add)?;
        assert!(report.is_clean() && io::read_to_string(client)? == "42\n");
        Ok(())
    }
}
