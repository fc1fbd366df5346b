//! Reads the body of a request, limited in bytes and in time. Memory is held only for bytes that have arrived.

use super::connections::Connection;
use super::held::{Held, NoMemory};
use super::refusal::Refusal;
use crate::limits::{API_BODY_BYTES_MAX, API_DISCARD_PAUSE_MS, API_DISCARDED_BYTES_MAX, KIB};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A complete body, and the memory that it holds.
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    pub(super) held: Held,
}

/// Reads the body of `request`.
pub(super) async fn read(request: Request, connection: &Arc<Connection>) -> Result<Whole, Refusal> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > API_BODY_BYTES_MAX) {
        discard(request, connection).await;
        return Err(Refusal::too_large());
    }
    let time = connection.all().bounds.body;
    let displaced = poll_fn(|context| connection.poll_displaced(context));
    let mut body = request.into_body();
    let whole = tokio::select! {
        whole = timeout(time, collect(&mut body, length, connection)) => whole,
        () = displaced => Ok(Err(Unread::Refused(displaced_answer()))),
    };
    connection.on_body();
    match whole {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(Unread::Refused(refusal))) => Err(refusal),
        Ok(Err(Unread::TooLarge)) => {
            take_rest(&mut body, connection).await;
            Err(Refusal::too_large())
        }
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "the body did not arrive in time; nothing was published",
        )),
    }
}

/// Why a body was not read to its end.
enum Unread {
    TooLarge,
    Refused(Refusal),
}

/// Reads the body of a refused request and discards it.
pub(super) async fn discard(request: Request, connection: &Arc<Connection>) {
    // Who expects to be told before is.
    if !request.headers().contains_key(header::EXPECT) {
        take_rest(&mut request.into_body(), connection).await;
    }
}

/// Reads and discards the rest of a body. Many clients read no answer before they have sent everything; and if a
/// connection is closed with unread bytes, the answer is lost.
async fn take_rest(body: &mut Body, connection: &Arc<Connection>) {
    let (mut bytes, since) = (0, Instant::now());
    let rest = async {
        while bytes < API_DISCARDED_BYTES_MAX {
            connection.await_body(since);
            let next = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
            let pause = Duration::from_millis(API_DISCARD_PAUSE_MS);
            match timeout(pause, next).await {
                Ok(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
                // It is at its end, or its sender waits for the answer.
                Ok(Some(Err(_)) | None) | Err(_) => return,
            }
        }
    };
    let displaced = poll_fn(|context| connection.poll_displaced(context));
    tokio::select! {
        _ = timeout(connection.all().bounds.body, rest) => (),
        () = displaced => (),
    }
    connection.on_body();
}

async fn collect(
    body: &mut Body,
    length: Option<usize>,
    connection: &Arc<Connection>,
) -> Result<Whole, Unread> {
    let mut whole = Whole {
        bytes: Vec::new(),
        held: Held::new(connection.all(), Some(connection)),
    };
    let since = Instant::now();
    loop {
        connection.await_body(since);
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        connection.on_body();
        let chunk = match frame {
            None => return Ok(whole),
            Some(Err(error)) => {
                let message = error.to_string();
                let refusal = Refusal::new(StatusCode::BAD_REQUEST, "bad_body", message);
                return Err(Unread::Refused(refusal));
            }
            // Trailers say nothing.
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let needed = whole.bytes.len() + chunk.len();
        if needed > API_BODY_BYTES_MAX {
            return Err(Unread::TooLarge);
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

fn no_memory() -> Unread {
    Unread::Refused(Refusal::busy(
        "there is no memory for the body now; nothing was published",
    ))
}

fn displaced_answer() -> Refusal {
    Refusal::busy(
        "the body was so long on its way that others needed its place; nothing was published",
    )
}
