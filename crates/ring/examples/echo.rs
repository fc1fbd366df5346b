//! Sends back everything that it receives, from the receive buffer.
//!
//!     cargo run -p tickring-ring --example echo -- 127.0.0.1:9002

use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;

use tickring_ring::epoll::Epoll;
use tickring_ring::uring::Uring;
use tickring_ring::{Engine, Event, Lease, Options, Outgoing, Ring, Token, choose};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:9002"))?;
    println!("listening on {}", listener.local_addr()?);
    let (engine, warning) = choose(None)?;
    if let Some(warning) = warning {
        eprintln!("{warning}");
    }
    match engine {
        Engine::Uring => serve(Uring::new(Options::default())?, listener),
        Engine::Epoll => serve(Epoll::new(Options::default())?, listener),
    }
}

/// Bytes that a connection has received and that were not sent yet; the first entry is being sent.
type Queue = VecDeque<Option<Lease>>;

fn serve(mut ring: impl Ring, listener: TcpListener) -> Result<(), Box<dyn std::error::Error>> {
    ring.listen(listener)?;
    let mut events = Vec::new();
    let mut queues: HashMap<Token, Queue> = HashMap::new();
    loop {
        ring.wait(None, &mut events)?;
        for event in events.drain(..) {
            match event {
                Event::Received { token, lease } => {
                    // Reading stops until this has been sent; a little more may have been read by then.
                    ring.pause_receive(token);
                    let queue = queues.entry(token).or_default();
                    queue.push_back(Some(lease));
                    if queue.len() == 1 {
                        send_first(&mut ring, token, queue);
                    }
                }
                Event::Sent { token, result } => {
                    let Some(queue) = queues.get_mut(&token) else {
                        continue;
                    };
                    queue.pop_front();
                    match result {
                        Err(_) => ring.close(token, false),
                        Ok(()) if queue.is_empty() => ring.resume_receive(token),
                        Ok(()) => send_first(&mut ring, token, queue),
                    }
                }
                Event::ReceiveEnded { token, .. } => ring.close(token, false),
                Event::Closed { token } => {
                    let unsent = queues.remove(&token).into_iter().flatten().flatten();
                    unsent.for_each(|lease| ring.release(lease));
                }
                Event::AcceptFailed { error } => return Err(error.into()),
                _ => {}
            }
        }
    }
}

fn send_first(ring: &mut impl Ring, token: Token, queue: &mut Queue) {
    let lease = queue.front_mut().and_then(Option::take);
    if let Some(lease) = lease {
        let (start, end) = (0, lease.len());
        ring.send(token, Outgoing::Received { lease, start, end });
    }
}
