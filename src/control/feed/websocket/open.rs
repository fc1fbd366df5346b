//! From an address to an open WebSocket: TCP, TLS, the opening handshake.

use super::super::FeedError;
use super::transport::{Received, Transport};
use crate::config::WebSocketFeed;
use std::time::Duration;
use tickring_protocol::deflate::{Agreed, Offer};
use tickring_protocol::handshake::{ClientHandshake, ClientRequest, HandshakeError, fresh_key};

/// An open WebSocket.
pub(in crate::control) struct Opened {
    pub(super) transport: Transport,
    /// Bytes received after the response.
    pub(super) input: Vec<u8>,
    /// The compression that was negotiated.
    pub(super) deflate: Option<Agreed>,
}

/// Opens a connection to an upstream. The caller limits the time.
pub(in crate::control) async fn open(settings: &WebSocketFeed) -> Result<Opened, FeedError> {
    let url = &settings.url;
    let mut transport = Transport::connect(&url.host, url.port).await?;
    if url.is_secure {
        transport.secure(&url.host, settings.ca.as_deref()).await?;
    }
    let handshake = handshake(settings);
    transport.send(handshake.request()).await?;
    let mut input = Vec::new();
    loop {
        let ready = transport.readable().await;
        ready.map_err(|error| FeedError::Network {
            what: "read",
            error,
        })?;
        let received = transport.receive(&mut input)?;
        match handshake.handle_response(&input) {
            Ok(Some((head_bytes, upgraded))) => {
                if let Some(asked) = &settings.subprotocol
                    && upgraded.protocol.is_none()
                {
                    tracing::warn!(asked, "the upstream did not confirm the subprotocol");
                }
                input.drain(..head_bytes);
                return Ok(Opened {
                    transport,
                    input,
                    deflate: upgraded.deflate,
                });
            }
            Ok(None) if received == Received::End => {
                let problem = "the upstream ended the connection during the handshake";
                return Err(FeedError::Upstream(problem.to_owned()));
            }
            Ok(None) => {}
            Err(HandshakeError::Refused(status)) => {
                let retry_after = retry_after(&input);
                return Err(FeedError::Refused {
                    status,
                    retry_after,
                });
            }
            Err(error) => return Err(FeedError::Upstream(error.to_string())),
        }
    }
}

fn handshake(settings: &WebSocketFeed) -> ClientHandshake {
    let headers = settings.headers.iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    let protocols: Vec<&str> = settings.subprotocol.iter().map(String::as_str).collect();
    ClientHandshake::new(ClientRequest {
        host: &settings.url.authority,
        path: settings.url.target.expose(),
        key: fresh_key(),
        protocols: &protocols,
        headers: &headers,
        deflate: Some(Offer::default()),
    })
}

/// How long the response asks us to wait (RFC 9110 section 10.2.3), if it says this in seconds.
fn retry_after(head: &[u8]) -> Option<Duration> {
    let head = String::from_utf8_lossy(head);
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("retry-after")
            .then(|| value.trim().to_owned())
    });
    line?.parse().ok().map(Duration::from_secs)
}
