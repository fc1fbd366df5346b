//! Properties that need real sockets: descriptors, ports, outgoing connections.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::super::{Event, Options, Outgoing, Ring};
use super::world::{Driver, Loopback, World};
use crate::sys;

/// An outgoing connection carries bytes both ways, from the requested source address.
pub(super) fn outgoing_connections_work<R: Ring>(make: impl Fn(Options) -> Option<Loopback<R>>) {
    let Some(world) = make(Options::default()) else {
        return;
    };
    let address = world.address();
    let mut driver = Driver::new(world);
    let source = SocketAddr::from(([127, 0, 0, 2], 0));
    let client = driver
        .ring()
        .connect(address, Some(source))
        .expect("a socket");
    let server = driver.accepted();
    let (event, ()) = driver.take("Connected", |event| {
        matches!(event, Event::Connected { .. }).then_some(())
    });
    assert!(matches!(event, Event::Connected { token, result: Ok(()) } if token == client));
    driver
        .ring()
        .send(client, Outgoing::Owned(b"hello".to_vec()));
    assert_eq!(driver.receive(server, 5), b"hello");
    driver
        .ring()
        .send(server, Outgoing::Owned(b"hello yourself".to_vec()));
    assert_eq!(driver.receive(client, 14), b"hello yourself");
    driver.close(client, false);
    assert!(driver.ended(server).is_none());
    driver.close(server, false);
    driver.assert_balanced();
}

/// A refused connection reports this, and its slot is closed like any other.
pub(super) fn a_refused_connection_is_reported<R: Ring>(
    make: impl Fn(Options) -> Option<Loopback<R>>,
) {
    let Some(world) = make(Options::default()) else {
        return;
    };
    let mut driver = Driver::new(world);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = nobody.expect("a port that was free");
    let token = driver.ring().connect(nobody, None).expect("a socket");
    let (event, ()) = driver.take("Connected", |event| {
        matches!(event, Event::Connected { .. }).then_some(())
    });
    let Event::Connected {
        result: Err(error), ..
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    driver.close(token, false);
    driver.assert_balanced();
}

/// A connection whose peer does not answer can be closed before it is made, and a ring can be dropped with one.
pub(super) fn a_connection_under_way_can_be_closed<R: Ring>(
    make: impl Fn(Options) -> Option<Loopback<R>>,
) {
    let Some(world) = make(Options::default()) else {
        return;
    };
    let mut driver = Driver::new(world);
    // Nobody accepts here: once the backlog is full, the kernel answers no further handshake.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let full = full.expect("a socket");
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .and_then(|()| full.listen(0))
        .expect("loopback");
    let address = full.local_addr().expect("bound").as_socket().expect("IPv4");
    let tokens = [(); 5].map(|()| driver.ring().connect(address, None).expect("a socket"));
    driver.settle();
    let mut under_way = tokens.to_vec();
    for event in std::mem::take(&mut driver.events) {
        if let Event::Connected { token, .. } = event {
            under_way.retain(|&other| other != token);
        }
    }
    let last = under_way.pop().expect("the backlog is full");
    for token in tokens.into_iter().filter(|&token| token != last) {
        driver.close(token, false);
    }
    let counters = driver.ring().counters();
    assert_eq!(counters.opened, counters.closed + 1, "all but one");
    drop(driver);
}

/// A connection that fills its receive buffers is given larger ones.
pub(super) fn floods_come_in_large_pieces<R: Ring>(make: impl Fn(Options) -> Option<Loopback<R>>) {
    let options = Options::default();
    let Some(world) = make(options.clone()) else {
        return;
    };
    let mut driver = Driver::new(world);
    let (peer, token) = driver.open();
    let (mut largest, mut left) = (0, 0);
    for _ in 0..FLOODS_MAX {
        driver.peer_send(peer, &[7; 300_000]);
        left += 300_000;
        while left > 0 {
            let (event, ()) = driver.take("Received", |event| {
                matches!(event, Event::Received { .. }).then_some(())
            });
            if let Event::Received { lease, .. } = event {
                largest = largest.max(lease.len());
                left -= lease.len();
                driver.ring().release(lease);
            }
        }
        if largest > options.receive_buffer_bytes {
            break;
        }
    }
    assert!(largest > options.receive_buffer_bytes, "{largest}");
    driver.close(token, false);
    driver.assert_balanced();
}

/// Of two connections that always have data, neither waits for the other to run out.
pub(super) fn a_flood_holds_up_nobody<R: Ring>(make: impl Fn(Options) -> Option<Loopback<R>>) {
    let Some(world) = make(Options::default()) else {
        return;
    };
    let mut driver = Driver::new(world);
    let open = [driver.open(), driver.open()];
    let flood = vec![7; 4 << 20];
    let mut received = [0; 2];
    while received.iter().any(|&bytes| bytes < FLOOD_SHARE) {
        for (peer, _) in open {
            driver.world.peer_send(peer, &flood);
        }
        driver.turn(Duration::from_millis(1));
        for event in std::mem::take(&mut driver.events) {
            if let Event::Received { token, lease } = event {
                received[usize::from(token == open[1].1)] += lease.len();
                driver.ring().release(lease);
            }
        }
        assert!(
            received.iter().all(|&bytes| bytes < 20 * FLOOD_SHARE),
            "{received:?}"
        );
    }
    for (_, token) in open {
        driver.close(token, true);
    }
    driver.assert_balanced();
}

/// After the listener is stopped, connections continue, and the port is free for others.
pub(super) fn stopping_frees_the_port<R: Ring>(make: impl Fn(Options) -> Option<Loopback<R>>) {
    let Some(world) = make(Options::default()) else {
        return;
    };
    let address = world.address();
    let mut driver = Driver::new(world);
    let (peer, token) = driver.open();
    // Completed by the kernel, not yet by the ring: it must not be lost.
    let late = driver.world.dial();
    driver.ring().stop_listening();
    let late_token = driver.accepted();
    driver.settle();
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    for (peer, token) in [(peer, token), (late, late_token)] {
        driver.peer_send(peer, b"still served");
        assert_eq!(driver.receive(token, 12), b"still served");
        driver.close(token, true);
    }
    let alone = sys::ListenOptions {
        reuse_port: false,
        ..Default::default()
    };
    sys::listen(address, &alone).expect("the port is free");
    driver.assert_balanced();
}

/// Connections that the kernel had accepted when the listener was stopped are still offered.
pub(super) fn stopping_offers_the_last<R: Ring>(make: impl Fn(Options) -> Option<Loopback<R>>) {
    let options = Options {
        offer_sockets: true,
        ..Options::default()
    };
    let Some(world) = make(options) else {
        return;
    };
    let mut driver = Driver::new(world);
    let late: Vec<_> = (0..20).map(|_| driver.world.dial()).collect();
    driver.ring().stop_listening();
    for _ in &late {
        let token = match driver.offered() {
            Ok(socket) => driver.ring().adopt(socket).expect("room"),
            Err(token) => token,
        };
        driver.close(token, false);
    }
    for peer in late {
        driver.peer_end(peer);
    }
    driver.assert_balanced();
}

/// A dropped ring's port is free at once.
pub(super) fn dropping_frees_the_port<R: Ring>(make: impl Fn(Options) -> Option<Loopback<R>>) {
    let Some(world) = make(Options::default()) else {
        return;
    };
    let address = world.address();
    let mut driver = Driver::new(world);
    driver.turn(Duration::ZERO);
    drop(driver);
    let alone = sys::ListenOptions {
        reuse_port: false,
        ..Default::default()
    };
    sys::listen(address, &alone).expect("the port is free");
}

/// Without events, a wait lasts as long as requested.
pub(super) fn no_wait_ends_early<R: Ring>(make: impl Fn(Options) -> Option<Loopback<R>>) {
    let Some(world) = make(Options::default()) else {
        return;
    };
    let mut driver = Driver::new(world);
    driver.settle();
    for timeout_us in [1, 50, 200, 999, 1_000, 1_001, 1_500, 2_000, 10_250] {
        let timeout = Duration::from_micros(timeout_us);
        let start = Instant::now();
        driver.turn(timeout);
        assert!(start.elapsed() >= timeout, "{timeout:?} ended early");
        assert!(driver.events.is_empty(), "{:?}", driver.events);
    }
}

/// A shorter timeout is a shorter wait, even if the difference is less than a millisecond: however slow the machine,
/// the fastest of many waits shows the engine's precision.
pub(super) fn fractions_of_a_millisecond_count<R: Ring>(
    make: impl Fn(Options) -> Option<Loopback<R>>,
) {
    let Some(world) = make(Options::default()) else {
        return;
    };
    let mut driver = Driver::new(world);
    driver.settle();
    let mut quickest = |timeout: Duration| {
        let waits = (0..WAITS).map(|_| {
            let start = Instant::now();
            driver.turn(timeout);
            start.elapsed()
        });
        waits.min().expect("many waits")
    };
    let times = [200, 1_000, 1_200, 2_000].map(|us| quickest(Duration::from_micros(us)));
    assert!(
        times.is_sorted_by(|shorter, longer| shorter < longer),
        "{times:?}"
    );
    assert!(times[0] < Duration::from_millis(1), "{times:?}");
    // What is rounded to the next millisecond would take as long as that.
    assert!(times[2] < Duration::from_millis(2), "{times:?}");
}

/// Large enough that one of them is not held up.
const WAITS: usize = 100;
/// After this many bytes of a flood, the other connection has received something.
const FLOOD_SHARE: usize = 4 << 20;
/// How often the kernel may deliver a stream in small pieces before it counts as the engine's fault.
const FLOODS_MAX: usize = 50;
