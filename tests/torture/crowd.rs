//! Many clients in one thread.

use crate::harness::{Broken, Kept, Server, read_to_end};
use std::io::{Read, Write};
use std::net::TcpStream;

/// What a client of a crowd says at a time: its number and the round's.
const WORD: usize = 8;

/// Descriptors of this process beside the crowd's.
const OTHERS: usize = 1000;

/// Connections of one peer, each of which can say its word and check the echo.
pub(crate) struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// So many connections that say nothing yet.
    pub(crate) fn connect(server: &Server, size: usize) -> Self {
        let most = lastecho::limits::raise_descriptors().unwrap();
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
        assert!(
            most >= size + OTHERS,
            "the hard limit of descriptors is {most}: ulimit -Hn {}",
            size + OTHERS
        );
        Self((0..size).map(|_| server.connect()).collect())
    }

    /// Each sends its word.
    pub(crate) fn speak(&mut self, round: u32) -> Kept {
        self.each(|client, number| {
            let sent = client.write_all(&word(number, round));
            sent.map_err(|error| Broken::Reset(format!("client {number} sends: {error}")))
        })
    }

    /// Each gets its own word back.
    pub(crate) fn listen(&mut self, round: u32) -> Kept {
        self.each(|client, number| {
            let mut echo = [0; WORD];
            let read = client.read_exact(&mut echo);
            read.map_err(|error| Broken::Reset(format!("client {number} reads: {error}")))?;
            same(&echo, &word(number, round), number)
        })
    }

    /// Each gets its own word, then the server's FIN, and closes.
    pub(crate) fn listen_to_the_end(mut self, round: u32) -> Kept {
        self.each(|client, number| same(&read_to_end(client)?, &word(number, round), number))
    }

    /// Each gets the server's FIN and nothing before it, and closes.
    pub(crate) fn end_in_silence(mut self) -> Kept {
        self.each(|client, number| same(&read_to_end(client)?, b"", number))
    }

    fn each(&mut self, mut act: impl FnMut(&mut TcpStream, usize) -> Kept) -> Kept {
        let mut clients = self.0.iter_mut().enumerate();
        clients.try_for_each(|(number, client)| act(client, number))
    }
}

fn word(number: usize, round: u32) -> [u8; WORD] {
    ((number as u64) << 32 | u64::from(round)).to_le_bytes()
}

fn same(echo: &[u8], word: &[u8], number: usize) -> Kept {
    if echo == word {
        return Ok(());
    }
    Err(Broken::Short(format!(
        "client {number} got {echo:?} for {word:?}"
    )))
}
