//! Rules for the documents: what they name exists.

use super::{assert_tidy, files, read, root};
use std::path::{Path, PathBuf};

/// The documents of the repository, wherever they are.
fn documents() -> Vec<PathBuf> {
    files("", "md")
}

/// The targets of a Makefile, and whether `make help` knows each.
fn targets(makefile: &str) -> Vec<(&str, bool)> {
    let rules = makefile
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let rules = rules.filter_map(|line| line.split_once(':'));
    let rules = rules.filter(|(name, rest)| !name.contains(' ') && !rest.starts_with('='));
    rules
        .map(|(name, rest)| (name, rest.contains("## ")))
        .collect()
}

/// The targets that a document tells people to make: `make x` in code.
fn told_to_make(document: &str) -> Vec<&str> {
    let is_code =
        |before: &str| before.is_empty() || before.ends_with(['`', '\n']) || before.ends_with("$ ");
    let calls = document
        .match_indices("make ")
        .filter(|(at, _)| is_code(&document[..*at]));
    let name = |(at, call): (usize, &str)| {
        let rest = &document[at + call.len()..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-');
        &rest[..end.unwrap_or(rest.len())]
    };
    calls.map(name).filter(|name| !name.is_empty()).collect()
}

fn unmakable(document: &str, makefile: &str) -> Vec<String> {
    let targets = targets(makefile);
    let told = told_to_make(document).into_iter();
    let unknown = told.filter(|name| !targets.iter().any(|(target, _)| target == name));
    unknown
        .map(|name| format!("make {name}: no such target"))
        .collect()
}

fn unhelped(makefile: &str) -> Vec<String> {
    let targets = targets(makefile).into_iter().filter(|(_, helped)| !helped);
    targets
        .map(|(name, _)| format!("make help does not know {name}"))
        .collect()
}

#[test]
fn make_targets_that_are_named_exist_and_help_knows_all() {
    let made_up = ".PHONY: a b\nCC := gcc\na: b ## Say a\n\techo a: b\nb:\n\techo b\n";
    let document = "Run `make a`, or\nmake c   # not b\nto make things `make`, $ make b\n";
    assert_eq!(unmakable(document, made_up), ["make c: no such target"]);
    assert_eq!(unhelped(made_up), ["make help does not know b"]);
    let makefile = read("Makefile");
    assert!(!told_to_make(&read("README.md")).is_empty());
    for document in documents() {
        assert_tidy(&unmakable(&read(document), &makefile));
    }
    assert_tidy(&unhelped(&makefile));
}

/// The targets of a document's links, code blocks left out.
fn links(document: &str) -> Vec<&str> {
    let text = document.split("```").step_by(2);
    let links = text.flat_map(|text| text.split("](").skip(1));
    links
        .filter_map(|rest| rest.split([')', ' ']).next())
        .collect()
}

/// Links into the repository that lead nowhere.
fn dead_links(document: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    // The guide names items of the crate; `make doc` follows those.
    let elsewhere = |link: &&str| link.contains("::") || link.contains("://");
    let inside = links(document).into_iter().filter(|link| !elsewhere(link));
    let paths = inside.map(|link| link.split('#').next().unwrap_or(""));
    let dead = paths.filter(|path| !path.is_empty() && !exists(path));
    dead.map(|path| format!("dead link to {path}")).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let made_up =
        "[a](here.md#there) [b](gone.md) [c](#d)\n```\n[x](y)\n```\n[d](https://x.example/y)";
    assert_eq!(
        dead_links(made_up, |path| path == "here.md"),
        ["dead link to gone.md"]
    );
    for document in documents() {
        let directory = root().join(document.parent().unwrap_or(Path::new("")));
        let dead = dead_links(&read(&document), |path| directory.join(path).exists());
        let dead = dead
            .into_iter()
            .map(|dead| format!("{}: {dead}", document.display()));
        assert_tidy(&dead.collect::<Vec<_>>());
    }
}

/// The tests that the README's table of limits names, the last of its columns.
fn named_tests(document: &str) -> Vec<&str> {
    let section = document.split("\n## Limits\n").nth(1).unwrap_or("");
    let section = section.split("\n## ").next().unwrap_or("");
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let tests = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
    tests
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn every_limit_names_a_test_that_exists() {
    let made_up =
        "\n## Limits\n\n| what | test |\n|---|---|\n| `--x` | `a`, `b` |\n\n## More\n| `c` |\n";
    assert_eq!(named_tests(made_up), ["a", "b"]);
    let sources: String = files("tests/torture", "rs").iter().map(read).collect();
    let readme = read("README.md");
    let named = named_tests(&readme);
    // With the reason why it is ignored, or without.
    let missing = named.iter().filter(|name| {
        let ends = ["#[test]", ": make test\"]"].map(|end| format!("{end}\nfn {name}()"));
        !ends.iter().any(|test| sources.contains(test))
    });
    let missing: Vec<_> = missing.map(|name| format!("no test {name}")).collect();
    assert!(named.len() > 10, "{named:?}");
    assert_tidy(&missing);
}

/// The tests that docs/reliability.md measured: the third column of its last table.
fn measured_tests(document: &str) -> Vec<&str> {
    let table = document.split("\n|---|---|---|---|\n").nth(1).unwrap_or("");
    let tests = table.lines().filter_map(|row| row.split('|').nth(3));
    let paths = tests.map(|test| test.trim_matches([' ', '`']));
    paths.filter_map(|path| path.rsplit("::").next()).collect()
}

/// A test that was renamed or removed takes its row along.
#[test]
fn every_row_of_the_reliability_table_is_of_a_test_that_exists() {
    let made_up = "| a | b | c | d |\n|---|---|---|---|\n| `x` | y | `m::t` | 1 |\n";
    assert_eq!(measured_tests(made_up), ["t"]);
    let sources: String = files("tests/torture", "rs").iter().map(read).collect();
    let page = read("docs/reliability.md");
    let measured = measured_tests(&page);
    let missing = measured
        .iter()
        .filter(|name| !sources.contains(&format!("fn {name}()")));
    let missing: Vec<_> = missing.map(|name| format!("no test {name}")).collect();
    assert!(measured.len() > 30, "{measured:?}");
    assert_tidy(&missing);
}

/// What a document tells people to run with cargo: packages (`-p`) and examples.
fn told_to_run(document: &str) -> Vec<(&str, &str)> {
    let calls = document.split("cargo run").skip(1);
    let words = calls.filter_map(|rest| rest.split(['`', '\n', '#']).next());
    words
        .flat_map(|call| {
            let words: Vec<_> = call.split_whitespace().take_while(|w| *w != "--").collect();
            let named = words.windows(2).map(|pair| (pair[0], pair[1]));
            let named = named.filter(|(option, _)| ["-p", "--example"].contains(option));
            named.collect::<Vec<_>>()
        })
        .collect()
}

/// Those that the packages' tests do not run: a package has tests of its own,
/// and an example is named in ours.
fn untried(document: &str, tests: &str, has_tests: impl Fn(&str) -> bool) -> Vec<String> {
    let tried = |&(option, name): &(&str, &str)| match option {
        "-p" => has_tests(name),
        _ => tests.contains(&format!("\"{name}\"")),
    };
    let untried = told_to_run(document)
        .into_iter()
        .filter(|call| !tried(call));
    untried
        .map(|(option, name)| format!("cargo run {option} {name}: no test runs it"))
        .collect()
}

#[test]
fn what_people_are_told_to_run_is_run_by_a_test() {
    let made_up = "`cargo run -p good`, `cargo run --release -p bad -- -p x`\n\
                   cargo run --example one # -p y\n$ cargo run --example two";
    assert_eq!(
        untried(made_up, "example(\"one\")", |name| name == "good"),
        [
            "cargo run -p bad: no test runs it",
            "cargo run --example two: no test runs it"
        ]
    );
    let tests: String = files("tests", "rs").iter().map(read).collect();
    let has_tests = |name: &str| {
        let members = ["examples", "benches"].map(|directory| root().join(directory).join(name));
        members.iter().any(|member| member.join("tests").is_dir())
    };
    assert!(!told_to_run(&read("README.md")).is_empty());
    for document in documents() {
        assert_tidy(&untried(&read(document), &tests, has_tests));
    }
}
