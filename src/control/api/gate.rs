//! Decides which requests the API accepts.
//!
//! Without keys ([`permission`](super::permission)) whoever reaches the API's port may publish, so by default it listens
//! on loopback. But a browser on this machine reaches loopback too, on behalf of any page that it shows. Therefore:
//!
//! - A request with an `Origin` header is refused (403). Browsers send it with every POST, even to the page's own host.
//!   This also covers names that were rebound to 127.0.0.1.
//! - A publication must be declared as JSON (415). A page on another origin can do that only after a request with
//!   OPTIONS, which the API never allows.
//! - While the API listens on loopback, `Host` must be `localhost`, a loopback address or a name in the setting
//!   `api_hosts` (403). So a page cannot read metrics through a rebound name. On any other address the operator has
//!   opened the API to a network, where hosts have names, and every `Host` is accepted.
//!
//! Health probes are exempt: `/healthz` and `/readyz` are answered for every Host, since the answers reveal nothing
//! that a page could use. A request of HTTP/1.0 without Host is accepted too, since browsers send none.

use super::Api;
use super::permission::{Permission, ShownCertificate};
use super::refusal::Refusal;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Which hosts the API answers for.
#[derive(Clone, Debug)]
pub(super) enum Hosts {
    /// Any host.
    Any,
    /// This machine, and these names.
    LocalAnd(Arc<[String]>),
}

impl Hosts {
    /// For a port that listens on `address`, with the setting `api_hosts`.
    pub(super) fn new(address: IpAddr, names: &[String]) -> Self {
        match address.is_loopback() && !names.iter().any(|name| name == "*") {
            true => Self::LocalAnd(names.into()),
            false => Self::Any,
        }
    }

    /// True if the API accepts a request for this authority: a host, with or without a port.
    fn admit(&self, authority: &str) -> bool {
        let Self::LocalAnd(names) = self else {
            return true;
        };
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        is_local(host) || names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Applies the rules of the module's header. Marks every answer as one that must not be cached and whose type must not
/// be guessed.
pub(super) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let mut response = match permission(&api, &request) {
        Ok(permission) => {
            request.extensions_mut().insert(permission);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// What the sender of a request may do; for probes nothing is asked, and they may do nothing else.
fn permission(api: &Api, request: &Request) -> Result<Permission, Refusal> {
    let rules = api.rules.now();
    check(&rules.hosts, request)?;
    match HEALTH_PATHS.contains(&request.uri().path()) {
        true => Ok(Permission::of_probe()),
        false => {
            let shown = request.extensions().get::<ShownCertificate>();
            let shown = shown.map(|shown| (shown, api.rules.tls().clients));
            Permission::of(&rules, request.headers(), shown)
        }
    }
}

fn check(hosts: &Hosts, request: &Request) -> Result<(), Refusal> {
    let (uri, headers) = (request.uri(), request.headers());
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::forbidden("a web page may not use this API"));
    }
    if HEALTH_PATHS.contains(&uri.path()) {
        return Ok(());
    }
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host,
        (None, None) if request.version() == Version::HTTP_10 => return Ok(()),
        // RFC 9112 section 3.2.
        _ => {
            let message = "send one Host header";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_host", message));
        }
    };
    let in_target = uri.authority().map(Authority::as_str);
    let is_admitted = host.to_str().is_ok_and(|host| hosts.admit(host))
        && in_target.is_none_or(|host| hosts.admit(host));
    match is_admitted {
        true => Ok(()),
        false => Err(Refusal::forbidden(
            "while the API listens on loopback, the Host must be localhost, a loopback address or a name \
             of the setting api_hosts: add it there",
        )),
    }
}

/// `localhost`, `127.0.0.1`, `[::1]`.
fn is_local(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || bare
            .unwrap_or(host)
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// True for `application/json` and similar types (`application/cloudevents+json`), whatever their parameters.
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
/// What probes ask for.
pub(super) const HEALTH_PATHS: [&str; 2] = ["/healthz", "/readyz"];

#[cfg(test)]
mod tests {
    use super::*;

    /// On loopback, only names and addresses of this machine and the configured names are accepted.
    #[test]
    fn hosts_of_loopback() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let local = Hosts::new(loopback, &[]);
        for host in [
            "localhost",
            "LOCALHOST:9002",
            "127.0.0.1:9002",
            "127.8.9.1",
            "[::1]:1",
            "[::1]",
        ] {
            assert!(local.admit(host), "{host}");
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
            assert!(!local.admit(host), "{host}");
        }
        let named = Hosts::new(
            loopback,
            &["api.example".to_owned(), "[fd00::1]".to_owned()],
        );
        for host in [
            "api.example",
            "API.example:80",
            "[fd00::1]:9002",
            "localhost",
        ] {
            assert!(named.admit(host), "{host}");
        }
        for host in [
            "example",
            "api.example.evil",
            "xapi.example",
            "api.example:x",
        ] {
            assert!(!named.admit(host), "{host}");
        }
        for any in [
            Hosts::new(loopback, &["*".to_owned()]),
            Hosts::new(IpAddr::from([10, 0, 0, 1]), &[]),
            Hosts::new(IpAddr::from([0, 0, 0, 0]), &[]),
        ] {
            assert!(any.admit("evil.example"));
        }
    }

    /// JSON is recognised by its media type; a type that a page can send without permission is not.
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
