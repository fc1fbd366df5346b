//! What is said is heard, however the network cuts it.

use super::*;
use crate::Place;

/// Some of everything: plain, fragmented with control frames between, empty, every length form.
fn some_of_everything() -> (Vec<u8>, Vec<Heard>) {
    let long = "é€".repeat(30);
    let longer = vec![7; 66_000];
    let frames = [
        client_frame(0x81, "hé".as_bytes()),
        client_frame(0x89, b"!"),
        client_frame(0x01, &"€𝄞".as_bytes()[..5]),
        client_frame(0x8a, b""),
        client_frame(0x00, b""),
        client_frame(0x89, &[0; 125]),
        client_frame(0x80, &"€𝄞".as_bytes()[5..]),
        client_frame(0x82, b""),
        client_frame(0x81, long.as_bytes()),
        client_frame(0x82, &longer),
        client_frame(0x88, b"\x03\xe8bye"),
    ];
    let heard = vec![
        Heard::Text("hé".into()),
        Heard::Ping(b"!".into()),
        Heard::Pong(vec![]),
        Heard::Ping(vec![0; 125]),
        Heard::Text("€𝄞".into()),
        Heard::Binary(vec![]),
        Heard::Text(long),
        Heard::Binary(longer),
        Heard::Close(Some(CloseCode::NORMAL), "bye".into()),
    ];
    (frames.concat(), heard)
}

/// However TCP cuts the stream, the events are the same.
#[test]
fn split_points_do_not_matter() {
    let (wire, expected) = some_of_everything();
    let cuts = (0..700).chain(wire.len() - 20..=wire.len());
    for cut in cuts {
        let (head, tail) = wire.split_at(cut);
        assert_eq!(
            End::server(None).hear_all([head, tail]),
            expected,
            "cut at {cut}"
        );
    }
    assert_eq!(End::server(None).hear_all(wire.chunks(1)), expected);
    for length in [2, 3, 5, 7, 13, 64, 1000] {
        assert_eq!(End::server(None).hear_all(wire.chunks(length)), expected);
    }
}

/// Both roles talk to each other, plain and compressed, over random cuts; when all is said, neither
/// holds anything incomplete.
#[test]
fn roles_talk_over_random_cuts() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let deflate = match random.below(3) {
            0 => None,
            1 => Some(agreed(9 + random.below(7) as u8, false)),
            _ => Some(agreed(9 + random.below(7) as u8, true)),
        };
        let mut speaker = End::new(Role::Client, deflate, Settings::default());
        let mut listener = End::server(deflate);
        if random.below(2) == 0 {
            std::mem::swap(&mut speaker, &mut listener);
        }
        let mut wire = Vec::new();
        let mut said = Vec::new();
        for _ in 0..random.below(20) {
            let length = random.length();
            match random.below(4) {
                0 => {
                    let payload = random.text(length % 100).into_bytes();
                    let payload = &payload[..payload.len().min(125)];
                    speaker.connection.write_ping(payload, &mut wire);
                    said.push(Heard::Ping(payload.to_vec()));
                }
                1 => {
                    let payload: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
                    wire.extend(speaker.say(MessageKind::Binary, &payload));
                    said.push(Heard::Binary(payload));
                }
                _ => {
                    let text = random.text(length);
                    wire.extend(speaker.say(MessageKind::Text, text.as_bytes()));
                    said.push(Heard::Text(text));
                }
            }
        }
        let mut heard = Vec::new();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at((random.length() + 1).min(rest.len()));
            heard.extend(listener.hear(head));
            rest = tail;
        }
        assert!(heard == said, "seed {seed}");
        assert_eq!(listener.connection.deadline_ms(), None);
    }
}

/// A message means the same if its rest is received into its own memory: whole, text cut inside
/// characters, followed by others, fragmented, or no UTF-8.
#[test]
fn rests_received_in_place_mean_the_same() {
    let mut in_place = 0;
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut wire = Vec::new();
        for _ in 0..1 + random.below(5) {
            let length = random.below([1_500, 25_000, 400_000][seed as usize % 3]);
            let mut payload = random.text(length).into_bytes();
            let broken = random.below(payload.len() + 1);
            if random.below(4) == 0 && broken < payload.len() {
                payload[broken] = 0xff;
            }
            let at = random.below(payload.len() + 1);
            wire.extend(match random.below(4) {
                0 => client_frame(0x82, &payload),
                1 => [
                    client_frame(0x01, &payload[..at]),
                    client_frame(0x89, b"!"),
                    client_frame(0x80, &payload[at..]),
                ]
                .concat(),
                _ => client_frame(0x81, &payload),
            });
        }
        let expected = End::server(None).hear(&wire);
        let (mut end, mut heard) = (End::server(None), Vec::new());
        let mut rest = &wire[..];
        while !rest.is_empty() && !matches!(heard.last(), Some(Heard::Error(_))) {
            let (head, tail) = rest.split_at((random.below(60_000) + 1).min(rest.len()));
            heard.extend(end.hear(head));
            rest = tail;
            while random.below(4) > 0 {
                let (received, event) = end.hear_rest(rest, 1 + random.below(100_000));
                heard.extend(event);
                in_place += received;
                rest = &rest[received..];
            }
        }
        assert!(heard == expected, "seed {seed}");
    }
    assert!(in_place > 1_000_000, "{in_place} bytes");
}

/// Once 32 KiB of it have come, a message of up to two megabytes has all the memory that it needs: nothing is
/// moved for its last bytes.
#[test]
fn a_long_message_stays_where_it_begins() {
    for length in (64 << 10..=2_000_000)
        .step_by(61_440)
        .chain([1 << 20, (1 << 20) + 1])
    {
        let wire = client_frame(0x82, &vec![7; length]);
        let (first, rest) = wire.split_at(32 << 10);
        let mut end = End::server(None);
        assert_eq!(end.hear(first), []);
        let reserved = end.connection.assembled_bytes();
        let (received, heard) = end.hear_rest(rest, rest.len());
        assert!(
            heard.is_some() && received == rest.len(),
            "{length}: {received}"
        );
        let reply = end.codec.take_reply().expect("gathered as one frame");
        assert_eq!(reply.capacity(), reserved, "{length}");
    }
}

/// A whole plain message is handed on where it lies.
#[test]
fn whole_messages_stay_in_the_input() {
    let mut end = End::server(None);
    let mut input = [client_frame(0x82, b"abc"), client_frame(0x81, &[b'x'; 300])].concat();
    let handled = end.connection.handle_input(&mut end.codec, &mut input, 0);
    let Ok((used, Some(Event::Message { place, .. }))) = handled else {
        panic!("{handled:?}");
    };
    assert_eq!((used, place), (9, Place::Input(6)));
    let handled = end
        .connection
        .handle_input(&mut end.codec, &mut input[9..], 0);
    let Ok((_, Some(Event::Message { place, .. }))) = handled else {
        panic!("{handled:?}");
    };
    assert_eq!(place, Place::Input(8));
    assert!(
        input[17..].iter().all(|&byte| byte == b'x'),
        "unmasked in place"
    );
}

/// A Close is sent once, and its reason cut to fit; a Close that was received ends the input.
#[test]
fn closing() {
    let mut end = End::server(None);
    let mut out = Vec::new();
    end.connection
        .write_close(Some(CloseCode::GOING_AWAY), &"é".repeat(99), &mut out);
    assert_eq!(out[..4], [0x88, 124, 0x03, 0xe9]);
    assert_eq!(out.len(), 126);
    end.connection.write_close(None, "", &mut out);
    assert_eq!(out.len(), 126, "once");
    assert!(end.connection.is_close_sent() && !end.connection.is_close_received());

    let wire = [
        client_frame(0x88, b""),
        client_frame(0x81, b"\xff"),
        vec![0xff; 99],
    ]
    .concat();
    assert_eq!(end.hear(&wire), [Heard::Close(None, String::new())]);
    assert!(end.connection.is_close_received());
    assert_eq!(end.hear(&wire), []);
}

/// A client masks every frame, each with another key.
#[test]
fn client_masks_with_fresh_keys() {
    let mut client = End::new(Role::Client, None, Settings::default());
    let mut keys = std::collections::HashSet::new();
    for _ in 0..1000 {
        let wire = client.say(MessageKind::Binary, b"hello");
        assert_eq!(wire[1], 0x80 | 5);
        keys.insert(<[u8; 4]>::try_from(&wire[2..6]).unwrap());
    }
    let mut wire = Vec::new();
    client.connection.write_ping(b"p", &mut wire);
    client.connection.write_pong(b"p", &mut wire);
    client.connection.write_close(None, "", &mut wire);
    assert_eq!([wire[1], wire[8], wire[15]], [0x81, 0x81, 0x80]);
    assert!(keys.len() > 990, "{} different keys of 1000", keys.len());
}

/// The memory of cut messages goes round: a thousand of them make one assembly.
#[test]
fn assemblies_are_reused() {
    let mut end = End::server(None);
    let wire = client_frame(0x82, &[5; 4000]);
    let mut places = std::collections::HashSet::new();
    for _ in 0..1000 {
        let mut input = wire.clone();
        let (head, tail) = input.split_at_mut(1000);
        let handled = end.connection.handle_input(&mut end.codec, head, 0);
        assert_eq!(handled, Ok((1000, None)));
        let handled = end.connection.handle_input(&mut end.codec, tail, 0);
        let Ok((_, Some(Event::Message { payload, place, .. }))) = handled else {
            panic!("{handled:?}");
        };
        assert_eq!(place, Place::Assembled);
        places.insert(payload.as_ptr());
    }
    assert!(places.len() <= 2, "{} allocations", places.len());
}

/// An assembled payload can be taken out and given back, and its memory serves the next message.
#[test]
fn assembled_payloads_can_be_taken() {
    let mut end = End::server(None);
    let wire = client_frame(0x82, &[5; 4000]);
    let mut places = std::collections::HashSet::new();
    for _ in 0..10 {
        assert_eq!(end.hear(&wire[..9]), []);
        assert_eq!(end.hear_all(wire[9..].chunks(5000)).len(), 1);
        end.hear_all(wire.chunks(2010).take(1));
        let taken = end.codec.take_assembled();
        assert!(taken.is_empty(), "taken back by the next input");
        let mut input = wire[2010..].to_vec();
        let handled = end.connection.handle_input(&mut end.codec, &mut input, 0);
        assert!(matches!(handled, Ok((_, Some(_)))));
        let payload = end.codec.take_assembled();
        assert_eq!(payload, [5; 4000]);
        places.insert(payload.as_ptr());
        end.codec.give_assembled(payload);
    }
    assert!(places.len() <= 2);
}

/// A message that was cut anywhere and came as one frame can be taken out as the very frame that a
/// server writes; one in fragments cannot, and is whole all the same.
#[test]
fn a_gathered_message_is_its_own_reply() {
    for length in [1, 125, 126, 65_535, 65_536, 300_000] {
        let message: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let wire = client_frame(0x82, &message);
        for at in [1, 3, 6, wire.len() / 2, wire.len() - 1] {
            let mut end = End::server(None);
            let (head, tail) = wire.split_at(at);
            assert_eq!(
                end.hear_all([head, tail]),
                [Heard::Binary(message.clone())],
                "{length} cut at {at}"
            );
            let reply = end.codec.take_reply();
            assert_eq!(end.codec.take_reply(), None, "it is taken once");
            let written = end.say(MessageKind::Binary, &message);
            assert_eq!(reply, Some(written), "{length} cut at {at}");
        }
    }
    let mut end = End::server(None);
    let fragments = [client_frame(0x02, b"two "), client_frame(0x80, b"parts")];
    assert_eq!(
        end.hear_all([&fragments[0][..], &fragments[1][..]]),
        [Heard::Binary(b"two parts".to_vec())]
    );
    assert_eq!(end.codec.take_reply(), None);
    assert_eq!(end.codec.take_assembled(), b"two parts");
}
