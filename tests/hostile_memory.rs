//! Clients that make the server hold as much as they can, over a socket on both engines, without TLS and with it: the memory
//! of all together is bounded, those that hold the most are closed, and other clients notice nothing.

mod support;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use support::{Client, PATIENCE, Server, WAYS, frame, status_of, text, upgrade_request};

/// One compressed message as a client without takeover sends it, all but its last bytes.
fn compressed(bytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; bytes]).expect("memory");
    encoder.flush().expect("memory");
    encoder.get_ref()[..encoder.get_ref().len() - 4].to_vec()
}

/// A frame that says it is twice as long as what comes of it.
fn half_a_frame(first: u8, bytes: usize) -> Vec<u8> {
    let mut wire = vec![first, 0xFF];
    wire.extend_from_slice(&(2 * bytes as u64).to_be_bytes());
    wire.extend_from_slice(&[0; 4]);
    wire.resize(wire.len() + bytes, b'x');
    wire
}

/// Two hundred connections to `/ws` with an unfinished compressed message of 16 KB each, which would be 16 MB
/// inflated, are refused it; those that stay within a command hold no more than one each.
#[test]
fn unfinished_compressed_commands_stay_small() {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let long = frame(0x41, &compressed(16 << 20));
    let short = frame(0x41, &compressed(200 << 10));
    for way in WAYS {
        let server = Server::start(way, &[]);
        let before = server.resident_bytes();
        let mut clients: Vec<_> = (0..197).map(|_| server.open("/ws", offer)).collect();
        for client in &mut clients {
            client.try_send(&long);
        }
        for client in &mut clients {
            assert_eq!(client.read_close(), 1009, "{way}");
        }
        let mut clients: Vec<_> = (0..197).map(|_| server.open("/ws", offer)).collect();
        for client in &mut clients {
            client.send(&short);
            client.send(&frame(0x89, b"taken?"));
            while client.read_frame().expect("a pong").0 != 0x8A {}
        }
        let grown = server.resident_bytes().saturating_sub(before);
        // 200 KB, an inflater of 40 KB, and what an allocator makes of it.
        assert!(grown < 197 * (600 << 10), "{way}: {grown} bytes");
    }
}

/// A length that is only declared commits no memory: of 200 clients that announce 16 MB and send nothing, each holds as
/// much as one that is idle, and a little for the header.
#[test]
fn declared_lengths_hold_nothing() {
    const CLIENTS: u64 = 200;
    const BYTES_EACH_MAX: u64 = 2_048;
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.open("/echo", "")).collect();
        let idle = metric(&server, "tickring_connections_bytes{");
        let announced = half_a_frame(0x82, 8 << 20);
        for client in &mut clients {
            client.send(&announced[..14]);
        }
        let mut bystander = server.open("/echo", "");
        bystander.send(&text("served"));
        assert_eq!(bystander.read_text(), "served", "{way}");
        let held = metric(&server, "tickring_connections_bytes{").saturating_sub(idle);
        assert!(
            held <= (CLIENTS + 1) * BYTES_EACH_MAX,
            "{way}: {held} bytes"
        );
    }
}

/// Messages that are never finished, of many connections, stay within the memory for connections: those that
/// hold the most are closed with 1013, and who holds little is served throughout.
#[test]
fn unfinished_messages_have_a_bound_together() {
    for way in WAYS {
        let server = Server::start(way, &["--connections-bytes-max", "16MiB"]);
        let before = server.resident_bytes();
        let mut bystander = server.open("/echo", "");
        bystander.send(&frame(0x01, b"begun "));
        let mut clients: Vec<_> = (0..100).map(|_| server.open("/echo", "")).collect();
        for client in &mut clients {
            client.try_send(&half_a_frame(0x82, 1 << 20));
        }
        wait_until("closed", || {
            metric(&server, "tickring_memory_closed_total{") > 80
        });
        let held = metric(&server, "tickring_connections_bytes{");
        assert!(held <= 16 << 20, "{way}: {held}");
        let grown = server.resident_bytes().saturating_sub(before);
        // Beside it there are receive buffers, and what an allocator does not give back at once.
        assert!(grown < 200 << 20, "{way}: {grown} bytes");
        bystander.send(&frame(0x80, b"and ended"));
        assert_eq!(bystander.read_text(), "begun and ended", "{way}");
        let mut codes: Vec<_> = Vec::new();
        let closed = metric(&server, "tickring_memory_closed_total{");
        for client in &mut clients {
            let timeout = Some(Duration::from_millis(50));
            client.stream.set_read_timeout(timeout).expect("a socket");
            codes.extend(close_code(client));
        }
        assert_eq!(codes.len() as u64, closed, "{way}: all of them are told");
        assert!(codes.iter().all(|&code| code == 1013), "{way}: {codes:?}");
    }
}

/// Requests that are never finished are bounded with them: 503.
#[test]
fn unfinished_requests_have_a_bound_together() {
    for way in WAYS {
        let server = Server::start(way, &["--connections-bytes-max", "1MiB"]);
        let begun = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(15_000));
        let mut clients: Vec<_> = (0..200)
            .map(|_| {
                let mut client = server.connect();
                client.send(begun.as_bytes());
                client
            })
            .collect();
        wait_until("closed", || {
            metric(&server, "tickring_memory_closed_total{") > 100
        });
        assert!(
            metric(&server, "tickring_connections_bytes{") <= 1 << 20,
            "{way}"
        );
        let told = clients.iter_mut().filter_map(|client| {
            let timeout = Some(Duration::from_millis(50));
            client.stream.set_read_timeout(timeout).expect("a socket");
            let mut byte = [0; 12];
            client.stream.read_exact(&mut byte).ok()?;
            let status = status_of(&format!("{} ", String::from_utf8_lossy(&byte)));
            (status == 503).then_some(())
        });
        assert!(told.count() > 100, "{way}");
        let mut client = server.open("/echo", "");
        client.send(&text("served"));
        assert_eq!(client.read_text(), "served", "{way}");
    }
}

/// Answers that are never read are bounded too: reading stops at the outbox of each, and who holds the most of
/// too much in all is reset, since a Close could not be read either.
#[test]
fn unread_answers_have_a_bound_together() {
    for way in WAYS {
        let server = Server::start(way, &["--connections-bytes-max", "8MiB"]);
        let before = server.resident_bytes();
        // In place an echo needs no memory of ours, so it comes in fragments.
        let message = [frame(0x02, &[1; 30_000]), frame(0x80, &[2; 30_000])].concat();
        let mut clients: Vec<_> = (0..40)
            .map(|_| {
                let mut client = server.connect_narrow();
                client.send(upgrade_request("/echo", "").as_bytes());
                client.read_head();
                client.stream.set_nonblocking(true).expect("a socket");
                client
            })
            .collect();
        let mut sent = vec![0; clients.len()];
        // How many are reset depends on when each is read. That some are, and that the rest can be full, does not.
        wait_until("reset, and nobody can send more", || {
            let mut is_full = true;
            for (client, sent) in clients.iter_mut().zip(&mut sent) {
                while let Ok(count) = client.stream.write(&message[*sent..]) {
                    *sent = (*sent + count) % message.len();
                    is_full = false;
                }
            }
            is_full && metric(&server, "tickring_memory_closed_total{") > 0
        });
        let held = metric(&server, "tickring_connections_bytes{");
        assert!(held <= 8 << 20, "{way}: {held}");
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 128 << 20, "{way}: {grown} bytes");
        let mut bystander = server.open("/echo", "");
        bystander.send(&text("served"));
        assert_eq!(bystander.read_text(), "served", "{way}");
    }
}

/// The sum of a metric over all shards; `start` is its name and the brace.
fn metric(server: &Server, start: &str) -> u64 {
    let (_, metrics) = server.api("GET", "/metrics", "");
    let lines = metrics.lines().filter(|line| line.starts_with(start));
    let values = lines.map(|line| line.rsplit(' ').next().expect("a value"));
    values
        .map(|value| value.parse::<u64>().expect("a number"))
        .sum()
}

/// The code of the Close that has come, if one has.
fn close_code(client: &mut Client) -> Option<u16> {
    let mut bytes = [0; 4];
    client.stream.read_exact(&mut bytes).ok()?;
    (bytes[0] == 0x88).then(|| u16::from_be_bytes([bytes[2], bytes[3]]))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
