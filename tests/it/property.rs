//! A property: wherever a stop falls into whatever clients do, each echo is a
//! prefix of what was sent and ends with FIN, and the sums are told.

use crate::harness::{Broken, Kept, Program, Server, noise, read_to_end};
use crate::promises::{exits, tells};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// What one client does.
#[derive(Clone, Debug)]
struct Client {
    length: usize,
    /// Sizes of its writes, over and over.
    chunks: Vec<usize>,
    /// Microseconds between its writes.
    pause: u64,
    half_closes: bool,
    reads_slowly: bool,
}

#[derive(Clone, Debug)]
struct Story {
    clients: Vec<Client>,
    /// When the stop falls, in microseconds.
    stop: u64,
    delay: &'static str,
}

fn client() -> impl Strategy<Value = Client> {
    let length = prop_oneof![Just(0_usize), 1..2000_usize, 2000..400_000_usize];
    let chunks = vec(prop_oneof![1..20_usize, 20..70_000_usize], 1..5);
    let pause = prop_oneof![Just(0_u64), 1..3000_u64];
    (length, chunks, pause, any::<bool>(), any::<bool>()).prop_map(
        |(length, chunks, pause, half_closes, reads_slowly)| Client {
            length,
            chunks,
            pause,
            half_closes,
            reads_slowly,
        },
    )
}

fn story() -> impl Strategy<Value = Story> {
    let delay = prop_oneof![Just("0s"), Just("2ms")];
    (vec(client(), 1..6), 0..40_000_u64, delay).prop_map(|(clients, stop, delay)| Story {
        clients,
        stop,
        delay,
    })
}

impl Client {
    /// Sends as told, until everything is out or the answer has ended.
    fn send(&self, mut socket: &TcpStream, mut data: &[u8], ended: &AtomicBool) {
        for &chunk in self.chunks.iter().cycle() {
            let (now, later) = data.split_at(chunk.min(data.len()));
            if now.is_empty() || ended.load(SeqCst) || socket.write_all(now).is_err() {
                break;
            }
            data = later;
            if self.pause > 0 {
                thread::sleep(Duration::from_micros(self.pause));
            }
        }
        if self.half_closes {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    fn receive(&self, socket: &mut TcpStream) -> Result<Vec<u8>, Broken> {
        let mut first = Vec::new();
        let mut sips = 20; // then it drinks up, or a stop would last for ever
        while self.reads_slowly && sips > 0 {
            let mut sip = [0; 4096];
            match socket.read(&mut sip) {
                Ok(0) => return Ok(first),
                Ok(count) => first.extend_from_slice(&sip[..count]),
                Err(error) => return Err(Broken::Reset(error.to_string())),
            }
            sips -= 1;
            thread::sleep(Duration::from_millis(2));
        }
        first.extend(read_to_end(socket)?);
        Ok(first)
    }

    /// Its whole life. Returns how much it got.
    fn live(&self, mut socket: TcpStream, seed: u64) -> Result<usize, Broken> {
        let data = noise(self.length, seed);
        let ended = AtomicBool::new(false);
        let sender = socket.try_clone().unwrap();
        let echo = thread::scope(|scope| {
            scope.spawn(|| self.send(&sender, &data, &ended));
            let echo = self.receive(&mut socket);
            ended.store(true, SeqCst);
            if echo.is_err() {
                let _ = socket.shutdown(Shutdown::Both); // wakes the sender
            }
            echo
        })?;
        if data.starts_with(&echo) {
            Ok(echo.len())
        } else {
            let got = echo.len();
            Err(Broken::Short(format!("{got} bytes that are no prefix")))
        }
    }
}

fn tell(story: &Story, program: Program) -> Kept {
    let options = ["--poll", "20ms", "--delay", story.delay];
    let mut server = Server::start(program, &options);
    let got: Result<Vec<usize>, Broken> = thread::scope(|scope| {
        let clients: Vec<_> = story
            .clients
            .iter()
            .zip(1..)
            .map(|(client, seed)| {
                let socket = server.connect();
                scope.spawn(move || client.live(socket, seed))
            })
            .collect();
        thread::sleep(Duration::from_micros(story.stop)); // the moment is the subject
        server.signal(Signal::TERM);
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let got = got?.into_iter().sum::<usize>().to_string();
    let ended = server.wait();
    if ended.told.get("bytes_in") != Some(&got) {
        let line = ended.stdout.trim_end();
        return Err(Broken::Short(format!("{got} bytes in all: {line:?}")));
    }
    tells(&ended, &[("bytes_out", &got), ("clean", "true")])?;
    exits(&ended, 0)
}

/// The stories are the same in every run, so a failure comes back (as far as
/// threads allow); the one that is printed is the simplest that still fails.
fn check(program: Program, stories: u32) -> Result<(), TestError<Story>> {
    let config = Config {
        cases: stories,
        max_shrink_iters: 40,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0xbeef),
        ..Config::default()
    };
    TestRunner::new(config).run(&story(), |story| {
        tell(&story, program).map_err(|broken| TestCaseError::fail(broken.to_string()))
    })
}

#[test]
fn wherever_a_stop_falls_every_echo_is_a_prefix_and_ends_with_fin() {
    check(Program::Lastecho, 60).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_control_breaks_the_same_property() {
    match check(Program::Control, 60) {
        Err(TestError::Fail(broken, story)) => println!("the control: {broken} in {story:?}"),
        other => panic!("the control kept it, so the property shows nothing: {other:?}"),
    }
}
