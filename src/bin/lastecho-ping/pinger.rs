//! One connection's messages, over as many connections as it takes.

use crate::cli::Options;
use crate::histogram::millis;
use crate::link::{END_OF_FILE, Link, Outcome, Turn};
use crate::pattern;
use crate::tally::{Tally, bytes, one_more};
use crate::voice::Voice;
use lastecho::{Deadline, Stop};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two attempts to connect, and between two connections of which the
/// first carried no echo.
const PAUSE: Duration = Duration::from_millis(100);

/// What all connections have in common.
pub(crate) struct Shared<'a> {
    pub(crate) options: &'a Options,
    pub(crate) targets: &'a [SocketAddr],
    pub(crate) stop: &'a Stop,
    pub(crate) tally: &'a Tally,
    pub(crate) voice: Voice<'a>,
}

/// Sends one connection's messages, one after the other.
pub(crate) struct Pinger<'a> {
    shared: &'a Shared<'a>,
    number: usize,
    message: Vec<u8>,
    /// The message that is next, counted from 1.
    seq: u64,
    due: Deadline,
    /// Without a connection that takes the next message: when we give up.
    give_up: Option<Deadline>,
}

impl<'a> Pinger<'a> {
    pub(crate) fn new(shared: &'a Shared<'a>, number: usize) -> Self {
        Self {
            shared,
            number,
            message: vec![0; shared.options.size],
            seq: 1,
            due: Deadline::at(Instant::now()),
            give_up: None,
        }
    }

    /// Goes on until the last message, the stop, or no connection can be had.
    pub(crate) fn run(mut self) {
        let Shared {
            options,
            targets,
            stop,
            tally,
            ..
        } = self.shared;
        let mut link = match Link::connect(targets, Deadline::after(options.timeout), stop) {
            Ok(link) => Some(link),
            // Refused at the start is an answer; later a server may restart.
            Err(error) => return self.give_up(&error),
        };
        let mut pause = false;
        while !self.is_done() {
            let Some(mut open) = link.take().or_else(|| self.reconnect(pause)) else {
                return;
            };
            let usable = self.take_turn(&mut open);
            pause = !open.has_echoed;
            link = usable.then_some(open);
        }
        let unasked = link.map_or(0, Link::finish);
        if unasked > 0 {
            one_more(&tally.mismatched);
            self.complain(format_args!(
                "{} that nobody asked for at the end",
                bytes(unasked)
            ));
        }
    }

    fn is_done(&self) -> bool {
        let count = self.shared.options.count;
        self.shared.stop.is_set() || count.is_some_and(|count| self.seq > count.get())
    }

    /// Waits for the next message's time and sends it. False where the
    /// connection is of no use any more.
    fn take_turn(&mut self, link: &mut Link) -> bool {
        match link.await_turn(self.due, self.shared.stop) {
            Turn::Due => self.ping(link),
            Turn::Stopped => true,
            Turn::Ended { why } => {
                self.note(format_args!("{why}, nothing in flight; reconnecting"));
                false
            }
            Turn::Unasked(count) => {
                one_more(&self.shared.tally.mismatched);
                self.complain(format_args!("{} that nobody asked for", bytes(count)));
                false
            }
        }
    }

    /// One message and its echo. False where what follows on this connection
    /// could not be told from what is late.
    fn ping(&mut self, link: &mut Link) -> bool {
        let Shared {
            options,
            stop,
            tally,
            voice,
            ..
        } = self.shared;
        let run = u64::from(std::process::id());
        pattern::fill(&mut self.message, run, self.number as u64, self.seq);
        let began = Instant::now();
        self.due = Deadline::after(options.interval());
        let deadline = Deadline::after(options.timeout);
        let outcome = link.exchange(&self.message, deadline, stop);
        let time = began.elapsed();
        let (number, seq, size) = (self.number, self.seq, options.size);
        if !matches!(outcome, Outcome::NotSent { .. }) {
            self.seq += 1;
            self.give_up = None;
        }
        if matches!(outcome, Outcome::Echoed) {
            tally.times.record(time);
            let (peer, time) = (link.peer, millis(time));
            voice.tell(format_args!(
                "{} from {peer}: connection={number} seq={seq} time={time:.3} ms",
                bytes(size)
            ));
        }
        self.count(seq, &outcome)
    }

    /// Counts an outcome, and tells it where it is no echo. True for an echo.
    fn count(&self, seq: u64, outcome: &Outcome) -> bool {
        let (tally, size) = (self.shared.tally, self.shared.options.size);
        let count = match outcome {
            Outcome::Echoed => &tally.echoed,
            Outcome::Mismatched { at, came, sent } => {
                self.complain(format_args!(
                    "seq={seq} wrong: byte {at} of {size} is {came:#04x} instead of {sent:#04x}"
                ));
                &tally.mismatched
            }
            Outcome::Crossed => {
                one_more(&tally.crossed);
                self.complain(format_args!("seq={seq} lost, or crossed it: {END_OF_FILE}"));
                &tally.lost
            }
            Outcome::Lost { echoed, why } => {
                self.complain(format_args!(
                    "seq={seq} lost: {why} after {echoed} of {}",
                    bytes(size)
                ));
                &tally.lost
            }
            Outcome::NotSent { why } => {
                self.note(format_args!("{why}, nothing in flight; reconnecting"));
                return false;
            }
        };
        one_more(&tally.sent);
        one_more(count);
        matches!(outcome, Outcome::Echoed)
    }

    /// Connects anew, again and again until it is time to give up; nothing
    /// then, nor after a stop. Gives up only what cannot be had: the time runs
    /// from the first attempt since the last message.
    fn reconnect(&mut self, mut pause: bool) -> Option<Link> {
        let Shared {
            options,
            targets,
            stop,
            tally,
            ..
        } = self.shared;
        let began = Instant::now();
        let give_up = Deadline::after(options.timeout);
        let give_up = *self.give_up.get_or_insert(give_up);
        let mut failed = io::Error::other("connections end before a message can be sent");
        while !give_up.has_passed() && !stop.is_set() {
            let until = give_up.earlier(Deadline::after(PAUSE));
            if pause && (stop.wait(until) || give_up.has_passed()) {
                break;
            }
            pause = true;
            match Link::connect(targets, give_up, stop) {
                Ok(link) => {
                    one_more(&tally.reconnected);
                    let took = millis(began.elapsed());
                    self.note(format_args!("reconnected after {took:.3} ms"));
                    return Some(link);
                }
                Err(error) => failed = error,
            }
        }
        self.give_up(&failed);
        None
    }

    /// No connection: told and counted, unless it was the stop.
    fn give_up(&self, error: &io::Error) {
        let Shared {
            options,
            stop,
            tally,
            ..
        } = self.shared;
        if !stop.is_set() {
            one_more(&tally.unreachable);
            self.complain(format_args!(
                "cannot connect to {}: {error}",
                options.target
            ));
        }
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        let number = self.number;
        self.shared
            .voice
            .tell(format_args!("connection={number} {what}"));
    }

    fn complain(&self, what: std::fmt::Arguments<'_>) {
        let number = self.number;
        self.shared
            .voice
            .complain(format_args!("connection={number} {what}"));
    }
}
