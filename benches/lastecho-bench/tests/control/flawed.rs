//! A server that changes what it echoes to every other client and hangs up on
//! the rest, after SOUND_BYTES of sound echoes to each: what the runner must be
//! able to catch.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let sound = std::env::var("SOUND_BYTES").unwrap_or_default();
    let sound = sound.parse().map_err(io::Error::other)?;
    let address = std::env::args().next_back().unwrap_or_default();
    let listener = TcpListener::bind(address)?;
    for (number, client) in listener.incoming().enumerate() {
        let client = client?;
        std::thread::spawn(move || echo(client, sound, number % 2 == 0));
    }
    Ok(())
}

fn echo(mut client: TcpStream, sound: usize, hangs_up: bool) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut echoed = 0;
    loop {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        if echoed >= sound {
            if hangs_up {
                return Ok(());
            }
            buffer[0] ^= 1;
        }
        client.write_all(&buffer[..count])?;
        echoed += count;
    }
}
