//! One request for a JWKS document: GET over HTTP/1.1, with TLS unless it is to this machine.
//!
//! Redirections are not followed: the operator names where keys come from, and nobody else.

use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::access::{KeyError, KeySet};
use crate::config::{JwksConfig, Url};
use crate::control::client::{ConnectError, Stream, USER_AGENT, connect};
use crate::limits::{HEADER_BYTES_MAX, TOKEN_KEY_FILE_BYTES_MAX};

/// What was fetched.
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    /// For how many seconds it is fresh, if the answer says so.
    pub(super) max_age_s: Option<u64>,
}

/// Why a document was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no whole answer in time")]
    TooSlow,
    #[error("the answer cannot be read: {0}")]
    Http(String),
    #[error("the answer has the status {0} instead of 200")]
    Status(StatusCode),
    #[error("the answer is {0}")]
    Document(#[from] KeyError),
}

/// Fetches the document.
pub(super) async fn fetch(jwks: &JwksConfig, limit: Duration) -> Result<Fetched, FetchError> {
    let fetched = timeout(limit, fetch_slowly(jwks)).await;
    fetched.unwrap_or(Err(FetchError::TooSlow))
}

async fn fetch_slowly(jwks: &JwksConfig) -> Result<Fetched, FetchError> {
    let url = &jwks.url;
    let stream = connect(url, jwks.ca.as_deref()).await?;
    ask(stream, url).await
}

async fn ask(stream: impl Stream, url: &Url) -> Result<Fetched, FetchError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEADER_BYTES_MAX);
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(http)?;
    let exchange = async move {
        let request = Request::get(url.target.expose())
            .header(header::HOST, &url.authority)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(http)?;
        let response = sender.send_request(request).await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let max_age_s = fresh_s(response.headers());
        let body = Limited::new(response.into_body(), TOKEN_KEY_FILE_BYTES_MAX);
        let body = body.collect().await.map_err(|error| match error
            .is::<http_body_util::LengthLimitError>()
        {
            true => FetchError::Document(KeyError::TooLong),
            false => http(error),
        })?;
        let keys = KeySet::parse_jwks(&body.to_bytes())?;
        Ok(Fetched { keys, max_age_s })
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        result = &mut exchange => result,
        // What it says about its end, the exchange says too.
        _ = &mut connection => exchange.await,
    }
}

fn http(error: impl Display) -> FetchError {
    FetchError::Http(error.to_string())
}

/// For how many seconds an answer with these headers is fresh (RFC 9111 section 4.2); `None`: it does not say.
fn fresh_s(headers: &HeaderMap) -> Option<u64> {
    let texts = |name| {
        let values = headers.get_all(name).iter();
        values.filter_map(|value: &HeaderValue| value.to_str().ok())
    };
    let mut max_age_s = None;
    for directive in texts(header::CACHE_CONTROL).flat_map(|value| value.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        match directive.split_once('=') {
            Some(("max-age", seconds)) => {
                let seconds = seconds.trim_matches('"').parse::<u64>();
                max_age_s = Some(seconds.unwrap_or(0));
            }
            None if ["no-store", "no-cache"].contains(&&*directive) => return Some(0),
            _ => {}
        }
    }
    let age_s = texts(header::AGE)
        .next()
        .and_then(|age| age.parse::<u64>().ok());
    Some(max_age_s?.saturating_sub(age_s.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Freshness is read as caches write it; what cannot be read is not fresh.
    #[test]
    fn freshness_is_read() {
        for (lines, fresh) in [
            (&[][..], None),
            (&[("cache-control", "public")], None),
            (&[("cache-control", "public, max-age=60")], Some(60)),
            (&[("cache-control", "Max-Age=\"60\"")], Some(60)),
            (
                &[("cache-control", "public"), ("cache-control", "max-age=60")],
                Some(60),
            ),
            (&[("cache-control", "max-age=60, no-cache")], Some(0)),
            (&[("cache-control", "no-store")], Some(0)),
            (&[("cache-control", "max-age=x")], Some(0)),
            (&[("cache-control", "max-age=-1")], Some(0)),
            (&[("cache-control", "s-maxage=9")], None),
            (&[("cache-control", "max-age=60"), ("age", "50")], Some(10)),
            (&[("cache-control", "max-age=60"), ("age", "70")], Some(0)),
        ] {
            let headers = lines
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let headers: HeaderMap = HeaderMap::from_iter(headers);
            assert_eq!(fresh_s(&headers), fresh, "{lines:?}");
        }
    }
}
