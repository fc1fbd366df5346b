//! Answers that are not a success: a status, and JSON that says why.

use crate::control::publications::BadPublications;
use crate::control::publisher::PublishError;
use crate::hub::HubError;
use crate::limits::API_BODY_BYTES_MAX;
use crate::mailbox::Refused;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A body of JSON with its media type.
pub(super) fn json_body(value: &serde_json::Value) -> impl IntoResponse + use<> {
    (IS_JSON, format!("{value}\n"))
}

/// The media type of most answers.
pub(super) const IS_JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    index: Option<usize>,
    /// True if the same request may succeed a second later and has certainly not been carried out.
    retry: bool,
    /// The connection is of no use any more: it is closed after the answer.
    closing: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            index: None,
            retry: false,
            closing: false,
        }
    }

    /// The same, and the connection is closed after it.
    pub(super) fn closing(self) -> Self {
        Self {
            closing: true,
            ..self
        }
    }

    pub(super) fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// The server cannot do it now; nothing was done.
    pub(super) fn busy(message: &str) -> Self {
        Self {
            retry: true,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
        }
    }

    pub(super) fn too_large() -> Self {
        let message = format!("the body is larger than {API_BODY_BYTES_MAX} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }
}

/// The answer to publications of which some were refused: it names those with the reason. Without `refused`, there was
/// no memory to say which.
pub(super) fn not_all_taken(published: usize, refused: &[Refused]) -> String {
    let message = match refused.is_empty() {
        false => {
            "some publications were not taken: `refused` says which and why; the others were published"
        }
        true => "some publications were not taken, and there is no memory now to say which",
    };
    let refused: Vec<_> = refused
        .iter()
        .map(|refused| {
            json!({
                "index": refused.index,
                "topic": refused.topic.as_str(),
                "code": code_of(refused.error),
                "message": refused.error.to_string(),
            })
        })
        .collect();
    let body = json!({
        "error": { "code": "limit", "message": message },
        "published": published,
        "refused": refused,
    });
    format!("{body}\n")
}

/// The `code` of what the hub refuses.
const fn code_of(error: HubError) -> &'static str {
    match error {
        HubError::Draining => "draining",
        _ => "limit",
    }
}

impl From<HubError> for Refusal {
    fn from(error: HubError) -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            code_of(error),
            error.to_string(),
        )
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
        if self.status == StatusCode::UNAUTHORIZED {
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.closing {
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.retry {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
