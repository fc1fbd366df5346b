//! `--header` and `--subprotocol`: what users can add to the upgrade request.

/// Parses `Name: value`, a header that is not part of the handshake itself.
///
/// # Errors
/// What is wrong with it.
pub fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("a header is written 'Name: value'")?;
    let (name, value) = (name.trim(), value.trim());
    if !is_token(name) {
        return Err(format!("{name:?} is not a header name"));
    }
    if value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("the value contains a control character".to_owned());
    }
    let ours = ["host", "upgrade", "connection"];
    let lower = name.to_ascii_lowercase();
    if ours.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") {
        return Err(format!(
            "{name} is part of the handshake itself (subprotocols: --subprotocol, compression: --deflate)"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses the name of a subprotocol, which is a token.
///
/// # Errors
/// When it is not a token.
pub fn parse_subprotocol(text: &str) -> Result<String, String> {
    if is_token(text) {
        Ok(text.to_owned())
    } else {
        Err("not a token (RFC 6455 §4.1)".to_owned())
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header cannot break out of its line or replace the handshake's own.
    #[test]
    fn headers() {
        assert_eq!(
            parse_header("X-Token: a:b"),
            Ok(("X-Token".to_owned(), "a:b".to_owned()))
        );
        for bad in [
            "novalue",
            ": x",
            "A B: c",
            "X: a\r\nY: b",
            "Host: x",
            "sec-websocket-key: x",
        ] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }
}
