//! Connections that the control thread makes to fetch something over HTTP/1.1: with TLS unless it is to this machine.

use std::fmt::Display;
use std::io;
use std::path::Path;

use tickring_tls::rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use super::trust;
use crate::config::Url;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(String),
}

/// The bytes of a connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Connects to the server of `url`. Its certificate has to be signed by an authority in the file `ca`, or of the system.
pub(super) async fn connect(url: &Url, ca: Option<&Path>) -> Result<Box<dyn Stream>, ConnectError> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(ConnectError::Connect)?;
    stream.set_nodelay(true).map_err(ConnectError::Connect)?;
    if !url.is_secure {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(url.host.clone()).map_err(tls)?;
    let ca = ca.map(Path::to_owned);
    // Certificates are files.
    let config = spawn_blocking(move || trust::client_config(ca.as_deref())).await;
    let config = config.map_err(tls)?.map_err(ConnectError::Tls)?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    Ok(Box::new(stream.map_err(tls)?))
}

fn tls(error: impl Display) -> ConnectError {
    ConnectError::Tls(error.to_string())
}

/// What requests are made with.
pub(super) const USER_AGENT: &str = concat!("tickring/", env!("CARGO_PKG_VERSION"));
