//! The HTTP API: publishing, deleting, health, metrics.
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/v1/publish` | 200 `{"published":n}` once the home of the topics has all of it |
//! | | 507 `{"error":{"code":"limit","message"},"published":n,"refused":[{"index","topic","code","message"}]}`: a limit is reached; all but those in `refused` were published |
//! | | 400 `{"error":{"code","message","index"}}`: nothing was published; `index` is absent if the fault is not in one publication |
//! | | 408, 413, 415: the body arrived too slowly, is too large, is compressed or not declared as JSON |
//! | | 503 shutting down, or too busy for too long, or no memory for the body, with `Retry-After`; without it (`unanswered`) some may have been published |
//! | `DELETE /api/v1/topics/{topic}` | 204: the topic's retained value is deleted, as by publishing `null` |
//! | | 404 (`no_topic`): the topic has no value; 400 (`bad_topic`); 503 as for publishing |
//! | `POST /api/v1/revocations` | `{"subject":"…"}`: 204; its connections are closed with 4403, and its tokens of before are refused |
//! | `DELETE /api/v1/revocations/{subject}` | 204; 404 (`no_revocation`) |
//! | `POST /api/v1/reload` | 200 `{"changed":[…],"need_restart":[…]}`: settings, certificates and keys were read again, and these settings differ |
//! | | 422 (`bad_config`): something cannot be used, so nothing was changed; 503: reloads are under way |
//! | `PUT /api/v1/entitlements/{subject}` | `{"products":{"…":"real-time"}}`: 204; see [`entitlements`] |
//! | `DELETE /api/v1/entitlements/{subject}` | 204; 404 (`no_override`) |
//! | | 401: with keys, every request but those of probes needs one; 403: its scopes do not allow this |
//! | `GET /healthz` | 200; 503 with what has failed, while the process ends because of a defect |
//! | `GET /readyz` | 200, or 503 with the reasons: `{"ready","reasons","epoch","version","feeds"}`; `epoch` identifies this run of the server |
//! | `GET /metrics` | Prometheus text |
//!
//! A body is one publication `{"topic","data","ts"}`, an array of them or `{"publications":[…]}`: see
//! [`super::publications`].
//!
//! A topic's name in a path is percent-encoded, like any text in a URL (RFC 3986 section 2.1); a `/` may be written as
//! it is. It is decoded once, and the result is the topic's name. So if a name contains an escape, its `%` must be
//! encoded: `md.%2EDJI` is deleted at `/api/v1/topics/md.%252EDJI`.
//!
//! [`gate`] decides which requests are accepted. [`connections`] and [`held`] limit what a peer can hold and for how
//! long. Health and metrics need no permit and are answered whatever publishing does.

mod body;
mod connections;
mod entitlements;
mod gate;
mod held;
mod listener;
mod permission;
mod refusal;
mod rules;
#[cfg(test)]
mod tests;

use super::publications;
use super::publisher::{Published, Publisher, WaitLimits};
use super::reload::Reloads;
use crate::access::Revocations;
use crate::hub::Topic;
use crate::limits::*;
use crate::mailbox::{Refused, ToShard};
use crate::metrics::{self, ControlMetrics, FeedMetrics, Process, ShardMetrics, write_exposition};
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Router, middleware};
use connections::{Connection, Connections};
use entitlements::{Overrides, set, unset};
pub(super) use held::Held;
use held::NoMemory;
use permission::Permission;
use refusal::{Refusal, json_body};
pub(super) use rules::Rules;
use serde_json::{Value, json};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// The limits of the API: those of [`crate::limits`], or those of a test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at a time.
    pub(super) connections_max: usize,
    /// Bytes held at a time for bodies and metrics.
    pub(super) held_bytes_max: usize,
    /// Requests at a time that wait for shards.
    pub(super) requests_max: usize,
    /// Time for a complete head, from accepting or from its first byte.
    pub(super) head: Duration,
    /// Time until the next request begins.
    pub(super) idle: Duration,
    /// Time for a complete body.
    pub(super) body: Duration,
    /// Time for a peer to read what the kernel no longer buffers.
    pub(super) write: Duration,
    /// Minimum time that every connection has before it is displaced.
    pub(super) fresh: Duration,
    /// Time to wait for memory.
    pub(super) room: Duration,
    /// Times to wait for shards.
    pub(super) shards: WaitLimits,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: API_CONNECTIONS_MAX,
            held_bytes_max: API_HELD_BYTES_MAX,
            requests_max: API_REQUESTS_MAX,
            head: Duration::from_millis(API_HEAD_TIMEOUT_MS),
            idle: Duration::from_millis(API_IDLE_TIMEOUT_MS),
            body: Duration::from_millis(API_BODY_TIMEOUT_MS),
            write: Duration::from_millis(API_WRITE_TIMEOUT_MS),
            fresh: Duration::from_millis(API_FRESH_MS),
            room: Duration::from_millis(API_ROOM_TIMEOUT_MS),
            shards: WaitLimits::default(),
        }
    }
}

/// What the handlers share.
#[derive(Clone, Debug)]
pub(super) struct Api {
    /// Identifies this run of the server.
    epoch: Arc<str>,
    publisher: Publisher,
    shards: Arc<[Arc<ShardMetrics>]>,
    metrics: Arc<ControlMetrics>,
    wait_limits: WaitLimits,
    connections: Arc<Connections>,
    /// Permits for requests that wait for shards: fewer than connections, so that other requests find a place.
    requests: Arc<Semaphore>,
    scrape: Arc<Mutex<Arc<Scrape>>>,
    rules: Rules,
    reloads: Reloads,
    revocations: Arc<Mutex<Revocations>>,
    overrides: Arc<Overrides>,
}

/// The text of `/metrics`, shared by all who ask before it is made.
type Scrape = OnceCell<Result<Bytes, NoMemory>>;

impl Api {
    pub(super) fn new(
        epoch: Arc<str>,
        publisher: Publisher,
        shards: Vec<Arc<ShardMetrics>>,
        metrics: Arc<ControlMetrics>,
        rules: Rules,
        reloads: Reloads,
        bounds: Bounds,
    ) -> Self {
        Self {
            epoch,
            publisher,
            shards: shards.into(),
            connections: Connections::new(bounds, Arc::clone(&metrics)),
            metrics,
            wait_limits: bounds.shards,
            requests: Arc::new(Semaphore::new(bounds.requests_max)),
            scrape: Arc::default(),
            rules,
            reloads,
            revocations: Arc::default(),
            overrides: Arc::default(),
        }
    }

    /// Serves until `stop`; then lets requests in progress finish.
    pub(super) async fn serve(
        self,
        listener: std::net::TcpListener,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let (connections, metrics) = (Arc::clone(&self.connections), Arc::clone(&self.metrics));
        let rules = self.rules.clone();
        let router = Router::new()
            .route("/api/v1/publish", post(publish))
            .route("/api/v1/topics/{*topic}", delete(withdraw))
            .route("/api/v1/revocations", post(revoke))
            .route("/api/v1/revocations/{subject}", delete(restore))
            .route("/api/v1/reload", post(reload))
            .route("/api/v1/entitlements/{subject}", put(set).delete(unset))
            // HAProxy's checks ask with OPTIONS unless they are told otherwise.
            .route("/healthz", get(healthy).options(healthy))
            .route("/readyz", get(ready).options(ready))
            .route("/metrics", get(exposition))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), gate::guard))
            .with_state(self);
        listener::serve(listener, router, connections, metrics, &rules, stop).await
    }

    /// The text of `/metrics`. It is made once for all who ask at the same time, after the last of them has asked. So
    /// many requests cost as much as one, and nobody gets old figures.
    async fn exposition(&self) -> Result<Bytes, NoMemory> {
        let scrape = Arc::clone(&self.scrape());
        let text = scrape.get_or_init(async || {
            // Those whose requests have come are heard first.
            yield_now().await;
            *self.scrape() = Arc::default();
            let mut text = String::new();
            let ready = self.publisher.unready_reasons().is_empty();
            write_exposition(
                &self.epoch,
                &self.shards,
                &self.metrics,
                &Process::read(),
                ready,
                &mut text,
            );
            self.hold(text).await
        });
        text.await.clone()
    }

    /// The answer to publications of which some were refused.
    async fn not_all_taken(&self, published: usize, refused: &[Refused]) -> Response {
        // As long as the request was.
        let text = refusal::not_all_taken(published, refused);
        let text = match self.hold(text).await {
            Ok(text) => text,
            Err(NoMemory) => refusal::not_all_taken(published, &[]).into(),
        };
        (StatusCode::INSUFFICIENT_STORAGE, refusal::IS_JSON, text).into_response()
    }

    /// Changes who is revoked, and tells the shards.
    async fn change_revocations<T>(&self, change: impl FnOnce(&mut Revocations) -> T) -> T {
        let (result, now) = {
            let revocations = self.revocations.lock();
            let mut revocations = revocations.expect("no holder of this lock panics");
            let result = change(&mut revocations);
            (result, Arc::new(revocations.clone()))
        };
        let make = || ToShard::Revocations(Arc::clone(&now));
        self.publisher.tell_all(make).await;
        result
    }

    /// A place among the requests that wait for shards.
    fn place(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let place = self.requests.try_acquire();
        place.map_err(|_| Refusal::busy("too many requests wait for the shards; nothing was done"))
    }

    /// A text for an answer. It counts as part of the limited memory until everybody has it.
    async fn hold(&self, text: String) -> Result<Bytes, NoMemory> {
        let mut held = Held::new(&self.connections, None);
        held.grow(text.capacity()).await?;
        Ok(Bytes::from_owner(HeldText { text, _held: held }))
    }

    fn scrape(&self) -> std::sync::MutexGuard<'_, Arc<Scrape>> {
        self.scrape.lock().expect("no holder of this lock panics")
    }
}

/// A text that holds memory until everybody has it.
struct HeldText {
    text: String,
    _held: Held,
}

impl AsRef<[u8]> for HeldText {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

async fn publish(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    Extension(permission): Extension<Permission>,
    request: Request,
) -> Response {
    let response = match try_publish(&api, &connection, &permission, request).await {
        Ok(Published { count, refused }) => {
            api.metrics.api_publications.add(count as u64);
            api.metrics
                .api_publications_refused
                .add(refused.len() as u64);
            match refused.is_empty() {
                true => (StatusCode::OK, json_body(&json!({ "published": count }))).into_response(),
                false => api.not_all_taken(count, &refused).await,
            }
        }
        Err(refusal) => refusal.into_response(),
    };
    let counter = match response.status() {
        StatusCode::OK => &api.metrics.api_publishes,
        StatusCode::INSUFFICIENT_STORAGE => &api.metrics.api_full,
        StatusCode::SERVICE_UNAVAILABLE => &api.metrics.api_unavailable,
        _ => &api.metrics.api_refused,
    };
    counter.add(1);
    response
}

async fn try_publish(
    api: &Api,
    connection: &Arc<Connection>,
    permission: &Permission,
    request: Request,
) -> Result<Published, Refusal> {
    let body::Whole { bytes, held } = read_json(connection, request).await?;
    let _place = api.place()?;
    let submissions = publications::parse(&bytes, super::now_ns())?;
    drop(bytes);
    for submission in &submissions {
        permission.check_publish(&submission.topic)?;
    }
    // The publications are as large as the body was.
    let published = api
        .publisher
        .publish(submissions, Some(held), api.wait_limits);
    Ok(published.await?)
}

/// A body that is declared as JSON.
async fn read_json(connection: &Arc<Connection>, request: Request) -> Result<body::Whole, Refusal> {
    let unsupported = if !gate::is_json(request.headers()) {
        Some((
            "unsupported_media_type",
            "send it with the header Content-Type: application/json",
        ))
    } else if request.headers().contains_key(header::CONTENT_ENCODING) {
        Some((
            "unsupported_encoding",
            "send the body without Content-Encoding",
        ))
    } else {
        None
    };
    if let Some((code, message)) = unsupported {
        body::discard(request, connection).await;
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Refusal::new(status, code, message));
    }
    body::read(request, connection).await
}

async fn withdraw(
    State(api): State<Api>,
    Extension(permission): Extension<Permission>,
    topic: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    let bad_topic = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "bad_topic", message);
    let Path(topic) = topic.map_err(|error| bad_topic(error.body_text()))?;
    let topic = Topic::parse(&topic).map_err(|error| {
        bad_topic(format!(
            "the topic, which is {topic:?} once the path is decoded, {error}; in the path the `%` of an escape is written %25"
        ))
    })?;
    permission.check_publish(&topic)?;
    let _place = api.place()?;
    let withdrawn = api
        .publisher
        .withdraw(topic, super::now_ns(), api.wait_limits);
    if withdrawn.await?? {
        api.metrics.api_withdrawals.add(1);
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refusal::new(
        StatusCode::NOT_FOUND,
        "no_topic",
        "nothing is retained of that topic",
    ))
}

/// The body of a revocation.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    subject: String,
}

async fn revoke(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    Extension(permission): Extension<Permission>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    permission.check_operate()?;
    let body::Whole { bytes, .. } = read_json(&connection, request).await?;
    let Revocation { subject } = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the body must be {{\"subject\":…}}: {error}");
        Refusal::new(StatusCode::BAD_REQUEST, "bad_request", message)
    })?;
    let now_s = super::now_ns() / 1_000_000_000;
    let revoked = api
        .change_revocations(|all| all.revoke(&subject, now_s))
        .await;
    revoked.map_err(|error| {
        Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "limit", error.to_string())
    })?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restore(
    State(api): State<Api>,
    Extension(permission): Extension<Permission>,
    Path(subject): Path<String>,
) -> Result<StatusCode, Refusal> {
    permission.check_operate()?;
    match api.change_revocations(|all| all.restore(&subject)).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "no_revocation",
            "this subject is not revoked",
        )),
    }
}

async fn reload(
    State(api): State<Api>,
    Extension(permission): Extension<Permission>,
) -> Result<Response, Refusal> {
    permission.check_operate()?;
    match api.reloads.ask_and_wait().await {
        Some(Ok(reloaded)) => {
            let body = json!({
                "changed": reloaded.changed,
                "need_restart": reloaded.need_restart,
            });
            Ok(json_body(&body).into_response())
        }
        Some(Err(problem)) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(Refusal::new(status, "bad_config", problem))
        }
        None => Err(Refusal::busy(
            "other reloads are under way; this one was not begun",
        )),
    }
}

async fn healthy(State(api): State<Api>) -> Response {
    match api.publisher.failure() {
        None => "ok\n".into_response(),
        Some(failure) => {
            let text = format!("{failure}; the process ends\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn ready(State(api): State<Api>) -> Response {
    let reasons = api.publisher.unready_reasons();
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let feeds = api.metrics.feeds();
    let feeds: Vec<_> = feeds.iter().map(|feed| feed_state(feed)).collect();
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "epoch": &*api.epoch,
        "version": env!("CARGO_PKG_VERSION"),
        "feeds": feeds,
    });
    (status, json_body(&body)).into_response()
}

/// A feed that is down does not make the server unready, but whoever asks wants to see it.
fn feed_state(feed: &FeedMetrics) -> Value {
    let mut state = json!({ "name": feed.name(), "up": feed.up.value() == 1 });
    if !feed.sides().is_empty() {
        let sides = feed.sides().iter();
        let sides = sides.map(|side| (side.name().to_owned(), json!(side.up.value() == 1)));
        state["sides"] = Value::Object(sides.collect());
    }
    state
}

async fn exposition(
    State(api): State<Api>,
    Extension(permission): Extension<Permission>,
) -> Response {
    if let Err(refusal) = permission.check_read() {
        return refusal.into_response();
    }
    match api.exposition().await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(NoMemory) => Refusal::busy("there is no memory for the metrics now").into_response(),
    }
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
