//! The journal on a disk that is full for a moment.

use crate::harness::{Curl, Program};
use crate::programs::OURS;
use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

/// A tmpfs of two pages in a mount namespace of its own: one is the filler's.
const SCRIPT: &str = r#"mount -t tmpfs -o size=8k none "$0" && head -c 4096 /dev/zero >"$0/filler" &&
    exec "$@" --journal "$0/journal""#;

#[test]
#[ignore = "needs unshare"]
fn a_line_that_does_not_fit_is_not_counted_and_tears_no_other() {
    let disk = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT]);
    command.arg(disk.path()).arg(OURS);
    command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    let program = Program::start(command);
    let http = program.await_address("http listening on ");
    program.await_address("grpc listening on ");
    let inside = format!("/proc/{}/root{}", program.id(), disk.path().display());
    // Outlives the process that has it mounted.
    let mut journal = File::open(format!("{inside}/journal")).unwrap();
    let greet = |letter: &str| {
        let name = letter.repeat(1500);
        let url = format!("http://{http}/greet/{name}");
        assert_eq!(
            Curl::start(&[&url]).finish().text,
            format!("hello {name}\n")
        );
        format!("{name:?}")
    };
    let names = ["a", "b", "c"].map(greet); // the third does not fit into a page
    program.await_log("is not in the journal: No space left on device", 1);
    fs::remove_file(format!("{inside}/filler")).unwrap();
    let last = greet("d");
    program.term();
    let ended = program.wait();
    assert_eq!((ended.code, ended.told("clean")), (Some(3), "false"));
    assert_eq!((ended.count("submitted"), ended.count("journaled")), (4, 3));
    let mut text = String::new();
    journal.read_to_string(&mut text).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [first, second, torn, fourth] = lines[..] else {
        panic!("{} lines: {text}", lines.len());
    };
    assert_eq!([first, second, fourth], [&names[0], &names[1], &last]);
    assert!(
        torn.len() < names[2].len() && names[2].starts_with(torn),
        "{torn}"
    );
}
