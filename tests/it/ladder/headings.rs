//! A step's heading has four parts, and the README's table says the same.

use super::{STEPS, source};
use std::path::Path;

const PARTS: [&str; 4] = ["Idea", "Run", "You see", "Still wrong"];

/// The title of a step, and its parts in their order.
fn heading(source: &str) -> (String, Vec<(String, String)>) {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut items = text.split("\n - ").map(|item| {
        let words: Vec<_> = item.split_whitespace().collect();
        words.join(" ")
    });
    let title = items.next().unwrap_or_default();
    let part = |item: String| {
        let (name, text) = item.split_once(": ").unwrap_or((&item, ""));
        (name.to_owned(), text.to_owned())
    };
    (title, items.map(part).collect())
}

/// A step's row of the README's table.
fn row(step: usize) -> String {
    let (_, parts) = heading(&source(step));
    let [(_, idea), _, (_, see), (_, wrong)] = &parts[..] else {
        panic!("step {step} has not the four parts: {parts:?}");
    };
    let link = |step: usize| format!("[{step}](examples/{}.rs)", STEPS[step - 1]);
    let cured = if step < STEPS.len() {
        link(step + 1)
    } else {
        String::new()
    };
    format!("| {} | {idea} | {see} | {wrong} | {cured} |", link(step)).replace("|  |", "| |")
}

#[test]
fn every_step_says_its_idea_how_to_run_it_what_you_see_and_what_is_wrong() {
    let made_up = "//! # 1. A\n//!\n//! - Idea: b: c\n//!   d\n//! - Run: e\n\nx\n";
    let parts = [("Idea", "b: c d"), ("Run", "e")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(heading(made_up), ("# 1. A".to_owned(), parts.to_vec()));
    for step in 1..=STEPS.len() {
        let (title, parts) = heading(&source(step));
        assert!(title.starts_with(&format!("# {step}. ")), "{title}");
        let names: Vec<_> = parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, PARTS, "step {step}");
        let run = format!("`cargo run --example {}`", STEPS[step - 1]);
        assert!(parts[1].1.starts_with(&run), "step {step}: {parts:?}");
    }
}

#[test]
fn the_readme_has_what_the_headings_say() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let rows: Vec<_> = (1..=STEPS.len()).map(row).collect();
    let missing: Vec<_> = rows
        .iter()
        .filter(|row| !readme.lines().any(|line| line == **row))
        .collect();
    assert!(missing.is_empty(), "README.md lacks the rows\n{missing:#?}");
}
