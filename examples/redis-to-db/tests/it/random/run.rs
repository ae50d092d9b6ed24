//! One run: programs, faults, a producer meanwhile; a clean program in the end,
//! and then every message is accounted for.

use super::fault::{Fault, Step};
use super::plan::Plan;
use super::world::{Launched, World};
use crate::account::key;
use crate::harness::{Ended, WATCHDOG};
use crate::programs::Which;
use fastrand::Rng;
use lastecho::{Deadline, Stop};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// How many a slow machine can move in time.
const MOST_MESSAGES: usize = 500;

/// What became of the messages of a run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// That Redis had acknowledged.
    pub(super) messages: usize,
    pub(super) twice: usize,
    pub(super) dead: usize,
    /// Programs that a signal ended.
    pub(super) killed: usize,
}

/// Carries a plan out; what was lost, as an error.
pub(super) fn run(world: &mut World, which: Which, plan: &Plan) -> Result<Outcome, String> {
    world.renew(plan);
    let over = Stop::new();
    let url = world.account.redis.url();
    let (ended, produced) = thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&url, plan, &over));
        let ended = {
            let _over = over.set_on_drop();
            play(world, which, plan)
        };
        (ended, producer.join().unwrap())
    });
    let messages = produced.len();
    world.account.expect(produced);
    world.await_quiet();
    let accounted = unexpected(which, &ended).and_then(|()| account(world, plan));
    let (twice, dead) = accounted.map_err(|lost| format!("{lost}\n{}", told(&ended)))?;
    let killed = ended.iter().filter(|ended| ended.code.is_none()).count();
    Ok(Outcome {
        messages,
        twice,
        dead,
        killed,
    })
}

/// All steps, in their time; how the programs ended.
fn play(world: &mut World, which: Which, plan: &Plan) -> Vec<Ended> {
    let began = Instant::now();
    let mut programs = BTreeMap::new();
    for (at, step) in &plan.steps {
        let due = began + Duration::from_millis(*at);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        match step {
            Step::Start(launch) => {
                programs.insert(launch.number, world.launch(which, launch));
            }
            Step::Signalled(number, signal) => send(&mut programs, *number, *signal),
            Step::Cut(side) => world.relay(*side).cut(),
            Step::Begin(fault) => {
                world.begin(*fault);
                if let Fault::ProgramAsleep(number) = fault {
                    send(&mut programs, *number, Signal::STOP);
                }
            }
            Step::End(fault) => {
                world.end(*fault);
                if let Fault::ProgramAsleep(number) = fault {
                    send(&mut programs, *number, Signal::CONT);
                }
            }
        }
    }
    let ended = programs
        .into_values()
        .map(|launched: Launched| launched.program.wait());
    ended.collect()
}

fn send(programs: &mut BTreeMap<usize, Launched>, number: usize, signal: Signal) {
    if let Some(launched) = programs.get_mut(&number)
        && launched.program.is_running()
    {
        launched.program.signal(signal);
    }
}

/// Produces until it is over; the keys of what Redis has acknowledged. What it
/// has not may be in the list or not, and is never sent again.
fn produce(url: &str, plan: &Plan, over: &Stop) -> Vec<String> {
    let mut rng = Rng::with_seed(!plan.seed);
    let client = redis::Client::open(url).unwrap();
    let (mut produced, mut number, mut connection) = (Vec::new(), 0, None);
    while number < MOST_MESSAGES {
        let first = number + 1;
        number += rng.usize(1..8);
        let piece: Vec<_> = (first..=number)
            .map(|number| message(&mut rng, plan, number))
            .collect();
        let pushed = push(&client, &mut connection, &piece);
        match pushed {
            Ok(()) => produced.extend(piece.iter().map(|message| key(message))),
            Err(_) => connection = None,
        }
        let pause = Duration::from_millis(rng.u64(0..plan.pause));
        if over.wait(Deadline::after(pause)) {
            break;
        }
    }
    produced
}

fn push(
    client: &redis::Client,
    connection: &mut Option<redis::Connection>,
    piece: &[Vec<u8>],
) -> redis::RedisResult<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(client.get_connection_with_timeout(WATCHDOG)?),
    };
    connection.set_read_timeout(Some(WATCHDOG))?;
    redis::cmd("LPUSH")
        .arg("messages")
        .arg(piece)
        .query(connection)
}

/// A good message, or one of five kinds that are not.
fn message(rng: &mut Rng, plan: &Plan, number: usize) -> Vec<u8> {
    let seed = plan.seed;
    if rng.usize(0..plan.poison) > 0 {
        return format!("good-{seed}-{number} body {number}").into();
    }
    match rng.u8(0..5) {
        0 => format!("no-key-and-body-{number}").into(),
        1 => format!("panic-{number} body").into(),
        2 => [&[0xff], format!("-{number} body").as_bytes()].concat(),
        // PostgreSQL takes none of these two.
        3 => format!("zero-\0-{number} body").into(),
        _ => {
            let long: String = (0..8000).map(|_| rng.alphanumeric()).collect();
            format!("{long}-{number} body").into()
        }
    }
}

/// Lets a clean program move what is left, and looks where everything is: how
/// many messages were written more than once, and how many are dead.
fn account(world: &mut World, plan: &Plan) -> Result<(usize, usize), String> {
    let clean = world.launch_clean();
    clean.await_line("moving");
    let patience = Instant::now() + WATCHDOG / 2;
    while !world.account.has_none_to_move() {
        if Instant::now() > patience {
            return Err(format!(
                "a clean program does not end it: {}",
                clean.stderr()
            ));
        }
        thread::sleep(Duration::from_millis(5));
    }
    clean.term();
    let ended = clean.wait();
    if (ended.code, ended.told("clean"), ended.count("in_hand")) != (Some(0), "true", 0) {
        return Err(format!("the clean program ended so: {ended:?}"));
    }
    world.fetch_database();
    let places = world.account.places();
    places.all_ended(&world.account)?;
    if let Some(good) = places.dead.iter().find(|key| key.starts_with("good-")) {
        return Err(format!("{good} is dead, by no fault of its own"));
    }
    let mut left: Vec<String> = world.account.redis_command(&["KEYS", "*"]);
    left.retain(|key| match key.as_str() {
        "messages:dead" | "messages:leases" => false,
        // Its entries stay where they may not be taken out.
        "messages:failures" => !plan.refuses("hdel"),
        _ => true,
    });
    if !left.is_empty() {
        return Err(format!("left in Redis: {left:?}"));
    }
    Ok((places.written_twice().len(), places.dead.len()))
}

/// Ours ends with one of its statuses, or by the signal that kills it.
fn unexpected(which: Which, ended: &[Ended]) -> Result<(), String> {
    let is_known = |ended: &&Ended| matches!(ended.code, None | Some(0 | 1 | 3));
    let unknown = ended.iter().find(|ended| !is_known(ended));
    match unknown {
        Some(ended) if which == Which::Ours => Err(format!("an end like no other: {ended:?}")),
        _ => Ok(()),
    }
}

/// How the programs ended, and the last that they said.
fn told(ended: &[Ended]) -> String {
    let told = |ended: &Ended| {
        let said = ended.stdout.last().map_or("", String::as_str);
        let mut log: Vec<_> = ended.stderr.lines().rev().take(4).collect();
        log.reverse();
        format!(
            "ended with {:?}: {said}\n    {}",
            ended.code,
            log.join("\n    ")
        )
    };
    ended.iter().map(told).collect::<Vec<_>>().join("\n")
}
