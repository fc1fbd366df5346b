//! Addresses without credentials: passwords, tokens, cookies.
//!
//! People share results, and the logs that contain error lines. So credentials are replaced by [`REDACTED`]. Where a
//! secret looks like other text (values of the query), everything is replaced except what is known to be harmless.

/// Replaces a secret. It is valid in a header, a URL and a template.
pub const REDACTED: &str = "REDACTED";

/// An address without the password before its host and without the values of its query, except names that are known to
/// be harmless and values that are only placeholders (`{n}`, `{topic}`).
pub fn url(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (user, rest) = user_and_rest(rest);
    let user = match user.split_once(':') {
        _ if user.is_empty() => String::new(),
        Some((name, _)) => format!("{name}:{REDACTED}@"),
        None => format!("{REDACTED}@"),
    };
    let Some(at) = rest.find(['?', '#']) else {
        return format!("{scheme}{user}{rest}");
    };
    let (path, query) = rest.split_at(at + 1);
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            _ if is_only_places(pair) => pair.to_owned(),
            None => REDACTED.to_owned(),
            Some((name, value)) => {
                let is_shown = is_one_of(&HARMLESS_PARAMETERS, name) || is_only_places(value);
                format!("{name}={}", if is_shown { value } else { REDACTED })
            }
        })
        .collect();
    format!("{scheme}{user}{path}{}", pairs.join("&"))
}

/// Splits an address into user and password, and the rest. A password that should have been percent-encoded may contain
/// a slash or a question mark; then the text in the port's place is not a number.
fn user_and_rest(rest: &str) -> (&str, &str) {
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let looks_cut = !authority.starts_with('[')
        && authority
            .split_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_err());
    let within = if looks_cut { rest } else { authority };
    within
        .rfind('@')
        .map_or(("", rest), |at| (&rest[..at], &rest[at + 1..]))
}

/// Nothing but `{n}` and its like.
fn is_only_places(text: &str) -> bool {
    let mut rest = text;
    while let Some(inside) = rest.strip_prefix('{') {
        match inside.split_once('}') {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Parameters that say what is requested, not who requests it.
const HARMLESS_PARAMETERS: [&str; 16] = [
    "channel",
    "channels",
    "compress",
    "EIO",
    "encoding",
    "format",
    "protocol",
    "room",
    "stream",
    "streams",
    "symbol",
    "symbols",
    "topic",
    "topics",
    "transport",
    "version",
];
