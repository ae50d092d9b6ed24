//! The socket unit, and the watchdog.

use super::machine::Machine;
use super::traffic::Traffic;
use crate::harness::eventually;
use rustix::process::Signal;
use std::thread;
use std::time::{Duration, Instant};

#[test]
#[ignore = "needs systemd and root: make deps"]
fn with_the_socket_unit_a_restart_refuses_and_loses_no_client() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    machine.configure("ExecStart=\nExecStart=/usr/local/bin/lastecho --quiet");
    machine.systemctl(&["start", "lastecho.socket"]);
    assert_eq!(machine.show("ActiveState"), "inactive");
    machine.echoes().unwrap(); // the first client starts it
    assert_eq!(machine.show("ActiveState"), "active");
    let traffic = Traffic::begin(&machine);
    for verb in ["restart", "reload", "restart"] {
        let before = machine.show("MainPID");
        machine.systemctl(&[verb, "lastecho"]);
        assert_ne!(machine.show("MainPID"), before);
    }
    let seen = traffic.end();
    assert!(seen.echoed > 0 && seen.wrong.is_empty(), "{seen:?}");
    machine.systemctl(&["stop", "lastecho.socket", "lastecho"]);
    assert_eq!(machine.show("Result"), "success");
    assert!(machine.connect().is_err());

    // The control: the service alone is away for a moment.
    machine.configure("");
    machine.systemctl(&["start", "lastecho"]);
    let refuses = |_| {
        let traffic = Traffic::begin(&machine);
        machine.systemctl(&["restart", "lastecho"]);
        let wrong = traffic.end().wrong;
        println!("without the socket unit: {wrong:?}");
        !wrong.is_empty()
    };
    assert!((0..5).any(refuses), "the control refuses none");
}

#[test]
#[ignore = "needs systemd and root: make deps"]
fn the_watchdog_replaces_one_that_hangs() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    let server = "ExecStart=\nExecStart=/usr/local/bin/lastecho --quiet --poll 100ms :7\n";
    machine.configure(&format!("{server}WatchdogSec=2"));
    machine.systemctl(&["start", "lastecho"]);
    let before = machine.show("MainPID");
    machine.signal_main(Signal::STOP);
    eventually("another serves", || {
        machine.show("MainPID") != before && machine.connect().is_ok()
    });
    machine.echoes().unwrap();
    assert_eq!(machine.show("NRestarts"), "1");

    // The control: without it, it hangs.
    machine.configure(&format!("{server}WatchdogSec=0"));
    machine.systemctl(&["restart", "lastecho"]);
    let before = machine.show("MainPID");
    machine.signal_main(Signal::STOP);
    let patience = Instant::now() + Duration::from_secs(4);
    while Instant::now() < patience {
        assert_eq!(machine.show("MainPID"), before);
        thread::sleep(Duration::from_millis(200));
    }
    machine.signal_main(Signal::KILL);
}
