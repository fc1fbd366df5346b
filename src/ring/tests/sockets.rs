//! Properties that need real sockets: descriptors, ports, outgoing connections.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::super::{Event, Options, Outgoing, Ring};
use super::world::{Driver, Loopback, World};
use crate::sys;

/// A connection made from here carries bytes both ways, from the source address asked for.
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

/// A connection that is refused says so, and its slot is closed like any other.
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

/// After the listener is stopped connections live on, and the port can be had alone.
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

/// How often the kernel may deliver a stream in dribbles before that is our doing.
const FLOODS_MAX: usize = 50;
