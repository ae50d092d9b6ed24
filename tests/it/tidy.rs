//! The rules of this repository that no compiler and no lint knows.
//!
//! Each rule is a function from a text to complaints, tried on a made-up text
//! that breaks it and then on the files.

mod documents;
mod floors;
mod source;

use source::{code, has_word, item_length, lines, without_tests};
use std::fs;
use std::path::{Path, PathBuf};

const LONGEST_FILE: usize = 250;
const LONGEST_FUNCTION: usize = 40;
const LONGEST_EXAMPLE: usize = 60;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "misc", "helpers", "helper"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file below the root, by its name.
fn read(name: impl AsRef<Path>) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `directory` with this ending, as a path from the root.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{ending} in {directory}");
    found
}

/// Rust files of the package: library, program, examples and tests.
fn rust_files(directories: &[&str]) -> Vec<PathBuf> {
    directories
        .iter()
        .flat_map(|directory| files(directory, "rs"))
        .collect()
}

fn assert_tidy(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Applies a rule to files and puts their names before its complaints.
fn check(files: &[PathBuf], rule: impl Fn(&str) -> Vec<String>) {
    let complaints = files.iter().flat_map(|path| {
        let complaints = rule(&read(path)).into_iter();
        complaints.map(move |complaint| format!("{}: {complaint}", path.display()))
    });
    assert_tidy(&complaints.collect::<Vec<_>>());
}

fn too_long(text: &str) -> Vec<String> {
    let length = lines(&without_tests(&code(text))).count();
    let long = length > LONGEST_FILE;
    long.then(|| format!("{length} lines of code"))
        .into_iter()
        .collect()
}

/// Functions with more lines of code than one can see at once.
fn long_functions(text: &str) -> Vec<String> {
    let code = without_tests(&code(text));
    let starts = code.match_indices("fn ").filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        before.is_none_or(char::is_whitespace)
    });
    let complaint = |(at, _): (usize, &str)| {
        let function = &code[at..][..item_length(&code[at..])];
        let name: String = function[3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let length = lines(function).count();
        (length > LONGEST_FUNCTION).then(|| format!("{name} has {length} lines"))
    };
    starts.filter_map(complaint).collect()
}

#[test]
fn files_and_functions_stay_short() {
    let lines = |count| "    x();\n\n    // why\n".repeat(count);
    let function = |count| {
        format!(
            "impl A {{ pub fn f<T>() -> [u8; 3]\n{{\n{}}} }}\n",
            lines(count)
        )
    };
    assert_eq!(too_long(&lines(251)), ["251 lines of code"]);
    assert!(
        too_long(&format!(
            "{}#[cfg(test)]\nmod tests {{\n{}}}",
            lines(200),
            lines(200)
        ))
        .is_empty()
    );
    assert_eq!(long_functions(&function(38)), ["f has 41 lines"]);
    assert!(long_functions(&function(37)).is_empty());
    let mut files = rust_files(&["src", "examples", "benches"]);
    files.retain(|path| path.iter().all(|part| part != "tests"));
    check(&files, too_long);
    check(&files, long_functions);
}

/// `unsafe`, and permission for it, outside the module that is made for it.
fn unsafe_code(text: &str) -> Vec<String> {
    let code = code(text);
    let unsafe_lines = lines(&code)
        .filter(|(_, line)| has_word(line, "unsafe") || line.contains("allow(unsafe_code)"));
    unsafe_lines
        .map(|(number, _)| format!("line {number}: unsafe outside src/sys.rs"))
        .collect()
}

/// `unsafe` without a comment right above that says why it is sound.
fn unexplained(text: &str) -> Vec<String> {
    let code = code(text);
    let unsafe_lines = lines(&code).filter(|(_, line)| has_word(line, "unsafe"));
    let above = |number: usize| {
        let before = text.lines().take(number - 1).collect::<Vec<_>>();
        let comment = before
            .into_iter()
            .rev()
            .take_while(|line| line.trim().starts_with("//"));
        comment.collect::<String>().contains("SAFETY:")
    };
    unsafe_lines
        .filter(|(number, _)| !above(*number))
        .map(|(number, _)| format!("line {number}: unsafe without a SAFETY comment"))
        .collect()
}

#[test]
fn unsafe_code_is_in_one_module_and_explained() {
    assert_eq!(
        unsafe_code("// unsafe\n#[allow(unsafe_code)]\nfn f() { unsafe { g() } }\n").len(),
        2
    );
    assert_eq!(
        unexplained("// SAFETY: a\n// b\nlet a = unsafe { f() };\nunsafe { g() }\n"),
        ["line 4: unsafe without a SAFETY comment"]
    );
    let sys = Path::new("src/sys.rs");
    let mut others = rust_files(&["src", "examples", "benches", "tests"]);
    others.retain(|path| path != sys);
    check(&others, unsafe_code);
    check(&[sys.to_owned()], unexplained);
    assert!(
        !unsafe_code(&read(sys)).is_empty(),
        "src/sys.rs needs no exception any more"
    );
}

/// Calls of these macros in the code.
fn calls(text: &str, macros: &[&str]) -> Vec<String> {
    let code = code(text);
    let called = |(number, line): (usize, &str)| {
        let found = macros
            .iter()
            .filter(|name| has_word(line, name) && line.contains(&format!("{name}!")));
        found
            .map(|name| format!("line {number}: {name}!"))
            .collect::<Vec<_>>()
    };
    lines(&code).flat_map(called).collect()
}

#[test]
fn nothing_is_left_to_do_and_the_library_never_prints() {
    let unfinished = |text: &str| calls(text, &["todo", "unimplemented", "dbg"]);
    let prints = |text: &str| calls(text, &["print", "println", "eprint", "eprintln"]);
    assert_eq!(
        unfinished("// todo!()\nlet a = dbg!(b);\ntodo!();\n"),
        ["line 2: dbg!", "line 3: todo!"]
    );
    assert_eq!(
        prints("/// println!()\neprintln!(\"println!\");\n"),
        ["line 2: eprintln!"]
    );
    check(
        &rust_files(&["src", "examples", "benches", "tests"]),
        unfinished,
    );
    check(&rust_files(&["src"]), prints);
}

/// What lib.rs holds beside docs, `mod` and `use`.
fn foreign(text: &str) -> Vec<String> {
    let code = code(text);
    let allowed = [
        "mod ",
        "pub mod ",
        "use ",
        "pub use ",
        "#[",
        "#![",
        "compile_error!(",
    ];
    let foreign =
        lines(&code).filter(|(_, line)| !allowed.iter().any(|start| line.starts_with(start)));
    let mut complaints: Vec<_> = foreign
        .map(|(number, line)| format!("line {number}: {}", line.trim()))
        .collect();
    let inline = lines(&code).filter(|(_, line)| line.contains("mod ") && line.ends_with('{'));
    complaints.extend(inline.map(|(number, _)| format!("line {number}: a module in place")));
    complaints
}

#[test]
fn the_crates_root_holds_docs_modules_and_uses_only() {
    let made_up = "//! Docs\n#![deny(x)]\nmod a;\npub use a::B;\nfn f() {}\nmod b {\n}\n";
    assert_eq!(
        foreign(made_up),
        [
            "line 5: fn f() {}",
            "line 7: }",
            "line 6: a module in place"
        ]
    );
    check(&["src/lib.rs".into()], foreign);
}

#[test]
fn names_say_what_is_inside() {
    let is_empty = |path: &PathBuf| {
        let mut parts = path
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned());
        parts.any(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs")))
    };
    assert!(is_empty(&"src/utils.rs".into()) && is_empty(&"tests/common/mod.rs".into()));
    let files = rust_files(&["src", "examples", "benches", "tests"]);
    let empty: Vec<_> = files.iter().filter(|path| is_empty(path)).collect();
    assert!(empty.is_empty(), "{empty:?}");
}

#[test]
fn every_example_fits_on_a_page_and_is_named() {
    let mut examples = files("examples", "rs");
    // The ladder's steps have a length of their own: tests/it/ladder.
    let step = |path: &Path| path.file_name().unwrap().as_encoded_bytes()[0].is_ascii_digit();
    examples.retain(|path| path.components().count() == 2 && !step(path));
    assert!(examples.len() >= 7, "{examples:?}");
    let too_long = |text: &str| -> Vec<String> {
        let length = text.lines().count();
        let long = length >= LONGEST_EXAMPLE;
        long.then(|| format!("{length} lines"))
            .into_iter()
            .collect()
    };
    assert_eq!(too_long(&"\n".repeat(60)), ["60 lines"]);
    assert!(too_long(&"\n".repeat(59)).is_empty());
    check(&examples, too_long);
    let readme = read("README.md");
    let is_named = |path: &&PathBuf| readme.contains(&format!("]({})", path.display()));
    let unnamed: Vec<_> = examples.iter().filter(|path| !is_named(path)).collect();
    assert!(unnamed.is_empty(), "README.md does not name {unnamed:?}");
}
