//! What the README shows of the demo is what it prints.

use crate::harness::{free_port, run_to_end};
use std::path::Path;
use std::process::Command;

/// A line without what differs from run to run: numbers, except an exit status,
/// which stands alone, and what the times decide.
fn plain(line: &str) -> Option<String> {
    let line = line.trim_end();
    if line.len() == 1 {
        return Some(line.to_owned());
    }
    if line.starts_with("     ") && line.contains(" ms ") {
        return None; // a bar of the histogram
    }
    let mut plain = String::new();
    for c in line.chars() {
        let c = if c.is_ascii_digit() { 'N' } else { c };
        if !(c == 'N' && plain.ends_with('N')) {
            plain.push(c);
        }
    }
    Some(plain)
}

/// The lines of the README's blocks that begin with this program's start.
fn shown(readme: &str) -> Vec<String> {
    let blocks = readme.split("```console\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("\n```").map(|(block, _)| block));
    blocks
        .filter(|block| block.starts_with("$ lastecho "))
        .flat_map(|block| block.lines().filter_map(plain))
        .collect()
}

/// What is shown and was not printed; each printed line serves once.
fn drifted(shown: &[String], printed: &str) -> Vec<String> {
    let mut printed: Vec<_> = printed.lines().filter_map(plain).collect();
    let mut missing = Vec::new();
    for line in shown {
        match printed.iter().position(|printed| printed == line) {
            Some(at) => drop(printed.swap_remove(at)),
            None => missing.push(line.clone()),
        }
    }
    missing
}

#[test]
#[ignore = "needs nc and telnet"]
fn the_readme_shows_what_the_demo_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = Path::new(env!("CARGO_BIN_EXE_lastecho")).parent().unwrap();
    let mut demo = Command::new(root.join("examples/demo.sh"));
    demo.env("PROGRAMS", programs)
        .env("PORT", free_port().to_string());
    let output = run_to_end(&mut demo, b"");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{printed}");
    assert!(output.status.success(), "{}", output.status);

    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let shown = shown(&readme);
    assert!(shown.len() > 20, "the README shows {} lines", shown.len());
    assert_eq!(drifted(&shown, &printed), [""; 0]);
    // The controls: a line that was changed, and one too many.
    for changed in [
        readme.replace("the last echo\n", "the last word\n"),
        readme.replace("\nhello\n", "\nhello\nhello\n"),
        readme.replace("$ echo $?\n0", "$ echo $?\n3"),
    ] {
        assert!(!drifted(&self::shown(&changed), &printed).is_empty());
    }
}
