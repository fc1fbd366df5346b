//! Any bytes, cut anywhere, into a connection of either role: no panic, and the events are those of the
//! same bytes in one piece.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tickring_protocol::deflate::Agreed;
use tickring_protocol::{Codec, Connection, Role, Settings};

fuzz_target!(|data: &[u8]| {
    let [choice, cut, wire @ ..] = data else {
        return;
    };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let deflate = (choice & 2 != 0).then_some(Agreed {
        server_no_context_takeover: choice & 4 != 0,
        client_no_context_takeover: choice & 4 != 0,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    });
    let piece_bytes = usize::from(*cut) + 1;
    let whole = events(role, deflate, wire, wire.len().max(1));
    assert_eq!(events(role, deflate, wire, piece_bytes), whole);
});

/// What was heard, up to the first error.
fn events(role: Role, deflate: Option<Agreed>, wire: &[u8], piece_bytes: usize) -> Vec<String> {
    let mut codec = Codec::new(Settings {
        message_bytes_max: 1 << 16,
        ..Settings::default()
    });
    let mut connection = Connection::new(role, deflate);
    let mut heard = Vec::new();
    for piece in wire.chunks(piece_bytes) {
        let mut input = piece.to_vec();
        let mut at = 0;
        loop {
            match connection.handle_input(&mut codec, &mut input[at..], 0) {
                Ok((used, Some(event))) => {
                    at += used;
                    // Where a payload lies depends on the cuts; what it says does not.
                    let event = format!("{event:?}");
                    heard.push(event.split(", place").next().unwrap_or_default().to_owned());
                }
                Ok((used, None)) => {
                    assert_eq!(at + used, input.len());
                    break;
                }
                Err(error) => {
                    heard.push(error.to_string());
                    return heard;
                }
            }
        }
    }
    heard
}
