//! What the two bare servers share: their flags and the ring they run on.

use std::net::SocketAddr;
use std::process::exit;

use tickring_ring::epoll::Epoll;
use tickring_ring::sys;
use tickring_ring::uring::Uring;
use tickring_ring::{Options, Ring};

/// A server that consists only of its event handling.
pub trait Bare: Default {
    /// Handles all events of one wait.
    fn turn<R: Ring>(&mut self, ring: &mut R, events: &mut Vec<tickring_ring::Event>);
}

/// The flags.
struct Arguments {
    listen: SocketAddr,
    core: Option<usize>,
    epoll: bool,
    options: Options,
}

/// Reads the flags, listens, and serves until killed.
pub fn serve<B: Bare>() {
    let arguments = parse(std::env::args().skip(1)).unwrap_or_else(|mistake| {
        eprintln!("{mistake}\n{USAGE}");
        exit(2)
    });
    if let Some(core) = arguments.core {
        sys::pin_to_core(core).unwrap_or_else(|error| panic!("core {core}: {error}"));
    }
    sys::raise_descriptor_limit().expect("a process may raise its soft limit");
    if arguments.epoll {
        let ring = Epoll::new(arguments.options).unwrap_or_else(|error| panic!("{error}"));
        run::<B, _>(ring, arguments.listen);
    } else {
        let ring = Uring::new(arguments.options).unwrap_or_else(|error| panic!("{error}"));
        run::<B, _>(ring, arguments.listen);
    }
}

fn run<B: Bare, R: Ring>(mut ring: R, listen: SocketAddr) {
    let listener = sys::listen(listen, &sys::ListenOptions::default())
        .unwrap_or_else(|error| panic!("{listen}: {error}"));
    ring.listen(listener)
        .unwrap_or_else(|error| panic!("{listen}: {error}"));
    println!("listening on {listen} ({})", ring.engine());
    let mut server = B::default();
    let mut events = Vec::new();
    loop {
        ring.wait(None, &mut events)
            .unwrap_or_else(|error| panic!("{error}"));
        server.turn(&mut ring, &mut events);
        events.clear();
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut listen, mut core, mut epoll) = (None, None, false);
    let mut options = Options {
        connections_max: 65_536,
        ..Options::default()
    };
    while let Some(flag) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{flag} needs a value"))?;
        let wrong = || format!("{flag} {value}: not valid");
        match flag.as_str() {
            "--listen" => listen = Some(value.parse().map_err(|_| wrong())?),
            "--core" => core = Some(value.parse().map_err(|_| wrong())?),
            "--io" if value == "uring" || value == "epoll" => epoll = value == "epoll",
            "--direct" => options.direct_descriptors = value.parse().map_err(|_| wrong())?,
            "--registered" => options.registered_ring = value.parse().map_err(|_| wrong())?,
            "--entries" => options.entries = value.parse().map_err(|_| wrong())?,
            "--min-wait-us" => options.min_wait_us = value.parse().map_err(|_| wrong())?,
            "--io" => return Err(wrong()),
            _ => return Err(format!("{flag}: unknown flag")),
        }
    }
    if options.direct_descriptors {
        // The table of direct descriptors may not exceed the limit of descriptors.
        let limit = sys::raise_descriptor_limit().map_err(|error| error.to_string())?;
        options.connections_max = options.connections_max.min(limit as usize);
    }
    Ok(Arguments {
        listen: listen.ok_or("--listen is missing")?,
        core,
        epoll,
        options,
    })
}

const USAGE: &str = "usage: --listen ADDRESS:PORT [--io uring|epoll] [--core N] [--direct BOOL] \
                     [--registered BOOL] [--entries N] [--min-wait-us N]";
