//! The connection to an upstream, with or without TLS.

use super::super::FeedError;
use crate::control::trust;
use crate::limits::FEED_READ_BYTES_MAX;
use std::io::{self, ErrorKind};
use std::path::Path;
use tickring_tls::Stage;
use tickring_tls::rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// A connection to an upstream.
pub(super) struct Transport {
    stream: TcpStream,
    tls: Option<Box<Stage>>,
    /// Memory for received and sent TLS records.
    records: Vec<u8>,
}

/// The result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The socket was not readable after all.
    Nothing,
    /// Bytes arrived, perhaps only bytes of TLS itself.
    Some,
    /// The stream has ended, perhaps after some bytes.
    End,
}

impl Transport {
    /// Connects to the first of a host's addresses that answers.
    pub(super) async fn connect(host: &str, port: u16) -> Result<Self, FeedError> {
        let connect = |error| FeedError::Network {
            what: "connect",
            error,
        };
        let stream = TcpStream::connect((host, port)).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        Ok(Self {
            stream,
            tls: None,
            records: Vec::new(),
        })
    }

    /// Starts TLS, and returns when it is established.
    pub(super) async fn secure(&mut self, host: &str, ca: Option<&Path>) -> Result<(), FeedError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            FeedError::Tls(format!("{host:?} is no name that a certificate could have"))
        })?;
        let ca = ca.map(Path::to_owned);
        // Certificates are files.
        let config = tokio::task::spawn_blocking(move || trust::client_config(ca.as_deref())).await;
        let config = config.map_err(|error| FeedError::Tls(error.to_string()))?;
        let config = config.map_err(FeedError::Tls)?;
        let stage =
            Stage::client(config, name).map_err(|error| FeedError::Tls(error.to_string()))?;
        self.tls = Some(Box::new(stage));
        let mut plain = Vec::new();
        loop {
            self.send(&[]).await?;
            if self.tls.as_ref().is_some_and(|stage| stage.is_established) {
                // An upstream speaks only after our request.
                return match plain.is_empty() {
                    true => Ok(()),
                    false => Err(FeedError::Tls(
                        "the upstream spoke before it was asked".to_owned(),
                    )),
                };
            }
            self.readable().await.map_err(read_error)?;
            match self.receive(&mut plain) {
                Ok(Received::End) => {
                    return Err(FeedError::Tls(
                        "the upstream ended the connection during the handshake".to_owned(),
                    ));
                }
                Ok(_) => {}
                Err(error) => {
                    let _ = self.send(&[]).await;
                    return Err(error);
                }
            }
        }
    }

    /// Returns when there may be something to receive. This future may be dropped and called again.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Appends what has been received to `plain`, without waiting.
    pub(super) fn receive(&mut self, plain: &mut Vec<u8>) -> Result<Received, FeedError> {
        let buffer = match &self.tls {
            None => &mut *plain,
            Some(_) => {
                self.records.clear();
                &mut self.records
            }
        };
        buffer.reserve(FEED_READ_BYTES_MAX);
        match self.stream.try_read_buf(buffer) {
            Ok(0) => return Ok(Received::End),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) => return Err(read_error(error)),
        }
        let Some(stage) = &mut self.tls else {
            return Ok(Received::Some);
        };
        let received = stage.receive(&mut self.records, plain);
        received.map_err(|error| FeedError::Tls(error.to_string()))?;
        Ok(match stage.is_peer_closed {
            true => Received::End,
            false => Received::Some,
        })
    }

    /// Sends the bytes that TLS has to send, then `plain`. If this future is dropped half-way, the connection can no
    /// longer be used.
    pub(super) async fn send(&mut self, plain: &[u8]) -> Result<(), FeedError> {
        let bytes = match &mut self.tls {
            None => plain,
            Some(stage) => {
                self.records.clear();
                match stage.is_established && !plain.is_empty() {
                    true => stage.encrypt(plain, &mut self.records),
                    false => stage.take_outgoing(&mut self.records),
                }
                &self.records
            }
        };
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream
            .write_all(bytes)
            .await
            .map_err(|error| FeedError::Network {
                what: "write",
                error,
            })
    }

    /// Closes this side in an orderly way.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        if let Some(stage) = &mut self.tls {
            self.records.clear();
            stage.close(&mut self.records);
            self.stream.write_all(&self.records).await?;
        }
        self.stream.shutdown().await
    }
}

fn read_error(error: io::Error) -> FeedError {
    FeedError::Network {
        what: "read",
        error,
    }
}
