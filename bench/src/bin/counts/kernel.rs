//! The scenarios on io_uring and loopback: how many operations and system calls a message costs when that many are
//! handled at a time. The clients are plain sockets in the same thread, so every round is the same: they write, and the
//! shard turns until everything is answered.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tickring_protocol::MessageKind;
use tickring_ring::uring::Uring;
use tickring_ring::{Options, Ring};

use super::driver::{Driver, client_frame, request, subscribe, topics};
use super::pongs::Pongs;
use super::{Counted, MASKING_KEY_BYTES, ROUNDS, WARMUP_ROUNDS};

/// A shard on loopback and its clients.
pub struct Bench {
    driver: Driver<Uring>,
    address: SocketAddr,
    clients: Vec<TcpStream>,
    /// Of each client that listens.
    pongs: Vec<Pongs>,
}

impl Bench {
    /// # Errors
    /// Why there is no io_uring here.
    pub fn new() -> Result<Self, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let mut ring = Uring::new(Options::default()).map_err(|e| e.to_string())?;
        ring.listen(listener).map_err(|e| e.to_string())?;
        Ok(Self {
            driver: Driver::new(ring),
            address,
            clients: Vec::new(),
            pongs: Vec::new(),
        })
    }

    /// `connections` clients each send `depth` messages of `size` bytes at once.
    pub fn echo(&mut self, connections: usize, size: usize, depth: usize) -> Counted {
        let frame = client_frame(MessageKind::Binary, &vec![b'x'; size]);
        let batch = frame.repeat(depth);
        for _ in 0..connections {
            self.connect("/echo", false, b"");
        }
        let echoed_bytes = (frame.len() - MASKING_KEY_BYTES) * depth;
        self.rounds(connections * depth, echoed_bytes, |bench| {
            for client in &mut bench.clients {
                client.write_all(&batch).expect("the socket takes it");
            }
        })
    }

    /// One publication to each of `burst` topics at once, for `subscribers` of them all.
    pub fn fan_out(&mut self, subscribers: usize, burst: usize, deflate: bool) -> Counted {
        for _ in 0..subscribers {
            self.connect("/ws", deflate, &subscribe());
        }
        self.quiet();
        self.pongs.resize_with(subscribers, Pongs::default);
        let topics = topics(burst);
        // Its numbers grow: how long an update is, only the most of them tell.
        self.rounds(subscribers * burst, 0, |bench| {
            bench.driver.publish(&topics)
        })
    }

    fn connect(&mut self, path: &str, deflate: bool, first: &[u8]) {
        let mut client = TcpStream::connect(self.address).expect("the shard listens");
        client.set_nodelay(true).expect("a TCP socket");
        let sent = [&request(path, deflate), first].concat();
        client.write_all(&sent).expect("the socket takes it");
        client.set_nonblocking(true).expect("a TCP socket");
        self.clients.push(client);
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            self.driver.turn(Duration::from_millis(1));
            let client = self.clients.last_mut().expect("just pushed");
            let mut bytes = [0; 1024];
            if let Some(count) = read(client, &mut bytes) {
                answer.extend_from_slice(&bytes[..count]);
            }
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 101"),
            "the upgrade is granted"
        );
    }

    /// Turns until nothing has arrived for a while.
    fn quiet(&mut self) {
        let mut silent_turns = 0;
        while silent_turns < 5 {
            self.driver.turn(Duration::from_millis(1));
            silent_turns += 1;
            if self.read_all() > 0 {
                silent_turns = 0;
            }
        }
    }

    /// Reads and discards everything; returns how many bytes that was.
    fn read_all(&mut self) -> usize {
        let mut bytes = [0; 64 * 1024];
        let mut count = 0;
        for client in &mut self.clients {
            while let Some(more) = read(client, &mut bytes) {
                count += more;
            }
        }
        count
    }

    /// Warms up, then counts [`ROUNDS`] rounds: calls `feed`, then turns until each client has received `bytes_each`
    /// bytes or, if that is 0, one answer.
    fn rounds(
        &mut self,
        messages_per_round: usize,
        bytes_each: usize,
        mut feed: impl FnMut(&mut Self),
    ) -> Counted {
        let mut counted = None;
        for round in 0..WARMUP_ROUNDS + ROUNDS {
            if round == WARMUP_ROUNDS {
                counted = Some(Counted::begin(messages_per_round, self.driver.counters()));
            }
            feed(self);
            let mut rest = vec![bytes_each.max(1); self.clients.len()];
            let mut bytes = [0; 64 * 1024];
            while rest.iter().any(|&rest| rest > 0) {
                self.driver.wait(Duration::from_secs(1));
                self.driver.turn_after_wait(counted.as_mut());
                // What the turn has queued goes out with the next wait, as in a busy server.
                for (index, (client, rest)) in self.clients.iter_mut().zip(&mut rest).enumerate() {
                    while let Some(mut more) = read(client, &mut bytes) {
                        if let Some(pongs) = self.pongs.get_mut(index) {
                            let mut answer = Vec::new();
                            more = pongs.read(&bytes[..more], &mut answer);
                            client.write_all(&answer).expect("the socket takes it");
                        }
                        *rest = rest.saturating_sub(more);
                    }
                }
            }
        }
        let mut counted = counted.expect("there are rounds behind the warm-up");
        counted.after = self.driver.counters();
        counted
    }
}

/// The readable bytes; `None` if there are none.
fn read(client: &mut TcpStream, bytes: &mut [u8]) -> Option<usize> {
    match client.read(bytes) {
        Ok(0) => panic!("the shard closed the connection"),
        Ok(count) => Some(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("the connection broke: {error}"),
    }
}
