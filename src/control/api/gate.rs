//! Who may ask the API, and with what.
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

use super::Api;
use super::refusal::Refusal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// Lets pass what the module's header allows, and marks every answer as one not to be kept or guessed at.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
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
pub(super) fn is_json(headers: &HeaderMap) -> bool {
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

const APPLICATION: &str = "application/";

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
