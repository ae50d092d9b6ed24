//! What keeps the steps readable: short programs, small differences, nothing to
//! install.

use super::{STEPS, source};

const LONGEST: usize = 90;
const MOST_CHANGED: usize = 30;
/// What a step may use beside the standard library; the last one has ours.
const GIVEN: [&str; 6] = [
    "socket2",
    "signal_hook",
    "crossbeam_utils",
    "anyhow",
    "log",
    "simplelog",
];

/// The lines that count in a difference: those of the program, without the
/// heading, which is another text in every step, and however far indented.
fn program(source: &str) -> Vec<String> {
    let lines = source.lines().filter(|line| !line.starts_with("//!"));
    lines
        .map(|line| line.split_whitespace().collect())
        .collect()
}

/// How many lines go and how many come between two programs, as `diff -dw`
/// counts them: a line that is altered goes and comes.
fn changed(before: &[String], after: &[String]) -> (usize, usize) {
    // The longest common subsequence, row by row.
    let mut common = vec![0; after.len() + 1];
    for old in before {
        let above = common.clone();
        for (at, new) in after.iter().enumerate() {
            common[at + 1] = if old == new {
                above[at] + 1
            } else {
                above[at + 1].max(common[at])
            };
        }
    }
    let common = common[after.len()];
    (before.len() - common, after.len() - common)
}

#[test]
fn a_step_is_short_and_changes_little() {
    let lines = |text: &str| program(&text.replace('|', "\n"));
    assert_eq!(
        changed(&lines("//! x|a|b|c|d"), &lines("//! y|a|  c|e|d|f")),
        (1, 2)
    );
    for step in 1..=STEPS.len() {
        let length = source(step).lines().count();
        assert!(length <= LONGEST, "step {step} has {length} lines");
    }
    for step in 2..=STEPS.len() {
        let (gone, come) = changed(&program(&source(step - 1)), &program(&source(step)));
        println!("step {step}: {gone} lines go, {come} come");
        // The last step hands most of the program over to the library.
        let counted = if step == STEPS.len() {
            come
        } else {
            gone + come
        };
        assert!(counted <= MOST_CHANGED, "step {step}: -{gone} +{come}");
    }
}

/// The crates that a program's `use` lines and paths begin with.
fn foreign(source: &str) -> Vec<&str> {
    let uses = source.lines().filter_map(|line| line.strip_prefix("use "));
    let crates = uses.filter_map(|path| path.split([':', ';']).next());
    crates
        .filter(|name| *name != "std" && !GIVEN.contains(name))
        .collect()
}

#[test]
fn a_step_uses_the_given_packages_and_only_the_last_one_ours() {
    assert_eq!(
        foreign("use std::io;\nuse log::info;\nuse tokio::net;\n"),
        ["tokio"]
    );
    for step in 1..STEPS.len() {
        let source = source(step);
        assert_eq!(foreign(&source), [""; 0], "step {step}");
        assert!(!source.contains("lastecho"), "step {step}");
    }
    assert_eq!(foreign(&source(STEPS.len())), ["lastecho"]);
}

/// The lines of a function's body.
fn body<'a>(source: &'a str, start: &str) -> Vec<&'a str> {
    let body = source.lines().skip_while(|line| !line.starts_with(start));
    body.skip(1).take_while(|line| *line != "}").collect()
}

#[test]
fn on_the_library_main_has_ten_lines_and_the_echo_is_the_first_steps() {
    let (first, last) = (source(1), source(STEPS.len()));
    let main = body(&last, "fn main()");
    assert!((1..=10).contains(&main.len()), "{main:#?}");
    let echo = body(&first, "fn echo(").join("\n");
    assert_eq!(
        body(&last, "fn echo(").join("\n"),
        echo.replace("client.read(", "client.receive(")
    );
}
