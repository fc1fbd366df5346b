//! Sockets that one ring accepts and another adopts: what every engine must do.

use super::super::{Options, Outgoing};
use super::contract::{options, pattern};
use super::world::{Driver, End, World};

/// A ring leaves an offered socket alone. It, or another ring of the same engine, adopts it, with all bytes that have
/// arrived and will arrive.
pub(super) fn offered_sockets_are_adopted_anywhere<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut offering = drive!(make, offering_options());
    let mut other = drive!(make, options());
    let wire = pattern(10_000);
    for round in 0..3 {
        let peer = offering.world.dial();
        offering.peer_send(peer, &wire[..10]);
        let socket = match offering.offered() {
            Ok(socket) => socket,
            Err(token) => return offering.close(token, false),
        };
        offering.peer_send(peer, &wire[10..5_000]);
        offering.settle();
        assert!(offering.events.is_empty(), "{:?}", offering.events);
        if round == 0 {
            let token = offering.ring().adopt(socket).expect("room");
            offering.peer_send(peer, &wire[5_000..]);
            assert!(offering.receive(token, wire.len()) == wire);
            offering.close(token, false);
            assert_eq!(offering.peer_end(peer).1, End::Orderly);
            continue;
        }
        let token = other.ring().adopt(socket).expect("room");
        offering.peer_send(peer, &wire[5_000..]);
        assert!(other.receive(token, wire.len()) == wire);
        other.ring().send(token, Outgoing::Owned(wire.clone()));
        other.sent(token).expect("the peer is there");
        assert!(offering.peer_receive(peer, wire.len()) == wire);
        if round == 1 {
            offering.world.peer_reset(peer);
            other.ended(token).expect("a reset is an error");
        } else {
            offering.world.peer_shutdown(peer);
            assert!(other.ended(token).is_none(), "a FIN is no error");
        }
        other.close(token, false);
    }
    offering.assert_balanced();
    other.assert_balanced();
}

/// Until the events of a wait are handled, no slot that one of them reports as free is taken again.
pub(super) fn freed_slots_are_taken_later<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, offering_options());
    driver.world.dial();
    let old = match driver.offered() {
        Ok(socket) => driver.ring().adopt(socket).expect("room"),
        Err(token) => return driver.close(token, false),
    };
    driver.world.dial();
    let socket = driver.offered().expect("offered like the first");
    driver.close(old, false);
    let new = driver.ring().adopt(socket).expect("room");
    assert_ne!(old.index, new.index);
    driver.world.dial();
    let socket = driver.offered().expect("offered like the first");
    let newer = driver.ring().adopt(socket).expect("room");
    assert_eq!(old.index, newer.index, "the slot is reused");
    driver.close(new, false);
    driver.close(newer, false);
    driver.assert_balanced();
}

/// An offered socket that nobody adopts is closed, and so is one for which there is no slot.
pub(super) fn offered_sockets_are_not_lost<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut offering = drive!(make, offering_options());
    let mut full = drive!(
        make,
        Options {
            connections_max: 1,
            ..options()
        }
    );
    let dropped = offering.world.dial();
    match offering.offered() {
        Ok(socket) => drop(socket),
        Err(token) => return offering.close(token, false),
    }
    assert_eq!(offering.peer_end(dropped).1, End::Orderly);
    let (_, only) = full.open();
    let refused = offering.world.dial();
    let socket = offering.offered().expect("offered like the first");
    let error = full.ring().adopt(socket).expect_err("all slots are taken");
    assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
    assert_eq!(full.ring().counters().accept_errors, 1);
    offering.peer_end(refused);
    full.close(only, false);
    full.settle();
    let welcome = offering.world.dial();
    let socket = offering.offered().expect("offered like the first");
    let token = full.ring().adopt(socket).expect("a slot is free");
    offering.peer_send(welcome, b"at last");
    assert_eq!(full.receive(token, 7), b"at last");
    full.close(token, false);
    full.assert_balanced();
    offering.assert_balanced();
}

fn offering_options() -> Options {
    Options {
        offer_sockets: true,
        ..options()
    }
}
