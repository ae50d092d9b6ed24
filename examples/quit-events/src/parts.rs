//! The parts, and the order in which they stop.

use crate::cli::{Control, Options, Summary, say};
use crate::jobs::{Jobs, Journal};
use crate::{grpc, http, workers};
use axum::Router;
use lastecho::{Deadline, PhaseError, Shutdown, ShutdownOutcome, Stop};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::thread;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Threads that poll.
const POLLING: u32 = 2;

/// The counts of what runs.
#[derive(Debug)]
pub struct Parts {
    submitted: Arc<AtomicU64>,
    journal: Arc<Journal>,
}

impl Parts {
    /// What came of it all.
    #[must_use]
    pub fn summary(&self, outcome: ShutdownOutcome) -> Summary {
        Summary {
            outcome,
            submitted: self.submitted.load(Relaxed),
            journaled: self.journal.kept(),
        }
    }
}

/// Starts all parts and registers how each stops, upstream before downstream.
///
/// `quit` is a quit hook of the HTTP server's own, beside the event, and
/// `routes` are further routes of it.
///
/// # Errors
/// The journal cannot be opened, an address cannot be listened on, a thread
/// cannot be started.
pub async fn start(
    options: &Options,
    shutdown: &Shutdown,
    routes: Router,
    quit: impl Future<Output = ()> + Send + 'static,
) -> Result<Parts, Box<dyn Error>> {
    let path = options.journal.display();
    let journal = Journal::open(&options.journal).map_err(|error| format!("{path}: {error}"))?;
    let journal = Arc::new(journal);
    let (jobs, receiver, submitted) = Jobs::channel();
    let (http, grpc) = (listen(options.http).await?, listen(options.grpc).await?);
    let addresses = (http.local_addr()?, grpc.local_addr()?);

    if options.control == Some(Control::CloserFirst) {
        register_closer(shutdown, &journal);
    }
    let open = register_doors(shutdown);
    start_http(http, jobs.clone(), routes, quit, shutdown, open.clone());
    start_grpc(grpc, jobs, shutdown, open);
    start_polling(options, shutdown)?;
    start_channel(receiver, &journal, options, shutdown)?;
    if options.control != Some(Control::CloserFirst) {
        register_closer(shutdown, &journal);
    }

    if options.control == Some(Control::Exit) {
        leave_at(shutdown.stop());
    }
    say(format_args!("http listening on {}", addresses.0));
    say(format_args!("grpc listening on {}", addresses.1));
    Ok(Parts { submitted, journal })
}

/// The doors of both servers close together, and first: a server that is slow
/// to stop must not keep the other one open.
fn register_doors(shutdown: &Shutdown) -> watch::Receiver<bool> {
    let (doors, open) = watch::channel(true);
    shutdown.phase("doors", move |_| {
        doors.send_replace(false);
        Ok(())
    });
    open
}

async fn until_closed(mut open: watch::Receiver<bool>) {
    // An error says that nobody can close it any more, which is as good.
    let _ = open.wait_for(|open| !open).await;
}

/// A server that ends, for whatever reason, takes the rest with it.
fn start_http(
    listener: TcpListener,
    jobs: Jobs,
    routes: Router,
    quit: impl Future<Output = ()> + Send + 'static,
    shutdown: &Shutdown,
    open: watch::Receiver<bool>,
) {
    let event = shutdown.clone();
    let server = tokio::spawn(async move {
        let quit = async {
            tokio::select! { () = quit => {}, () = until_closed(open) => {} }
        };
        http::serve(listener, jobs, routes, quit).await;
        event.fire();
        Ok::<_, io::Error>(())
    });
    shutdown.phase("http", wait_for(server));
}

fn start_grpc(listener: TcpListener, jobs: Jobs, shutdown: &Shutdown, open: watch::Receiver<bool>) {
    let event = shutdown.clone();
    let server = tokio::spawn(async move {
        let ended = grpc::serve(listener, jobs, until_closed(open)).await;
        event.fire();
        ended
    });
    shutdown.phase("grpc", wait_for(server));
}

/// A task as a phase. It looks at no deadline: a task that is stuck is left
/// behind, and named.
fn wait_for<E>(
    task: JoinHandle<Result<(), E>>,
) -> impl FnOnce(Deadline) -> Result<(), PhaseError> + Send + 'static
where
    E: Error + Send + Sync + 'static,
{
    let runtime = Handle::current();
    move |_| Ok(runtime.block_on(task)??)
}

/// These see the event themselves; the phase only waits until they have left.
fn start_polling(options: &Options, shutdown: &Shutdown) -> io::Result<()> {
    for number in 1..=POLLING {
        let deaf = number == 1 && options.control == Some(Control::DeafWorker);
        workers::start_polling(number, shutdown, options.poll, deaf)?;
    }
    shutdown.running_phase("polling");
    Ok(())
}

/// The worker ends when those who send to it have ended, not at the event.
fn start_channel(
    jobs: Receiver<String>,
    journal: &Arc<Journal>,
    options: &Options,
    shutdown: &Shutdown,
) -> io::Result<()> {
    let end = Stop::new();
    let (its_end, journal, poll) = (end.clone(), Arc::clone(journal), options.poll);
    let worker = thread::Builder::new()
        .name("channel".into())
        .spawn(move || workers::work_off(&jobs, &journal, &its_end, poll))?;
    shutdown.phase("channel", move |_| {
        end.set();
        worker.join().map_err(|_| "panicked".into())
    });
    Ok(())
}

/// Last: nobody writes any more.
fn register_closer(shutdown: &Shutdown, journal: &Arc<Journal>) {
    let journal = Arc::clone(journal);
    shutdown.phase("journal", move |_| Ok(journal.close()?));
}

async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| format!("{address}: {error}"))
}

fn leave_at(stop: &Stop) {
    let stop = stop.clone();
    thread::spawn(move || {
        let _ = stop.wait(Deadline::NEVER);
        exit(0);
    });
}
