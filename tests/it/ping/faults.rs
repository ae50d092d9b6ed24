//! Each fault of a service is counted as what it is, once, and nothing else is.

use super::ping;
use super::service::{Script, Service, echo, echo_on, take};
use std::io::{Read, Write};
use std::thread::sleep;
use std::time::Duration;

#[test]
fn a_byte_that_came_back_wrong_is_a_mismatch() {
    const SCRIPTS: &[Script] = &[
        |client| {
            echo(client, 2);
            let mut message = take(client);
            message[17] ^= 1;
            client.write_all(&message).unwrap();
        },
        echo_on,
    ];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 5 -i 10ms");
    let counts = [
        ("sent", 5),
        ("echoed", 4),
        ("mismatched", 1),
        ("reconnected", 1),
    ];
    pinged.assert_counts(&counts);
    assert_eq!(pinged.status, Some(2));
    assert_eq!(pinged.told(1), [1, 2, 4, 5]);
    assert!(
        pinged.stderr.contains("seq=3 wrong: byte 17 of 56 is 0x"),
        "{pinged:?}"
    );
}

#[test]
fn a_byte_left_out_a_stale_echo_and_another_message_are_mismatches() {
    const SCRIPTS: &[Script] = &[
        |client| {
            let message = take(client);
            client.write_all(&message[..20]).unwrap();
            client.write_all(&message[21..]).unwrap();
            let _ = client.read(&mut [0]);
        },
        |client| {
            let stale = take(client);
            client.write_all(&stale).unwrap();
            take(client);
            client.write_all(&stale).unwrap();
            let _ = client.read(&mut [0]);
        },
        |client| {
            let mut message = take(client);
            message.reverse();
            client.write_all(&message).unwrap();
            let _ = client.read(&mut [0]);
        },
        echo_on,
    ];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 5 -i 10ms");
    let counts = [
        ("sent", 5),
        ("echoed", 2),
        ("mismatched", 3),
        ("reconnected", 3),
    ];
    pinged.assert_counts(&counts);
    assert_eq!((pinged.status, pinged.told(1)), (Some(2), vec![2, 5]));
}

#[test]
fn a_byte_too_many_is_a_mismatch_between_messages_and_after_the_last() {
    const SCRIPTS: &[Script] = &[
        |client| {
            let mut doubled = take(client).to_vec();
            doubled.push(doubled[55]);
            client.write_all(&doubled).unwrap();
            let _ = client.read(&mut [0]);
        },
        |client| {
            let mut doubled = take(client).to_vec();
            doubled.push(doubled[55]);
            client.write_all(&doubled).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        },
    ];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 2 -i 500ms");
    let counts = [
        ("sent", 2),
        ("echoed", 2),
        ("mismatched", 2),
        ("reconnected", 1),
    ];
    pinged.assert_counts(&counts);
    assert_eq!(pinged.status, Some(2));
    assert!(
        pinged
            .stderr
            .contains("1 byte that nobody asked for at the end"),
        "{pinged:?}"
    );
}

#[test]
fn a_message_that_nobody_answers_is_lost_when_its_time_is_over() {
    const SCRIPTS: &[Script] = &[
        |client| {
            echo(client, 1);
            take(client);
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        },
        echo_on,
    ];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 3 -i 0 -W 2s");
    pinged.assert_counts(&[("sent", 3), ("echoed", 2), ("lost", 1), ("reconnected", 1)]);
    assert_eq!((pinged.status, pinged.told(1)), (Some(1), vec![1, 3]));
    let told = "seq=2 lost: no echo in time after 0 of 56 bytes";
    assert!(pinged.stderr.contains(told), "{pinged:?}");
}

#[test]
fn a_slow_echo_is_an_echo_and_takes_its_time() {
    const SCRIPTS: &[Script] = &[|client| {
        let message = take(client);
        client.write_all(&message[..1]).unwrap();
        sleep(Duration::from_millis(300)); // the fault itself
        client.write_all(&message[1..]).unwrap();
        echo_on(client);
    }];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 3 -i 0");
    assert_eq!(pinged.status, Some(0), "{pinged:?}");
    pinged.assert_counts(&[("sent", 3), ("echoed", 3)]);
    assert!(pinged.times()[3] >= 300.0, "{pinged:?}");
}

#[test]
fn an_end_in_the_middle_of_an_echo_loses_it() {
    const SCRIPTS: &[Script] = &[
        |client| {
            echo(client, 1);
            let message = take(client);
            client.write_all(&message[..20]).unwrap();
        },
        |client| {
            take(client);
        },
        |client| {
            take(client);
            let socket = socket2::SockRef::from(&*client);
            socket.set_linger(Some(Duration::ZERO)).unwrap(); // close resets
        },
        echo_on,
    ];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 5 -i 10ms");
    let counts = [
        ("sent", 5),
        ("echoed", 2),
        ("lost", 3),
        ("crossed", 1),
        ("reconnected", 3),
    ];
    pinged.assert_counts(&counts);
    assert_eq!((pinged.status, pinged.told(1)), (Some(1), vec![1, 5]));
    for told in [
        "seq=2 lost: end of file after 20 of 56 bytes",
        "seq=3 lost, or crossed it: end of file",
        "seq=4 lost: Connection reset by peer",
    ] {
        assert!(pinged.stderr.contains(told), "{told}: {pinged:?}");
    }
}

#[test]
fn an_end_between_two_echoes_loses_nothing_and_is_told() {
    const SCRIPTS: &[Script] = &[|client| echo(client, 2), |client| echo(client, 1), echo_on];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 4 -i 1s");
    assert_eq!(pinged.status, Some(0), "{pinged:?}");
    pinged.assert_counts(&[("sent", 4), ("echoed", 4), ("reconnected", 2)]);
    for told in [
        "connection=1 end of file, nothing in flight; reconnecting",
        "connection=1 reconnected after ",
    ] {
        assert_eq!(pinged.stdout.matches(told).count(), 2, "{pinged:?}");
    }
}

#[test]
fn a_service_that_does_not_come_back_is_given_up() {
    const SCRIPTS: &[Script] = &[|client| echo(client, 1)];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 5 -i 1s -W 500ms");
    assert_eq!(pinged.status, Some(1), "{pinged:?}");
    pinged.assert_counts(&[("sent", 1), ("echoed", 1), ("unreachable", 1)]);
    let told = format!("cannot connect to {}: Connection refused", service.address);
    assert!(pinged.stderr.contains(&told), "{pinged:?}");
}

/// No message is due for ten minutes, so each end falls between two.
#[test]
fn a_service_that_ends_every_connection_at_once_is_given_up() {
    const END: Script = |_| {};
    const SCRIPTS: &[Script] = &[
        |client| echo(client, 1),
        END,
        END,
        END,
        END,
        END,
        END,
        END,
        END,
        END,
        END,
        END,
        END,
    ];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, "-c 2 -i 10m -W 1s");
    assert_eq!(pinged.status, Some(1), "{pinged:?}");
    let reconnected = pinged.count("reconnected");
    assert!((1..=11).contains(&reconnected), "{pinged:?}");
    pinged.assert_counts(&[
        ("sent", 1),
        ("echoed", 1),
        ("reconnected", reconnected),
        ("unreachable", 1),
    ]);
    let told = "connections end before a message can be sent";
    assert!(pinged.stderr.contains(told), "{pinged:?}");
}
