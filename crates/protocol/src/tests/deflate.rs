//! Compression: round trips, shared frames, and what hostile senders try.

use super::*;
use crate::deflate::shared_window_bits;
use crate::limits::{DEFLATER_BYTES, INFLATER_BYTES};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Compresses `payload` as a sender without takeover does; the tail is cut off.
fn deflated(payload: &[u8], level: u32) -> Vec<u8> {
    let mut stream = Compress::new(Compression::new(level), false);
    let mut out = Vec::with_capacity(payload.len() * 2 + 100);
    stream
        .compress_vec(payload, &mut out, FlushCompress::Sync)
        .unwrap();
    out.truncate(out.len() - 4);
    out
}

/// A server's frame taken apart by an inflater with exactly the agreed window: the payload.
fn strictly_inflated(window_bits: u8, messages: &[Vec<u8>], takeover: bool) -> Vec<Vec<u8>> {
    let mut stream = Decompress::new_with_window_bits(false, window_bits);
    let mut payloads = Vec::new();
    for frame in messages {
        let start = crate::frame::header_len(
            match frame[1] {
                126 => 126,
                127 => 1 << 20,
                short => u64::from(short),
            },
            false,
        );
        if frame[0] & 0x40 == 0 {
            payloads.push(frame[start..].to_vec());
            continue;
        }
        if !takeover {
            stream = Decompress::new_with_window_bits(false, window_bits);
        }
        let body = [&frame[start..], &[0, 0, 0xff, 0xff]].concat();
        let mut payload = Vec::with_capacity(1 << 20);
        // In small steps, so that the window is used and not the output.
        let mut taken = 0;
        while taken < body.len() {
            let before = stream.total_in();
            let mut step = Vec::with_capacity(100);
            stream
                .decompress_vec(&body[taken..], &mut step, FlushDecompress::Sync)
                .unwrap();
            payload.extend(step);
            taken += (stream.total_in() - before) as usize;
        }
        loop {
            let mut step = Vec::with_capacity(100);
            let _ = stream.decompress_vec(&[], &mut step, FlushDecompress::Sync);
            if step.is_empty() {
                break;
            }
            payload.extend(step);
        }
        payloads.push(payload);
    }
    payloads
}

/// Messages come back for all windows, levels and takeovers, also through an inflater that has no more
/// than the agreed window.
#[test]
fn round_trips() {
    for window_bits in 9..=15 {
        for takeover in [false, true] {
            for level in [1, 9] {
                let mut random = Random::new(u64::from(window_bits) * 31 + u64::from(level));
                let settings = Settings {
                    compression_level: level,
                    ..Settings::default()
                };
                let deflate = Some(agreed(window_bits, takeover));
                let mut server = End::new(Role::Server, deflate, settings.clone());
                let mut client = End::new(Role::Client, deflate, settings);
                let mut frames = Vec::new();
                let mut said = Vec::new();
                for length in [0, 1, 63, 64, 100, 500, 600, 3_000, 40_000, 100, 64] {
                    let text = random.text(length);
                    let frame = server.say(MessageKind::Text, text.as_bytes());
                    match length {
                        0..60 => assert_eq!(frame[0], 0x81),
                        600.. => assert_eq!(frame[0], 0xc1),
                        _ => {}
                    }
                    assert_eq!(client.hear(&frame), [Heard::Text(text.clone())]);
                    let answer = client.say(MessageKind::Text, text.as_bytes());
                    assert_eq!(server.hear(&answer), [Heard::Text(text.clone())]);
                    frames.push(frame);
                    said.push(text.into_bytes());
                }
                let strict = strictly_inflated(window_bits, &frames, takeover);
                assert!(
                    strict == said,
                    "window {window_bits}, takeover {takeover}, level {level}"
                );
            }
        }
    }
}

/// Takeover pays: the same message again is nearly nothing, and without takeover it is the same.
#[test]
fn takeover_refers_to_earlier_messages() {
    let text = Random::new(1).text(2000);
    for (takeover, again_at_most) in [(true, 100), (false, 2000)] {
        let mut server = End::server(Some(agreed(15, takeover)));
        let first = server.say(MessageKind::Text, text.as_bytes());
        let again = server.say(MessageKind::Text, text.as_bytes());
        assert!(again.len() <= again_at_most);
        assert_eq!(first == again, !takeover);
    }
}

/// A shared frame is what a connection without takeover would send, for every window; a message that
/// fits a window is the same bytes for all larger ones.
#[test]
fn shared_frames() {
    let mut codec = Codec::new(Settings::default());
    for length in [10, 64, 400, 600, 5_000, 70_000] {
        let text = Random::new(9).text(length);
        let mut largest = Vec::new();
        codec.encode_shared(MessageKind::Text, text.as_bytes(), Some(15), &mut largest);
        for window_bits in 9..=15 {
            let mut frame = Vec::new();
            codec.encode_shared(
                MessageKind::Text,
                text.as_bytes(),
                Some(window_bits),
                &mut frame,
            );
            let deflate = Some(agreed(window_bits, false));
            assert_eq!(
                frame,
                End::server(deflate).say(MessageKind::Text, text.as_bytes())
            );
            let mut client = End::new(Role::Client, deflate, Settings::default());
            assert_eq!(client.hear(&frame), [Heard::Text(text.clone())]);
            if text.len() <= 1 << window_bits {
                assert_eq!(shared_window_bits(text.len(), window_bits), 15);
                assert_eq!(frame, largest);
            }
        }
        let mut plain = Vec::new();
        codec.encode_shared(MessageKind::Text, text.as_bytes(), None, &mut plain);
        assert_eq!(plain, server_frame(0x81, text.as_bytes()));
    }
}

/// What compression cannot make smaller goes out plain.
#[test]
fn noise_is_sent_plain() {
    let mut random = Random::new(3);
    let noise: Vec<u8> = (0..1000).map(|_| random.next() as u8).collect();
    let mut codec = Codec::new(Settings::default());
    let mut frame = Vec::new();
    codec.encode_shared(MessageKind::Binary, &noise, Some(12), &mut frame);
    assert_eq!(frame, server_frame(0x82, &noise));
    let deflate = Some(agreed(15, false));
    assert_eq!(End::server(deflate).say(MessageKind::Binary, &noise), frame);
}

/// The examples of RFC 7692 section 7.2.3, with takeover and without: compressed, fragmented, taken over,
/// stored, with BFINAL, in two blocks.
#[test]
fn examples_of_the_rfc() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let stored = [
        0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
    ];
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let blocks = [
        0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
    ];
    let heard = [Heard::Text("Hello".into())];
    for takeover in [true, false] {
        for body in [&hello[..], &stored, &last, &blocks] {
            let mut end = End::server(Some(agreed(15, takeover)));
            for _ in 0..3 {
                assert_eq!(end.hear(&client_frame(0xc1, body)), heard, "{body:x?}");
                for cut in 0..=body.len() {
                    assert_eq!(end.hear(&client_frame(0x41, &body[..cut])), []);
                    assert_eq!(end.hear(&client_frame(0x80, &body[cut..])), heard);
                    let frame = client_frame(0xc1, body);
                    assert_eq!(end.hear_all(frame.chunks(cut + 1)), heard);
                }
            }
        }
    }
    let mut end = End::server(Some(agreed(15, true)));
    assert_eq!(end.hear(&client_frame(0xc1, &hello)), heard);
    assert_eq!(end.hear(&client_frame(0xc1, &again)), heard);
}

/// A reference to an earlier message is good with takeover, and corrupt where the window was reset.
#[test]
fn reference_past_a_reset_window() {
    let hello = client_frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    let again = client_frame(0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00]);
    let mut end = End::server(Some(agreed(15, false)));
    end.hear(&hello);
    assert_eq!(
        end.hear(&again),
        [Heard::Error(ProtocolError::CorruptDeflate)]
    );
    assert_eq!(
        ProtocolError::CorruptDeflate.close_code(),
        CloseCode::INVALID_PAYLOAD
    );
}

/// BFINAL in the middle of a message: what follows may go on, and refer to what came before it.
#[test]
fn final_blocks_carry_on() {
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    for takeover in [true, false] {
        let mut end = End::server(Some(agreed(15, takeover)));
        for body in [
            [&last[..], &last, &[0]].concat(),
            [&last[..], &again].concat(),
        ] {
            let heard = end.hear(&client_frame(0xc1, &body));
            assert_eq!(heard, [Heard::Text("HelloHello".into())], "{body:x?}");
        }
        let heard = end.hear(&client_frame(0xc1, &last));
        assert_eq!(
            heard,
            [Heard::Text("Hello".into())],
            "nothing after the final block"
        );
    }
}

/// Empty compressed messages are delivered, however they are written.
#[test]
fn empty_messages() {
    for takeover in [true, false] {
        let mut end = End::server(Some(agreed(15, takeover)));
        for body in [
            &[0x00][..],
            &[0x02, 0x00],
            &[],
            &[0x03, 0x00],
            &[0x03, 0x00, 0x00],
        ] {
            let heard = end.hear(&client_frame(0xc1, body));
            assert_eq!(heard, [Heard::Text(String::new())], "{body:x?}");
        }
    }
}

/// A corrupt block is found out; so is a message that ends inside one.
#[test]
fn corrupt_messages() {
    let good = deflated(Random::new(4).text(3000).as_bytes(), 6);
    for takeover in [true, false] {
        let deflate = Some(agreed(15, takeover));
        let corrupt = [Heard::Error(ProtocolError::CorruptDeflate)];
        for body in [
            &[0x07][..],
            &[0xff; 20],
            &[0x00, 0x05, 0x00, 0xff, 0xff],
            &[0x04, 0x00],
        ] {
            assert_eq!(
                End::server(deflate).hear(&client_frame(0xc2, body)),
                corrupt,
                "{body:x?}"
            );
        }
        let mut unnoticed = 0;
        for length in 1..good.len() - 1 {
            let heard = End::server(deflate).hear(&client_frame(0xc2, &good[..length]));
            unnoticed += usize::from(heard != corrupt);
        }
        assert!(
            unnoticed <= good.len() / 50,
            "{unnoticed} of {} cuts unnoticed",
            good.len()
        );
    }
}

/// A bomb ends at the limit, with hardly more memory than that; the limit itself passes.
#[test]
fn bombs() {
    let settings = || Settings {
        message_bytes_max: 100_000,
        ..Settings::default()
    };
    for (takeover, by_connection) in [(true, false), (false, false), (false, true)] {
        let server = || {
            let settings = match by_connection {
                true => Settings::default(),
                false => settings(),
            };
            let mut end = End::new(Role::Server, Some(agreed(15, takeover)), settings);
            if by_connection {
                end.connection.limit_messages(100_000);
            }
            end
        };
        let full = deflated(&vec![0; 100_000], 9);
        assert!(server().hear(&client_frame(0xc2, &full)) == [Heard::Binary(vec![0; 100_000])]);
        let over = deflated(&vec![0; 100_001], 9);
        let too_big = [Heard::Error(ProtocolError::MessageTooBig)];
        assert_eq!(server().hear(&client_frame(0xc2, &over)), too_big);
        let bomb = deflated(&vec![0; 5_000_000], 9);
        let mut end = server();
        let wire = client_frame(0xc2, &bomb);
        assert_eq!(end.hear(&wire[..400]), too_big, "long before its end");
        assert_eq!(end.connection.held_bytes(), 0);
        assert_eq!(
            ProtocolError::MessageTooBig.close_code(),
            CloseCode::TOO_BIG
        );
    }
}

/// What an unfinished message holds is told: what it has become so far and its inflater; nothing when it
/// is done or idle. With takeover the contexts stay.
#[test]
fn held_memory_is_told() {
    let wire = client_frame(0xc2, &deflated(&vec![0; 50_000], 1));
    let (head, tail) = wire.split_at(wire.len() - 3);
    for takeover in [true, false] {
        let mut end = End::server(Some(agreed(15, takeover)));
        assert_eq!(end.connection.held_bytes(), 0);
        assert_eq!(end.hear(head), []);
        let held = end.connection.held_bytes();
        assert!((80_000..120_000).contains(&held), "{held}");
        assert_eq!(end.hear(tail).len(), 1);
        let held = end.connection.held_bytes();
        assert_eq!(held, if takeover { INFLATER_BYTES } else { 0 });
        end.say(MessageKind::Binary, &[0; 1_000]);
        let held = end.connection.held_bytes();
        assert_eq!(held > DEFLATER_BYTES, takeover);
    }
}

/// Bad UTF-8 inside compressed text fails before the message has ended.
#[test]
fn compressed_text_fails_early() {
    let text = [Random::new(5).text(5000).as_bytes(), b"\xff", &[b'x'; 5000]].concat();
    let wire = client_frame(0x41, &deflated(&text, 1));
    let mut end = End::server(Some(agreed(15, false)));
    assert_eq!(end.hear(&wire), [Heard::Error(ProtocolError::InvalidUtf8)]);
    let cut = client_frame(0xc1, &deflated(b"abc\xe2\x82", 1));
    let mut end = End::server(Some(agreed(15, false)));
    assert_eq!(end.hear(&cut), [Heard::Error(ProtocolError::InvalidUtf8)]);
}

/// Whether hearing `wire` made an event.
fn is_event(
    connection: &mut Connection,
    codec: &mut Codec,
    wire: &[u8],
) -> Result<bool, ProtocolError> {
    let mut input = wire.to_vec();
    let (_, event) = connection.handle_input(codec, &mut input, 0)?;
    Ok(event.is_some())
}

/// Contexts between messages are counted: at the budget a client's takeover is refused, our own side goes on
/// without, and who needs none, or only until its message ends, is not concerned.
#[test]
fn contexts_have_a_budget() {
    let settings = Settings {
        inflaters_max: 1,
        ..Settings::default()
    };
    let mut codec = Codec::new(settings);
    let wire = client_frame(0xc1, &deflated(Random::new(6).text(500).as_bytes(), 1));
    let (head, tail) = wire.split_at(50);
    let mut passing = [(); 3].map(|()| Connection::new(Role::Server, Some(agreed(15, false))));
    for connection in &mut passing {
        assert_eq!(is_event(connection, &mut codec, head), Ok(false));
        assert!(codec.may_hold_context());
    }
    for connection in &mut passing {
        assert_eq!(is_event(connection, &mut codec, tail), Ok(true));
    }
    let mut first = Connection::new(Role::Server, Some(agreed(15, true)));
    let mut second = Connection::new(Role::Server, Some(agreed(15, true)));
    assert_eq!(is_event(&mut first, &mut codec, &wire), Ok(true));
    assert!(!codec.may_hold_context());
    assert_eq!(is_event(&mut second, &mut codec, head), Ok(false));
    assert_eq!(
        is_event(&mut second, &mut codec, tail),
        Err(ProtocolError::OutOfContexts)
    );
    assert_eq!(
        ProtocolError::OutOfContexts.close_code(),
        CloseCode::TRY_AGAIN
    );
    assert_eq!(is_event(&mut first, &mut codec, &wire), Ok(true));
    drop(first);
    assert!(codec.may_hold_context());

    let text = Random::new(7).text(500);
    let mut third = Connection::new(Role::Server, Some(agreed(15, true)));
    let mut fourth = Connection::new(Role::Server, Some(agreed(15, true)));
    let mut out = Vec::new();
    third.write_message(&mut codec, MessageKind::Text, text.as_bytes(), &mut out);
    assert!(!codec.may_hold_context());
    let mut client = End::new(Role::Client, Some(agreed(15, true)), Settings::default());
    for _ in 0..3 {
        let mut out = Vec::new();
        fourth.write_message(&mut codec, MessageKind::Text, text.as_bytes(), &mut out);
        assert_eq!(client.hear(&out), [Heard::Text(text.clone())]);
    }
    drop(third);
    assert!(codec.may_hold_context());
}
