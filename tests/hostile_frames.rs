//! Frames that break RFC 6455 or RFC 7692, byte for byte over a socket, on both engines, without TLS and with it: each is
//! answered with the right close code, and other clients notice nothing.

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use support::{Server, WAYS, frame, text};

/// A frame header alone: what it claims is never sent.
fn header(first: u8, length_field: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend_from_slice(length_field);
    bytes.extend_from_slice(&[1, 2, 3, 4]);
    bytes
}

fn fragments(count: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(0x01, b"a");
    for _ in 0..count {
        bytes.extend(frame(0x00, payload));
    }
    bytes
}

/// A message as a client without takeover compresses it.
fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(9));
    encoder.write_all(bytes).unwrap();
    encoder.flush().unwrap();
    let mut out = encoder.get_ref().clone();
    out.truncate(out.len() - 4);
    out
}

/// Each violation is answered with its code, then the stream ends; a bystander's echo goes on.
#[test]
fn violations_get_their_close_code() {
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", vec![0x81, 0x02, b'h', b'i'], 1002),
        ("RSV2", frame(0xA1, b"hi"), 1002),
        ("RSV3", frame(0x91, b"hi"), 1002),
        ("RSV1 not negotiated", frame(0xC1, b"hi"), 1002),
        ("RSV1 on a ping", frame(0xC9, b"hi"), 1002),
        (
            "reserved data opcode",
            header(0x83, &[0xFF, 0, 0, 0, 1, 0, 0, 0, 0]),
            1002,
        ),
        ("reserved control opcode", header(0x8B, &[0x80]), 1002),
        (
            "64-bit length with the top bit",
            header(0x82, &[0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            1002,
        ),
        (
            "16-bit length not minimal",
            header(0x82, &[0xFE, 0, 125]),
            1002,
        ),
        (
            "64-bit length not minimal",
            header(0x82, &[0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]),
            1002,
        ),
        (
            "declared length past the limit",
            header(0x82, &[0xFF, 0, 0, 0, 1, 0, 0, 0, 0]),
            1009,
        ),
        (
            "fragments past the limit",
            [
                frame(0x02, &vec![0; 1_000_000]),
                frame(0x00, &vec![0; 100_000]),
            ]
            .concat(),
            1009,
        ),
        ("ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        ("fragmented ping", frame(0x09, b"hi"), 1002),
        ("orphan continuation", frame(0x80, b"hi"), 1002),
        (
            "text inside a fragmented text",
            [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
            1002,
        ),
        ("empty fragments", fragments(1_000, b""), 1008),
        ("invalid UTF-8", frame(0x81, b"\xC0\xAF"), 1007),
        (
            "invalid UTF-8 across fragments",
            [frame(0x01, b"\xE2\x82"), frame(0x80, b"\x28")].concat(),
            1007,
        ),
        (
            "a surrogate, cut",
            [frame(0x01, b"\xED"), frame(0x00, b"\xA0")].concat(),
            1007,
        ),
        (
            "text that ends inside a character",
            frame(0x81, b"\xE2\x82"),
            1007,
        ),
        ("Close of one byte", frame(0x88, &[3]), 1002),
        ("Close 999", frame(0x88, &999_u16.to_be_bytes()), 1002),
        ("Close 1004", frame(0x88, &1004_u16.to_be_bytes()), 1002),
        ("Close 1005", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("Close 1006", frame(0x88, &1006_u16.to_be_bytes()), 1002),
        ("Close 1015", frame(0x88, &1015_u16.to_be_bytes()), 1002),
        ("Close 1016", frame(0x88, &1016_u16.to_be_bytes()), 1002),
        ("Close 2999", frame(0x88, &2999_u16.to_be_bytes()), 1002),
        ("Close 5000", frame(0x88, &5000_u16.to_be_bytes()), 1002),
        (
            "Close with a reason that is not UTF-8",
            frame(0x88, b"\x03\xE8\xFF"),
            1007,
        ),
        ("Close 1000", frame(0x88, b"\x03\xE8bye"), 1000),
        ("Close 3000", frame(0x88, &3000_u16.to_be_bytes()), 3000),
        ("Close without a code", frame(0x88, b""), 1005),
        (
            "data after Close",
            [frame(0x88, &1000_u16.to_be_bytes()), text("late")].concat(),
            1000,
        ),
        (
            "ping flood",
            (0..1_000).flat_map(|_| frame(0x89, b"")).collect(),
            1008,
        ),
    ];
    for way in WAYS {
        let server = Server::start(way, &["--message-bytes-max", "1MiB"]);
        let mut bystander = server.open("/echo", "");
        for (name, wire, code) in &cases {
            let mut client = server.open("/echo", "");
            client.try_send(wire);
            assert_eq!(client.read_close(), *code, "{way}: {name}");
            bystander.send(&text(name));
            assert_eq!(&bystander.read_text(), name);
        }
    }
}

/// Errors are certain before the frame is complete: nothing waits for the rest of it.
#[test]
fn violations_are_answered_before_the_frame_ends() {
    let long = |first: u8, start: &[u8]| {
        let mut bytes = frame(first, &[start, &[b'a'; 1_000]].concat());
        bytes.truncate(8 + start.len() + 100);
        bytes
    };
    for way in WAYS {
        let server = Server::start(way, &[]);
        for (wire, code) in [
            (long(0x81, b"\xFF"), 1007),
            (long(0x81, b"ok \xED\xA0\x80"), 1007),
            (vec![0x83], 1002),
            (vec![0x81, 0x05], 1002),
        ] {
            let mut client = server.open("/echo", "");
            client.send(&wire);
            assert_eq!(
                client.read_close(),
                code,
                "{way}: {:?}",
                &wire[..wire.len().min(16)]
            );
        }
    }
}

/// The same message comes back however its bytes are cut on the way.
#[test]
fn a_byte_at_a_time_is_the_same_message() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut client = server.open("/echo", "");
        let wire = [
            frame(0x01, "hé".as_bytes()),
            frame(0x89, b"!"),
            frame(0x80, "llo€".as_bytes()),
        ];
        for byte in wire.concat() {
            client.send(&[byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(client.read_frame(), Some((0x8A, b"!".to_vec())));
        assert_eq!(client.read_text(), "héllo€");
    }
}

/// 4 MB in fragments of 64 bytes is a message; the flood limit is for empty ones.
#[test]
fn many_small_fragments_are_a_message() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut client = server.open("/echo", "");
        let mut wire = frame(0x02, &[7; 64]);
        for _ in 0..65_534 {
            wire.extend(frame(0x00, &[7; 64]));
        }
        wire.extend(frame(0x80, &[7; 64]));
        client.send(&wire);
        let (first, payload) = client.read_frame().unwrap();
        assert_eq!(first, 0x82);
        assert_eq!(payload.len(), 65_536 * 64);
        assert!(payload.iter().all(|byte| *byte == 7));
    }
}

/// `/ws` takes commands, so it assembles no more than the longest of them: one byte past 256 KiB is 1009,
/// declared, in fragments or inflated, while `/echo` beside it takes 16 MiB.
#[test]
fn ws_takes_no_more_than_a_command() {
    const COMMAND_BYTES_MAX: usize = 256 * 1024;
    let ping = |bytes: usize| format!("{{\"op\":\"ping\"{}}}", " ".repeat(bytes - 13));
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut client = server.open("/ws", "");
        client.send(&text(&ping(COMMAND_BYTES_MAX)));
        assert!(client.read_text().contains("welcome"));
        assert!(client.read_text().contains("pong"), "{way}");
        let declared = header(0x81, &[0xFF, 0, 0, 0, 0, 0, 4, 0, 1]);
        let fragments = [
            frame(0x01, &vec![b' '; COMMAND_BYTES_MAX / 2]),
            header(0x80, &[0xFF, 0, 0, 0, 0, 0, 2, 0, 1]),
        ];
        // Its end never comes, nor is it needed.
        let inflated = frame(0x41, &deflate(ping(COMMAND_BYTES_MAX + 1).as_bytes()));
        for (offer, wire) in [("", declared), ("", fragments.concat()), (offer, inflated)] {
            let mut client = server.open("/ws", offer);
            client.try_send(&wire);
            assert_eq!(client.read_close(), 1009, "{way}");
        }
        let mut client = server.open("/echo", "");
        client.send(&frame(0x82, &vec![7; 16 << 20]));
        assert_eq!(client.read_frame().unwrap().1.len(), 16 << 20, "{way}");
    }
}

/// Compressed violations: a bomb, rubbish, RSV1 where it may not be.
#[test]
fn compressed_violations_get_their_close_code() {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n";
    for way in WAYS {
        let server = Server::start(way, &["--message-bytes-max", "1MiB"]);
        let close_code = |wire: &[u8]| {
            let mut client = server.open("/echo", offer);
            client.try_send(wire);
            client.read_close()
        };
        assert_eq!(
            close_code(&frame(0xC2, &deflate(&vec![0; 50_000_000]))),
            1009,
            "{way}"
        );
        assert_eq!(close_code(&frame(0xC2, &[0xFF; 20])), 1007, "{way}");
        assert_eq!(
            close_code(&frame(0xC1, &deflate(b"\xFF\xFE"))),
            1007,
            "{way}"
        );
        let continued = [frame(0x41, &deflate(b"a")), frame(0xC0, b"")].concat();
        assert_eq!(close_code(&continued), 1002, "{way}");
        // A back-reference to the message before, whose window was reset.
        let mut client = server.open("/echo", offer);
        client.send(&frame(0xC1, &deflate(b"hello hello hello")));
        client.read_frame().unwrap();
        client.send(&frame(0xC1, &[0x02, 0x41, 0x01, 0x00]));
        assert!([1002, 1007].contains(&client.read_close()), "{way}");
        // Empty and finished blocks are legal.
        let mut client = server.open("/echo", offer);
        client.send(&frame(0xC1, &[0x00]));
        let (_, empty) = client.read_frame().unwrap();
        assert!(empty.len() <= 1, "{way}: {empty:?}");
        client.send(&frame(
            0xC1,
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ));
        assert!(
            client.read_frame().is_some(),
            "{way}: BFINAL inside a message"
        );
    }
}

/// Of pings that come together the last is answered in any case (RFC 6455 section 5.5.3), and nothing is answered that was
/// not sent.
#[test]
fn the_latest_ping_is_answered() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut client = server.open("/echo", "");
        let pings: Vec<_> = (0..50_u8)
            .flat_map(|number| frame(0x89, &[number]))
            .collect();
        client.send(&pings);
        let mut last = None;
        while last != Some(49) {
            let (first, payload) = client.read_frame().expect("a pong");
            assert_eq!((first, payload.len()), (0x8A, 1), "{way}");
            assert!(last < Some(payload[0]), "{way}: in order");
            last = Some(payload[0]);
        }
    }
}

/// Pings of one who never reads fill no memory: the answers count towards what may wait for it, and past the rate it is
/// closed.
#[test]
fn pings_of_one_who_never_reads_are_bounded() {
    for way in WAYS {
        let server = Server::start(way, &["--outbox-bytes-max", "64KiB"]);
        let mut client = server.connect_narrow();
        client.send(support::upgrade_request("/echo", "").as_bytes());
        client.read_head();
        let before = server.resident_bytes();
        client
            .stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let pings = frame(0x89, &[b'p'; 125]).repeat(1_000);
        for _ in 0..100 {
            if !client.try_send(&pings) {
                break;
            }
        }
        let mut bystander = server.open("/echo", "");
        bystander.send(&text("fine"));
        assert_eq!(bystander.read_text(), "fine");
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{way}: {grown} bytes");
    }
}

/// Who never answers our Close is reset at the closing timeout; who never finishes a message too.
#[test]
fn deadlines_end_what_never_ends() {
    for way in WAYS {
        let server = Server::start(way, &["--close-timeout-ms", "500"]);
        let started = Instant::now();
        let mut client = server.open("/echo", "");
        client.send(&[0x83, 0x80]);
        assert_eq!(client.read_close(), 1002);
        // Our side stays open and goes on sending: the server must not wait for ever.
        let until = Instant::now() + support::PATIENCE;
        while client.try_send(&[0; 1_000]) {
            assert!(Instant::now() < until, "{way}: never reset");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(started.elapsed() >= Duration::from_millis(400), "{way}");
    }
}

/// An echo client that never reads is not read either, and costs a bounded amount of memory.
#[test]
fn a_client_that_never_reads_is_not_read() {
    for way in WAYS {
        let server = Server::start(way, &["--outbox-bytes-max", "256KiB"]);
        let mut bystander = server.open("/echo", "");
        let mut client = server.open("/echo", "");
        client
            .stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let message = frame(0x82, &[1; 60_000]);
        let mut sent_bytes = 0;
        while client
            .stream
            .write(&message)
            .is_ok_and(|len| len == message.len())
        {
            sent_bytes += message.len();
            assert!(
                sent_bytes < 100_000_000,
                "{way}: the server takes everything"
            );
        }
        bystander.send(&text("fine"));
        assert_eq!(bystander.read_text(), "fine");
    }
}
