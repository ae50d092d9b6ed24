//! A client with much input when the stop comes.

use super::Client;
use crate::harness::{Broken, Program, Server, bytes, eventually, noise, promise, text};
use rustix::process::Signal;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

/// Its user has pasted a lot and sits there; the stop falls into it.
#[test]
#[ignore = "needs nc: make deps"]
fn nc_with_input_in_flight_at_the_stop_gets_what_the_server_has_read() {
    let trial = std::cell::Cell::new(0);
    promise(
        "nc with input in flight",
        20,
        |broken| matches!(broken, Broken::Short(_) | Broken::Reset(_)),
        |program| {
            trial.set(trial.get() + 1);
            let data = noise(2 << 20, trial.get());
            let mut server = Server::start(program, &["--poll", "100ms"]);
            let mut client = Client::start("nc.openbsd HOST PORT", &server);
            let (mut stdin, pasted) = (client.stdin.take().unwrap(), data.clone());
            let user = thread::spawn(move || {
                let _ = stdin.write_all(&pasted);
                stdin // and stays there
            });
            eventually("the first of it is back", || {
                !bytes(&client.stdout).is_empty()
            });
            thread::sleep(Duration::from_micros(trial.get() * 251 % 2000));
            server.signal(Signal::TERM);
            let ended = server.wait();
            // What is still to be written ends with the client.
            let (status, echo, complaint) = leave_now(client, ended.count("bytes_in"));
            let _ = user.join().unwrap();
            if !data.starts_with(&echo) || (echo.len() as u64) < ended.count("bytes_in") {
                let read = ended.count("bytes_in");
                return Err(Broken::Short(format!("{} of {read} bytes", echo.len())));
            }
            if complaint.contains("reset") {
                return Err(Broken::Reset(format!("{status} {complaint}")));
            }
            if program == Program::Lastecho {
                assert_eq!(ended.count("bytes_out"), echo.len() as u64, "{ended:?}");
                assert_eq!(
                    (ended.code(), ended.count("cut")),
                    (Some(0), 0),
                    "{ended:?}"
                );
            }
            Ok(())
        },
    );
}

/// Waits until the client has taken so much, has ended, or has long taken
/// nothing more; then ends it.
fn leave_now(mut client: Client, owed: u64) -> (String, Vec<u8>, String) {
    let mut last = (0, Instant::now());
    eventually("the client is done", || {
        let length = bytes(&client.stdout).len();
        if length != last.0 {
            last = (length, Instant::now());
        }
        length as u64 >= owed
            || client.child.try_wait().unwrap().is_some()
            || last.1.elapsed() > Duration::from_secs(5)
    });
    let _ = client.child.kill();
    let status = client.child.wait().unwrap();
    (
        status.to_string(),
        bytes(&client.stdout),
        text(&client.stderr),
    )
}
