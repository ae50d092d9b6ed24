//! Under systemd's own tools, and as process 1.

use super::family::children;
use crate::harness::{Server, connect, eventually, free_port, run_to_end};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const LASTECHO: &str = env!("CARGO_BIN_EXE_lastecho");

/// Ends with the test, whatever becomes of it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs systemd-socket-activate"]
fn under_systemd_socket_activate() {
    for name in [&[][..], &["--fdname", "echo"]] {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let stderr = tempfile::tempfile().unwrap();
        let child = Command::new("systemd-socket-activate")
            .args(["--listen", &address.to_string()])
            .args(name)
            .args([LASTECHO, "--poll", "100ms"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        // It listens, and starts the program when somebody comes.
        let mut client = None;
        eventually("a connect", || {
            client = connect(address).ok();
            client.is_some()
        });
        let mut client = client.unwrap();
        client.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello");
        kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
        let log = || crate::harness::text(&stderr);
        assert_eq!(child.0.wait().unwrap().code(), Some(0), "{}", log());
    }
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_unit_files_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd");
    let directory = tempfile::tempdir().unwrap();
    for name in ["lastecho.service", "lastecho.socket"] {
        let unit = fs::read_to_string(root.join(name)).unwrap();
        // Where it would be installed there is nothing.
        let unit = unit.replace("/usr/local/bin/lastecho", LASTECHO);
        fs::write(directory.path().join(name), &unit).unwrap();
        let verify = |name: &str| {
            let mut command = Command::new("systemd-analyze");
            command.args(["verify", "--man=no"]);
            run_to_end(command.arg(directory.path().join(name)), b"")
        };
        let output = verify(name);
        let told = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<_> = told.lines().filter(|l| l.contains("lastecho")).collect();
        assert!(output.status.success() && ours.is_empty(), "{told}");
        // The control: a unit that is wrong is told.
        let wrong = format!("wrong-{name}");
        let spoilt = unit.replace("[Install]", "Nonsense=yes\n[Install]");
        fs::write(directory.path().join(&wrong), spoilt).unwrap();
        let told = String::from_utf8_lossy(&verify(&wrong).stderr).into_owned();
        assert!(told.contains("Nonsense"), "{told}");
    }
}

#[test]
#[ignore = "needs unshare"]
fn process_1_refuses_to_hand_over_and_serves_on() {
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .args([LASTECHO, "127.0.0.1:0"]);
    let mut server = Server::spawn(command, 1);
    let one = Pid::from_raw(children(server.pid())[0]).unwrap();
    kill_process(one, Signal::USR2).unwrap();
    server.await_log("no handover: process 1 cannot hand over: its end would end all others");
    let mut client = server.connect();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    assert!(server.is_running());
    kill_process(one, Signal::TERM).unwrap();
    let ended = server.wait();
    assert_eq!((ended.code(), ended.count("accepted")), (Some(0), 1));
}

/// In a container without an init, what others leave behind becomes ours.
#[test]
#[ignore = "needs unshare"]
fn process_1_leaves_no_zombies() {
    // One that the program begins with, ended or not.
    let script = "true & exec \"$0\" 127.0.0.1:0";
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--pid", "--fork"])
        .args(["--kill-child", "sh", "-c", script, LASTECHO]);
    let server = Server::spawn(command, 1);
    let one = Pid::from_raw(children(server.pid())[0]).unwrap();
    eventually("none is left", || children(one).is_empty());
    // One that loses its parent there, and ends while we look.
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &one.to_string(), "--user"])
        .args(["--preserve-credentials", "--pid", "sh", "-c"])
        .arg("sleep 600 &");
    assert!(run_to_end(&mut command, b"").status.success());
    eventually("it has come", || !children(one).is_empty());
    let orphan = Pid::from_raw(children(one)[0]).unwrap();
    kill_process(orphan, Signal::KILL).unwrap();
    eventually("it is gone", || children(one).is_empty());
    kill_process(one, Signal::TERM).unwrap();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
#[ignore = "needs unshare"]
fn without_proc_it_serves_and_refuses_to_hand_over() {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none /proc && exec \"$0\" 127.0.0.1:0";
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(LASTECHO);
    let mut server = Server::spawn(command, 1);
    server.signal(Signal::USR2);
    server.await_log("no handover: cannot find this program: ");
    let mut client = server.connect();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    let ended = server.stop();
    assert_eq!((ended.code(), ended.count("accepted")), (Some(0), 1));
}
