//! Clients whose echoes are checked, byte by byte.

use crate::harness::{Broken, connect, noise, read_to_end};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const MESSAGE: usize = 3000;
/// Between two messages, so that the client's own traffic costs the server little.
const PAUSE: Duration = Duration::from_millis(50);

/// A client that says something again and again on one connection, in a thread.
pub(crate) struct Checked {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<Rounds, Broken>>,
}

/// What it got, all of it right.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) bytes: u64,
    /// The longest that an echo took.
    pub(crate) slowest: Duration,
}

impl Checked {
    pub(crate) fn start(address: SocketAddr) -> Self {
        Self::over(connect(address).unwrap())
    }

    pub(crate) fn over(mut client: TcpStream) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let thread = thread::spawn(move || {
            let mut rounds = Rounds::default();
            let mut seed = 0;
            while !flag.load(Relaxed) {
                seed += 1;
                let began = Instant::now();
                echo(&mut client, &noise(MESSAGE, seed))?;
                rounds.bytes += MESSAGE as u64;
                rounds.slowest = rounds.slowest.max(began.elapsed());
                thread::sleep(PAUSE);
            }
            close(client).map(|()| rounds)
        });
        Self { done, thread }
    }

    /// Ends it after the message in hand; what it got, if that was right.
    pub(crate) fn finish(self) -> Result<Rounds, Broken> {
        self.done.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// Says something and checks the echo.
pub(crate) fn echo(client: &mut TcpStream, message: &[u8]) -> Result<(), Broken> {
    client.write_all(message).map_err(lost)?;
    hear(client, message)
}

/// Waits for the echo of what was said.
pub(crate) fn hear(client: &mut TcpStream, message: &[u8]) -> Result<(), Broken> {
    let mut heard = vec![0; message.len()];
    client.read_exact(&mut heard).map_err(lost)?;
    if heard != message {
        return Err(Broken::Short("something else came back".into()));
    }
    Ok(())
}

/// Whether anything has come, without waiting for it.
pub(crate) fn has_heard(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let heard = client.peek(&mut [0]);
    client.set_nonblocking(false).unwrap();
    heard.is_ok()
}

/// Closes the client's side; nothing more may come, and the end in order.
pub(crate) fn close(mut client: TcpStream) -> Result<(), Broken> {
    client.shutdown(Shutdown::Write).map_err(lost)?;
    match read_to_end(&mut client)?.len() {
        0 => Ok(()),
        more => Err(Broken::Short(format!("{more} bytes that nobody sent"))),
    }
}

fn lost(error: std::io::Error) -> Broken {
    match error.kind() {
        ErrorKind::UnexpectedEof => Broken::Short("the end instead of an echo".into()),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::TooLong("no echo".into()),
        _ => Broken::Reset(error.to_string()),
    }
}
