//! The properties of every engine. Each test takes a function that makes a world for the given options, and is skipped
//! if that world cannot be made here.

use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Event, Options, Outgoing};
use super::world::{Driver, End, PATIENCE, World};

/// Small numbers, so that limits are reached.
pub fn options() -> Options {
    Options {
        connections_max: 64,
        receive_buffer_bytes: 4096,
        receive_buffers_max: 16,
        receive_buffers_start: 2,
        large_buffer_bytes: 16_384,
        large_buffers_max: 2,
        entries: 16,
        ..Options::default()
    }
}

/// Bytes in which every position differs from its neighbours.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at % 251) as u8 ^ (at / 251 % 256) as u8)
        .collect()
}

/// However the stream is split, its bytes arrive in order.
pub(super) fn bytes_arrive_in_order<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    let wire = pattern(100_000);
    let mut received = Vec::new();
    for piece in [&wire[..1], &wire[1..3], &wire[3..7000], &wire[7000..]] {
        driver.peer_send(peer, piece);
        received.extend(driver.receive(token, piece.len()));
    }
    assert!(received == wire);
    driver.close(token, false);
    driver.assert_balanced();
}

/// A connection has the address of its peer until it is closed.
pub(super) fn peers_have_an_address<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (_, token) = driver.open();
    let address = driver.ring().peer_address(token);
    assert_eq!(address, Some(Ipv4Addr::LOCALHOST.into()));
    driver.close(token, false);
    assert_eq!(driver.ring().peer_address(token), None);
    driver.assert_balanced();
}

/// A wait that gathers loses nothing, and the wait after it ends with the first completion again.
pub(super) fn gathering_loses_nothing<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    let wire = pattern(20_000);
    let mut received = Vec::new();
    for piece in wire.chunks(500) {
        driver.peer_send(peer, piece);
        driver.ring().gather(Duration::from_millis(2));
        driver.turn(Duration::from_millis(2));
        received.extend(driver.receive(token, piece.len()));
    }
    assert!(received == wire);
    let bell = driver.ring().doorbell();
    bell.ring();
    let events = driver.wait_for_events();
    assert!(matches!(events[..], [Event::Doorbell]), "{events:?}");
    driver.close(token, false);
    driver.assert_balanced();
}

/// Bytes requested after an event continue it, on any connection and however often; the end arrives after all of them.
pub(super) fn receiving_on_is_in_order<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let wire = pattern(300_000);
    let open: Vec<_> = (0..3).map(|_| driver.open()).collect();
    let mut sent = [0; 3];
    let mut received: [Vec<u8>; 3] = Default::default();
    let mut ended = [false; 3];
    let deadline = Instant::now() + PATIENCE;
    while ended != [true; 3] {
        assert!(Instant::now() < deadline, "{sent:?} {ended:?}");
        for (number, &(peer, _)) in open.iter().enumerate() {
            if sent[number] < wire.len() {
                sent[number] += driver.world.peer_send(peer, &wire[sent[number]..]);
                if sent[number] == wire.len() {
                    driver.world.peer_shutdown(peer);
                }
            }
        }
        driver.turn(Duration::from_millis(1));
        for event in std::mem::take(&mut driver.events) {
            let number_of = |token| open.iter().position(|&(_, other)| other == token);
            match event {
                Event::Received { token, lease } => {
                    let all = &mut received[number_of(token).expect("open")];
                    all.extend_from_slice(lease.bytes());
                    driver.ring().release(lease);
                    for bytes_max in [0, 1, 5_000] {
                        all.reserve(6_000);
                        let before = all.len();
                        let count = driver.ring().receive_more(token, all, bytes_max);
                        assert!(count <= bytes_max && all.len() == before + count);
                    }
                }
                Event::ReceiveEnded { token, error } => {
                    assert!(error.is_none(), "{error:?}");
                    ended[number_of(token).expect("open")] = true;
                }
                _ => {}
            }
        }
    }
    for (number, (_, token)) in open.into_iter().enumerate() {
        assert!(received[number] == wire, "{number}");
        driver.close(token, false);
    }
    driver.assert_balanced();
}

/// A lease can be changed in place and sent from there.
pub(super) fn echo_goes_out_of_the_same_buffer<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    for round in 0..50u8 {
        driver.peer_send(peer, &[round, 1, 2, 3]);
        let mut echoed = 0;
        while echoed < 4 {
            let (event, ()) = driver.take("Received", |event| {
                matches!(event, Event::Received { .. }).then_some(())
            });
            let Event::Received { mut lease, .. } = event else {
                unreachable!("taken by kind")
            };
            lease.bytes_mut().iter_mut().for_each(|byte| *byte = !*byte);
            let end = lease.len();
            driver.ring().send(
                token,
                Outgoing::Received {
                    lease,
                    start: 0,
                    end,
                },
            );
            driver.sent(token).expect("sent");
            echoed += end;
        }
        assert_eq!(driver.peer_receive(peer, 4), [!round, !1, !2, !3]);
    }
    driver.close(token, false);
    driver.assert_balanced();
}

/// A send far larger than what the kernel accepts at once arrives completely although its reader is slow, and its
/// progress is visible; the vector is returned.
pub(super) fn short_sends_resume<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    // Far more than the kernels hold, whatever they grow to.
    let wire = pattern(40_000_000);
    driver
        .ring()
        .send(token, Outgoing::Shared(Rc::new(Arc::new(wire.clone()))));
    driver.settle();
    let first = driver.ring().send_progress(token);
    assert!(first < wire.len(), "nobody has read yet");
    let mut received = driver.peer_receive(peer, 15_000_000);
    driver.settle();
    let second = driver.ring().send_progress(token);
    assert!(second > first, "it has read: {first}, {second}");
    received.extend(driver.peer_receive(peer, wire.len() - 15_000_000));
    driver.sent(token).expect("all of it");
    assert!(received == wire);
    assert_eq!(driver.ring().send_progress(token), 0);
    driver
        .ring()
        .send(token, Outgoing::Owned(b"after".to_vec()));
    driver.sent(token).expect("sent");
    assert_eq!(driver.peer_receive(peer, 5), b"after");
    assert_eq!(driver.ring().take_spare().map(|spare| spare.len()), Some(0));
    driver.close(token, false);
    driver.assert_balanced();
}

/// A second send while one is in flight is a defect of the caller and panics; the first one is none the worse.
pub(super) fn a_second_send_is_refused<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    let wire = pattern(20_000_000);
    driver.ring().send(token, Outgoing::Owned(wire.clone()));
    let second = catch_unwind(AssertUnwindSafe(|| {
        driver
            .ring()
            .send(token, Outgoing::Owned(b"second".to_vec()));
    }));
    assert!(second.is_err(), "two sends could reorder");
    assert!(driver.peer_receive(peer, wire.len()) == wire);
    driver.sent(token).expect("all of it");
    driver.close(token, false);
    driver.assert_balanced();
}

/// A connection that is closed while it sends: the ring holds the bytes until the kernel has said that it is done with
/// them, and no longer than until `Closed`.
pub(super) fn bytes_are_held_until_the_kernel_answers<W: World>(
    make: impl Fn(Options) -> Option<W>,
) {
    let mut driver = drive!(make, options());
    for reset in [false, true] {
        let (_, token) = driver.open();
        let shared = Rc::new(Arc::new(pattern(20_000_000)));
        driver.ring().send(token, Outgoing::Shared(shared.clone()));
        driver.settle();
        driver.ring().close(token, reset);
        assert_eq!(Rc::strong_count(&shared), 2, "the kernel has not answered");
        driver.closed(token);
        assert_eq!(Rc::strong_count(&shared), 1, "the kernel is done");
    }
    driver.assert_balanced();
}

/// Few buffers are filled more often than the 16-bit tail of their ring can count, and each brings its own bytes.
pub(super) fn buffers_come_round<W: World>(make: impl Fn(Options) -> Option<W>) {
    let options = Options {
        receive_buffer_bytes: 64,
        large_buffers_max: 0,
        ..options()
    };
    let mut driver = drive!(make, options);
    let (peer, token) = driver.open();
    let wire = pattern(70_000 * 64);
    for piece in wire.chunks(16_384) {
        driver.peer_send(peer, piece);
        assert!(driver.receive(token, piece.len()) == piece);
    }
    let completions = driver.ring().counters().completions;
    assert!(completions > 1 << 16, "{completions}");
    driver.close(token, false);
    driver.assert_balanced();
}

/// A token that was closed reaches nobody, least of all the newcomer in its slot.
pub(super) fn stale_tokens_are_ignored<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (_, old) = driver.open();
    driver.close(old, false);
    let (peer, new) = driver.open();
    assert_eq!(old.index, new.index, "the slot is reused");
    assert_ne!(old, new);
    let ring = driver.ring();
    ring.send(old, Outgoing::Owned(b"to the old one".to_vec()));
    ring.pause_receive(old);
    ring.resume_receive(old);
    ring.shutdown_write(old);
    ring.close(old, true);
    assert_eq!(ring.send_progress(old), 0);
    driver.peer_send(peer, b"still here");
    assert_eq!(driver.receive(new, 10), b"still here");
    driver.ring().send(new, Outgoing::Owned(b"me too".to_vec()));
    driver.sent(new).expect("sent");
    assert_eq!(driver.peer_receive(peer, 6), b"me too");
    driver.close(new, false);
    driver.assert_balanced();
}

/// Closing during a send and a receive returns every lease and the slot; nothing follows `Closed`, and closing again
/// changes nothing.
pub(super) fn close_gives_everything_back<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    for reset in [false, true] {
        let (peer, token) = driver.open();
        driver.peer_send(peer, b"hello");
        let (event, ()) = driver.take("Received", |event| {
            matches!(event, Event::Received { .. }).then_some(())
        });
        let shared = Rc::new(Arc::new(pattern(20_000_000)));
        driver.ring().send(token, Outgoing::Shared(shared.clone()));
        driver.settle();
        driver.peer_send(peer, b"more");
        driver.ring().close(token, reset);
        driver.ring().close(token, false);
        driver.closed(token);
        assert_eq!(
            Rc::strong_count(&shared),
            1,
            "the ring has let go of the bytes"
        );
        if let Event::Received { lease, .. } = event {
            driver.ring().release(lease);
        }
        driver.assert_balanced();
    }
}

/// Closing with `reset` is an RST to the peer; without, a FIN after all that was sent.
pub(super) fn a_reset_is_seen_as_one<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    driver.ring().send(token, Outgoing::Owned(b"bye".to_vec()));
    driver.sent(token).expect("sent");
    driver.close(token, false);
    assert_eq!(driver.peer_end(peer), (b"bye".to_vec(), End::Orderly));
    let (peer, token) = driver.open();
    driver.close(token, true);
    assert_eq!(driver.peer_end(peer).1, End::Reset);
    driver.assert_balanced();
}

/// A peer's RST during a send ends the send and the receiving, once each.
pub(super) fn a_peers_reset_ends_both_ways<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    driver
        .ring()
        .send(token, Outgoing::Owned(pattern(20_000_000)));
    driver.settle();
    driver.world.peer_reset(peer);
    driver.sent(token).expect_err("nobody can receive it");
    // The kernel tells a socket's error once: to the send, or here.
    let _ = driver.ended(token);
    driver
        .ring()
        .send(token, Outgoing::Owned(b"anybody?".to_vec()));
    driver.sent(token).expect_err("nobody is there");
    driver.settle();
    assert!(driver.events.is_empty(), "{:?}", driver.events);
    driver.close(token, false);
    driver.assert_balanced();
}

/// After the peer's FIN this side can still send; after its own FIN it still receives.
pub(super) fn half_closed_connections_still_send<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    driver.peer_send(peer, b"last words");
    driver.world.peer_shutdown(peer);
    assert_eq!(driver.receive(token, 10), b"last words");
    assert!(driver.ended(token).is_none(), "a FIN is no error");
    driver
        .ring()
        .send(token, Outgoing::Owned(b"heard".to_vec()));
    driver.sent(token).expect("the peer reads on");
    driver.ring().shutdown_write(token);
    assert_eq!(driver.peer_end(peer), (b"heard".to_vec(), End::Orderly));
    driver.close(token, false);

    let (peer, token) = driver.open();
    driver.ring().shutdown_write(token);
    assert_eq!(driver.peer_end(peer), (vec![], End::Orderly));
    driver.peer_send(peer, b"after your FIN");
    assert_eq!(driver.receive(token, 14), b"after your FIN");
    driver.close(token, false);
    driver.assert_balanced();
}

/// However often reading is paused and resumed, no byte is lost, and none arrives while it is paused.
pub(super) fn pausing_loses_nothing<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    let wire = pattern(60_000);
    let mut received = Vec::new();
    for (round, piece) in wire.chunks(1000).enumerate() {
        driver.ring().pause_receive(token);
        if round % 3 == 0 {
            driver.settle();
        }
        driver.peer_send(peer, piece);
        if round % 2 == 0 {
            driver.ring().resume_receive(token);
            driver.ring().pause_receive(token);
        }
        if round % 3 == 0 {
            driver.settle();
            let before = driver.ring().counters().leases;
            driver.settle();
            assert_eq!(driver.ring().counters().leases, before, "paused");
        }
        driver.ring().resume_receive(token);
        received.extend(driver.receive(token, piece.len()));
    }
    assert!(received == wire);
    // Paused for good, then closed: the end needs no resume.
    driver.ring().pause_receive(token);
    driver.close(token, false);
    driver.assert_balanced();
}

/// With every buffer lent, receiving waits without spinning, and continues when some are returned.
pub(super) fn running_out_of_buffers_is_survived<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let mut open = Vec::new();
    for number in 0..20u8 {
        let (peer, token) = driver.open();
        driver.peer_send(peer, &[number; 100]);
        let leases = u64::from(number + 1).min(16);
        while driver.ring().counters().leases < leases {
            driver.turn(Duration::from_millis(5));
        }
        open.push((peer, token));
    }
    assert_eq!(driver.ring().counters().leases, 16, "all buffers are lent");
    let before = driver.ring().counters();
    let start = Instant::now();
    driver.turn(Duration::from_millis(50));
    driver.turn(Duration::from_millis(50));
    let after = driver.ring().counters();
    assert!(
        after.completions - before.completions < 10,
        "it spins: {before:?} {after:?}"
    );
    assert!(!W::SLEEPS || start.elapsed() >= Duration::from_millis(50));
    let (event, ()) = driver.take("Received", |event| {
        matches!(event, Event::Received { .. }).then_some(())
    });
    let Event::Received { token, lease } = event else {
        unreachable!("taken by kind")
    };
    assert!(!driver.ring().may_lend(&lease), "its pool is exhausted");
    assert_eq!(token, open[0].1);
    let rest = 100 - lease.len();
    driver.ring().release(lease);
    assert_eq!(driver.receive(token, rest), vec![0; rest]);
    for (number, &(_, token)) in open.iter().enumerate().skip(1) {
        assert_eq!(driver.receive(token, 100), [number as u8; 100]);
    }
    for &(peer, token) in &open {
        driver.peer_send(peer, b"again");
        assert_eq!(driver.receive(token, 5), b"again");
    }
    for (_, token) in open {
        driver.close(token, false);
    }
    driver.assert_balanced();
}

/// Past `connections_max` accepting pauses with an event, and resumes when requested.
pub(super) fn slots_are_bounded_and_accepting_recovers<W: World>(
    make: impl Fn(Options) -> Option<W>,
) {
    let mut driver = drive!(
        make,
        Options {
            connections_max: 2,
            ..options()
        }
    );
    let (_, first) = driver.open();
    let (_, second) = driver.open();
    let refused = driver.world.dial();
    driver.take("AcceptFailed", |event| {
        matches!(event, Event::AcceptFailed { .. }).then_some(())
    });
    driver.peer_end(refused);
    driver.close(first, false);
    let waiting = driver.world.dial();
    driver.settle();
    assert!(
        driver.events.is_empty(),
        "accepting is paused: {:?}",
        driver.events
    );
    driver.ring().resume_accept();
    let third = driver.accepted();
    driver.peer_send(waiting, b"at last");
    assert_eq!(driver.receive(third, 7), b"at last");
    driver.close(second, false);
    driver.close(third, false);
    driver.assert_balanced();
}

/// A doorbell wakes a ring that sleeps without a timeout, from another thread and every time.
pub(super) fn doorbells_wake<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let bell = driver.ring().doorbell();
    for _ in 0..3 {
        let bell = bell.clone();
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            bell.ring();
        });
        let events = driver.wait_for_events();
        assert!(matches!(events[..], [Event::Doorbell]), "{events:?}");
        ringer.join().expect("no panic");
    }
    // Ring to ring: itself is the nearest one at hand that is no ring of this thread.
    let other = crate::sys::Doorbell::new().expect("an eventfd");
    driver.ring().ring_doorbell(&other);
    driver.turn(Duration::ZERO);
    assert!(!other.claim(), "it has been rung");
    if let Some(mut neighbour) = make(options()) {
        let bell = driver.ring().doorbell();
        for _ in 0..3 {
            neighbour.ring().ring_doorbell(&bell);
            neighbour.ring().ring_doorbell(&bell);
            neighbour
                .ring()
                .wait(Some(Duration::ZERO), &mut Vec::new())
                .expect("works");
            driver.take("Doorbell", |event| {
                matches!(event, Event::Doorbell).then_some(())
            });
        }
        // A neighbour that has gone is no trouble.
        drop(driver);
        neighbour.ring().ring_doorbell(&bell);
        neighbour
            .ring()
            .wait(Some(Duration::ZERO), &mut Vec::new())
            .expect("works");
    }
}

/// A peer that never reads does not prevent the ring from closing, and many may connect and leave.
pub(super) fn many_come_and_go<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    for round in 0..500u32 {
        let batch: Vec<_> = (0..10).map(|_| driver.open()).collect();
        for (number, &(peer, token)) in batch.iter().enumerate() {
            match (round as usize + number) % 4 {
                0 => driver.world.peer_reset(peer),
                1 => driver.world.peer_shutdown(peer),
                2 => drop(driver.world.peer_send(peer, b"unread")),
                _ => driver
                    .ring()
                    .send(token, Outgoing::Owned(b"unread".to_vec())),
            }
        }
        for &(_, token) in &batch {
            driver.ring().close(token, round % 2 == 0);
        }
        for &(_, token) in &batch {
            driver.closed(token);
        }
        // What came before the close was ours to give back.
        for event in std::mem::take(&mut driver.events) {
            if let Event::Received { lease, .. } = event {
                driver.ring().release(lease);
            }
        }
    }
    driver.assert_balanced();
    assert_eq!(driver.ring().counters().closed, 5000);
}

/// Dropping a ring while everything is in flight neither hangs nor frees anything that is still lent.
pub(super) fn dropping_with_everything_in_flight_is_clean<W: World>(
    make: impl Fn(Options) -> Option<W>,
) {
    let mut driver = drive!(make, options());
    let (peer, token) = driver.open();
    driver.peer_send(peer, b"lent");
    let (event, ()) = driver.take("Received", |event| {
        matches!(event, Event::Received { .. }).then_some(())
    });
    driver
        .ring()
        .send(token, Outgoing::Owned(pattern(20_000_000)));
    driver.settle();
    let start = Instant::now();
    drop(driver);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let Event::Received { lease, .. } = event else {
        unreachable!("taken by kind")
    };
    assert_eq!(lease.bytes(), b"lent");
}

/// If more happens in one turn than the queues hold, it is stored and delivered in the end: CQ overflow, and a
/// submission queue filled many times over.
pub(super) fn full_queues_lose_nothing<W: World>(make: impl Fn(Options) -> Option<W>) {
    let options = Options {
        connections_max: 300,
        entries: 8,
        receive_buffers_max: 512,
        receive_buffers_start: 512,
        ..options()
    };
    let mut driver = drive!(make, options);
    let open: Vec<_> = (0..300).map(|_| driver.open()).collect();
    for round in 0..3u8 {
        for &(peer, _) in &open {
            driver.world.peer_send(peer, &[round; 3]);
        }
        for &(_, token) in &open {
            driver.ring().send(token, Outgoing::Owned(vec![round; 5]));
        }
        for &(peer, token) in &open {
            assert_eq!(driver.receive(token, 3), [round; 3]);
            driver.sent(token).expect("sent");
            assert_eq!(driver.peer_receive(peer, 5), [round; 5]);
        }
    }
    for &(_, token) in &open {
        driver.ring().close(token, false);
    }
    open.iter().for_each(|&(_, token)| driver.closed(token));
    driver.assert_balanced();
}

/// Streams that fill buffers and trickles that do not alternate on more connections than there are large buffers, some
/// of which are held: every byte arrives, in order.
pub(super) fn floods_and_trickles_take_turns<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let open: Vec<_> = (0..4).map(|_| driver.open()).collect();
    let flood = pattern(150_000);
    for round in 0..3u8 {
        for &(peer, token) in &open {
            for piece in flood.chunks(50_000) {
                driver.peer_send(peer, piece);
                assert!(driver.receive(token, piece.len()) == piece);
            }
        }
        for trickle in 0..40u8 {
            for &(peer, token) in &open {
                driver.peer_send(peer, &[round, trickle]);
                assert_eq!(driver.receive(token, 2), [round, trickle]);
            }
        }
    }
    for (_, token) in open {
        driver.close(token, false);
    }
    driver.assert_balanced();
}

/// A burst uses many buffers; then, in a quiet time, their memory returns to the system: no byte is lost because of
/// that.
pub(super) fn bursts_and_rests_lose_nothing<W: World>(make: impl Fn(Options) -> Option<W>) {
    let mut driver = drive!(make, options());
    let open: Vec<_> = (0..12).map(|_| driver.open()).collect();
    for round in 0..3u8 {
        for &(peer, _) in &open {
            driver.peer_send(peer, &[round; 10]);
        }
        while driver.ring().counters().leases < 12 {
            driver.turn(Duration::from_millis(5));
        }
        for &(_, token) in &open {
            assert_eq!(driver.receive(token, 10), [round; 10]);
        }
        for turn in 0..600 {
            let (peer, token) = open[turn % open.len()];
            driver.peer_send(peer, &[turn as u8; 50]);
            assert_eq!(driver.receive(token, 50), [turn as u8; 50]);
        }
    }
    for (_, token) in open {
        driver.close(token, false);
    }
    driver.assert_balanced();
}
