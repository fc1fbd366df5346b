//! Publishes over HTTP: requests on one kept-alive connection, whose answers are parsed as they arrive.

use std::io::Write as _;

use loadgen_common::url::Url;

use crate::dialect::template::{Template, Values};
use crate::dialect::{Publication, tickring};

/// How publications are POSTed.
#[derive(Debug, Clone)]
pub struct Post {
    /// The address.
    pub url: Url,
    /// The content of a request.
    pub form: PostForm,
}

/// What a request holds.
#[derive(Debug, Clone)]
pub enum PostForm {
    /// All due publications, in the form of tickring's publish API.
    TickringBatch,
    /// A single publication.
    Single {
        /// Path and query.
        path: Template,
        /// Body.
        body: Template,
        /// Content-Type of it.
        content_type: String,
    },
}

/// Requests being composed.
#[derive(Debug, Default)]
pub struct Requests {
    /// Complete requests.
    pub bytes: Vec<u8>,
    /// Their number.
    pub count: u64,
    /// The batch so far; for a single publication its path and its body.
    batch: Vec<u8>,
    scratch: Vec<u8>,
}

impl Post {
    /// Adds one publication.
    pub fn add(&self, publication: &Publication<'_>, requests: &mut Requests) {
        match &self.form {
            PostForm::TickringBatch => {
                let is_first = requests.batch.is_empty();
                requests.batch.push(if is_first { b'[' } else { b',' });
                tickring::write_api_publication(publication, &mut requests.batch);
            }
            PostForm::Single {
                path,
                body,
                content_type,
            } => {
                let values = Values {
                    topics: &[publication.topic],
                    names: publication.names,
                    data: publication.data,
                    id: publication.sequence.wrapping_add(1),
                    client: 0,
                };
                let Requests {
                    bytes,
                    count,
                    batch,
                    scratch,
                } = requests;
                batch.clear();
                scratch.clear();
                path.write_url(&values, batch);
                body.write(&values, scratch);
                write_request(&self.url, batch, content_type, scratch, bytes);
                batch.clear();
                *count += 1;
            }
        }
    }

    /// Completes a batch.
    pub fn finish(&self, requests: &mut Requests) {
        if matches!(self.form, PostForm::TickringBatch) && !requests.batch.is_empty() {
            requests.batch.push(b']');
            let path = match self.url.target.as_str() {
                "/" => PUBLISH_PATH,
                path => path,
            };
            write_request(
                &self.url,
                path.as_bytes(),
                "application/json",
                &requests.batch,
                &mut requests.bytes,
            );
            requests.batch.clear();
            requests.count += 1;
        }
    }
}

/// Appends a POST with `body`.
fn write_request(url: &Url, path: &[u8], content_type: &str, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"POST ");
    out.extend_from_slice(path);
    write!(
        out,
        " HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        url.authority,
        body.len()
    )
    .expect("writing to a Vec does not fail");
    out.extend_from_slice(body);
}

/// Parses answers, which may arrive in pieces and several together.
#[derive(Debug, Default)]
pub struct Responses {
    input: Vec<u8>,
}

impl Responses {
    /// Handles `bytes`; returns how many answers were completed, all of them successes.
    ///
    /// # Errors
    /// One line with the server's answer, if it is not a success.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<u64, String> {
        self.input.extend_from_slice(bytes);
        let (mut taken, mut count) = (0, 0);
        while let Some(length) = response_bytes(&self.input[taken..])? {
            taken += length;
            count += 1;
        }
        self.input.drain(..taken);
        if self.input.len() > RESPONSE_BYTES_MAX {
            return Err(format!(
                "the answer is longer than {RESPONSE_BYTES_MAX} bytes"
            ));
        }
        Ok(count)
    }
}

/// Length of the answer at the front of `input`, if it is complete.
fn response_bytes(input: &[u8]) -> Result<Option<usize>, String> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(input) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not an HTTP response: {error}")),
    };
    let status = response.code.unwrap_or(0);
    let header = |name: &str| {
        let mut headers = response.headers.iter();
        let value = headers
            .find(|header| header.name.eq_ignore_ascii_case(name))?
            .value;
        std::str::from_utf8(value).ok().map(str::trim)
    };
    let rest = &input[head_bytes..];
    let is_chunked = header("transfer-encoding")
        .is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked"));
    let body_bytes = if status == 204 {
        // RFC 9112 §6.3: never a body.
        0
    } else if is_chunked {
        match chunked_bytes(rest)? {
            Some(length) => length,
            None => return Ok(None),
        }
    } else {
        header("content-length")
            .and_then(|value| value.parse::<usize>().ok())
            .ok_or_else(|| format!("status {status} without a Content-Length"))?
    };
    let Some(body) = rest.get(..body_bytes) else {
        return Ok(None);
    };
    if !(200..300).contains(&status) {
        let body: String = String::from_utf8_lossy(body).chars().take(200).collect();
        // One line, whatever page it is.
        let words: Vec<&str> = body.split_whitespace().collect();
        return Err(format!("status {status}: {}", words.join(" ")));
    }
    Ok(Some(head_bytes + body_bytes))
}

/// Length of a chunked body (RFC 9112 §7.1), if it is complete.
fn chunked_bytes(input: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0_usize;
    loop {
        let rest = input.get(at..).unwrap_or_default();
        match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((line_bytes, chunk_bytes))) => {
                let chunk_bytes = usize::try_from(chunk_bytes)
                    .ok()
                    .filter(|bytes| *bytes <= RESPONSE_BYTES_MAX)
                    .ok_or("a chunk is too long")?;
                at += line_bytes + chunk_bytes;
                if chunk_bytes == 0 {
                    // No trailers: the empty line is all that follows.
                    let end = input.get(at..at + 2);
                    return Ok(end.map(|_| at + 2));
                }
                at += 2;
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("not a chunked body".to_owned()),
        }
    }
}

const PUBLISH_PATH: &str = "/api/v1/publish";
/// Answers are a line or two.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::TopicNames;

    /// An answer counts once it is complete, however TCP splits it, and several may arrive together.
    #[test]
    fn answers_in_pieces() {
        let answers = concat!(
            "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"published\":3}",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        )
        .as_bytes();
        for cut in 0..answers.len() {
            let mut responses = Responses::default();
            let first = responses.handle_input(&answers[..cut]).expect("a part");
            let rest = responses.handle_input(&answers[cut..]).expect("the rest");
            assert_eq!(first + rest, 3, "cut at {cut}");
            assert!(first < 3, "cut at {cut}");
        }
    }

    /// Anything but a success is reported with the server's answer.
    #[test]
    fn refusals() {
        for (answer, word) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\n\r\nall\n wrong"[..],
                "400: all wrong",
            ),
            (b"HTTP/1.1 200 OK\r\n\r\n", "Content-Length"),
            (b"220 smtp\r\n\r\n", "not an HTTP response"),
        ] {
            let error = Responses::default().handle_input(answer).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
    }

    /// A batch is one request, single publications are one each, with their topics in the path.
    #[test]
    fn requests() {
        let names = TopicNames::new("t", '.', 2).expect("valid");
        let post = |form| Post {
            url: Url::parse_http("http://127.0.0.1:80/").expect("valid"),
            form,
        };
        let single = PostForm::Single {
            path: Template::parse("/pub?topic={topic}"),
            body: Template::parse("<{data}>"),
            content_type: "text/plain".to_owned(),
        };
        for (form, count, words) in [
            (
                PostForm::TickringBatch,
                1,
                [
                    "POST /api/v1/publish HTTP/1.1\r\n",
                    "\r\n\r\n[{\"topic\":\"t.0\",\"data\":7},{\"topic\":\"t.1\",\"data\":7}]",
                ],
            ),
            (
                single,
                2,
                [
                    "POST /pub?topic=t.0 HTTP/1.1\r\n",
                    "Content-Length: 3\r\n\r\n<7>POST /pub?topic=t.1",
                ],
            ),
        ] {
            let (post, mut requests) = (post(form), Requests::default());
            for topic in [0, 1] {
                let publication = Publication {
                    sequence: 0,
                    topic,
                    names: &names,
                    data: b"7",
                };
                post.add(&publication, &mut requests);
            }
            post.finish(&mut requests);
            let text = String::from_utf8_lossy(&requests.bytes).into_owned();
            assert_eq!(requests.count, count);
            for word in words {
                assert!(text.contains(word), "{word} in {text}");
            }
        }
    }
}
