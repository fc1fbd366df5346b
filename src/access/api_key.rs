//! Keys of the API, or certificates in their place: who publishes, who reads, who operates.
//!
//! Only digests are kept. A key is long and random, so its digest tells nothing about it, and there is no need for a slow
//! one as for passwords.

use std::fmt;

use ring::digest::{SHA256, digest};

use crate::hub::{Pattern, Topic};

/// The SHA-256 of a key. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The one that 64 hexadecimal digits write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<redacted>")
    }
}

/// The digest of a key.
#[must_use]
pub fn digest_of(key: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key).as_ref());
    Digest(bytes)
}

/// What a key may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Which topics it may publish to.
    pub publish: Vec<Pattern>,
    /// Whether it may read values, connections and metrics.
    pub read: bool,
    /// Whether it may operate the server: revoke, reload, drain.
    pub operate: bool,
}

/// What the holder of a key shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The key with this digest.
    Key(Digest),
    /// A certificate for this name, by an authority that the API accepts (mTLS).
    Certificate(String),
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name in logs.
    pub name: String,
    /// What its holder shows.
    pub proof: Proof,
    /// What it may do.
    pub scopes: Scopes,
}

impl ApiKey {
    /// True if it may publish to this topic.
    #[must_use]
    pub fn may_publish(&self, topic: &Topic) -> bool {
        let patterns = &self.scopes.publish;
        patterns
            .iter()
            .any(|pattern| pattern.matches(topic.as_str()))
    }
}

/// All keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeys(Vec<ApiKey>);

impl ApiKeys {
    /// These.
    #[must_use]
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self(keys)
    }

    /// True if there are none: the API asks for no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.iter()
    }

    /// Whose key it is. How long that takes tells nothing about the keys: digests are compared, and the sender cannot
    /// choose those.
    #[must_use]
    pub fn identify(&self, key: &[u8]) -> Option<&ApiKey> {
        let digest = digest_of(key);
        self.0
            .iter()
            .find(|known| known.proof == Proof::Key(digest))
    }

    /// Whose certificate it is: the first whose name `is_for` accepts.
    pub fn identify_certificate(&self, is_for: impl Fn(&str) -> bool) -> Option<&ApiKey> {
        self.0.iter().find(|known| match &known.proof {
            Proof::Certificate(name) => is_for(name),
            Proof::Key(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key is known by itself and by nothing else, and may do what its scopes say.
    #[test]
    fn keys_are_identified() {
        let publisher = ApiKey {
            name: "desk".to_owned(),
            proof: Proof::Key(digest_of(b"0123456789abcdefghijkl")),
            scopes: Scopes {
                publish: vec![Pattern::parse("md.>").unwrap()],
                ..Scopes::default()
            },
        };
        let reader = ApiKey {
            name: "grafana".to_owned(),
            // SHA-256 of "abc" (FIPS 180-4).
            proof: Proof::Key(
                Digest::parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
                    .unwrap(),
            ),
            scopes: Scopes {
                read: true,
                ..Scopes::default()
            },
        };
        let partner = ApiKey {
            name: "partner".to_owned(),
            proof: Proof::Certificate("partner.example".to_owned()),
            scopes: Scopes::default(),
        };
        let keys = ApiKeys::new(vec![publisher.clone(), reader.clone(), partner.clone()]);
        let certificate = |name: &'static str| keys.identify_certificate(move |of| of == name);
        assert_eq!(certificate("partner.example"), Some(&partner));
        assert_eq!(certificate("desk"), None);
        assert_eq!(keys.identify(b"partner.example"), None);
        assert_eq!(keys.identify(b"0123456789abcdefghijkl"), Some(&publisher));
        assert_eq!(keys.identify(b"abc"), Some(&reader));
        for stranger in [&b""[..], b"0123456789abcdefghijk", b"ABC", b"desk"] {
            assert_eq!(keys.identify(stranger), None);
        }
        let topic = |text| Topic::parse(text).unwrap();
        assert!(publisher.may_publish(&topic("md.AAPL")));
        assert!(!publisher.may_publish(&topic("chat.a")));
        assert!(!reader.may_publish(&topic("md.AAPL")));
        assert!(
            !format!("{keys:?}").contains("ba78"),
            "digests are not shown"
        );
    }

    /// A digest is exactly 64 hexadecimal digits.
    #[test]
    fn digests_are_hexadecimal() {
        let good = "Ab".repeat(32);
        assert!(Digest::parse(&good).is_some());
        for bad in [
            &good[1..],
            &format!("{good}0"),
            &"zz".repeat(32),
            &"+1".repeat(32),
            &"é".repeat(32),
            "",
        ] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
