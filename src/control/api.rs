//! The HTTP API: publishing, health, metrics.
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/v1/publish` | 200 `{"published":n}` once their home has all of it |
//! | | 400 `{"error":{"code","message","index"}}`: nothing was published; `index` is absent if the fault is not in one publication |
//! | | 408, 413, 415: the body came too slowly, is too big, is compressed or not declared as JSON |
//! | | 503 draining, or a shard too busy for too long, with `Retry-After`; without it (`unanswered`) some may have been published |
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /readyz` | 200, or 503 with the reasons: `{"ready","reasons","epoch","version"}`; `epoch` names this life of the server |
//! | `GET /metrics` | Prometheus text |
//!
//! # Who may ask
//!
//! The API has no passwords: whoever reaches its port may publish, so by default it listens on
//! loopback. But a browser on this machine reaches loopback too, on behalf of any page it shows. So:
//!
//! - a request with an `Origin` header is refused (403). Browsers send it with every POST, also to
//!   the page's own host, which covers names rebound to 127.0.0.1 as well;
//! - a publication must be declared as JSON (415), which a page can only do across origins after
//!   asking with OPTIONS, and that is never allowed;
//! - while the API listens on loopback, `Host` must be `localhost` or a loopback address (403), so a
//!   rebound name cannot read metrics either. On another address the operator has opened the API to a
//!   network, where hosts have names, and any is taken.

use super::listener::BoundedListener;
use super::publications::{self, BadPublications};
use super::publisher::{Patience, PublishError, Publisher};
use crate::limits::{API_BODY_BYTES_MAX, API_BODY_TIMEOUT_MS, API_PUBLISHES_MAX};
use crate::metrics::{self, ControlMetrics, Process, ShardMetrics, write_exposition};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What the handlers share.
#[derive(Clone, Debug)]
pub(super) struct Api {
    /// Names this life of the server.
    epoch: Arc<str>,
    publisher: Publisher,
    shards: Arc<[Arc<ShardMetrics>]>,
    metrics: Arc<ControlMetrics>,
    patience: Patience,
    /// Bounds the bodies held in memory at once.
    publishes: Arc<Semaphore>,
    /// True while the API listens on loopback.
    local_only: bool,
}

impl Api {
    pub(super) fn new(
        epoch: Arc<str>,
        publisher: Publisher,
        shards: Vec<Arc<ShardMetrics>>,
        metrics: Arc<ControlMetrics>,
        patience: Patience,
    ) -> Self {
        Self {
            epoch,
            publisher,
            shards: shards.into(),
            metrics,
            patience,
            publishes: Arc::new(Semaphore::new(API_PUBLISHES_MAX)),
            local_only: true,
        }
    }

    /// Serves until `stop`, then lets the requests under way finish.
    pub(super) async fn serve(
        mut self,
        listener: std::net::TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        self.local_only = listener.local_addr()?.ip().is_loopback();
        let router = Router::new()
            .route("/api/v1/publish", post(publish))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(exposition))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX))
            .layer(middleware::from_fn_with_state(self.clone(), guard))
            .with_state(self);
        axum::serve(BoundedListener::new(listener)?, router)
            .with_graceful_shutdown(stop)
            .await
    }
}

async fn publish(State(api): State<Api>, request: Request) -> Response {
    let response = match try_publish(&api, request).await {
        Ok(published) => {
            api.metrics.api_publications.add(published as u64);
            (
                StatusCode::OK,
                json_body(&json!({ "published": published })),
            )
                .into_response()
        }
        Err(refusal) => refusal.into_response(),
    };
    let counter = match response.status() {
        StatusCode::OK => &api.metrics.api_publishes,
        StatusCode::SERVICE_UNAVAILABLE => &api.metrics.api_unavailable,
        _ => &api.metrics.api_refused,
    };
    counter.add(1);
    response
}

async fn try_publish(api: &Api, request: Request) -> Result<usize, Refusal> {
    if !is_json(request.headers()) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send it with the header Content-Type: application/json",
        ));
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "send the body without Content-Encoding",
        ));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > API_BODY_BYTES_MAX) {
        return Err(Refusal::too_large());
    }
    let place = api.publishes.acquire().await;
    let _place = place.expect("the semaphore is never closed");
    let body = timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(Refusal::too_large());
        }
        Ok(Err(error)) => {
            let message = error.body_text();
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_body", message));
        }
        Err(_) => {
            return Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "the body did not arrive in time",
            ));
        }
    };
    let submissions = publications::parse(&body, super::now_ns())?;
    drop(body);
    Ok(api.publisher.publish(submissions, api.patience).await?)
}

async fn ready(State(api): State<Api>) -> Response {
    let reasons = api.publisher.unready_reasons();
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "epoch": &*api.epoch,
        "version": env!("CARGO_PKG_VERSION"),
    });
    (status, json_body(&body)).into_response()
}

async fn exposition(State(api): State<Api>) -> Response {
    let ready = api.publisher.unready_reasons().is_empty();
    let mut text = String::new();
    write_exposition(
        &api.epoch,
        &api.shards,
        &api.metrics,
        &Process::read(),
        ready,
        &mut text,
    );
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn not_found(uri: Uri) -> Refusal {
    let message = format!("there is no {}", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "the Allow header says which methods this path takes",
    )
}

/// Lets pass what the module's header allows, and marks every answer as one not to be kept or guessed at.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let mut response = if request.headers().contains_key(header::ORIGIN) {
        Refusal::forbidden("a web page may not use this API").into_response()
    } else if api.local_only && !is_for_this_machine(request.uri(), request.headers()) {
        Refusal::forbidden("the Host must be localhost or a loopback address").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// True for exactly one Host, which is this machine, and no other authority in the request line.
fn is_for_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let named = uri.authority().map(|authority| authority.as_str());
    host.to_str().is_ok_and(is_local_host) && named.is_none_or(is_local_host)
}

/// `localhost`, `127.0.0.1`, `[::1]`, each with a port or without.
fn is_local_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost")
        || bare
            .unwrap_or(name)
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// True for `application/json` and its kin (`application/cloudevents+json`), parameters aside.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) else {
        return false;
    };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let Some(subtype) = media_type
        .get(..APPLICATION.len())
        .filter(|kind| kind.eq_ignore_ascii_case(APPLICATION))
        .and_then(|_| media_type.get(APPLICATION.len()..))
    else {
        return false;
    };
    let subtype = subtype.to_ascii_lowercase();
    subtype == "json" || subtype.ends_with("+json")
}

/// A body of JSON with its media type.
fn json_body(value: &serde_json::Value) -> impl IntoResponse + use<> {
    (
        [(header::CONTENT_TYPE, "application/json")],
        format!("{value}\n"),
    )
}

/// An answer that is not a success.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    index: Option<usize>,
    /// True if the same request may succeed in a second, and cannot have been carried out already.
    retry: bool,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            index: None,
            retry: false,
        }
    }

    fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    fn too_large() -> Self {
        let message = format!("the body is larger than {API_BODY_BYTES_MAX} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }
}

impl From<BadPublications> for Refusal {
    fn from(error: BadPublications) -> Self {
        Self {
            index: error.index,
            ..Self::new(StatusCode::BAD_REQUEST, error.code, error.message)
        }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        let code = match error {
            PublishError::Draining => "draining",
            PublishError::Busy => "busy",
            PublishError::Lost => "home_lost",
            PublishError::Unanswered => "unanswered",
        };
        Self {
            retry: error != PublishError::Unanswered,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(index) = self.index {
            error["index"] = index.into();
        }
        let mut response = (self.status, json_body(&json!({ "error": error }))).into_response();
        if self.retry {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

const APPLICATION: &str = "application/";
const BODY_TIMEOUT: Duration = Duration::from_millis(API_BODY_TIMEOUT_MS);

#[cfg(test)]
mod tests {
    use super::*;

    /// Only names and addresses of this very machine are local.
    #[test]
    fn local_hosts() {
        for host in [
            "localhost",
            "LOCALHOST:9002",
            "127.0.0.1:9002",
            "127.8.9.1",
            "[::1]:1",
            "[::1]",
        ] {
            assert!(is_local_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:9002",
            "10.0.0.1",
            "[::2]",
            "127.0.0.1.evil:80",
            ":80",
        ] {
            assert!(!is_local_host(host), "{host}");
        }
    }

    /// JSON is recognised by its media type, and nothing a page can send unasked is.
    #[test]
    fn json_media_types() {
        let is = |value: &str| {
            let value = HeaderValue::from_str(value).expect("a header value");
            is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        for yes in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/x+json",
        ] {
            assert!(is(yes), "{yes}");
        }
        for no in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
            "text/plain;application/json",
            "application/jsonp",
        ] {
            assert!(!is(no), "{no}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
