//! Offer and response of permessage-deflate (RFC 7692 sections 5 and 7.1), for both roles.
//!
//! An offer that does not follow the grammar exactly (a repeated parameter, an unknown one, an invalid value) is
//! declined, and the next offer is considered. Such a response ends the handshake.

use super::{Agreed, Mode, Policy, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::handshake::HandshakeError;
use crate::limits::EXTENSION_OFFERS_MAX;

/// Accepts the first acceptable offer in the values of all `Sec-WebSocket-Extensions` headers of a request, each a
/// comma-separated list. Returns the agreement, and the value of the response's header. `None`: the connection is not
/// compressed, and the response has no such header.
pub fn accept<'a>(
    offers: impl Iterator<Item = &'a [u8]>,
    policy: &Policy,
) -> Option<(Agreed, String)> {
    if policy.mode == Mode::Off {
        return None;
    }
    let mut offers_seen = 0;
    let mut accepted = None;
    for offer in offers.flat_map(|value| split_unquoted(value, b',')) {
        if offer.is_empty() {
            continue;
        }
        offers_seen += 1;
        if offers_seen > EXTENSION_OFFERS_MAX {
            return None;
        }
        if accepted.is_none() {
            accepted = Parameters::parse(offer).and_then(|parameters| grant(&parameters, policy));
        }
    }
    accepted.map(|(agreed, response)| (agreed, response.to_string()))
}

/// What a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Asks the server to begin every message with an empty window.
    pub server_no_context_takeover: bool,
    /// Promises the same for the client's own messages.
    pub client_no_context_takeover: bool,
    /// Asks the server to use at most this window: 9–15.
    pub server_max_window_bits: Option<u8>,
    /// Lets the server choose the client's window, up to this: 9–15.
    pub client_max_window_bits: Option<u8>,
}

impl Default for Offer {
    /// What browsers offer.
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: None,
            client_max_window_bits: Some(WINDOW_BITS_MAX),
        }
    }
}

/// The value of the request's `Sec-WebSocket-Extensions` header.
///
/// # Panics
/// If a window is out of range.
pub fn offer(offer: &Offer) -> String {
    for bits in [offer.server_max_window_bits, offer.client_max_window_bits] {
        let bits = bits.unwrap_or(WINDOW_BITS_MAX);
        assert!(
            (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits),
            "zlib has windows of 9 to 15 bits"
        );
    }
    let parameters = Parameters {
        server_no_context_takeover: offer.server_no_context_takeover,
        client_no_context_takeover: offer.client_no_context_takeover,
        server_max_window_bits: offer.server_max_window_bits,
        client_max_window_bits: offer
            .client_max_window_bits
            .map(|bits| (bits < WINDOW_BITS_MAX).then_some(bits)),
    };
    parameters.to_string()
}

/// Checks the server's answer, the value of the response's header (empty if there is none), against the offer.
///
/// # Errors
/// The answer does not match this offer; the handshake has failed (RFC 7692 section 5.1).
pub fn check_response(
    response: &str,
    offered: Option<&Offer>,
) -> Result<Option<Agreed>, HandshakeError> {
    let mut answers = split_unquoted(response.as_bytes(), b',').filter(|answer| !answer.is_empty());
    let Some(answer) = answers.next() else {
        return Ok(None);
    };
    let agreed = match (offered, answers.next()) {
        (Some(offered), None) => {
            Parameters::parse(answer).and_then(|answer| settle(&answer, offered))
        }
        _ => None,
    };
    match agreed {
        Some(agreed) => Ok(Some(agreed)),
        None => Err(HandshakeError::Extensions),
    }
}

/// A server's decision on one offer, with the parameters of its answer.
fn grant(offered: &Parameters, policy: &Policy) -> Option<(Agreed, Parameters)> {
    let shared = policy.mode == Mode::Shared;
    let server_max_window_bits = offered
        .server_max_window_bits
        .unwrap_or(WINDOW_BITS_MAX)
        .min(policy.server_max_window_bits);
    if server_max_window_bits < WINDOW_BITS_MIN {
        // zlib has no raw stream with a window of 256 bytes.
        return None;
    }
    // A client that did not offer it cannot be told its window; ours reads any.
    let client_max_window_bits = match offered.client_max_window_bits {
        Some(hint) => hint
            .unwrap_or(WINDOW_BITS_MAX)
            .min(policy.client_max_window_bits),
        None => WINDOW_BITS_MAX,
    };
    let agreed = Agreed {
        server_no_context_takeover: shared || offered.server_no_context_takeover,
        client_no_context_takeover: shared || offered.client_no_context_takeover,
        server_max_window_bits,
        client_max_window_bits,
    };
    let response = Parameters {
        server_no_context_takeover: agreed.server_no_context_takeover,
        client_no_context_takeover: agreed.client_no_context_takeover,
        server_max_window_bits: (offered.server_max_window_bits.is_some()
            || server_max_window_bits < WINDOW_BITS_MAX)
            .then_some(server_max_window_bits),
        client_max_window_bits: (client_max_window_bits < WINDOW_BITS_MAX)
            .then_some(Some(client_max_window_bits)),
    };
    Some((agreed, response))
}

/// A client's check of the answer to its offer.
fn settle(answer: &Parameters, offered: &Offer) -> Option<Agreed> {
    if offered.server_no_context_takeover && !answer.server_no_context_takeover {
        return None;
    }
    let server_max_window_bits = match (
        answer.server_max_window_bits,
        offered.server_max_window_bits,
    ) {
        (Some(answered), Some(asked)) if answered > asked => return None,
        (None, Some(_)) => return None,
        (answered, _) => answered.unwrap_or(WINDOW_BITS_MAX),
    };
    let promised = offered.client_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
    let client_max_window_bits = match answer.client_max_window_bits {
        None => promised,
        // Only an offer has it without a value, and only one that was offered may be answered.
        Some(None) => return None,
        Some(Some(_)) if offered.client_max_window_bits.is_none() => return None,
        Some(Some(answered)) if answered < WINDOW_BITS_MIN => return None,
        Some(Some(answered)) => answered.min(promised),
    };
    Some(Agreed {
        server_no_context_takeover: answer.server_no_context_takeover,
        client_no_context_takeover: answer.client_no_context_takeover
            || offered.client_no_context_takeover,
        server_max_window_bits,
        client_max_window_bits,
    })
}

/// The parameters of one permessage-deflate element, offer or answer, as written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Outer: present; inner: the value.
    client_max_window_bits: Option<Option<u8>>,
}

impl Parameters {
    /// Reads one element of the list. `None`: another extension, or an invalid element.
    fn parse(element: &[u8]) -> Option<Self> {
        let mut pieces = split_unquoted(element, b';');
        if pieces.next()? != EXTENSION.as_bytes() {
            return None;
        }
        let mut parameters = Self::default();
        for piece in pieces {
            let mut halves = piece.splitn(2, |&byte| byte == b'=');
            let name = halves.next()?.trim_ascii_end();
            let value = halves.next().map(<[u8]>::trim_ascii_start);
            let twice = match (name, value) {
                (b"server_no_context_takeover", None) => {
                    std::mem::replace(&mut parameters.server_no_context_takeover, true)
                }
                (b"client_no_context_takeover", None) => {
                    std::mem::replace(&mut parameters.client_no_context_takeover, true)
                }
                (b"server_max_window_bits", Some(value)) => {
                    let bits = parse_window_bits(value)?;
                    parameters.server_max_window_bits.replace(bits).is_some()
                }
                (b"client_max_window_bits", value) => {
                    let bits = match value {
                        Some(value) => Some(parse_window_bits(value)?),
                        None => None,
                    };
                    parameters.client_max_window_bits.replace(bits).is_some()
                }
                _ => return None,
            };
            if twice {
                return None;
            }
        }
        Some(parameters)
    }
}

impl std::fmt::Display for Parameters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(EXTENSION)?;
        if self.server_no_context_takeover {
            formatter.write_str("; server_no_context_takeover")?;
        }
        if self.client_no_context_takeover {
            formatter.write_str("; client_no_context_takeover")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(formatter, "; server_max_window_bits={bits}")?;
        }
        match self.client_max_window_bits {
            Some(Some(bits)) => write!(formatter, "; client_max_window_bits={bits}"),
            Some(None) => formatter.write_str("; client_max_window_bits"),
            None => Ok(()),
        }
    }
}

/// A decimal number from 8 to 15 without leading zeros (RFC 7692 section 7.1.2), or the same as a quoted
/// string (RFC 6455 section 9.1).
fn parse_window_bits(value: &[u8]) -> Option<u8> {
    let mut unquoted = [0; 2];
    let mut length = 0;
    let inner = value
        .strip_prefix(b"\"")
        .map(|rest| rest.strip_suffix(b"\""));
    let mut bytes = match inner {
        None => value.iter(),
        Some(inner) => inner?.iter(),
    };
    while let Some(mut byte) = bytes.next() {
        if *byte == b'\\' && inner.is_some() {
            byte = bytes.next()?;
        }
        *unquoted.get_mut(length)? = *byte;
        length += 1;
    }
    Some(match &unquoted[..length] {
        b"8" => 8,
        b"9" => 9,
        [b'1', ones @ b'0'..=b'5'] => 10 + (ones - b'0'),
        _ => return None,
    })
}

/// The pieces of `value` between separators outside quoted strings, trimmed.
fn split_unquoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    value
        .split(move |&byte| {
            let is_separator = byte == separator && !quoted;
            if escaped {
                escaped = false;
            } else if byte == b'"' {
                quoted = !quoted;
            } else if byte == b'\\' {
                escaped = quoted;
            }
            is_separator
        })
        .map(<[u8]>::trim_ascii)
}

const EXTENSION: &str = "permessage-deflate";
