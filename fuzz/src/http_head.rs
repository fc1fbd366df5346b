//! Any bytes as the head of a request.
//!
//! - Byte by byte the end is found where it is found at once, or the head is refused in both cases.
//! - What is accepted keeps to the grammar of RFC 9112, read here once more line by line, and means the same.
//! - Further bytes after a head, or after what cannot become one, change nothing.

use tickring::access::{Source, Sources};
use tickring::http::{head_end, parse_head};
use tickring::limits::{HEADER_BYTES_MAX, HEADERS_MAX};

pub fn check(data: &[u8]) {
    let at_once = head_end(data, 0);
    assert_eq!(
        at_once.as_ref().ok(),
        byte_by_byte(data).as_ref().ok(),
        "the cuts make a difference"
    );
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let parsed = parse_head(data, &mut storage);
    let longer = [data, b"\r\n\r\nGET / HTTP/1.1\r\n"].concat();
    let mut other_storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let of_longer = parse_head(&longer, &mut other_storage);
    let head = match parsed {
        Err(_) => {
            assert!(of_longer.is_err(), "more bytes make good what was refused");
            return;
        }
        Ok(None) => {
            assert!(data.len() < HEADER_BYTES_MAX);
            return;
        }
        Ok(Some(head)) => head,
    };
    let of_longer = of_longer.expect("the same head").expect("the same head");
    assert_eq!(of_longer.head_bytes, head.head_bytes);
    assert_eq!(at_once.ok(), Some(Some(head.head_bytes)));

    let text = data[..head.head_bytes].strip_prefix(b"\r\n");
    let text = text.unwrap_or(&data[..head.head_bytes]);
    let (method, target, minor_version, headers) = read(text).expect("RFC 9112's grammar");
    assert_eq!(head.method.as_bytes(), method);
    assert_eq!(head.minor_version, minor_version);
    // A target in absolute form stands for its path.
    assert!(target.ends_with(head.target.as_bytes()) || head.target == "/");
    assert!(head.target.starts_with(head.path));
    let heard = head
        .headers
        .iter()
        .map(|one| (one.name.as_bytes(), one.value.trim_ascii()));
    assert!(heard.eq(headers.iter().copied()), "{headers:?}");
    if let Ok(Some(token)) = sources().find(head.headers, head.target) {
        assert!(data.windows(token.len()).any(|part| part == token));
    }
}

fn byte_by_byte(data: &[u8]) -> Result<Option<usize>, ()> {
    for length in 1..=data.len() {
        if let Some(end) = head_end(&data[..length], length - 1).map_err(|_| ())? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

fn sources() -> Sources {
    let all = ["header", "cookie:token", "subprotocol", "query:token"];
    Sources::new(all.map(|one| Source::parse(one).expect("a source")).into())
}

type Read<'a> = (&'a [u8], &'a [u8], u8, Vec<(&'a [u8], &'a [u8])>);

/// A head as RFC 9112 section 3 and RFC 9110 section 5.6 describe it: no leniency at all.
fn read(text: &[u8]) -> Option<Read<'_>> {
    let text = std::str::from_utf8(text).map_or(text, str::as_bytes);
    let body = text.strip_suffix(b"\r\n\r\n")?;
    let mut lines = Vec::new();
    let mut rest = body;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !lines.iter().all(|line| line.iter().all(is_text)) {
        return None;
    }
    let (first, fields) = lines.split_first()?;
    let words: Vec<_> = first.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return None;
    };
    let minor_version = match version {
        b"HTTP/1.0" => 0,
        b"HTTP/1.1" => 1,
        _ => return None,
    };
    if !is_token(method) || target.is_empty() || target.contains(&b'\t') {
        return None;
    }
    let fields = fields.iter().map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        is_token(name).then(|| (name, value.trim_ascii()))
    });
    Some((
        method,
        target,
        minor_version,
        fields.collect::<Option<_>>()?,
    ))
}

fn is_token(text: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_letter)
}
