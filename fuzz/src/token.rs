//! Tokens that hold anything, signed or not, and keys in any form.
//!
//! What is accepted is JSON in UTF-8, jsonwebtoken accepts it too, and its claims, read as plain JSON, allow it. Nothing is
//! granted that the claims do not name.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ring::hmac;
use serde_json::Value;
use tickring::access::{KeySet, TokenPolicy, Verifier};
use tickring::hub::Pattern;

/// A shared secret.
pub const SECRET: &[u8] = b"a shared secret of at least 32 bytes, for tests";
/// When tokens are checked, in seconds since the Unix epoch.
pub const NOW_S: u64 = 1_790_000_000;
const LEEWAY_S: u64 = 30;

pub fn check(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    match choice {
        // A text as it is: only who has the secret could make a valid one.
        b'r' => check_token(rest),
        b'k' => {
            let _ = KeySet::parse(rest);
            if let Ok(keys) = KeySet::parse_jwks(rest) {
                assert!(std::str::from_utf8(rest).is_ok() && !keys.is_empty());
            }
        }
        // Header and claims, signed: what is in a token of an issuer that does as it likes.
        _ => {
            let end = rest.iter().position(|&byte| byte == b'\n');
            let (header, claims) = rest.split_at(end.unwrap_or(0));
            check_token(sign(header, claims.strip_prefix(b"\n").unwrap_or(claims)).as_bytes());
        }
    }
}

/// A token with this header and these claims, signed with [`SECRET`].
pub fn sign(header: &[u8], claims: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(signature.as_ref()))
}

/// What checks tokens in all targets.
pub fn verifier() -> Verifier {
    let policy = TokenPolicy {
        issuers: vec!["https://id.example".to_owned()],
        audiences: vec!["desk".to_owned()],
        leeway_s: LEEWAY_S,
        claim: "tickring".to_owned(),
        subscribe: Vec::new(),
    };
    let keys = KeySet::parse(SECRET).expect("a secret");
    Verifier::new(Arc::new(policy), Arc::new(keys))
}

fn check_token(token: &[u8]) {
    let Ok(grant) = verifier().verify(token, NOW_S) else {
        return;
    };
    let mut validation = Validation::new(Algorithm::HS256);
    // Times are compared with the system's clock there.
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["exp", "sub", "aud", "iss"]);
    validation.set_audience(&["desk"]);
    validation.set_issuer(&["https://id.example"]);
    let token = std::str::from_utf8(token).expect("base64");
    let mut parts = token.split('.').map(|part| {
        let decoded = URL_SAFE_NO_PAD.decode(part).expect("base64");
        String::from_utf8(decoded)
    });
    let mut json = || parts.next().expect("a part").expect("UTF-8");
    let (header, claims) = (json(), json());
    // In what is ignored the server takes all that the grammar allows. As values there are no half surrogate pairs, no
    // numbers that are too large for a double, and no objects of any depth.
    let (Ok(_), Ok(claims)) = (
        serde_json::from_str::<Value>(&header),
        serde_json::from_str::<Value>(&claims),
    ) else {
        return;
    };
    let key = DecodingKey::from_secret(SECRET).expect("a secret");
    // It wants certain types of parameters that the server ignores; such a header says nothing here.
    if jsonwebtoken::decode_header(token).is_ok()
        && let Err(error) = jsonwebtoken::decode::<Value>(token, &key, &validation)
    {
        panic!("jsonwebtoken refuses: {error}");
    }

    let time = |name: &str| claims[name].as_f64();
    let (now_s, leeway_s) = (NOW_S as f64, LEEWAY_S as f64);
    assert!(
        time("exp").is_some_and(|exp| exp + leeway_s > now_s),
        "expired"
    );
    for name in ["nbf", "iat"] {
        assert!(time(name).is_none_or(|begins| begins <= now_s + leeway_s));
    }
    assert_eq!(claims["sub"].as_str(), Some(grant.subject()));
    let granted = &claims["tickring"]["subscribe"];
    let granted: Vec<_> = granted.as_array().into_iter().flatten().collect();
    for text in ["a", "a.*", "md.>", ">", "*"] {
        let pattern = Pattern::parse(text).expect("a pattern");
        if granted.is_empty() {
            assert!(!grant.may_subscribe(&pattern), "nothing is granted");
        }
        if granted.iter().any(|one| one.as_str() == Some(text)) {
            assert!(grant.may_subscribe(&pattern), "{text} is granted");
        }
    }
}
