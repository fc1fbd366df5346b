//! Reading the body of a request: bounded in bytes and in time, and held only as far as it has come.

use super::connections::Connection;
use super::held::{Held, NoMemory};
use super::refusal::Refusal;
use crate::limits::{API_BODY_BYTES_MAX, KIB};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::{Instant, timeout};

/// A whole body, and the memory it takes.
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    pub(super) held: Held,
}

/// Reads the body of `request`.
pub(super) async fn read(request: Request, connection: &Arc<Connection>) -> Result<Whole, Refusal> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > API_BODY_BYTES_MAX) {
        return Err(Refusal::too_large());
    }
    let time = connection.all().bounds.body;
    let displaced = poll_fn(|context| connection.poll_displaced(context));
    let body = tokio::select! {
        body = timeout(time, collect(request.into_body(), length, connection)) => body,
        () = displaced => Ok(Err(displaced_answer())),
    };
    connection.on_body();
    body.unwrap_or_else(|_| {
        Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "the body did not arrive in time; nothing was published",
        ))
    })
}

async fn collect(
    mut body: Body,
    length: Option<usize>,
    connection: &Arc<Connection>,
) -> Result<Whole, Refusal> {
    let mut whole = Whole {
        bytes: Vec::new(),
        held: Held::new(connection.all(), Some(connection)),
    };
    let since = Instant::now();
    loop {
        connection.await_body(since);
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        connection.on_body();
        let chunk = match frame {
            None => return Ok(whole),
            Some(Err(error)) => {
                let message = error.to_string();
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_body", message));
            }
            // Trailers say nothing.
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let needed = whole.bytes.len() + chunk.len();
        if needed > API_BODY_BYTES_MAX {
            return Err(Refusal::too_large());
        }
        let capacity = whole.bytes.capacity();
        if needed > capacity {
            let more = grown(needed, length) - capacity;
            whole
                .held
                .grow(more)
                .await
                .map_err(|NoMemory| no_memory())?;
            whole
                .bytes
                .reserve_exact(more + capacity - whole.bytes.len());
        }
        whole.bytes.extend_from_slice(&chunk);
    }
}

/// The capacity for `needed` bytes of a body: twice as much, but no more than was announced.
fn grown(needed: usize, length: Option<usize>) -> usize {
    let end = length.unwrap_or(API_BODY_BYTES_MAX).min(API_BODY_BYTES_MAX);
    (2 * needed).max(4 * KIB).min(end).max(needed)
}

fn no_memory() -> Refusal {
    Refusal::busy("there is no memory for the body now; nothing was published")
}

fn displaced_answer() -> Refusal {
    Refusal::busy(
        "the body was so long on its way that others needed its place; nothing was published",
    )
}
