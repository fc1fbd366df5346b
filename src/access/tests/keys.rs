//! Documents of keys, good ones and bad ones.

use super::*;

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
            include_bytes!("../testdata/rsa-1024-public.pem"),
            KeyError::RsaBits,
        ),
        (
            include_bytes!("../testdata/certificate.pem"),
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
        (b"{\"keys\":[],\"x\":\"\xff\"}", KeyError::NotJwks),
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
    // A P-384 key by OpenSSL.
    assert_eq!(keys(include_bytes!("../testdata/p384-public.pem")).len(), 1);
    let two = keys(format!("{RSA_PUBLIC}\n{}", ed25519.public_key_pem()));
    assert_eq!(two.len(), 2, "a file may hold several");
}

/// Keys of a JWKS document that are for something else, or not as they should be, are skipped; the others count.
#[test]
fn jwks_documents_are_read_with_care() {
    let [hs256, rs256, es256, es384, eddsa] = signers().map(|signer| signer.jwk);
    let all = [&hs256, &rs256, &es256, &es384, &eddsa].map(Clone::clone);
    assert_eq!(keys(jwks(&all)).len(), 5);
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
        with(&rs256, json!({ "alg": "RS1" })),
        with(&es256, json!({ "alg": "ES384" })),
        with(&es384, json!({ "alg": "ES256" })),
        with(&es384, json!({ "crv": "P-256" })),
        with(&es384, json!({ "crv": "P-521" })),
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
