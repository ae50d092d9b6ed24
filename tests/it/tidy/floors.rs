//! Floors: who may use whom.

use super::source::{code, lines, without_tests};
use super::{assert_tidy, files, read};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules of the library, which are the files right below src.
fn modules() -> Vec<(String, String)> {
    let files = files("src", "rs").into_iter();
    let files = files.filter(|path| path.parent() == Some(Path::new("src")));
    let module = |path: PathBuf| {
        (
            path.file_stem().unwrap().to_string_lossy().into_owned(),
            read(&path),
        )
    };
    files
        .map(module)
        .filter(|(name, _)| name != "lib")
        .collect()
}

/// Which floor each module is on, from ARCHITECTURE.md's table.
fn floors(text: &str) -> BTreeMap<String, u32> {
    let section = text.split("\n## Floors\n").nth(1).unwrap_or("");
    let section = section.split("\n## ").next().unwrap_or("");
    let mut floors = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with('|')) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let Some(Ok(floor)) = cells.next().map(str::parse::<u32>) else {
            continue; // the heading
        };
        let names = cells.next().unwrap_or("").split('`').skip(1).step_by(2);
        for name in names {
            let twice = floors.insert(name.to_owned(), floor);
            assert_eq!(twice, None, "{name} is on two floors");
        }
    }
    floors
}

/// The modules that a module uses: what follows `crate::` in its code.
fn used(module: &str) -> Vec<(usize, String)> {
    let module = without_tests(&code(module));
    let uses = |(number, line): (usize, &str)| {
        let parts = line.split("crate::").skip(1);
        let end = |part: &str| {
            part.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(part.len())
        };
        let names = parts.map(|part| (number, part[..end(part)].to_owned()));
        names.collect::<Vec<_>>()
    };
    lines(&module).flat_map(uses).collect()
}

/// A module uses modules of strictly lower floors only, and none but these.
fn climbs(floors: &BTreeMap<String, u32>, modules: &[(String, String)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, text) in modules {
        let Some(floor) = floors.get(name) else {
            complaints.push(format!("{name} is on no floor in ARCHITECTURE.md"));
            continue;
        };
        for (line, other) in used(text) {
            match floors.get(&other) {
                Some(below) if below < floor => {}
                Some(_) => complaints.push(format!(
                    "src/{name}.rs:{line}: {other} is not on a lower floor"
                )),
                None => complaints.push(format!(
                    "src/{name}.rs:{line}: crate::{other} names no module"
                )),
            }
        }
        if without_tests(&code(text)).contains("super::") {
            complaints.push(format!("src/{name}.rs: super:: hides what it uses"));
        }
    }
    let exists = |name: &&String| modules.iter().any(|(module, _)| module == *name);
    let missing = floors.keys().filter(|name| !exists(name));
    complaints.extend(missing.map(|name| format!("{name} is in ARCHITECTURE.md but not in src")));
    complaints
}

#[test]
fn modules_use_modules_of_lower_floors_only() {
    let made_up = "# A\n\n## Floors\n\n| floor | modules |\n|---|---|\n| 0 | `a` · `b` |\n| 1 | `c` |\n| 2 | `gone` |\n\n## B\n| 9 | `d` |\n";
    let module = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let modules_made_up = [
        module(
            "a",
            "use crate::c::X;\n// crate::z\nfn f() { crate::b::g(); }\n#[cfg(test)]\nmod tests { use crate::c; }",
        ),
        module("b", "use super::a;\n"),
        module("c", "use crate::{a, b};\nuse crate::a;"),
        module("d", ""),
    ];
    let complaints = climbs(&floors(made_up), &modules_made_up);
    let expected = [
        "src/a.rs:1: c is not on a lower floor",
        "src/a.rs:3: b is not on a lower floor",
        "src/b.rs: super:: hides what it uses",
        "src/c.rs:1: crate:: names no module",
        "d is on no floor in ARCHITECTURE.md",
        "gone is in ARCHITECTURE.md but not in src",
    ];
    assert_eq!(complaints, expected);
    assert_tidy(&climbs(&floors(&read("ARCHITECTURE.md")), &modules()));
}
