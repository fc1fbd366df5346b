//! How connections are made, checked.

use std::net::IpAddr;

use base64::Engine as _;
use loadgen_common::addresses::Addresses;
use loadgen_common::error::Error;
use loadgen_common::tls::TlsPlan;
use loadgen_common::url::{Scheme, Url};

use crate::cli::TransportArguments;
use crate::plan::{Deflate, Request, Transport};

/// Checks what concerns connections to `url`.
pub(super) fn check(
    arguments: &TransportArguments,
    url: &Url,
    is_deflate_asked: bool,
    headers: Vec<(String, String)>,
) -> Result<Transport, Error> {
    let is_secure = url.scheme == Scheme::SecureWebSocket;
    if !is_secure && (arguments.insecure || arguments.ca.is_some()) {
        return Err(Error::Usage(
            "--ca and --insecure belong to a wss:// address".to_owned(),
        ));
    }
    let tls = is_secure
        .then(|| TlsPlan::new(&url.host, arguments.ca.as_deref(), arguments.insecure))
        .transpose()?;
    let sources = arguments
        .source
        .as_ref()
        .map(|sources| sources.0.clone())
        .unwrap_or_default();
    let is_deflate_asked = is_deflate_asked || arguments.deflate_offer.is_some();
    for (flag, is_given) in [
        ("--deflate-level", arguments.deflate_level.is_some()),
        ("--deflate-min", arguments.deflate_min.is_some()),
    ] {
        if is_given && !is_deflate_asked {
            return Err(Error::Usage(format!(
                "{flag}: nothing is compressed without --deflate"
            )));
        }
    }
    Ok(Transport {
        tls,
        is_resuming: false,
        sources,
        deflate: is_deflate_asked.then(|| Deflate {
            offer: arguments.deflate_offer.unwrap_or_default(),
            level: arguments.deflate_level.unwrap_or(1),
            bytes_min: arguments.deflate_min.unwrap_or(0),
        }),
        request: request(arguments, url, headers)?,
        slow_readers: arguments.slow_readers,
    })
}

/// Lets connections resume the TLS sessions of earlier ones.
pub(super) fn resume_sessions(transport: &mut Transport) -> Result<(), Error> {
    let tls = transport
        .tls
        .take()
        .ok_or_else(|| Error::Usage("--resume belongs to a wss:// address".to_owned()))?;
    transport.tls = Some(tls.with_resumption());
    transport.is_resuming = true;
    Ok(())
}

/// Those of a server's addresses that every source can reach.
pub(super) fn reachable(found: Addresses, sources: &[IpAddr]) -> Result<Addresses, Error> {
    let mut addresses = found;
    for source in sources {
        addresses = addresses.reachable_from(*source).ok_or_else(|| {
            Error::Usage(format!(
                "--source {source}: the server's address {} is of the other kind of IP",
                addresses.first().ip()
            ))
        })?;
    }
    Ok(addresses)
}

/// The upgrade request, with what says who connects.
fn request(
    arguments: &TransportArguments,
    url: &Url,
    mut headers: Vec<(String, String)>,
) -> Result<Request, Error> {
    let mut authorizations = Vec::new();
    if let Some(bearer) = &arguments.bearer {
        authorizations = tokens(bearer)?
            .iter()
            .map(|token| format!("Bearer {token}"))
            .collect();
    }
    if let Some(user) = &url.user {
        let encoded = base64::engine::general_purpose::STANDARD.encode(user);
        authorizations.push(format!("Basic {encoded}"));
    }
    let is_given = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let ways = usize::from(arguments.bearer.is_some())
        + usize::from(url.user.is_some())
        + usize::from(is_given);
    if ways > 1 {
        return Err(Error::Usage(
            "--bearer, a user in the URL and an Authorization header: one of them".to_owned(),
        ));
    }
    if let Some(origin) = &arguments.origin {
        check_value("--origin", origin)?;
        headers.push(("Origin".to_owned(), origin.clone()));
    }
    Ok(Request::new(url.target.clone(), headers, authorizations))
}

fn tokens(bearer: &str) -> Result<Vec<String>, Error> {
    let tokens: Vec<String> = match bearer.strip_prefix('@') {
        None => vec![bearer.to_owned()],
        Some(path) => std::fs::read_to_string(path)
            .map_err(|cause| Error::Usage(format!("--bearer @{path}: {cause}")))?
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect(),
    };
    if tokens.is_empty() {
        return Err(Error::Usage(format!("--bearer {bearer}: no token in it")));
    }
    for token in &tokens {
        check_value("--bearer", token)?;
    }
    Ok(tokens)
}

fn check_value(flag: &str, value: &str) -> Result<(), Error> {
    if value.is_empty() || value.chars().any(|c| c.is_control()) {
        return Err(Error::Usage(format!(
            "{flag}: empty, or with a control character"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::{self, planning};
    use crate::plan::Plan;
    use loadgen_common::error::{Error, status};

    fn plan(arguments: &[&str]) -> Result<Plan, Error> {
        let cli =
            cli::Cli::try_parse_from(std::iter::once("loadgen").chain(arguments.iter().copied()))
                .expect("clap");
        let cli::Command::Load(command) = cli.command else {
            panic!("a load");
        };
        planning::plan(command).map(|(plan, _)| plan)
    }

    /// Every connection has its own number in path and headers, and its turn of tokens.
    #[test]
    fn requests_differ_by_connection() {
        let path = std::env::temp_dir().join(format!("loadgen-tokens-{}", std::process::id()));
        std::fs::write(&path, "one\n\ntwo\n").expect("a temporary file");
        let bearer = format!("@{}", path.display());
        let url = "ws://127.0.0.1:9/ws?client={n}";
        let plan = plan(&[
            "echo",
            url,
            "-H",
            "X-User: u{n}",
            "--bearer",
            &bearer,
            "--origin",
            "http://o",
        ])
        .expect("valid");
        std::fs::remove_file(&path).expect("it was written");
        let request = plan.transport.request;
        assert_eq!(request.target(7), "/ws?client=7");
        let shown: Vec<String> = request
            .headers(7)
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        assert_eq!(
            shown,
            [
                "X-User: u7",
                "Origin: http://o",
                "Authorization: Bearer two"
            ]
        );
    }

    /// A user in the URL is basic authentication (RFC 7617 §2, its example).
    #[test]
    fn basic_authentication() {
        let plan = plan(&["echo", "ws://Aladdin:open%20sesame@127.0.0.1:9/"]).expect("valid");
        let value = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned();
        assert_eq!(
            plan.transport.request.headers(0),
            [("Authorization".to_owned(), value)]
        );
    }

    /// Sources are taken in turn; contradictions are usage errors.
    #[test]
    fn sources_and_contradictions() {
        let url = "ws://127.0.0.1:9/";
        let list = "127.0.0.9,127.0.0.2-127.0.0.3";
        let plan_of = plan(&["echo", url, "--source", list]).expect("valid");
        let sources: Vec<String> = (0..4)
            .filter_map(|number| plan_of.transport.source(number, plan_of.addresses.first()))
            .map(|source| source.to_string())
            .collect();
        assert_eq!(
            sources,
            ["127.0.0.9:0", "127.0.0.2:0", "127.0.0.3:0", "127.0.0.9:0"]
        );
        for arguments in [
            &["echo", url, "--insecure"][..],
            &["echo", url, "--source", "::1"],
            &["echo", url, "--bearer", "a\nb"],
            &["echo", url, "--bearer", "@/nonexistent/tokens"],
            &["echo", url, "--bearer", "t", "-H", "Authorization: x"],
            &["echo", url, "--deflate-level", "1"],
            &["echo", url, "--deflate-min", "0"],
            &["echo", "wss://127.0.0.1:9/", "--ca", "/nonexistent/ca.pem"],
            &["connect", url, "--resume"],
        ] {
            let error = plan(arguments).expect_err(&format!("{arguments:?}"));
            assert_eq!(error.exit_status(), status::USAGE, "{arguments:?}");
        }
    }

    /// The offer is the one that was asked for, and offering parameters is offering.
    #[test]
    fn offers() {
        let offer = "server_no_context_takeover; client_max_window_bits=10";
        let plan = plan(&["echo", "ws://127.0.0.1:9/", "--deflate-offer", offer]).expect("valid");
        let offered = plan.transport.deflate.expect("implied").offer;
        assert_eq!(
            tickring_protocol::deflate::offer(&offered),
            format!("permessage-deflate; {offer}")
        );
    }
}
