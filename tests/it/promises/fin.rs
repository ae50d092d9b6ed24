//! Promise 4: a connection that was not cut ends with FIN, never with RST.

use super::{exits, flood, is_flood, tells};
use crate::harness::{Broken, Kept, Server, noise, promise, read_to_end};
use rustix::process::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

fn is_reset(broken: &Broken) -> bool {
    matches!(broken, Broken::Reset(_))
}

/// Sends until told to stop; the server must not reset it before. One that the
/// machine kept from sending for 100 ms may count as quiet, and is excused.
fn chatter(mut client: TcpStream, enough: &AtomicBool) -> Kept {
    let (words, mut last, mut paused) = (noise(1024, 7), Instant::now(), false);
    while !enough.load(SeqCst) {
        let sent = client.write_all(&words);
        paused |= last.elapsed() > Duration::from_millis(100);
        match sent {
            Err(_) if paused => return Ok(()),
            Err(error) => return Err(Broken::Reset(format!("while sending: {error}"))),
            Ok(()) => last = Instant::now(),
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// They go on for 100 ms after our FIN.
#[test]
fn clients_that_still_send_after_the_stop_see_fin() {
    promise("still sending", 3, is_reset, |program| {
        let mut server = Server::start(program, &["--poll", "100ms"]);
        let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
        let enough = AtomicBool::new(false);
        thread::scope(|scope| {
            let senders: Vec<_> = clients
                .iter()
                .map(|client| client.try_clone().unwrap())
                .map(|sender| scope.spawn(|| chatter(sender, &enough)))
                .collect();
            thread::sleep(Duration::from_millis(20)); // the stop falls into it
            server.signal(Signal::TERM);
            let ends: Vec<_> = clients.iter_mut().map(read_to_end).collect();
            thread::sleep(Duration::from_millis(100)); // they send: that is the subject
            enough.store(true, SeqCst);
            let sent: Kept = senders
                .into_iter()
                .try_for_each(|sender| sender.join().unwrap());
            ends.into_iter().try_for_each(|end| end.map(drop)).and(sent)
        })?;
        drop(clients);
        let ended = server.wait();
        tells(&ended, &[("cut", "0"), ("clean", "true")])?;
        exits(&ended, 0)
    });
}

/// The second word comes during the stop, while the first is in hand.
#[test]
fn a_client_that_speaks_while_its_last_answer_is_made_sees_fin() {
    promise("speaks meanwhile", 2, is_reset, |program| {
        let options = ["--poll", "100ms", "--delay", "300ms"];
        let mut server = Server::start(program, &options);
        let mut client = server.connect();
        client.write_all(b"first").unwrap();
        thread::sleep(Duration::from_millis(50)); // the first is in hand now
        server.signal(Signal::TERM);
        client.write_all(b"second").unwrap();
        let echo = read_to_end(&mut client)?;
        // Where the machine was so slow that the first was not yet in hand,
        // the second came after the stop was seen.
        assert!(echo == b"firstsecond" || echo == b"first", "{echo:?}");
        Ok(())
    });
}

/// The server is blocked in a write when the stop falls, with more to read.
/// 30 s keep the control's write from giving up before that.
#[test]
fn a_client_with_unread_bytes_on_both_sides_sees_fin() {
    promise("unread on both sides", 2, is_reset, |program| {
        let mut server = Server::start(program, &["--poll", "30s"]);
        let mut client = server.connect();
        let block = noise(1 << 16, 9);
        flood(&mut client, &block)?;
        server.signal(Signal::TERM);
        let echo = read_to_end(&mut client)?;
        drop(client);
        let ended = server.wait();
        assert!(is_flood(&echo, &block));
        tells(&ended, &[("bytes_out", &echo.len().to_string())])?;
        exits(&ended, 0)
    });
}
