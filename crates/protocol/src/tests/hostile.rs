//! Hostile frames: each is answered with its error, at the very byte that makes it certain.

use super::*;

/// Hears `wire` byte by byte: the error, and after how many bytes it came.
fn fails_at(mut end: End, wire: &[u8]) -> Option<(ProtocolError, usize)> {
    for (at, byte) in wire.iter().enumerate() {
        if let Some(Heard::Error(error)) = end.hear(std::slice::from_ref(byte)).pop() {
            assert_eq!(end.hear(wire), [], "after an error nothing is heard");
            assert_eq!(end.connection.deadline_ms(), None, "nor kept");
            return Some((error, at + 1));
        }
    }
    None
}

/// Asserts error, code and place, byte by byte and in one piece.
#[track_caller]
fn assert_fails(deflate: Option<Agreed>, wire: &[u8], error: ProtocolError, code: u16, at: usize) {
    assert_eq!(error.close_code().as_u16(), code, "{error}");
    assert_eq!(
        fails_at(End::server(deflate), wire),
        Some((error, at)),
        "{wire:x?}"
    );
    assert_eq!(
        End::server(deflate).hear(wire).pop(),
        Some(Heard::Error(error))
    );
    let enough = End::server(deflate).hear(&wire[..at]).pop();
    assert_eq!(enough, Some(Heard::Error(error)), "{at} bytes are enough");
}

/// Unmasked frames, wrong bits, wrong opcodes: known at the first or second byte.
#[test]
fn headers() {
    use ProtocolError::*;
    let zipped = Some(agreed(15, false));
    assert_fails(None, &server_frame(0x81, b"hello"), FrameNotMasked, 1002, 2);
    for first in [0xa1, 0x91, 0xb1, 0xc1, 0xf1] {
        assert_fails(None, &client_frame(first, b"x"), ReservedBitSet, 1002, 1);
    }
    for first in [0xa1, 0x91, 0xe1, 0xd1, 0xc0, 0xc8, 0xc9, 0xca] {
        assert_fails(zipped, &client_frame(first, b"x"), ReservedBitSet, 1002, 1);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let endless = [
            0x80 | opcode,
            0xff,
            0x7f,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
        ];
        assert_fails(None, &endless, ReservedOpcode(opcode), 1002, 1);
    }
    for opcode in [8, 9, 10] {
        assert_fails(None, &client_frame(opcode, b""), ControlFragmented, 1002, 1);
        assert_fails(
            None,
            &client_frame(0x80 | opcode, &[0; 126]),
            ControlTooLong,
            1002,
            2,
        );
        assert_fails(None, &[0x80 | opcode, 0xff], ControlTooLong, 1002, 2);
    }
    assert_fails(None, &client_frame(0x80, b"x"), OrphanContinuation, 1002, 1);
    assert_fails(None, &client_frame(0x00, b"x"), OrphanContinuation, 1002, 1);
    let open = client_frame(0x01, b"abc");
    let continued = [&open[..], &client_frame(0x80, b"")].concat();
    for first in [0x81, 0x01, 0x82, 0x02] {
        let wire = [&open[..], &client_frame(first, b"x")].concat();
        assert_fails(None, &wire, MessageInterleaved, 1002, open.len() + 1);
    }
    let wire = [&continued[..], &client_frame(0x80, b"")].concat();
    assert_fails(None, &wire, OrphanContinuation, 1002, continued.len() + 1);
    let wire = [&client_frame(0x41, b"")[..], &client_frame(0xc0, b"")].concat();
    assert_fails(zipped, &wire, ReservedBitSet, 1002, 7);
}

/// Lengths: not minimal, with the top bit, past the limit, before any payload or even the key.
#[test]
fn lengths() {
    use ProtocolError::*;
    assert_fails(
        None,
        &[0x82, 0xfe, 0, 125, 1, 2, 3, 4],
        LengthNotMinimal,
        1002,
        4,
    );
    assert_fails(
        None,
        &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        LengthNotMinimal,
        1002,
        10,
    );
    assert_fails(
        None,
        &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
        LengthTopBitSet,
        1002,
        3,
    );
    assert_fails(
        None,
        &[0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0],
        MessageTooBig,
        1009,
        10,
    );
    assert_fails(
        None,
        &[0x02, 0xff, 0, 0, 0, 0, 2, 0, 0, 0],
        MessageTooBig,
        1009,
        10,
    );
    let zipped = Some(agreed(15, false));
    assert_fails(
        zipped,
        &[0xc2, 0xff, 0, 0, 0, 0, 2, 0, 0, 0],
        MessageTooBig,
        1009,
        10,
    );
}

/// A message exactly as long as the limit passes, in one frame or several; one byte more fails as soon
/// as it is declared.
#[test]
fn message_limit() {
    let of_the_codec = || {
        let settings = Settings {
            message_bytes_max: 1000,
            ..Settings::default()
        };
        End::new(Role::Server, None, settings)
    };
    let of_the_connection = || {
        let mut end = End::server(None);
        end.connection.limit_messages(1000);
        end
    };
    let full = [Heard::Binary(vec![1; 1000])];
    let too_big = [Heard::Error(ProtocolError::MessageTooBig)];
    let begin = client_frame(0x02, &[1; 600]);
    for server in [&of_the_codec as &dyn Fn() -> End, &of_the_connection] {
        assert_eq!(server().hear(&client_frame(0x82, &[1; 1000])), full);
        assert_eq!(server().hear(&client_frame(0x82, &[1; 1001])), too_big);
        let wire = [&begin[..], &client_frame(0x80, &[1; 400])].concat();
        assert_eq!(server().hear(&wire), full);
        let wire = [&begin[..], &client_frame(0x80, &[1; 401])].concat();
        let certain = begin.len() + 4;
        assert_eq!(
            fails_at(server(), &wire),
            Some((ProtocolError::MessageTooBig, certain))
        );
    }
}

/// A huge declared length commits no memory: only received bytes do.
#[test]
fn declared_length_commits_nothing() {
    let mut end = End::server(None);
    let wire = [0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5];
    assert_eq!(end.hear(&wire), []);
    assert!(end.connection.assembled_bytes() < 4096);
    assert_eq!(end.hear(&[6; 10_000]), []);
    assert!(end.connection.assembled_bytes() < 100_000);
}

/// A fragment flood is counted, empty ones sooner than others.
#[test]
fn fragment_floods() {
    let settings = Settings {
        fragments_max: 1000,
        ..Settings::default()
    };
    let mut end = End::new(Role::Server, None, settings.clone());
    end.hear(&client_frame(0x02, b"x"));
    let heard = end.hear(&client_frame(0x00, b"x").repeat(999));
    assert_eq!(heard, []);
    let heard = end.hear(&client_frame(0x00, b"x"));
    assert_eq!(heard, [Heard::Error(ProtocolError::TooManyFragments)]);
    assert_eq!(
        ProtocolError::TooManyFragments.close_code(),
        CloseCode::POLICY
    );

    let mut end = End::new(Role::Server, None, settings);
    assert_eq!(end.hear(&client_frame(0x02, b"")), []);
    assert_eq!(end.hear(&client_frame(0x00, b"").repeat(127)), []);
    let heard = end.hear(&client_frame(0x00, b""));
    assert_eq!(heard, [Heard::Error(ProtocolError::TooManyEmptyFragments)]);
    assert_eq!(
        ProtocolError::TooManyEmptyFragments.close_code(),
        CloseCode::POLICY
    );
}

/// Four megabytes in fragments of 64 bytes pass (Autobahn 9.3 and 9.4).
#[test]
fn many_small_fragments_pass() {
    let mut wire = client_frame(0x02, &[9; 64]);
    wire.extend(client_frame(0x00, &[9; 64]).repeat((4 << 20) / 64 - 2));
    wire.extend(client_frame(0x80, &[9; 64]));
    let heard = End::server(None).hear_all(wire.chunks(32 << 10));
    assert!(heard == [Heard::Binary(vec![9; 4 << 20])]);
}

/// Whatever is unfinished, a header, a frame or a message, has a deadline that progress does not move.
#[test]
fn unfinished_messages_expire() {
    let wires = [
        vec![0x81],
        client_frame(0x01, b"abc"),
        client_frame(0x81, b"abc")[..7].to_vec(),
    ];
    for wire in wires {
        let mut end = End::server(None);
        assert_eq!(end.connection.deadline_ms(), None);
        end.now_ms = 5_000;
        assert_eq!(end.hear(&wire), []);
        assert_eq!(end.connection.deadline_ms(), Some(65_000));
        end.now_ms = 64_999;
        end.hear(&wire[..0]);
        assert_eq!(end.connection.handle_timeout(64_999), Ok(()));
        let error = ProtocolError::MessageTimeout;
        assert_eq!(end.connection.handle_timeout(65_000), Err(error));
        assert_eq!(error.close_code(), CloseCode::POLICY);
        assert_eq!(end.hear(&client_frame(0x81, b"x")), []);
        assert_eq!(end.connection.handle_timeout(99_000), Ok(()), "once");
    }
}

/// Invalid UTF-8 fails at the byte that makes it certain: in an unfinished frame, across fragments, at
/// the end of the message.
#[test]
fn text_fails_early() {
    use ProtocolError::InvalidUtf8;
    let header = 6;
    for (text, certain) in [
        (&b"ab\xffcdefgh"[..], 3),
        (b"\xed\xa0\x80abc", 2),
        (b"\xf4\x90\x80\x80", 2),
        (b"\xc0\xafabc", 1),
        (b"\xe2\x82", 2),
    ] {
        let wire = client_frame(0x81, text);
        assert_fails(None, &wire, InvalidUtf8, 1007, header + certain);
    }
    let valid_long = "é".repeat(40);
    let first = client_frame(0x01, &valid_long.as_bytes()[..79]);
    let wire = [&first[..], &client_frame(0x00, b"\xc3")].concat();
    assert_fails(None, &wire, InvalidUtf8, 1007, first.len() + 7);
    let wire = [&first[..], &client_frame(0x80, b"")].concat();
    assert_fails(None, &wire, InvalidUtf8, 1007, first.len() + 6);
    let binary = client_frame(0x82, b"\xff\xff");
    assert_eq!(
        End::server(None).hear(&binary),
        [Heard::Binary(vec![0xff; 2])]
    );
}

/// Bodies of Close frames.
#[test]
fn close_bodies() {
    use ProtocolError::*;
    assert_fails(
        None,
        &client_frame(0x88, b"\x03"),
        CloseBodyTooShort,
        1002,
        7,
    );
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535_u16] {
        let wire = client_frame(0x88, &code.to_be_bytes());
        assert_fails(None, &wire, CloseCodeInvalid(code), 1002, 8);
    }
    let wire = client_frame(0x88, b"\x03\xe8\xff");
    assert_fails(None, &wire, InvalidUtf8, 1007, 9);
}

/// A hundred pings in a second are heard, the next one is a flood; a second later they are heard again.
#[test]
fn ping_floods() {
    for first in [0x89, 0x8a] {
        let mut end = End::server(None);
        let ping = client_frame(first, b"x");
        for second in 0..3 {
            end.now_ms = second * 1000 + 500;
            assert_eq!(end.hear(&ping.repeat(100)).len(), 100);
        }
        assert_eq!(end.hear(&ping), [Heard::Error(ProtocolError::PingFlood)]);
        assert_eq!(ProtocolError::PingFlood.close_code(), CloseCode::POLICY);
    }
}

/// Pongs that were asked for are no flood, however many; one more than that is counted.
#[test]
fn asked_for_pongs_are_no_flood() {
    let mut end = End::server(None);
    for _ in 0..1_000 {
        end.connection.write_ping(b"x", &mut Vec::new());
    }
    let pong = client_frame(0x8a, b"x");
    assert_eq!(end.hear(&pong.repeat(1_000)).len(), 1_000);
    assert_eq!(end.hear(&pong.repeat(100)).len(), 100);
    assert_eq!(end.hear(&pong), [Heard::Error(ProtocolError::PingFlood)]);
}

/// A client refuses a server's masked frame.
#[test]
fn client_refuses_masks() {
    let client = || End::new(Role::Client, None, Settings::default());
    let error = ProtocolError::FrameMasked;
    assert_eq!(
        fails_at(client(), &client_frame(0x81, b"x")),
        Some((error, 2))
    );
    assert_eq!(error.close_code(), CloseCode::PROTOCOL);
    let wire = server_frame(0x81, b"x");
    assert_eq!(client().hear(&wire), [Heard::Text("x".into())]);
}

/// Random frames and random bytes never panic and never hang, and however they are cut, what is heard and
/// the error at the end are the same.
#[test]
fn noise() {
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let deflate = [None, Some(agreed(15, true)), Some(agreed(10, false))][random.below(3)];
        let mut wire = Vec::new();
        for _ in 0..random.below(12) {
            let firsts = [
                0x81, 0x01, 0x80, 0x00, 0x82, 0xc1, 0x41, 0xc2, 0x89, 0x88, 0x8a,
            ];
            let first = firsts[random.below(firsts.len())];
            let length = random.below(80);
            let bytes: Vec<u8> = match random.below(3) {
                0 => (0..length).map(|_| random.next() as u8).collect(),
                1 => vec![b'a'; length],
                _ => vec![0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            };
            match random.below(12) {
                0 => wire.extend(bytes),
                _ => wire.extend(client_frame(first, &bytes)),
            }
        }
        let settings = || Settings {
            message_bytes_max: 200,
            ..Settings::default()
        };
        let server = || End::new(Role::Server, deflate, settings());
        let whole = server().hear(&wire);
        for _ in 0..3 {
            let (head, tail) = wire.split_at(random.below(wire.len() + 1));
            let (neck, tail) = tail.split_at(random.below(tail.len() + 1));
            let cut = server().hear_all([head, neck, tail]);
            assert_eq!(cut, whole, "seed {seed}");
        }
        assert_eq!(server().hear_all(wire.chunks(1)), whole, "seed {seed}");
    }
}
