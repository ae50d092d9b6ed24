//! The picture of a server's life: what is in it, where, and what is not.

use crate::harness::{Ended, Program, Server, connect, eventually, read_to_end};
use roxmltree::{Document, Node};
use rustix::process::{Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use tempfile::TempDir;

/// A server that draws, and where.
struct Drawing {
    server: Server,
    path: PathBuf,
    _directory: TempDir,
}

impl Drawing {
    fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("life.svg");
        let timeline = ["--timeline", path.to_str().unwrap()];
        Self {
            server: Server::start(Program::Lastecho, &[&timeline, options].concat()),
            path,
            _directory: directory,
        }
    }

    /// Stops it; returns the picture, too.
    fn stop(self) -> (Ended, String) {
        let ended = self.server.stop();
        (ended, fs::read_to_string(&self.path).unwrap())
    }

    /// A client that has sent a line and got it back.
    fn echoed(&self) -> TcpStream {
        let mut client = self.server.connect();
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        client
    }
}

/// Its clients' rows, from the top: what they say when pointed at.
fn rows<'a>(picture: &'a Document<'_>) -> Vec<(String, Node<'a, 'a>)> {
    let groups = picture.descendants();
    let groups = groups.filter(|node| node.attribute("class") == Some("row"));
    let row = |group: Node<'a, 'a>| {
        let title = group.children().find(|node| node.has_tag_name("title"));
        (title.unwrap().text().unwrap().to_owned(), group)
    };
    groups.map(row).collect()
}

/// Which bars a row has.
fn bars(row: &Node<'_, '_>) -> String {
    let paths = row.children().filter(|node| node.has_tag_name("path"));
    paths
        .filter_map(|path| path.attribute("class").map(str::to_owned))
        .collect()
}

/// Where a vertical line is.
fn line(picture: &Document<'_>, id: &str) -> Option<f64> {
    let mut nodes = picture.descendants();
    let path = nodes.find(|node| node.attribute("id") == Some(id))?;
    let x = path.attribute("d")?.strip_prefix('M')?.split(' ').next()?;
    Some(x.parse().unwrap())
}

/// All its text, but for what is shown when pointing at something.
fn text(picture: &Document<'_>) -> String {
    let texts = picture
        .descendants()
        .filter(|node| node.has_tag_name("text"));
    let texts: Vec<_> = texts.filter_map(|node| node.text()).collect();
    texts.join("\n")
}

#[test]
fn a_picture_has_a_row_for_each_client_and_lines_in_the_order_of_events() {
    let drawing = Drawing::start(&["--delay", "60s", "--drain-timeout", "1s"]);
    let server = &drawing.server;
    let mut leaves = server.connect();
    leaves.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut leaves).unwrap();
    let mut is_cut = server.connect();
    is_cut.write_all(b"think about it").unwrap();
    await_listed(server, &is_cut);
    let idle = server.connect();
    await_listed(server, &idle);
    let peers = [&leaves, &is_cut, &idle].map(|client| client.local_addr().unwrap());
    let (ended, svg) = drawing.stop();
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    assert!(ended.stderr.contains("timeline written to"), "{ended:?}");
    let picture = Document::parse(&svg).unwrap_or_else(|error| panic!("{error}: {svg}"));

    let rows = rows(&picture);
    let ends = [
        "ended, 0 B in, 0 B out",
        "cut, 14 B in, 0 B out",
        "ended, 0 B in, 0 B out",
    ];
    assert_eq!(rows.len(), 3, "{svg}");
    for (number, (title, _)) in rows.iter().enumerate() {
        let begin = format!("connection {} from {}, ", number + 1, peers[number]);
        assert!(title.starts_with(&begin), "{title}");
        assert!(title.ends_with(ends[number]), "{title}");
    }
    // Waiting and lingering; waiting, serving and cut; as the first.
    let bars: Vec<_> = rows.iter().map(|(_, row)| bars(row)).collect();
    assert_eq!(bars, ["wl", "wsc", "wl"], "{svg}");

    let lines = ["stop", "deadline", "cut", "exit"].map(|id| line(&picture, id).unwrap());
    assert!(lines[0] < lines[1], "{lines:?}");
    assert!(lines.is_sorted(), "{lines:?}");
    let text = text(&picture);
    for words in [
        "connections: 3, 2 ended well, 1 cut; 14 B in, 0 B out",
        "SIGTERM ",
        "waiting",
        "in a request",
        "FIN sent, lingering",
        "cut, not closed yet",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("left out"), "{text}");
    drop((leaves, is_cut, idle));
}

/// Waits until USR1 lists this client: who was accepted has a number and a row.
fn await_listed(server: &Server, client: &TcpStream) {
    let words = format!(" from {}, ", client.local_addr().unwrap());
    eventually(&words, || {
        kill_process(server.pid(), Signal::USR1).unwrap();
        server.stderr().contains(&words)
    });
}

#[test]
fn a_clean_stop_has_no_cut_and_its_deadline_lies_beyond_the_exit() {
    let drawing = Drawing::start(&["--poll", "50ms", "--drain-timeout", "1h"]);
    let client = drawing.echoed();
    drop(client);
    let (ended, svg) = drawing.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let picture = Document::parse(&svg).unwrap();
    let lines = ["stop", "exit", "deadline"].map(|id| line(&picture, id).unwrap());
    assert!(lines.is_sorted() && lines[1] < lines[2], "{lines:?}");
    assert_eq!(line(&picture, "cut"), None);
    let rows = rows(&picture);
    assert_eq!(rows.len(), 1, "{svg}");
    assert!(rows[0].0.contains(", requests: 1, "), "{}", rows[0].0);
}

#[test]
fn a_server_without_clients_has_a_picture_too() {
    let drawing = Drawing::start(&["--drain-timeout", "none"]);
    let (ended, svg) = drawing.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let picture = Document::parse(&svg).unwrap();
    assert!(rows(&picture).is_empty());
    assert!(line(&picture, "stop").unwrap() <= line(&picture, "exit").unwrap());
    assert_eq!(line(&picture, "deadline"), None);
    assert!(
        text(&picture).contains("connections: 0, 0 ended well"),
        "{svg}"
    );
}

#[test]
fn a_busy_connection_is_drawn_with_few_bars_and_says_so() {
    let drawing = Drawing::start(&["--poll", "50ms"]);
    let mut client = drawing.echoed();
    for _ in 0..20_000 {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    drop(client);
    let (_, svg) = drawing.stop();
    let picture = Document::parse(&svg).unwrap();
    let rows = rows(&picture);
    assert!(rows[0].0.contains(", requests: 20001, "), "{}", rows[0].0);
    assert!(bars(&rows[0].1).contains('q'), "{svg}");
    assert!(text(&picture).contains("merged: "), "{svg}");
    assert!(svg.len() < 40_000, "{} bytes", svg.len());
}

#[test]
fn five_thousand_clients_are_drawn_in_part_and_the_rest_is_counted() {
    let drawing = Drawing::start(&["--poll", "50ms"]);
    for _ in 0..4_999 {
        let mut client = connect(drawing.server.address()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        read_to_end(&mut client).unwrap();
    }
    let stays = drawing.echoed();
    let (ended, svg) = drawing.stop();
    drop(stays);
    assert_eq!(ended.count("accepted"), 5_000);
    let picture = Document::parse(&svg).unwrap();
    let rows = rows(&picture);
    println!("{} rows in {} bytes", rows.len(), svg.len());
    assert!((1_001..=2_000).contains(&rows.len()), "{}", rows.len());
    // The last one was alive at the stop.
    assert!(rows[0].0.starts_with("connection 1 from"), "{}", rows[0].0);
    let last = &rows.last().unwrap().0;
    assert!(last.starts_with("connection 5000 from"), "{last}");
    let said = format!("left out: {} connections", 5_000 - rows.len());
    assert!(text(&picture).contains(&said), "{said}");
    assert!(svg.len() < 2_000_000, "{} bytes", svg.len());
}

#[test]
fn a_start_that_fails_leaves_the_last_picture_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("life.svg");
    fs::write(&path, "the last picture").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = std::process::Command::new(Program::Lastecho.path());
    command.arg("--timeline").arg(&path).arg(address);
    let output = crate::harness::run_to_end(&mut command, b"");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "the last picture");
}

#[test]
fn a_longer_picture_of_before_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("life.svg");
    fs::write(&path, "x".repeat(1 << 20)).unwrap();
    let options = ["--timeline", path.to_str().unwrap()];
    let ended = Server::start(Program::Lastecho, &options).stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let svg = fs::read_to_string(&path).unwrap();
    assert!(Document::parse(&svg).is_ok(), "{svg}");
}

/// A device that takes nothing: only writing shows it.
#[test]
fn a_picture_that_cannot_be_written_at_the_end_is_a_line_of_the_log() {
    let server = Server::start(Program::Lastecho, &["--timeline", "/dev/full"]);
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let line = "cannot write timeline /dev/full: ";
    assert!(ended.stderr.contains(line), "{ended:?}");
}
