//! The hook: another server that decides about handshakes without a token (`auth_hook_url`).
//!
//! ```text
//! handshake ─ shard ─▶ Question ─▶ GET auth_hook_url ─▶ 200 with claims ─▶ Grant ─▶ shard ─▶ 101
//!                                                       401, 403 ──────────────────────────▶ the same
//!                                                       anything else, or too late ────────▶ 503
//! ```
//!
//! The request has the header lines of `auth_hook_headers`, and says for whom it is as proxies do: `X-Original-URI`,
//! `X-Forwarded-For`, `X-Forwarded-Proto`. Nothing is remembered: each handshake is asked about, unless its client leaves
//! or runs out of time while it waits for a place among the requests. Where the hook cannot be asked, nobody gets in.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use super::client::{ConnectError, USER_AGENT, connect};
use super::{Control, now_ns};
use crate::access::{Grant, RightsPool, TokenError, TokenPolicy};
use crate::config::{Config, HookConfig};
use crate::limits::{
    AUTH_HOOK_ANSWER_BYTES_MAX, AUTH_HOOK_IDLE_MAX, AUTH_HOOK_REQUESTS_MAX, HEADER_BYTES_MAX,
};
use crate::mailbox::{Question, ToShard, Verdict};

/// Why the hook did not decide. The hook is at fault, or whoever set it up.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no whole answer in time")]
    TooSlow,
    #[error("the exchange failed: {0}")]
    Http(String),
    #[error("the answer has the status {0} instead of 200, 401 or 403")]
    Status(StatusCode),
    #[error("the claims in its answer: {0}")]
    Claims(#[from] TokenError),
}

/// The hook of a running server, as it is set up now.
pub(super) struct Hook {
    config: HookConfig,
    policy: TokenPolicy,
    places: Semaphore,
    idle: RefCell<Vec<SendRequest<Empty<Bytes>>>>,
    rights: RefCell<RightsPool>,
    /// When a failure was last logged, and how many since then were not.
    logged: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

impl Hook {
    /// As the configuration has it, if it has one.
    pub(super) fn new(config: &Config) -> Option<Rc<Self>> {
        let hook = config.access.hook.clone()?;
        Some(Rc::new(Self {
            config: hook,
            policy: config.access.token.clone(),
            places: Semaphore::new(AUTH_HOOK_REQUESTS_MAX),
            idle: RefCell::default(),
            rights: RefCell::default(),
            logged: Cell::default(),
            left_out: Cell::default(),
        }))
    }

    async fn decide(&self, question: &mut Question) -> Result<Verdict, HookError> {
        let limit = Duration::from_millis(self.config.timeout_ms);
        let asked = async {
            // Before it asks, since a question costs the other server work. What has been asked goes on.
            let _place = tokio::select! {
                biased;
                _ = &mut question.withdrawn => return Ok(None),
                place = self.places.acquire() => place,
            };
            self.ask(question).await.map(Some)
        };
        let asked = timeout(limit, asked).await;
        let Some((status, claims)) = asked.unwrap_or(Err(HookError::TooSlow))? else {
            return Ok(Verdict::Withdrawn);
        };
        match status {
            StatusCode::OK => Ok(Verdict::Granted(self.grant(&claims)?)),
            StatusCode::UNAUTHORIZED => Ok(Verdict::Unauthorized),
            StatusCode::FORBIDDEN => Ok(Verdict::Forbidden),
            status => Err(HookError::Status(status)),
        }
    }

    fn grant(&self, claims: &[u8]) -> Result<Grant, TokenError> {
        let now_s = now_ns() / 1_000_000_000;
        let mut rights = self.rights.borrow_mut();
        self.policy.accept_claims(claims, &mut rights, now_s)
    }

    /// Status and body of the answer. A connection that was idle may be over without our knowledge: then another is tried.
    async fn ask(&self, question: &Question) -> Result<(StatusCode, Bytes), HookError> {
        let idle = {
            let mut idle = self.idle.borrow_mut();
            idle.retain(|sender| !sender.is_closed());
            idle.pop()
        };
        if let Some(sender) = idle
            && let Ok(answer) = self.exchange(sender, question).await
        {
            return Ok(answer);
        }
        let sender = self.connect().await?;
        self.exchange(sender, question).await
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, HookError> {
        let stream = connect(&self.config.url, self.config.ca.as_deref()).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEADER_BYTES_MAX);
        let made = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(http)?;
        // It ends with its sender; what goes wrong, the exchange says too.
        spawn_local(async move { _ = connection.await });
        Ok(sender)
    }

    async fn exchange(
        &self,
        mut sender: SendRequest<Empty<Bytes>>,
        question: &Question,
    ) -> Result<(StatusCode, Bytes), HookError> {
        sender.ready().await.map_err(http)?;
        let response = sender
            .send_request(self.request(question)?)
            .await
            .map_err(http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), AUTH_HOOK_ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(http)?.to_bytes();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < AUTH_HOOK_IDLE_MAX && !sender.is_closed() {
            idle.push(sender);
        }
        Ok((status, body))
    }

    fn request(&self, question: &Question) -> Result<Request<Empty<Bytes>>, HookError> {
        let url = &self.config.url;
        let mut request = Request::get(url.target.expose())
            .header(header::HOST, &url.authority)
            .header("X-Original-URI", &question.target)
            .header(
                "X-Forwarded-Proto",
                if question.is_secure { "https" } else { "http" },
            );
        if let Some(address) = question.address {
            request = request.header("X-Forwarded-For", address.to_string());
        }
        let mut names_user_agent = false;
        for (name, value) in &question.headers {
            names_user_agent |= name == "user-agent";
            request = request.header(name, &value[..]);
        }
        if !names_user_agent {
            request = request.header(header::USER_AGENT, USER_AGENT);
        }
        request.body(Empty::new()).map_err(http)
    }

    /// Says in the log why the hook did not decide, at most once in a while.
    fn log(&self, error: &HookError) {
        let now = Instant::now();
        let is_soon = |last: Instant| now.duration_since(last) < LOG_INTERVAL;
        if self.logged.get().is_some_and(is_soon) {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        self.logged.set(Some(now));
        let left_out = self.left_out.take();
        let url = &self.config.url;
        tracing::error!(%url, %error, left_out, "auth_hook_url did not decide; the handshake is refused with 503");
    }
}

impl Control {
    /// Answers the shards' questions, several at a time.
    pub(super) async fn keep_hook(&self) -> Infallible {
        loop {
            let (shard, mut question) = self.publisher.next_question().await;
            let hook = self.hook.borrow().clone();
            let (publisher, metrics) = (self.publisher.clone(), self.metrics.clone());
            spawn_local(async move {
                let verdict = match hook {
                    None => Verdict::Undecided,
                    Some(hook) => hook.decide(&mut question).await.unwrap_or_else(|error| {
                        hook.log(&error);
                        Verdict::Undecided
                    }),
                };
                match &verdict {
                    Verdict::Granted(_) => metrics.hook_granted.add(1),
                    Verdict::Unauthorized | Verdict::Forbidden => metrics.hook_refused.add(1),
                    Verdict::Undecided => metrics.hook_errors.add(1),
                    Verdict::Withdrawn => {}
                }
                let connection = question.connection;
                publisher
                    .tell(
                        shard,
                        ToShard::Decided {
                            connection,
                            verdict,
                        },
                    )
                    .await;
            });
        }
    }
}

fn http(error: impl Display) -> HookError {
    HookError::Http(error.to_string())
}

const LOG_INTERVAL: Duration = Duration::from_secs(1);
