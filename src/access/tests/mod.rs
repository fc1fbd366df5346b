//! Tokens of an independent issuer are accepted, and those of hostile ones are not.

mod hostile;
mod keys;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken as issuer;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _,
};
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use crate::hub::{Pattern, Topic};
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_KEYS_MAX, TOKEN_LEEWAY_S};

/// The time of all tests, in seconds since the Unix epoch.
const NOW_S: u64 = 1_790_000_000;
const SECRET: &[u8] = b"a shared secret of at least 32 bytes, for tests";
const RSA_PRIVATE: &str = include_str!("../testdata/rsa-private.pem");
const RSA_PUBLIC: &str = include_str!("../testdata/rsa-public.pem");

fn policy() -> TokenPolicy {
    TokenPolicy {
        issuers: Vec::new(),
        audiences: Vec::new(),
        leeway_s: TOKEN_LEEWAY_S,
        claim: "tickring".to_owned(),
        subscribe: Vec::new(),
    }
}

fn verify_with(policy: &TokenPolicy, token: &str, keys: &KeySet) -> Result<Grant, TokenError> {
    let mut pool = RightsPool::default();
    policy.verify(token.as_bytes(), keys, &mut pool, NOW_S)
}

fn verify(token: &str, keys: &KeySet) -> Result<Grant, TokenError> {
    verify_with(&policy(), token, keys)
}

fn keys(document: impl AsRef<[u8]>) -> KeySet {
    KeySet::parse(document.as_ref()).expect("keys")
}

fn secret() -> KeySet {
    keys(SECRET)
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with exactly this header and these claims, signed with a secret.
fn forge_with(secret: &[u8], header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(signature))
}

fn forge(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    forge_with(SECRET, header, claims)
}

const HS256: &str = r#"{"alg":"HS256"}"#;

/// Claims that are in order, with some replaced, added or (by null) left out.
fn claims(changes: Value) -> String {
    let mut claims = json!({ "sub": "ann", "exp": NOW_S + 600 });
    let all = claims.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => _ = all.remove(name),
            value => _ = all.insert(name.clone(), value.clone()),
        }
    }
    claims.to_string()
}

/// What the independent issuer makes.
fn issue(
    algorithm: issuer::Algorithm,
    id: Option<&str>,
    key: &issuer::EncodingKey,
    claims: &str,
) -> String {
    let mut header = issuer::Header::new(algorithm);
    header.kid = id.map(str::to_owned);
    let claims: Value = serde_json::from_str(claims).expect("claims");
    issuer::encode(&header, &claims, key).expect("a token")
}

struct Signer {
    algorithm: issuer::Algorithm,
    private: issuer::EncodingKey,
    /// As a file holds it.
    public: Vec<u8>,
    /// Without `kid`.
    jwk: Value,
}

fn signers() -> [Signer; 5] {
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let (x, y) = p256.der_bytes()[1..].split_at(32);
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
    let (x384, y384) = p384.der_bytes()[1..].split_at(48);
    let components = rsa_components();
    [
        Signer {
            algorithm: issuer::Algorithm::HS256,
            private: issuer::EncodingKey::from_secret(SECRET).expect("a key"),
            public: [SECRET, b"\n"].concat(),
            jwk: json!({ "kty": "oct", "k": encode(SECRET) }),
        },
        Signer {
            algorithm: issuer::Algorithm::RS256,
            private: issuer::EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).expect("a key"),
            public: RSA_PUBLIC.into(),
            jwk: json!({ "kty": "RSA", "n": components.0, "e": components.1 }),
        },
        Signer {
            algorithm: issuer::Algorithm::ES256,
            private: issuer::EncodingKey::from_ec_pem(p256.serialize_pem().as_bytes())
                .expect("a key"),
            public: p256.public_key_pem().into(),
            jwk: json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) }),
        },
        Signer {
            algorithm: issuer::Algorithm::ES384,
            private: issuer::EncodingKey::from_ec_pem(p384.serialize_pem().as_bytes())
                .expect("a key"),
            public: p384.public_key_pem().into(),
            jwk: json!({ "kty": "EC", "crv": "P-384", "x": encode(x384), "y": encode(y384) }),
        },
        Signer {
            algorithm: issuer::Algorithm::EdDSA,
            private: issuer::EncodingKey::from_ed_pem(ed25519.serialize_pem().as_bytes())
                .expect("a key"),
            public: ed25519.public_key_pem().into(),
            jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(ed25519.der_bytes()) }),
        },
    ]
}

/// Modulus and exponent of the RSA key in base64url.
fn rsa_components() -> (String, String) {
    use pki_types::pem::PemObject as _;
    let der = pki_types::SubjectPublicKeyInfoDer::from_pem_slice(RSA_PUBLIC.as_bytes());
    match spki::PublicKey::parse(der.expect("PEM").as_ref()) {
        Some(spki::PublicKey::Rsa { n, e }) => (encode(n), encode(e)),
        other => panic!("{other:?}"),
    }
}

fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn with(jwk: &Value, changes: Value) -> Value {
    let mut jwk = jwk.clone();
    for (name, value) in changes.as_object().expect("an object") {
        jwk[name] = value.clone();
    }
    jwk
}

/// What an independent issuer signs is accepted with the key as a file and as a JWK, and with no other key; and a token of
/// which any part is changed is not.
#[test]
fn tokens_of_all_algorithms_are_accepted() {
    let signers = signers();
    for (at, signer) in signers.iter().enumerate() {
        let token = issue(signer.algorithm, None, &signer.private, &claims(json!({})));
        let file = keys(&signer.public);
        let jwk = keys(jwks(std::slice::from_ref(&signer.jwk)));
        assert_eq!(verify(&token, &file).unwrap().subject(), "ann");
        assert!(verify(&token, &jwk).is_ok());
        for (other_at, other) in signers.iter().enumerate() {
            if other_at != at {
                let refused = verify(&token, &keys(&other.public));
                assert_eq!(refused, Err(TokenError::UnknownKey));
            }
        }
        let together: Vec<KeySet> = signers.iter().map(|one| keys(&one.public)).collect();
        assert!(verify(&token, &KeySet::merge(&together).unwrap()).is_ok());
        // Every byte counts. The last letter of a part may only have bits that do not count, which are refused as well.
        for place in (0..token.len()).step_by(7) {
            let mut bytes = token.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(bytes).unwrap();
            assert!(verify(&damaged, &file).is_err(), "{place}");
        }
        let signature = token.rfind('.').unwrap() + 1;
        assert!(verify(&token[..signature], &file).is_err());
        assert!(verify(&token[..token.len() - 4], &file).is_err());
    }
}

/// An RSA key checks all signatures of RSA, unless its JWK names one: then it checks this one alone. What is signed with one
/// of them is not accepted under the name of another.
#[test]
fn an_rsa_key_checks_what_it_is_for() {
    use issuer::Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    let all = [
        (RS256, "RS256"),
        (RS384, "RS384"),
        (RS512, "RS512"),
        (PS256, "PS256"),
        (PS384, "PS384"),
        (PS512, "PS512"),
    ];
    let private = issuer::EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).expect("a key");
    let (n, e) = rsa_components();
    for (algorithm, name) in all {
        let token = issue(algorithm, None, &private, &claims(json!({})));
        let open = json!({ "kty": "RSA", "n": n, "e": e });
        for keys in [keys(RSA_PUBLIC), keys(jwks(std::slice::from_ref(&open)))] {
            assert_eq!(verify(&token, &keys).expect(name).subject(), "ann");
            let (_, rest) = token.split_once('.').expect("three parts");
            for (_, other) in all.iter().filter(|(other, _)| *other != algorithm) {
                let header = encode(json!({ "typ": "JWT", "alg": other }).to_string());
                let renamed = verify(&format!("{header}.{rest}"), &keys);
                assert_eq!(renamed, Err(TokenError::BadSignature), "{name} as {other}");
            }
        }
        for (_, alg) in all {
            let bound = keys(jwks(&[with(&open, json!({ "alg": alg }))]));
            let expected = match alg == name {
                true => Ok(()),
                false => Err(TokenError::UnknownKey),
            };
            assert_eq!(verify(&token, &bound).map(drop), expected, "{name} {alg}");
        }
    }
}

/// The token and the key of RFC 7515, appendix A.1, by which anybody can check what we check.
#[test]
fn the_example_of_the_rfc_verifies() {
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let key =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let keys = keys(jwks(&[json!({ "kty": "oct", "k": key })]));
    // It has no subject, so it is good up to there.
    let checked = verify(token, &keys);
    assert_eq!(checked, Err(TokenError::MissingClaim("sub")));
}

/// `kid` chooses the key; without it every key of the algorithm is tried; a key without a name serves a token that names
/// one, unless another key has that name. So two keys can be in use while one takes the other's place.
#[test]
fn keys_are_chosen_and_rotated() {
    let (old, new) = (&b"old".repeat(11), &b"new".repeat(11));
    let jwk = |id: &str, secret: &[u8]| json!({ "kty": "oct", "kid": id, "k": encode(secret) });
    let both = keys(jwks(&[jwk("1", old), jwk("2", new)]));
    let header = |id: &str| format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
    let token = |header: &str, secret: &[u8]| forge_with(secret, header, claims(json!({})));
    for (header, secret, expected) in [
        (header("1"), old, Ok(())),
        (header("2"), new, Ok(())),
        (HS256.to_owned(), old, Ok(())),
        (HS256.to_owned(), new, Ok(())),
        (header("1"), new, Err(TokenError::BadSignature)),
        (header("3"), new, Err(TokenError::UnknownKey)),
        (header("1 "), old, Err(TokenError::UnknownKey)),
        (header(""), old, Err(TokenError::UnknownKey)),
    ] {
        let verified = verify(&token(&header, secret), &both).map(drop);
        assert_eq!(verified, expected, "{header}");
    }
    let unnamed = keys(new);
    assert!(verify(&token(&header("3"), new), &unnamed).is_ok());
    let mixed = KeySet::merge([&both, &unnamed]).unwrap();
    assert!(verify(&token(&header("3"), new), &mixed).is_ok());
    let refused = verify(&token(&header("1"), new), &mixed);
    assert_eq!(
        refused,
        Err(TokenError::BadSignature),
        "the named key alone"
    );
    let none = verify(&token(HS256, new), &KeySet::default());
    assert_eq!(none, Err(TokenError::UnknownKey));
    assert!(none.unwrap_err().may_need_keys());
}

/// A token is taken if it is for us and from whom we accept it; one that names an audience is not for a server that has
/// no name.
#[test]
fn issuer_and_audience_are_checked() {
    use TokenError::{MissingClaim, WrongAudience, WrongIssuer};
    let strict = TokenPolicy {
        issuers: vec!["https://id.example".to_owned(), "b".to_owned()],
        audiences: vec!["tickring".to_owned(), "edge".to_owned()],
        ..policy()
    };
    for (iss, aud, expected) in [
        (json!("https://id.example"), json!("tickring"), Ok(())),
        (json!("b"), json!(["x", "edge"]), Ok(())),
        (json!("c"), json!("edge"), Err(WrongIssuer)),
        (
            json!("https://id.example/"),
            json!("edge"),
            Err(WrongIssuer),
        ),
        (json!("B"), json!("edge"), Err(WrongIssuer)),
        (json!(""), json!("edge"), Err(WrongIssuer)),
        (Value::Null, json!("edge"), Err(MissingClaim("iss"))),
        (json!("b"), json!("Edge"), Err(WrongAudience)),
        (json!("b"), json!(["x", "y"]), Err(WrongAudience)),
        (json!("b"), json!([]), Err(WrongAudience)),
        (json!("b"), json!("edge,x"), Err(WrongAudience)),
        (json!("b"), Value::Null, Err(MissingClaim("aud"))),
    ] {
        let token = forge(HS256, claims(json!({ "iss": iss, "aud": aud })));
        let verified = verify_with(&strict, &token, &secret());
        assert_eq!(verified.map(drop), expected, "{iss} {aud}");
    }
    let token = forge(HS256, claims(json!({ "iss": "anybody" })));
    assert!(verify(&token, &secret()).is_ok());
    let token = forge(HS256, claims(json!({ "aud": "other" })));
    assert_eq!(verify(&token, &secret()), Err(WrongAudience));
}

/// A token grants what its claim says and what the policy adds, under the name that the operator has chosen.
#[test]
fn grants_come_from_the_claim() {
    let rights = json!({
        "subscribe": ["md.*", "chat.>"], "publish": ["chat.a"],
        "connections_max": 5, "messages_per_second": 10, "bytes_per_second": 10_000_000_000_u64, "subscriptions_max": 100,
    });
    let text = claims(json!({ "tickring": rights, "sid": "4711", "jti": "1", "iat": 7, "nbf": 7 }));
    let grant = verify(&forge(HS256, text), &secret()).unwrap();
    let expected = GrantLimits {
        connections_max: Some(5),
        messages_per_second: Some(10),
        bytes_per_second: Some(10_000_000_000),
        subscriptions_max: Some(100),
    };
    assert_eq!(grant.rights().limits, expected);
    assert_eq!((grant.subject(), grant.session()), ("ann", Some("4711")));
    assert_eq!(grant.issued_s(), Some(7));
    let pattern = |text| Pattern::parse(text).unwrap();
    assert!(grant.may_subscribe(&pattern("md.AAPL")) && grant.may_subscribe(&pattern("chat.>")));
    assert!(!grant.may_subscribe(&pattern("md.>")) && !grant.may_subscribe(&pattern("news")));
    assert!(grant.may_publish(&Topic::parse("chat.a").unwrap()));
    assert!(!grant.may_publish(&Topic::parse("chat.b").unwrap()));

    let other = TokenPolicy {
        claim: "https://desk.example/tickring".to_owned(),
        subscribe: vec![pattern("news"), pattern("md.*")],
        ..policy()
    };
    let both = claims(json!({
        "tickring": { "subscribe": [">"] }, "https://desk.example/tickring": { "subscribe": ["md.*"] }, "jti": "1",
    }));
    let grant = verify_with(&other, &forge(HS256, both), &secret()).unwrap();
    assert!(grant.may_subscribe(&pattern("news")) && !grant.may_subscribe(&pattern("chat.a")));
    assert_eq!(
        grant.rights().subscribe.len(),
        2,
        "the same pattern counts once"
    );
    assert_eq!(
        grant.session(),
        Some("1"),
        "the token's id where there is no session"
    );
    let bare = verify(&forge(HS256, claims(json!({}))), &secret()).unwrap();
    assert_eq!(
        **bare.rights(),
        Rights::default(),
        "nothing is granted by itself"
    );
}

/// Products, the kind of user and a filter come from the claim. Whatever of them is not understood makes the token
/// malformed, and the error names the member: a filter that is left out would grant too much.
#[test]
fn products_and_filters_come_from_the_claim() {
    let granted = |rights: Value| {
        verify(
            &forge(HS256, claims(json!({ "tickring": rights }))),
            &secret(),
        )
    };
    let grant = granted(json!({
        "products": { "nasdaq": "real-time", "cme": "none" }, "professional": true,
        "filter": { "field": "/desk", "equals": ["fx"] },
    }));
    let rights = std::sync::Arc::clone(grant.unwrap().rights());
    assert_eq!(rights.products.class_of("nasdaq"), Some(Class::RealTime));
    assert_eq!(rights.professional, Some(true));
    let filter = rights.filter.as_ref().expect("a filter");
    assert!(filter.holds(br#"{"desk":"fx"}"#) && !filter.holds(br#"{"desk":"eq"}"#));
    let many: Vec<String> = (0..257).map(|number| format!("a.{number}")).collect();
    for bad in [
        json!({ "subscribe": "md.>" }),
        json!({ "subscribe": ["a..b"] }),
        json!({ "subscribe": many }),
        json!({ "publish": [1] }),
        json!({ "publish": ["a..b"] }),
        json!({ "connections_max": -1 }),
        json!({ "messages_per_second": 1.5 }),
        json!({ "bytes_per_second": "10" }),
        json!({ "subscriptions_max": 1_u64 << 32 }),
        json!({ "products": ["nasdaq"] }),
        json!({ "products": { "nasdaq": "realtime" } }),
        json!({ "professional": "yes" }),
        json!({ "professional": null }),
        json!({ "connections_max": null }),
        json!({ "products": { "nasdaq": { "real-time": null } } }),
        json!({ "filter": ["/desk", ["fx"]] }),
        json!({ "filter": null }),
        json!({ "filter": "fx" }),
        json!({ "filter": { "field": "desk", "equals": ["fx"] } }),
        json!({ "filter": { "field": "/desk", "equals": ["fx"], "or": [] } }),
    ] {
        let refused = granted(bad.clone());
        let Err(TokenError::Malformed(problem)) = refused else {
            panic!("{bad}: {refused:?}");
        };
        let name = bad.as_object().and_then(|members| members.keys().next());
        let begins = format!("{} ", name.expect("a member"));
        assert!(problem.starts_with(&begins), "{bad}: {problem}");
    }
    for (bad, said) in [
        (r#"{"subscribe":["a"],"subscribe":["b"]}"#, "a member twice"),
        ("[]", "not an object"),
    ] {
        let text = claims(json!({ "tickring": "BAD" })).replace("\"BAD\"", bad);
        let refused = verify(&forge(HS256, text), &secret());
        assert!(
            matches!(refused, Err(TokenError::Malformed(problem)) if problem.ends_with(said)),
            "{bad}: {refused:?}"
        );
    }
}

/// A token with an unknown member in its claim is refused, whatever else is in it, and the error names the member: it could
/// be a restriction that is misspelt. Nothing of it is left out of the log unescaped, and no more than is useful.
#[test]
fn unknown_members_are_refused_by_name() {
    let long = "é".repeat(100);
    for (name, shown) in [
        ("filtr", "\"filtr\"".to_owned()),
        ("Subscribe", "\"Subscribe\"".to_owned()),
        ("a\nb", "\"a\\nb\"".to_owned()),
        (&long, format!("{:?}", &long[..64])),
    ] {
        let mut claim = json!({
            "subscribe": [">"], "publish": [], "connections_max": 1, "messages_per_second": 1,
            "bytes_per_second": 1, "subscriptions_max": 1, "products": {}, "professional": false,
            "filter": { "field": "/desk", "equals": ["fx"] },
        });
        let checked = |claim: &Value| {
            let text = claims(json!({ "tickring": claim, "filtr": "another claim" }));
            verify(&forge(HS256, text), &secret())
        };
        assert!(checked(&claim).is_ok(), "each member is known");
        claim[name] = json!({ "field": "/desk", "equals": ["fx"] });
        let error = checked(&claim).unwrap_err();
        assert_eq!(error.label(), "unknown_member");
        assert!(error.to_string().ends_with(&shown), "{error}");
    }
}

/// Tokens with the same rights share them, whoever they are for; and a connection keeps its subject.
#[test]
fn rights_of_many_tokens_are_kept_once() {
    let mut pool = RightsPool::default();
    let mut grant = |subject: &str| {
        let rights = json!({ "subscribe": ["md.>"] });
        let token = forge(HS256, claims(json!({ "sub": subject, "tickring": rights })));
        policy()
            .verify(token.as_bytes(), &secret(), &mut pool, NOW_S)
            .unwrap()
    };
    let (ann, bob) = (grant("ann"), grant("bob"));
    assert!(std::sync::Arc::ptr_eq(ann.rights(), bob.rights()));
    assert!(ann.may_become(&grant("ann")) && !ann.may_become(&bob));
}
