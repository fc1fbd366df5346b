//! Tokens of an independent issuer are accepted, and those of hostile ones are not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken as issuer;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _};
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use crate::hub::{Pattern, Topic};
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_KEYS_MAX, TOKEN_LEEWAY_S};

/// The time of all tests, in seconds since the Unix epoch.
const NOW_S: u64 = 1_790_000_000;
const SECRET: &[u8] = b"a shared secret of at least 32 bytes, for tests";
const RSA_PRIVATE: &str = include_str!("testdata/rsa-private.pem");
const RSA_PUBLIC: &str = include_str!("testdata/rsa-public.pem");

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

fn signers() -> [Signer; 4] {
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let (x, y) = p256.der_bytes()[1..].split_at(32);
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
        let jwk = keys(jwks(&[signer.jwk.clone()]));
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

/// Headers that ask for a weaker check, or for one that we do not know, are refused.
#[test]
fn hostile_headers_are_refused() {
    use TokenError::{BadSignature, Malformed, UnknownAlgorithm, UnknownKey};
    let all: Vec<KeySet> = signers().iter().map(|one| keys(&one.public)).collect();
    let all = KeySet::merge(&all).unwrap();
    let good = claims(json!({}));
    for algorithm in [
        "none", "None", "NONE", "nOnE", "", "HS384", "HS512", "hs256", "RS512", "PS256", "ES384",
    ] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        for token in [
            forge(&header, &good),
            format!("{}.{}.", encode(&header), encode(&good)),
        ] {
            assert_eq!(verify(&token, &all), Err(UnknownAlgorithm), "{algorithm}");
        }
    }
    // The public key, in any spelling, as the secret of HS256: with and without that algorithm having a key of its own.
    let der = RSA_PUBLIC.lines().filter(|line| !line.starts_with('-'));
    let der = base64::engine::general_purpose::STANDARD.decode(der.collect::<String>());
    for secret in [
        RSA_PUBLIC.as_bytes(),
        RSA_PUBLIC.trim_end().as_bytes(),
        &der.unwrap(),
        rsa_components().0.as_bytes(),
    ] {
        let token = forge_with(secret, HS256, &good);
        assert_eq!(verify(&token, &keys(RSA_PUBLIC)), Err(UnknownKey));
        assert_eq!(verify(&token, &all), Err(BadSignature));
    }
    for header in [
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":["a"]}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":null}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"logout+jwt"}"#,
        r#"{"alg":"HS256","typ":"dpop+jwt"}"#,
        r#"{"alg":"HS256","typ":""}"#,
        r#"{"alg":"HS256"}{}"#,
        r#"{"alg":"HS256""#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "\u{feff}{\"alg\":\"HS256\"}",
        "",
        &format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257)),
        &format!(r#"{{"alg":"HS256","x":{}"#, "[".repeat(2_000)),
    ] {
        let refused = verify(&forge(header, &good), &secret());
        assert!(
            matches!(refused, Err(Malformed(_))),
            "{header}: {refused:?}"
        );
    }
    assert!(
        verify(
            &forge(b"{\"alg\":\"HS256\",\"kid\":\"\xff\"}", &good),
            &secret()
        )
        .is_err()
    );
    // A key in the header is not looked at, nor is where one could be fetched.
    let jwk = json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": encode("x".repeat(32)) }, "jku": "https://evil" });
    let token = forge_with("x".repeat(32).as_bytes(), jwk.to_string(), &good);
    assert_eq!(verify(&token, &secret()), Err(BadSignature));
    // A name of a key is compared and nothing else.
    for id in [
        "../../dev/null",
        "/etc/passwd",
        "' OR '1'='1",
        "\0",
        "*",
        "%s",
    ] {
        let header = json!({ "alg": "HS256", "kid": id }).to_string();
        let token = forge_with(b"", &header, &good);
        assert_eq!(verify(&token, &secret()), Err(BadSignature), "{id}");
    }
    for header in [
        HS256,
        r#"{"typ":"jwt","alg":"HS256","x":{"deep":[[[1]]]}}"#,
        r#"{"typ":"application/at+JWT","alg":"HS256"}"#,
        r#"{"alg":"\u0048S256"}"#,
        r#"{"alg":"HS256","kid":null}"#,
    ] {
        assert!(verify(&forge(header, &good), &secret()).is_ok(), "{header}");
    }
}

/// A token is three parts of base64url, of bounded length.
#[test]
fn hostile_forms_are_refused() {
    let good = forge(HS256, claims(json!({})));
    assert!(verify(&good, &secret()).is_ok());
    let (message, signature) = good.rsplit_once('.').unwrap();
    for token in [
        "",
        ".",
        "..",
        "...",
        message,
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}.x.y"),
        &format!("{good}="),
        &format!("{good}\n"),
        &format!(" {good}"),
        &format!("{message}..{signature}"),
        &format!("{message}. {signature}"),
        &good.replace('.', "%2e"),
        &format!("{good}\u{e9}"),
    ] {
        let refused = verify(token, &secret());
        assert!(
            matches!(refused, Err(TokenError::Malformed(_))),
            "{token}: {refused:?}"
        );
    }
    // The last letter of 32 bytes has two bits that do not count. They must be zero, or one token would have four texts.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet
        .chars()
        .nth(alphabet.find(last).unwrap() + 1)
        .unwrap();
    let respelt = format!("{}{next}", &good[..good.len() - 1]);
    assert!(matches!(
        verify(&respelt, &secret()),
        Err(TokenError::Malformed(_))
    ));
    let padding_bytes = |total: usize| {
        // Of three letters of base64url two hold a byte and a half: search for the text that fits.
        (0..total).rev().find_map(|count| {
            let token = forge(HS256, claims(json!({ "x": "x".repeat(count) })));
            (token.len() <= total).then_some(token)
        })
    };
    let longest = padding_bytes(TOKEN_BYTES_MAX).unwrap();
    assert!(longest.len() > TOKEN_BYTES_MAX - 4 && verify(&longest, &secret()).is_ok());
    for token in [
        forge(HS256, claims(json!({ "x": "x".repeat(6_200) }))),
        "a".repeat(TOKEN_BYTES_MAX + 1),
        ".".repeat(10_000_000),
    ] {
        assert_eq!(verify(&token, &secret()), Err(TokenError::TooLong));
    }
}

/// Claims that are of another form than they should be are refused, whatever a lenient reader would make of them.
#[test]
fn hostile_claims_are_refused() {
    let exp = NOW_S + 600;
    for text in [
        "",
        "null",
        "[]",
        "1",
        r#""ann""#,
        "{",
        &format!(r#"{{"sub":"ann","exp":{exp}}}x"#),
        &format!(r#"{{"sub":"ann","exp":{exp}}}{{}}"#),
        &format!(r#"{{"sub":"ann","exp":1,"exp":{exp}}}"#),
        &format!(r#"{{"sub":"ann","exp":{exp},"exp":{exp}}}"#),
        &format!(r#"{{"sub":"ann","sub":"root","exp":{exp}}}"#),
        &format!(r#"{{"sub":"ann","\u0073ub":"root","exp":{exp}}}"#),
        &format!(r#"{{"sub":"ann","exp":{exp},"tickring":{{}},"tickring":{{"subscribe":[">"]}}}}"#),
        &format!(r#"{{"sub":"ann","exp":{exp},"tickring":{{"subscribe":[],"subscribe":[">"]}}}}"#),
        &format!("{{\"sub\":\"a\nb\",\"exp\":{exp}}}"),
        &format!(r#"{{"sub":"ann","exp":{exp},"aud":{}}}"#, "[".repeat(3_000)),
        &format!(
            r#"{{"sub":"ann","exp":{exp},"tickring":{}1{}}}"#,
            "[".repeat(2_000),
            "]".repeat(2_000)
        ),
        &format!(
            r#"{{"sub":"ann","exp":{exp},"tickring":{{"subscribe":{}1{}}}}}"#,
            "[".repeat(2_000),
            "]".repeat(2_000)
        ),
    ] {
        let refused = verify(&forge(HS256, text), &secret());
        assert!(
            matches!(refused, Err(TokenError::Malformed(_))),
            "{text}: {refused:?}"
        );
    }
    assert!(
        verify(
            &forge(HS256, b"{\"sub\":\"\xff\",\"exp\":1790000600}"),
            &secret()
        )
        .is_err()
    );
    for (name, values) in [
        (
            "sub",
            vec!["1", "[]", "null", r#""""#, r#""a\u0000""#, r#"["ann"]"#],
        ),
        ("iss", vec!["1", r#"["a"]"#, "null", "{}"]),
        ("aud", vec!["1", "{}", "[1]", r#"[["a"]]"#, "null"]),
        ("sid", vec!["1", "null", r#""""#]),
        ("jti", vec!["1", "{}"]),
        (
            "tickring",
            vec![
                "1",
                r#"[">"]"#,
                r#"">""#,
                r#"{"subscribe":">"}"#,
                r#"{"subscribe":[1]}"#,
                r#"{"subscribe":["a..b"]}"#,
                r#"{"publish":["a*"]}"#,
                r#"{"publish":[""]}"#,
                r#"{"connections_max":-1}"#,
                r#"{"connections_max":"1"}"#,
                r#"{"messages_per_second":1.5}"#,
                r#"{"bytes_per_second":1e30}"#,
                r#"{"subscriptions_max":4294967296}"#,
            ],
        ),
    ] {
        for value in values {
            let text = format!(
                r#"{{"exp":{exp},{}"{name}":{value}}}"#,
                match name {
                    "sub" => "",
                    _ => r#""sub":"ann","#,
                }
            );
            let refused = verify(&forge(HS256, &text), &secret());
            assert!(
                matches!(refused, Err(TokenError::Malformed(_))),
                "{text}: {refused:?}"
            );
        }
    }
    for missing in ["exp", "sub"] {
        let refused = verify(&forge(HS256, claims(json!({ missing: null }))), &secret());
        assert_eq!(refused, Err(TokenError::MissingClaim(missing)));
    }
    let long = claims(json!({ "sub": "s".repeat(257) }));
    assert!(verify(&forge(HS256, long), &secret()).is_err());
    let many = claims(json!({ "aud": vec!["a"; 65] }));
    assert!(matches!(
        verify(&forge(HS256, many), &secret()),
        Err(TokenError::Malformed(_))
    ));
    let many = claims(json!({ "tickring": { "subscribe": vec!["a"; 257] } }));
    assert!(matches!(
        verify(&forge(HS256, many), &secret()),
        Err(TokenError::Malformed(_))
    ));
    // What is not looked at may be anything, as deep as there is room for.
    let deep = format!(
        r#"{{"sub":"ann","exp":{exp},"x":1,"x":{}1{}}}"#,
        "[".repeat(2_500),
        "]".repeat(2_500)
    );
    assert!(verify(&forge(HS256, deep), &secret()).is_ok());
}

/// Times are numbers of seconds: whole or not, but neither texts, nor negative, nor in milliseconds; and the leeway counts
/// at both ends.
#[test]
fn times_are_checked() {
    use TokenError::{Expired, NotYetValid};
    let with_exp = |exp: &str| {
        let text = format!(r#"{{"sub":"ann","exp":{exp}}}"#);
        verify(&forge(HS256, text), &secret()).map(|grant| grant.expires_s())
    };
    for (exp, expected) in [
        ("1790000000", Ok(1_790_000_010)),
        ("1789999991", Ok(1_790_000_001)),
        ("1789999990", Err(Expired)),
        ("1789999990.9", Err(Expired)),
        ("1790000000.9", Ok(1_790_000_010)),
        ("1.79e9", Ok(1_790_000_010)),
        ("0", Err(Expired)),
        ("-0", Err(Expired)),
        ("0.5", Err(Expired)),
        ("253402300799", Ok(253_402_300_809)),
    ] {
        assert_eq!(with_exp(exp), expected, "{exp}");
    }
    for exp in [
        r#""1790000600""#,
        r#""never""#,
        "true",
        "null",
        "[1790000600]",
        "{}",
        "-1",
        "-1790000600",
        "-0.5",
        "1e300",
        "1e999",
        "1790000600000",
        "253402300800",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999999999999999",
    ] {
        let refused = with_exp(exp);
        assert!(
            matches!(refused, Err(TokenError::Malformed(_))),
            "{exp}: {refused:?}"
        );
    }
    for (nbf, expected) in [
        ("1790000010", Ok(())),
        ("1790000010.1", Err(NotYetValid)),
        ("1790000011", Err(NotYetValid)),
        ("0", Ok(())),
    ] {
        let text = format!(r#"{{"sub":"ann","exp":1790000600,"nbf":{nbf}}}"#);
        assert_eq!(
            verify(&forge(HS256, text), &secret()).map(drop),
            expected,
            "{nbf}"
        );
    }
    for name in ["nbf", "iat"] {
        for value in [r#""0""#, "null", "-1", "1e300", "[]"] {
            let text = format!(r#"{{"sub":"ann","exp":1790000600,"{name}":{value}}}"#);
            let refused = verify(&forge(HS256, text), &secret());
            assert!(
                matches!(refused, Err(TokenError::Malformed(_))),
                "{name} {value}"
            );
        }
    }
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
        "subscribe": ["md.*", "chat.>"], "publish": ["chat.a"], "products": ["later"],
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

/// What is no key, or one that is too weak, is refused with a reason that helps.
#[test]
fn bad_keys_are_refused() {
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    for (document, error) in [
        (&b""[..], KeyError::SecretTooShort),
        (&[b'a'; 31], KeyError::SecretTooShort),
        (
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
            KeyError::SecretTooShort,
        ),
        (RSA_PRIVATE.as_bytes(), KeyError::PrivateKey),
        (ed25519.serialize_pem().as_bytes(), KeyError::PrivateKey),
        (
            include_bytes!("testdata/rsa-1024-public.pem"),
            KeyError::RsaBits,
        ),
        (
            include_bytes!("testdata/p384-public.pem"),
            KeyError::UnknownKind,
        ),
        (
            include_bytes!("testdata/certificate.pem"),
            KeyError::NoPublicKey,
        ),
        (
            b"-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----\n",
            KeyError::BadPem,
        ),
        (
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            KeyError::UnknownKind,
        ),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n", KeyError::BadPem),
        (b"{}", KeyError::NotJwks),
        (b"{\"keys\":1}", KeyError::NotJwks),
        (b"{\"keys\":[]}", KeyError::NoUsableKey),
        (b"{\"keys\":[1,{},[]]}", KeyError::NoUsableKey),
        (b"{\"keys\":[]}x", KeyError::NotJwks),
        (&vec![b'a'; 300_000], KeyError::TooLong),
    ] {
        let refused = KeySet::parse(document).map(|keys| keys.len());
        let shown = String::from_utf8_lossy(&document[..document.len().min(60)]);
        assert_eq!(refused, Err(error), "{shown}");
    }
    let many = vec![json!({ "kty": "oct", "k": encode(SECRET) }); TOKEN_KEYS_MAX + 1];
    assert_eq!(
        KeySet::parse(jwks(&many).as_bytes()).err(),
        Some(KeyError::TooMany)
    );
    let full = keys(jwks(&many[1..]));
    assert_eq!(
        KeySet::merge([&full, &secret()]).err(),
        Some(KeyError::TooMany)
    );
    let two = keys(format!("{RSA_PUBLIC}\n{}", ed25519.public_key_pem()));
    assert_eq!(two.len(), 2, "a file may hold several");
}

/// Keys of a JWKS document that are for something else, or not as they should be, are skipped; the others count.
#[test]
fn jwks_documents_are_read_with_care() {
    let [hs256, rs256, es256, eddsa] = signers().map(|signer| signer.jwk);
    let all = [&hs256, &rs256, &es256, &eddsa].map(Clone::clone);
    assert_eq!(keys(jwks(&all)).len(), 4);
    let fitting = [
        with(
            &rs256,
            json!({ "alg": "RS256", "use": "sig", "key_ops": ["verify"], "x5c": ["x"], "d": "AQAB" }),
        ),
        with(&es256, json!({ "alg": "ES256", "kid": "1" })),
        with(&eddsa, json!({ "alg": "EdDSA" })),
        with(&eddsa, json!({ "alg": "Ed25519" })),
    ];
    assert_eq!(keys(jwks(&fitting)).len(), 4);
    let unfitting = [
        with(&rs256, json!({ "use": "enc" })),
        with(&rs256, json!({ "key_ops": ["encrypt"] })),
        with(&rs256, json!({ "key_ops": [] })),
        with(&rs256, json!({ "alg": "RS384" })),
        with(&rs256, json!({ "alg": "HS256" })),
        with(&rs256, json!({ "alg": "RSA-OAEP" })),
        with(&rs256, json!({ "n": "AQAB" })),
        with(&rs256, json!({ "e": "AQ" })),
        with(&rs256, json!({ "e": "Ag" })),
        with(&rs256, json!({ "e": "AAAA" })),
        with(&rs256, json!({ "e": encode([1; 6]) })),
        with(&rs256, json!({ "n": encode([0xff; 1_025]) })),
        with(&rs256, json!({ "n": "not base64" })),
        with(&rs256, json!({ "kid": 1 })),
        with(&rs256, json!({ "kid": "k".repeat(257) })),
        with(&rs256, json!({ "kty": "rsa" })),
        with(&es256, json!({ "crv": "P-384" })),
        with(&es256, json!({ "crv": "secp256k1" })),
        with(&es256, json!({ "x": "AA" })),
        with(&es256, json!({ "y": null })),
        with(&eddsa, json!({ "crv": "Ed448" })),
        with(&eddsa, json!({ "crv": "X25519" })),
        with(&eddsa, json!({ "x": encode([1; 31]) })),
        with(&hs256, json!({ "k": encode("short") })),
        with(&hs256, json!({ "alg": "HS512" })),
        json!({ "kty": "oct", "n": "AQAB" }),
    ];
    for jwk in &unfitting {
        let alone = KeySet::parse(jwks(std::slice::from_ref(jwk)).as_bytes()).err();
        assert_eq!(alone, Some(KeyError::NoUsableKey), "{jwk}");
    }
    let mixed: Vec<Value> = unfitting.iter().chain(&fitting).cloned().collect();
    assert_eq!(keys(jwks(&mixed)).len(), 4);
    // A point that is not on the curve makes a key that nothing is signed with.
    let off_curve = with(
        &es256,
        json!({ "x": encode([1; 32]), "y": encode([1; 32]) }),
    );
    let message = format!(
        "{}.{}",
        encode(r#"{"alg":"ES256"}"#),
        encode(claims(json!({})))
    );
    let token = format!("{message}.{}", encode([1; 64]));
    assert_eq!(
        verify(&token, &keys(jwks(&[off_curve]))),
        Err(TokenError::BadSignature)
    );
}

/// No secret and nothing of a token is shown by `Debug` or in an error.
#[test]
fn secrets_are_not_shown() {
    let text = String::from_utf8_lossy(SECRET).into_owned();
    let shown = format!(
        "{:?}",
        KeySet::merge([&secret(), &keys(RSA_PUBLIC)]).unwrap()
    );
    assert!(
        shown.contains("Hs256") && shown.contains("Rs256"),
        "{shown}"
    );
    assert!(
        !shown.contains(&text[..8]) && !shown.contains("97, 32, 115"),
        "{shown}"
    );
    let token = forge(HS256, claims(json!({ "sub": "a secret name", "iss": 1 })));
    let error = verify(&token, &secret()).unwrap_err();
    let shown = format!("{error} {error:?} {}", error.label());
    assert!(
        !shown.contains("secret") && !shown.contains(&token[..8]),
        "{shown}"
    );
}
