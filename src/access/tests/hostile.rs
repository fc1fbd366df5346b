//! Tokens that somebody made up, or that are not as they should be.

use super::*;

/// Headers that ask for a weaker check, or for one that we do not know, are refused.
#[test]
fn hostile_headers_are_refused() {
    use TokenError::{BadSignature, Malformed, UnknownAlgorithm, UnknownKey};
    let all: Vec<KeySet> = signers().iter().map(|one| keys(&one.public)).collect();
    let all = KeySet::merge(&all).unwrap();
    let good = claims(json!({}));
    for algorithm in [
        "none", "None", "NONE", "nOnE", "", "HS384", "HS512", "hs256", "RS1", "PS1", "ES512",
        "ES256K", "ps256",
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

/// Claims and headers that are not UTF-8 are refused, even if the bytes stand in a member that is ignored.
#[test]
fn tokens_are_utf_8() {
    let spoil = |text: &str| {
        let spoilt = text
            .bytes()
            .map(|byte| if byte == b'?' { 0xff } else { byte });
        spoilt.collect::<Vec<_>>()
    };
    let header = r#"{"alg":"HS256","ignored":"?"}"#;
    let good = claims(json!({ "ignored": "?" }));
    assert!(verify(&forge(header, &good), &secret()).is_ok());
    for token in [
        forge(header, spoil(&good)),
        forge(spoil(header), good.as_bytes()),
    ] {
        let refused = verify(&token, &secret());
        assert!(
            matches!(refused, Err(TokenError::Malformed(_))),
            "{refused:?}"
        );
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
