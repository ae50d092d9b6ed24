//! As much of HTTP/1.1 (RFC 9112) as a server of short answers needs: a
//! request's head in, a response out. The bytes are parsed by httparse.

use httparse::{EMPTY_HEADER, Header, Status};
use lastecho::Connection;
use std::io::{self, BufRead, Write};
use std::time::SystemTime;

/// Longest head, as many servers have it; the buffers of a client that sends
/// one without end stay bounded.
const LONGEST_HEAD: usize = 8 * 1024;
const MOST_HEADERS: usize = 64;

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Whether the connection may carry a further request after this one.
    pub(crate) keep_alive: bool,
}

impl Request {
    /// Returns the target's path: of the origin form (`/path?query`), which
    /// clients send to a server, and of the absolute form
    /// (`http://host/path?query`), which they send to a proxy, and which a
    /// server must take (RFC 9112, 3.2.2).
    pub(crate) fn path(&self) -> &str {
        let target = after_authority(&self.target).unwrap_or(&self.target);
        match target.split('?').next() {
            Some("") | None => "/",
            Some(path) => path,
        }
    }
}

/// What follows the host of an absolute form.
fn after_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_http = ["http", "https"]
        .iter()
        .any(|http| scheme.eq_ignore_ascii_case(http));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    is_http.then(|| &rest[end..])
}

/// What a request is answered with.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: &'static str,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn error(status: &'static str) -> Self {
        let body = format!("{status}\n");
        Self { status, body }
    }
}

/// Waits for the next request: [`Connection::next`], less the empty lines that
/// some clients send after a request (RFC 9112, 2.2).
///
/// Blocks as `next` does; after a stop, not at all.
pub(crate) fn await_request(conn: &mut Connection) -> io::Result<bool> {
    while conn.next()? {
        let arrived = conn.fill_buf()?.iter();
        let blank = arrived.take_while(|byte| b"\r\n".contains(byte)).count();
        if blank == 0 {
            return Ok(true);
        }
        conn.consume(blank);
    }
    Ok(false)
}

/// Reads a request's head; the inner error is the status to answer with, and
/// `None` a client that went away in the middle.
///
/// Blocks for as long as the client takes: we are inside a request.
pub(crate) fn read_head(
    conn: &mut impl BufRead,
) -> io::Result<Option<Result<Request, &'static str>>> {
    let mut head = Vec::new();
    while head.len() < LONGEST_HEAD {
        let arrived = conn.fill_buf()?;
        if arrived.is_empty() {
            return Ok(None);
        }
        let (before, count) = (head.len(), arrived.len());
        head.extend_from_slice(arrived);
        match parse(&head) {
            Ok(Status::Complete((length, request))) => {
                // What follows the head is the next request's.
                conn.consume(length - before);
                return Ok(Some(Ok(request)));
            }
            Ok(Status::Partial) => conn.consume(count),
            Err(status) => return Ok(Some(Err(status))),
        }
    }
    Ok(Some(Err("431 Request Header Fields Too Large")))
}

fn parse(head: &[u8]) -> Result<Status<(usize, Request)>, &'static str> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(head) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(Status::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err("431 Request Header Fields Too Large"),
        Err(_) => return Err("400 Bad Request"),
    };
    let is_1_1 = parsed.version == Some(1);
    if is_1_1 && values(parsed.headers, "host").count() != 1 {
        return Err("400 Bad Request"); // RFC 9112, 3.2
    }
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        // We read no bodies: after a request that has one, we would not know
        // where the next one begins.
        keep_alive: is_1_1 && !wants_close(parsed.headers) && !has_body(parsed.headers),
    };
    Ok(Status::Complete((length, request)))
}

fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

fn wants_close(headers: &[Header<'_>]) -> bool {
    let mut tokens =
        values(headers, "connection").flat_map(|value| value.split(|&byte| byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn has_body(headers: &[Header<'_>]) -> bool {
    values(headers, "transfer-encoding").next().is_some()
        || values(headers, "content-length").any(|value| value != b"0")
}

/// Writes a response. `last` tells the client that no further request will be
/// answered on this connection.
pub(crate) fn write(
    conn: &mut impl Write,
    method: &str,
    response: &Response,
    last: bool,
) -> io::Result<()> {
    let Response { status, body } = response;
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nDate: {}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n",
        httpdate::fmt_http_date(SystemTime::now()),
        body.len()
    );
    if status.starts_with("405") || method == "OPTIONS" {
        bytes.push_str("Allow: GET, HEAD, OPTIONS\r\n");
    }
    if last {
        bytes.push_str("Connection: close\r\n");
    }
    bytes.push_str("\r\n");
    if method != "HEAD" {
        bytes.push_str(body);
    }
    conn.write_all(bytes.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the head is read as, and what is left after it.
    fn read(mut bytes: &[u8]) -> (Option<Result<Request, &'static str>>, &[u8]) {
        let head = read_head(&mut bytes).unwrap();
        (head, bytes)
    }

    fn keeps_alive(head: &[u8]) -> bool {
        read(head).0.unwrap().unwrap().keep_alive
    }

    #[test]
    fn a_head_is_read_and_what_follows_is_left() {
        let (head, left) = read(b"GET /slow?id=1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HT");
        let request = head.unwrap().unwrap();
        assert_eq!((&*request.method, &*request.target), ("GET", "/slow?id=1"));
        assert!(request.keep_alive);
        assert_eq!(left, b"GET / HT");
    }

    #[test]
    fn a_target_may_be_absolute() {
        for (target, path) in [
            ("/slow?a=http://b/", "/slow"),
            ("http://a.test/slow?id=1", "/slow"),
            ("HTTP://a.test:80", "/"),
            ("https://a.test?id=1", "/"),
            ("ftp://a.test/slow", "ftp://a.test/slow"),
            ("*", "*"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let request = read(head.as_bytes()).0.unwrap().unwrap();
            assert_eq!(request.path(), path, "{target}");
        }
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut slow = io::BufReader::with_capacity(1, &head[..]);
        assert!(read_head(&mut slow).unwrap().unwrap().is_ok());
    }

    #[test]
    fn a_client_that_goes_away_in_its_head_is_no_request() {
        assert_eq!(read(b"GET / HTTP/1.1\r\nHo").0, None);
    }

    #[test]
    fn what_is_not_a_request_has_a_status() {
        let bad = Some(Err("400 Bad Request"));
        assert_eq!(read(b"SSH-2.0-OpenSSH\r\n\r\n").0, bad);
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n").0, bad, "no host");
        let twice = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        assert_eq!(read(twice).0, bad, "two hosts");
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(LONGEST_HEAD));
        let too_large = Some(Err("431 Request Header Fields Too Large"));
        assert_eq!(read(long.as_bytes()).0, too_large);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(64));
        assert_eq!(read(many.as_bytes()).0, too_large);
    }

    #[test]
    fn a_connection_is_kept_only_where_the_next_head_can_be_found() {
        assert!(keeps_alive(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\n\r\n"
        ));
        assert!(keeps_alive(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        assert!(!keeps_alive(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"
        ));
        assert!(!keeps_alive(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        ));
        assert!(!keeps_alive(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        assert!(!keeps_alive(b"GET / HTTP/1.0\r\n\r\n"));
    }
}
