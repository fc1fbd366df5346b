//! `tickring health`: asks a running server through `/healthz` of its API whether it is healthy.
//!
//! It is for programs that start and restart servers and have no HTTP client, as in the container image, which contains
//! only this one program.

use crate::config::Config;
use crate::limits::{HEALTH_ANSWER_BYTES_MAX, HEALTH_TIMEOUT_MS};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tickring_tls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tickring_tls::rustls::crypto::ring::default_provider;
use tickring_tls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tickring_tls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tickring_tls::rustls::{
    self, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
};

/// Why a server is not known to be healthy.
#[derive(Debug, Error)]
pub enum HealthError {
    /// The system chose the port (port 0), so only the server knows it.
    #[error("api_listen has port 0, which does not say where to ask; give the port")]
    NoPort,
    /// Nothing answers.
    #[error("no answer from {api}: {error}")]
    Unreachable {
        /// The address that was asked.
        api: SocketAddr,
        /// What went wrong.
        error: io::Error,
    },
    /// The answer's status is not 200.
    #[error("the server at {api} is not healthy: {answer}")]
    Unhealthy {
        /// The address that was asked.
        api: SocketAddr,
        /// The last line of its answer, with what failed.
        answer: String,
    },
}

/// Asks the server with these settings, within [`HEALTH_TIMEOUT_MS`].
///
/// # Errors
/// It does not answer, or answers that it is not healthy.
pub fn ask(config: &Config) -> Result<(), HealthError> {
    let api = reachable(config.api_listen);
    if api.port() == 0 {
        return Err(HealthError::NoPort);
    }
    let answer = get_healthz(api, config.api_tls.is_some())
        .map_err(|error| HealthError::Unreachable { api, error })?;
    let answer = String::from_utf8_lossy(&answer);
    let mut lines = answer.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let answer = match status.starts_with("HTTP/") {
        true => lines.last().unwrap_or(status).to_owned(),
        false => {
            "it does not answer in HTTP; is it served over TLS (api_tls_certificates)?".to_owned()
        }
    };
    Err(HealthError::Unhealthy { api, answer })
}

/// The address at which to ask a server that listens on `address`: loopback, if it listens on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    reachable
}

/// The whole answer, head and body.
fn get_healthz(api: SocketAddr, has_tls: bool) -> io::Result<Vec<u8>> {
    let timeout = Duration::from_millis(HEALTH_TIMEOUT_MS);
    let mut stream = TcpStream::connect_timeout(&api, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    match has_tls {
        true => exchange(&mut rustls::StreamOwned::new(any_server(api)?, stream), api),
        false => exchange(&mut stream, api),
    }
}

fn exchange(stream: &mut (impl io::Read + io::Write), api: SocketAddr) -> io::Result<Vec<u8>> {
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream
        .take(HEALTH_ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)?;
    Ok(answer)
}

/// TLS with whoever answers: it is told nothing, and asked only whether it lives. The server's certificate is for the name
/// that others know it by, and not for the address that it is asked at here.
fn any_server(api: SocketAddr) -> io::Result<ClientConnection> {
    let provider = Arc::new(default_provider());
    let verifier = AnyServer(provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), api.ip().into()).map_err(io::Error::other)
}

/// Accepts every certificate whose key the server has.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;

    fn listening(api_listen: SocketAddr) -> Config {
        Config {
            api_listen,
            ..Config::default()
        }
    }

    /// The result of `ask` for a server that gives this answer.
    fn asked(answer: &'static str) -> Result<(), HealthError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let len = stream.read(&mut request).unwrap();
            assert!(request[..len].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let result = ask(&listening(address));
        server.join().unwrap();
        result
    }

    /// Only status 200 means healthy; the server's description of its defect is passed on.
    #[test]
    fn only_status_200_is_health() {
        assert!(asked("HTTP/1.1 200 OK\r\n\r\n").is_ok());
        let said = asked("HTTP/1.1 503 Service Unavailable\r\n\r\nshard 1 failed").unwrap_err();
        assert!(
            said.to_string().ends_with("is not healthy: shard 1 failed"),
            "{said}"
        );
        assert!(matches!(asked(""), Err(HealthError::Unhealthy { .. })));
        assert!(matches!(
            asked("HTTP/1.1 2000 OK\r\n\r\n"),
            Err(HealthError::Unhealthy { .. })
        ));
    }

    /// A server that listens on every address is asked on loopback; if no server runs, the result says so.
    #[test]
    fn it_asks_where_a_server_can_be_reached() {
        for (listen, asked) in [
            ("0.0.0.0:9002", "127.0.0.1:9002"),
            ("[::]:9002", "[::1]:9002"),
            ("10.1.2.3:9002", "10.1.2.3:9002"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
        assert!(matches!(
            ask(&listening("0.0.0.0:0".parse().unwrap())),
            Err(HealthError::NoPort)
        ));
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(matches!(
            ask(&listening(free)),
            Err(HealthError::Unreachable { .. })
        ));
    }
}
