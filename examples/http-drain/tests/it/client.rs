//! A client that tells apart all the ways in which a request can end.

use crate::harness::connect;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) close: bool,
    pub(crate) body: String,
}

/// What came of waiting for a response.
#[derive(Debug)]
pub(crate) enum Got {
    Response(Response),
    /// The end of the connection, in order, instead of a first byte.
    Nothing,
    Reset,
    /// No connection at all.
    Refused,
    /// The end in the middle.
    Partial,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = BufReader::new(connect(address)?);
        Ok(Self { stream })
    }

    pub(crate) fn send(&mut self, bytes: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_bytes())
    }

    pub(crate) fn get(&mut self, target: &str) -> io::Result<()> {
        self.send(&request(target))
    }

    pub(crate) fn receive(&mut self) -> Got {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.stream.read_line(&mut head) {
                Ok(0) if head.is_empty() => return Got::Nothing,
                Ok(0) => return Got::Partial,
                Ok(_) => {}
                Err(error) if is_reset(&error) => return Got::Reset,
                Err(error) => panic!("{error} after {head:?}"),
            }
        }
        let head = head.to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let length: usize = length.expect("a length").parse().unwrap();
        let mut body = vec![0; length];
        match self.stream.read_exact(&mut body) {
            Ok(()) => Got::Response(Response {
                close: head.contains("connection: close"),
                body: String::from_utf8(body).unwrap(),
            }),
            Err(error) if is_reset(&error) => Got::Reset,
            Err(_) => Got::Partial,
        }
    }

    pub(crate) fn response(&mut self) -> Response {
        match self.receive() {
            Got::Response(response) => response,
            other => panic!("{other:?} instead of a response"),
        }
    }

    /// Whether the connection ends here, in order.
    pub(crate) fn is_at_end(&mut self) -> bool {
        matches!(self.receive(), Got::Nothing)
    }
}

pub(crate) fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
