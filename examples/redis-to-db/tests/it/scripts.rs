//! The scripts under a Redis that refuses one of their commands: a message is
//! in a list after every error, and where it belongs once nothing is refused.

use crate::account::ask;
use crate::servers::Redis;
use redis::Connection;

const SETTLE: &str = include_str!("../../src/settle.lua");
/// Takes the message out first and puts it where it belongs then.
const REMOVE_FIRST: &str = include_str!("../control/remove_first.lua");
const TEND: &str = include_str!("../../src/tend.lua");

const MINE: &str = "messages:processing:mine";
const ENDED: &str = "messages:processing:ended:1";
const MESSAGE: &str = "key body";

/// A script with what it is called with, and where it leaves the message.
struct Call {
    script: &'static str,
    keys_and_arguments: Vec<&'static str>,
    end: &'static str,
    /// What Redis refuses, one in each trial.
    refusals: Vec<Refusal>,
}

#[derive(Clone, Debug)]
enum Refusal {
    /// To our user.
    Command(String),
    /// This key has another type.
    Type(&'static str),
    /// All that needs memory.
    Memory,
}

impl Call {
    fn new(script: &'static str, arguments: &[&'static str], end: &'static str) -> Self {
        let named = script.split("redis.call('").skip(1);
        let commands = named.map(|rest| rest.split('\'').next().unwrap().to_lowercase());
        let mut refusals: Vec<_> = commands.map(Refusal::Command).collect();
        let keys = ["messages", "messages:dead", "messages:failures"];
        refusals.extend(keys.map(Refusal::Type));
        refusals.extend([Refusal::Type("messages:leases"), Refusal::Memory]);
        Self {
            script,
            keys_and_arguments: arguments.to_vec(),
            end,
            refusals,
        }
    }

    fn settle(
        script: &'static str,
        how: &'static str,
        most: &'static str,
        end: &'static str,
    ) -> Self {
        let keys = ["4", MINE, "messages", "messages:failures", "messages:dead"];
        Self::new(script, &[&keys[..], &[MESSAGE, how, most]].concat(), end)
    }

    /// A look, or a release (of lists of `ours`) where the lease is 0.
    fn tend(lease: &'static str, ours: &'static str) -> Self {
        let keys = ["2", "messages:leases", "messages"];
        Self::new(
            TEND,
            &[&keys[..], &[lease, "0", ours, "1"]].concat(),
            "messages",
        )
    }

    /// Runs it as a user who may do all but what is refused.
    fn run(&self, user: &mut Connection) -> redis::RedisResult<redis::Value> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(self.script)
            .arg(&self.keys_and_arguments)
            .query(user)
    }
}

/// How often the message is in each of these lists.
fn copies(redis: &mut Connection) -> Vec<(&'static str, usize)> {
    let mut copies = Vec::new();
    for list in [MINE, ENDED, "messages", "messages:dead"] {
        if ask::<String>(redis, &["TYPE", list]) == "list" {
            let messages: Vec<String> = ask(redis, &["LRANGE", list, "0", "-1"]);
            copies.push((list, messages.iter().filter(|m| *m == MESSAGE).count()));
        }
    }
    copies
}

/// What is wrong after the refusal, or after its end.
fn refuse(call: &Call, refusal: &Refusal, server: &Redis) -> Result<(), String> {
    let mut redis = server.connect();
    let mut set = |words: &[&str]| ask::<redis::Value>(&mut redis, words);
    set(&["FLUSHALL"]);
    set(&[
        "ACL", "SETUSER", "mover", "reset", "on", ">pw", "~*", "+@all",
    ]);
    set(&[
        "RPUSH",
        if call.script == TEND { ENDED } else { MINE },
        MESSAGE,
    ]);
    set(&["ZADD", "messages:leases", "1", ENDED]);
    match refusal {
        Refusal::Command(name) => set(&["ACL", "SETUSER", "mover", &format!("-{name}")]),
        Refusal::Type("messages:leases") => set(&["SET", "messages:leases", "another's"]),
        Refusal::Type(key) => set(&["SET", key, "another's"]),
        Refusal::Memory => set(&["CONFIG", "SET", "maxmemory", "1"]),
    };
    let url = format!("redis://mover:pw@127.0.0.1:{}", server.port);
    let mut user = redis::Client::open(url).unwrap().get_connection().unwrap();
    let answers: Vec<_> = (0..3).map(|_| call.run(&mut user)).collect();
    let told = format!("{refusal:?} {:?}: {answers:?}", call.keys_and_arguments);

    let found = copies(&mut redis);
    if found.iter().map(|(_, count)| count).sum::<usize>() == 0 {
        return Err(format!("lost after {told}"));
    }
    let mut set = |words: &[&str]| ask::<redis::Value>(&mut redis, words);
    set(&["CONFIG", "SET", "maxmemory", "0"]);
    set(&["ACL", "SETUSER", "mover", "+@all"]);
    if let Refusal::Type(key) = refusal {
        if ask::<String>(&mut redis, &["TYPE", key]) == "string" {
            ask::<u64>(&mut redis, &["DEL", key]);
        }
        let _: u64 = ask(&mut redis, &["ZADD", "messages:leases", "1", ENDED]);
    }
    let last = call.run(&mut user);
    let found = copies(&mut redis);
    let expected = [(call.end, 1)];
    let found: Vec<_> = found.into_iter().filter(|(_, count)| *count > 0).collect();
    if found != expected {
        return Err(format!("{found:?} in the end, {last:?} after {told}"));
    }
    Ok(())
}

/// All refusals of all calls; those that were not borne.
fn not_borne(calls: &[Call]) -> Vec<String> {
    let server = Redis::start();
    let pairs = calls
        .iter()
        .flat_map(|call| call.refusals.iter().map(move |r| (call, r)));
    pairs
        .filter_map(|(call, refusal)| refuse(call, refusal, &server).err())
        .collect()
}

fn settling(script: &'static str) -> [Call; 3] {
    [
        Call::settle(script, "back", "5", "messages"),
        // The fourth try is the first that counts.
        Call::settle(script, "failed", "2", "messages"),
        Call::settle(script, "failed", "1", "messages:dead"),
    ]
}

#[test]
#[ignore = "needs redis-server: make deps"]
fn a_refused_command_of_a_script_loses_no_message() {
    let looks = [
        Call::tend("1000", "messages:processing:other"),
        Call::tend("0", "messages:processing:ended"),
    ];
    for calls in [&settling(SETTLE)[..], &looks] {
        assert!(calls.iter().all(|call| call.refusals.len() >= 9));
        assert_eq!(not_borne(calls), Vec::<String>::new());
    }
    let lost = not_borne(&settling(REMOVE_FIRST));
    assert!(
        lost.len() >= 5 && lost.iter().all(|lost| lost.starts_with("lost")),
        "{lost:#?}"
    );
    println!("removing first: {lost:#?}");
}

/// As after an answer that was lost, or where a lease had run out.
#[test]
#[ignore = "needs redis-server: make deps"]
fn a_message_that_has_gone_from_a_workers_list_is_not_counted_as_put_back() {
    let server = Redis::start();
    let mut redis = server.connect();
    let mut answers = |how, most| {
        ask::<()>(&mut redis, &["FLUSHALL"]);
        ask::<u64>(&mut redis, &["RPUSH", MINE, MESSAGE]);
        let call = Call::settle(SETTLE, how, most, "");
        [0; 2].map(|_| redis::from_redis_value::<u64>(call.run(&mut redis).unwrap()).unwrap())
    };
    assert_eq!(answers("done", "5"), [0, 0]);
    assert_eq!(answers("back", "5"), [0, 2]);
    assert_eq!(answers("last", "5"), [0, 2]);
    assert_eq!(answers("failed", "5"), [0, 2]);
    assert_eq!(answers("failed", "1"), [1, 2]);
}
