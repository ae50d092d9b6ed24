//! The three parts: upstream, queue, consumers; and the order of their stop.

use crate::access::Parser;
use crate::framing::Framing;
use crate::ledger::{LAST_LINES, Ledger, Line};
use crate::options::Options;
use crate::output::Output;
use anyhow::{Context, Result};
use lastecho::{
    Connection, Deadline, Event, Queue, Report, Server, Shutdown, Stop, Tally, WorkError, Workers,
};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often it is looked whether the consumers have all started.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Pipeline {
    options: Options,
    parser: Parser,
    output: Output,
    queue: Queue<Line>,
    pub(crate) ledger: Ledger,
    /// Stops the server, and nothing else.
    upstream: Stop,
    /// Set by the server's end.
    upstream_ended: Stop,
}

impl Pipeline {
    pub(crate) fn new(options: Options, output: Output) -> Result<Self> {
        Ok(Self {
            parser: Parser::new()?,
            // Closed by its own phase, not by the stop: upstream still has lines.
            queue: Queue::bounded(options.queue, &Stop::new()),
            ledger: Ledger::new(output.clone()),
            output,
            upstream: Stop::new(),
            upstream_ended: Stop::new(),
            options,
        })
    }

    /// Listens, and puts every line that comes into the queue.
    pub(crate) fn start_upstream(
        self: &Arc<Self>,
        stop: &Stop,
    ) -> Result<JoinHandle<io::Result<Report>>> {
        let server = Server::bind(self.options.address)
            .context("cannot listen")?
            .poll(self.options.poll)
            .drain_timeout(None) // Its phase knows the deadline.
            .observe(announce(self.output.clone()));
        let (pipeline, stop) = (Arc::clone(self), stop.clone());
        let run = move || {
            // Without it the rest of the program has no purpose.
            let _ended = (stop.set_on_drop(), pipeline.upstream_ended.set_on_drop());
            server.run(&pipeline.upstream, |conn| pipeline.receive(conn))
        };
        Ok(thread::Builder::new().name("upstream".into()).spawn(run)?)
    }

    /// A sender's connection. Where the queue is full, `submit` waits, nobody
    /// reads, and TCP holds the sender back.
    fn receive(&self, conn: &mut Connection) -> io::Result<()> {
        let mut framing = Framing::default();
        while framing.is_inside() || conn.next()? {
            let Some(text) = framing.read(conn)? else {
                continue;
            };
            let shown = String::from_utf8_lossy(text.trim_ascii_end()).into_owned();
            let line = self
                .ledger
                .received(text)
                .ok_or(ErrorKind::ConnectionAborted)?;
            let number = line.number;
            if let Err(rejected) = self.queue.submit(line) {
                self.ledger.cut(rejected.job.number);
                return Err(ErrorKind::ConnectionAborted.into());
            }
            self.ledger.queued(number, &shown);
        }
        Ok(())
    }

    /// Starts the consumers: they end when the queue is closed and empty. Returns
    /// when all have started.
    pub(crate) fn start_consumers(
        self: &Arc<Self>,
        stop: &Stop,
    ) -> io::Result<JoinHandle<io::Result<Tally>>> {
        let (pipeline, stop) = (Arc::clone(self), stop.clone());
        let (count, all) = (self.options.consumers, Stop::new());
        let started = all.clone();
        let run = move || {
            let _ended = stop.set_on_drop();
            Workers::new("consumer", count).run(
                &Stop::new(),
                |number| {
                    if number == count {
                        all.set(); // the others have started
                    }
                    |longest| pipeline.queue.take(longest)
                },
                |line| pipeline.consume(line),
                |line, failure| pipeline.ledger.failed(line.number, &failure),
            )
        };
        let consumers = thread::Builder::new().name("consumers".into()).spawn(run)?;
        while !started.wait(Deadline::after(LOOK)) {
            if consumers.is_finished() {
                let ended = consumers.join();
                return Err(match ended {
                    Ok(Err(error)) => error,
                    _ => io::Error::other("the consumers ended"),
                });
            }
        }
        Ok(consumers)
    }

    fn consume(&self, line: &mut Line) -> Result<(), WorkError> {
        thread::sleep(self.options.work);
        let text = line.text.trim_ascii_end();
        if let Some(word) = &self.options.panic_on {
            assert!(!String::from_utf8_lossy(text).contains(word), "on purpose");
        }
        let access = self
            .parser
            .parse(text)
            .ok_or("not in the combined log format")?;
        self.ledger.processed(line.number, &access);
        Ok(())
    }

    /// Upstream first, so that nothing new comes; then what waits; then what
    /// is in hand.
    pub(crate) fn stop_in_order(
        self: &Arc<Self>,
        shutdown: &Shutdown,
        upstream: JoinHandle<io::Result<Report>>,
        consumers: JoinHandle<io::Result<Tally>>,
    ) {
        let pipeline = Arc::clone(self);
        shutdown.phase("upstream", move |deadline| {
            pipeline.upstream.set_by(deadline);
            if !pipeline.upstream_ended.wait(deadline) {
                // Connections that wait for room get their line back.
                pipeline.queue.close();
            }
            let report = upstream.join().map_err(|_| "panicked")??;
            log::info!("upstream: {report}");
            let clean = report.is_clean();
            clean.then_some(()).ok_or("connections were cut".into())
        });
        let pipeline = Arc::clone(self);
        shutdown.phase("queue", move |deadline| {
            let left = pipeline.queue.drain(deadline);
            left.iter()
                .for_each(|line| pipeline.ledger.cut(line.number));
            let clean = left.is_empty();
            clean.then_some(()).ok_or("lines were left".into())
        });
        shutdown.phase("consumers", move |_| {
            let tally = consumers.join().map_err(|_| "panicked")??;
            log::info!("consumers: {tally:?}");
            Ok(())
        });
    }
}

/// Says where it listens. A reader that stalls costs a second.
fn announce(output: Output) -> impl Fn(&Event<'_>) {
    move |event| {
        if let Event::Ready { addresses } = event {
            let lines = addresses.iter().map(|at| format!("listening on {at}"));
            output.write_within(LAST_LINES, lines.collect());
        }
    }
}
