//! The promises of the contract, each tried on lastecho and on the control.

use crate::harness::{Broken, Program, Server, noise, promise, read_to_end};
use rustix::process::Signal;
use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

/// Promise 1 and 4: what was read is answered, and the end is FIN, when the
/// stop falls into a stream at a random moment.
#[test]
fn what_was_read_is_answered_when_the_stop_falls_into_a_stream() {
    let seed = std::cell::Cell::new(0);
    promise(
        "stop in a stream",
        40,
        |broken| matches!(broken, Broken::Reset(_) | Broken::Short(_)),
        |program| {
            seed.set(seed.get() + 1);
            let data = noise(1 << 20, seed.get());
            let mut server = Server::start(program, &["--poll", "100ms"]);
            let mut client = server.connect();
            let mut sender = client.try_clone().unwrap();
            let sent = data.clone();
            let writer = thread::spawn(move || {
                let _ = sender.write_all(&sent);
                let _ = sender.shutdown(Shutdown::Write);
            });
            thread::sleep(Duration::from_micros(seed.get() * 137 % 3000));
            server.signal(Signal::TERM);
            let echoed = read_to_end(&mut client);
            let _ = client.shutdown(Shutdown::Both);
            writer.join().unwrap();
            let ended = server.wait();
            let echoed = echoed?;
            if !data.starts_with(&echoed) {
                return Err(Broken::Short(
                    "the echo is not a prefix of what was sent".into(),
                ));
            }
            let (got, read) = (echoed.len() as u64, ended.count("bytes_in"));
            if got < read {
                return Err(Broken::Short(format!("{got} of {read} bytes")));
            }
            if program == Program::Lastecho {
                assert_eq!(ended.count("bytes_out"), got, "{ended:?}");
                assert_eq!(ended.code(), Some(0), "{ended:?}");
            }
            Ok(())
        },
    );
}
