//! One measurement: a fresh server, its clients, its time and its memory.

use crate::load::{self, Seen, redis};
use crate::running::Running;
use crate::scenario::Scenario;
use crate::window::Window;
use anyhow::{Result, bail};
use std::thread::{ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

const GLANCE: Duration = Duration::from_millis(1);
/// Requests from which redis-benchmark's speed is guessed.
const TRIAL: u64 = 5_000;

/// What a measurement brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// How long clients counted.
    pub(crate) elapsed: Duration,
    /// Processor time of the server meanwhile.
    pub(crate) cpu: Duration,
    /// Resident bytes that each connection added.
    pub(crate) memory: Option<f64>,
    pub(crate) seen: Seen,
}

/// Measures for `length`, after a warm-up of a quarter of it.
pub(crate) fn measure(
    server: &mut Running,
    scenario: Scenario,
    length: Duration,
) -> Result<Measured> {
    let measured = match scenario {
        Scenario::Redis(connections) => by_redis(server, connections, length),
        _ => by_us(server, scenario, length),
    }?;
    server.is_alive()?;
    Ok(measured)
}

fn by_us(server: &Running, scenario: Scenario, length: Duration) -> Result<Measured> {
    let window = Window::new();
    let memory_before = server.memory();
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load::drive(scenario, server.address, &window));
        if !has_begun(&window, &clients) {
            return match join(clients) {
                Err(error) => Err(error),
                Ok(seen) => bail!("the clients ended before they began: {seen:?}"),
            };
        }
        sleep(length / 4);
        let (cpu_before, opened) = (server.cpu(), Instant::now());
        window.open();
        sleep(length);
        window.shut();
        let elapsed = opened.elapsed();
        let cpu = server.cpu().saturating_sub(cpu_before);
        let memory = scenario.has_memory().then(|| {
            let added = server.memory().saturating_sub(memory_before);
            added as f64 / scenario.connections() as f64
        });
        window.end();
        let seen = join(clients)?;
        Ok(Measured {
            elapsed,
            cpu,
            memory,
            seen,
        })
    })
}

/// Waits until the clients have connected, or have failed to.
fn has_begun<T>(window: &Window, clients: &ScopedJoinHandle<'_, T>) -> bool {
    while !window.has_begun() && !clients.is_finished() {
        sleep(GLANCE);
    }
    window.has_begun()
}

fn join(clients: ScopedJoinHandle<'_, Result<Seen>>) -> Result<Seen> {
    clients
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// redis-benchmark counts requests, not time: a trial tells how many to ask for.
fn by_redis(server: &Running, connections: usize, length: Duration) -> Result<Measured> {
    let guess = redis::run(server.address, connections, TRIAL)?;
    let requests = guess * u64::try_from(length.as_millis())? / 1000;
    let requests = requests.max(TRIAL);
    let cpu_before = server.cpu();
    let rate = redis::run(server.address, connections, requests)?;
    Ok(Measured {
        elapsed: Duration::from_secs_f64(requests as f64 / rate as f64),
        cpu: server.cpu().saturating_sub(cpu_before),
        memory: None,
        seen: Seen {
            count: requests,
            ..Seen::default()
        },
    })
}
