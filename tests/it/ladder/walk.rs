//! `make ladder` shows what the headings say.

use super::{STEPS, Seen, seen};
use crate::harness::{example, run_to_end};
use std::path::Path;
use std::process::Command;

/// What the walk prints of a step.
struct Walk(String);

impl Walk {
    fn of(step: usize) -> Self {
        let programs = example(STEPS[0]);
        let mut command = Command::new("examples/ladder.sh");
        command
            .arg(step.to_string())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PROGRAMS", programs.parent().unwrap_or(Path::new(".")));
        let output = run_to_end(&mut command, b"");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "step {step}: {complaint}");
        Self(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What comes after the time in the lines of the server, the client or you.
    fn of_whom<'a>(&'a self, who: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.0.lines().filter_map(|line| line.split_once("s  "));
        let lines = lines.filter_map(|(_, line)| line.split_once("| "));
        let lines = lines.filter(move |(name, _)| name.trim() == who);
        lines.map(|(_, line)| line)
    }

    fn has(&self, who: &str, what: &str) -> bool {
        self.of_whom(who).any(|line| line.starts_with(what))
    }

    fn ended(&self) -> Vec<&str> {
        let ends = self.of_whom("server");
        ends.filter_map(|line| line.strip_prefix("ended with status "))
            .collect()
    }

    /// What the client counted, and what the server had echoed.
    fn counts(&self) -> Option<(u64, u64)> {
        let counted = self.of_whom("client").find_map(|line| line.parse().ok());
        let echoed = self
            .of_whom("server")
            .filter_map(|line| line.strip_prefix("echoed "));
        let echoed = echoed.filter_map(|line| line.strip_suffix(" bytes")?.parse().ok());
        Some((counted?, echoed.max()?))
    }
}

/// Whether one sees what the step's heading says.
fn shows(step: usize, walk: &Walk) -> bool {
    let (hello, again) = (walk.has("client", "hello"), walk.has("client", "again"));
    let held = walk.has("server", "still there") && walk.has("client", "leaves");
    let cut = walk.has("server", "stopped cut=1");
    let counts = walk.counts();
    match (step, walk.ended().as_slice()) {
        (1, ["130"]) => !hello,
        (2, ["0"]) => hello && walk.has("server", "still there"),
        (3, ["0"]) => !hello && walk.has("server", "stopped"),
        (4, ["0"]) => hello && held,
        (5, ["0", "0"]) => hello && counts.is_some_and(|(got, echoed)| got < echoed),
        (6, ["0", "0"]) => held && counts.is_some_and(|(got, echoed)| got == echoed),
        (7, ["3", "0"]) => cut && hello && !again,
        (8, ["0", "3"]) => hello && again && walk.has("server", "stopped clean=true"),
        _ => false,
    }
}

#[test]
#[ignore = "needs nc and bash: make deps"]
fn the_walk_shows_what_the_headings_say() {
    let all = seen(1..=STEPS.len(), |step| {
        let walk = Walk::of(step);
        let change = if step == 1 { "fn main()" } else { "@@ " };
        let is_told = walk.0.contains(&format!("\n# {step}. ")) && walk.0.contains(change);
        if is_told && shows(step, &walk) {
            Seen::Grace
        } else {
            Seen::Other(format!("step {step}:\n{}", walk.0))
        }
    });
    let bad: Vec<_> = all.iter().filter(|seen| **seen != Seen::Grace).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
