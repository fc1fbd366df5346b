//! The claims of a token (RFC 7519 section 4), and the one that grants topics:
//!
//! ```json
//! {
//!   "sub": "ann", "exp": 1790000000, "sid": "4711",
//!   "tickring": {
//!     "subscribe": ["md.>"], "publish": ["chat.*"],
//!     "connections_max": 5, "messages_per_second": 10, "bytes_per_second": 10000, "subscriptions_max": 100,
//!     "products": {"nasdaq-l1": "real-time", "cme": "delayed"}, "professional": false,
//!     "filter": {"field": "/desk", "equals": ["fx"]}
//!   }
//! }
//! ```
//!
//! One claim holds an object with lists of patterns, as Mercure's `mercure` does with `subscribe` and `publish`. Centrifugo
//! has flat claims (`channels`, `subs`), but those subscribe a client rather than permit it to. The claim's name can be
//! set, because some identity providers only add claims whose name is a URL.
//!
//! A claim that is looked at may be there once. Other claims are ignored. Within the claim that grants topics nothing is
//! ignored: a member that is not known could be meant to restrict what the others grant, such as a misspelt `filter`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::grant::with_common;
use super::{Grant, GrantLimits, ProductGrants, Rights, RightsPool, TokenError, TokenPolicy};
use crate::condition::Condition;
use crate::hub::Pattern;
use crate::limits::{
    TOKEN_AUDIENCES_MAX, TOKEN_ID_BYTES_MAX, TOKEN_MEMBER_SHOWN_BYTES_MAX, TOKEN_PATTERNS_MAX,
    TOKEN_TIME_S_MAX,
};

/// What is read of the claims.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    subject: Cow<'a, str>,
    session: Option<Cow<'a, str>>,
    pub(super) expires_s: u64,
    pub(super) begins_s: Option<u64>,
    pub(super) issued_s: Option<u64>,
    pub(super) issuer: Option<Cow<'a, str>>,
    pub(super) audiences: Option<Vec<Cow<'a, str>>>,
    granted: Granted<'a>,
}

/// The claim that grants topics.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Granted<'a> {
    #[serde(borrow, default)]
    subscribe: Vec<Text<'a>>,
    #[serde(borrow, default)]
    publish: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "some")]
    connections_max: Option<u32>,
    #[serde(default, deserialize_with = "some")]
    messages_per_second: Option<u32>,
    #[serde(default, deserialize_with = "some")]
    bytes_per_second: Option<u64>,
    #[serde(default, deserialize_with = "some")]
    subscriptions_max: Option<u32>,
    #[serde(default)]
    products: ProductGrants,
    #[serde(default, deserialize_with = "some")]
    professional: Option<bool>,
    /// `null` is an error here as everywhere, like all that is no filter: one that is not understood must not be taken for none.
    #[serde(borrow, default, deserialize_with = "some")]
    filter: Option<&'a RawValue>,
}

/// The members of [`Granted`], each with what is said of one that has another form.
const GRANTED_MEMBERS: [(&str, &str); 9] = [
    ("subscribe", "subscribe is not a list of patterns"),
    ("publish", "publish is not a list of patterns"),
    (
        "connections_max",
        "connections_max is not a whole number from 0 to 4294967295",
    ),
    (
        "messages_per_second",
        "messages_per_second is not a whole number from 0 to 4294967295",
    ),
    (
        "bytes_per_second",
        "bytes_per_second is not a whole number from 0",
    ),
    (
        "subscriptions_max",
        "subscriptions_max is not a whole number from 0 to 4294967295",
    ),
    (
        "products",
        "products is not an object that gives up to 64 products, once each, real-time, delayed or none",
    ),
    ("professional", "professional is neither true nor false"),
    ("filter", BAD_FILTER),
];
const BAD_FILTER: &str =
    r#"filter does not have the form {"field":"/desk","equals":["fx"]}, with up to 64 values"#;

/// What is wrong with the claim that grants topics: its first unknown member, or else one of a wrong form.
fn bad_grants(raw: &RawValue) -> TokenError {
    let Ok(Members(members)) = serde_json::from_str(raw.get()) else {
        return TokenError::Malformed("the claim that grants topics is not an object");
    };
    let problem_of = |name: &str| {
        let known = GRANTED_MEMBERS.iter().find(|(known, _)| *known == name);
        known.map(|(_, problem)| *problem)
    };
    let mut bad = None;
    for (Text(name), value) in &members {
        let Some(problem) = problem_of(name) else {
            let shown = &name[..name.floor_char_boundary(TOKEN_MEMBER_SHOWN_BYTES_MAX)];
            return TokenError::UnknownMember(shown.into());
        };
        let alone = format!("{{{name:?}:{}}}", value.get());
        if serde_json::from_str::<Granted<'_>>(&alone).is_err() {
            bad.get_or_insert(problem);
        }
    }
    TokenError::Malformed(bad.unwrap_or("the claim that grants topics has a member twice"))
}

/// The members of an object, as they stand.
struct Members<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self(Vec::new()))
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self, M::Error> {
        while let Some(member) = map.next_entry()? {
            self.0.push(member);
        }
        Ok(self)
    }
}

fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A text that is borrowed if it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Claims<'a> {
    /// Reads the claims; `claim` is the name of the one that grants topics.
    pub(super) fn parse(text: &'a [u8], claim: &str) -> Result<Self, TokenError> {
        // Also what is ignored below (RFC 8259 section 8.1).
        let text = std::str::from_utf8(text)
            .map_err(|_| TokenError::Malformed("its claims are not UTF-8"))?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let raw = Raw::default()
            .deserialize_with(claim, &mut deserializer)
            .and_then(|raw| deserializer.end().map(|()| raw))
            .map_err(|_| {
                TokenError::Malformed(
                    "its claims are not a JSON object, or one of them is there twice",
                )
            })?;
        let expires = raw.exp.ok_or(TokenError::MissingClaim("exp"))?;
        let subject = raw.sub.ok_or(TokenError::MissingClaim("sub"))?;
        let time = |raw: Option<&RawValue>, what, round: fn(f64) -> f64| {
            raw.map(|raw| seconds(raw, round).ok_or(TokenError::Malformed(what)))
                .transpose()
        };
        let (sid, jti) = (raw.sid.map(id).transpose()?, raw.jti.map(id).transpose()?);
        Ok(Self {
            subject: id(subject)?,
            session: sid.or(jti),
            // Fractions of a second make a token live shorter, never longer.
            expires_s: seconds(expires, f64::floor).ok_or(TokenError::Malformed(
                "exp is not a number of seconds since 1970",
            ))?,
            begins_s: time(
                raw.nbf,
                "nbf is not a number of seconds since 1970",
                f64::ceil,
            )?,
            issued_s: time(
                raw.iat,
                "iat is not a number of seconds since 1970",
                f64::floor,
            )?,
            issuer: raw.iss.map(issuer).transpose()?,
            audiences: raw.aud.map(audiences).transpose()?,
            granted: match raw.granted {
                None => Granted::default(),
                // An array would be taken for an object's members in order.
                Some(raw) if !raw.get().starts_with('{') => return Err(bad_grants(raw)),
                Some(raw) => serde_json::from_str(raw.get()).map_err(|_| bad_grants(raw))?,
            },
        })
    }

    pub(super) fn into_grant(
        self,
        policy: &TokenPolicy,
        pool: &mut RightsPool,
    ) -> Result<Grant, TokenError> {
        let own = patterns(
            &self.granted.subscribe,
            "subscribe has more than 256 patterns",
            "subscribe has something that is no topic pattern",
        )?;
        let filter = self.granted.filter.map(|filter| {
            let filter = Condition::parse_filter(filter.get().as_bytes());
            filter
                .map(Arc::new)
                .map_err(|_| TokenError::Malformed(BAD_FILTER))
        });
        let rights = Rights {
            own_subscribe: own.len(),
            subscribe: with_common(own, &policy.subscribe),
            publish: patterns(
                &self.granted.publish,
                "publish has more than 256 patterns",
                "publish has something that is no topic pattern",
            )?,
            limits: GrantLimits {
                connections_max: self.granted.connections_max,
                messages_per_second: self.granted.messages_per_second,
                bytes_per_second: self.granted.bytes_per_second,
                subscriptions_max: self.granted.subscriptions_max,
            },
            products: self.granted.products,
            professional: self.granted.professional,
            filter: filter.transpose()?,
        };
        Ok(Grant {
            subject: boxed(self.subject),
            session: self.session.map(boxed),
            issued_s: self.issued_s,
            expires_s: self.expires_s,
            leeway_s: policy.leeway_s,
            rights: pool.share(rights),
        })
    }
}

fn boxed(text: Cow<'_, str>) -> Box<str> {
    text.into_owned().into_boxed_str()
}

/// Seconds since the Unix epoch. Fractions are allowed (RFC 7519 section 2, NumericDate).
fn seconds(raw: &RawValue, round: fn(f64) -> f64) -> Option<u64> {
    let text = raw.get();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        // It is valid JSON, so what Rust would take besides cannot be: `inf`, `NaN`, `+1`.
        Err(_) => {
            let seconds = round(text.parse::<f64>().ok()?);
            // The range keeps the conversion exact.
            (0.0..=TOKEN_TIME_S_MAX as f64)
                .contains(&seconds)
                .then_some(seconds as u64)?
        }
    };
    (seconds <= TOKEN_TIME_S_MAX).then_some(seconds)
}

fn id(raw: &RawValue) -> Result<Cow<'_, str>, TokenError> {
    let what = "sub, sid or jti is not a text of 1 to 256 bytes without control characters";
    let Ok(Text(text)) = serde_json::from_str(raw.get()) else {
        return Err(TokenError::Malformed(what));
    };
    let is_id = (1..=TOKEN_ID_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
    is_id.then_some(text).ok_or(TokenError::Malformed(what))
}

fn issuer(raw: &RawValue) -> Result<Cow<'_, str>, TokenError> {
    match serde_json::from_str(raw.get()) {
        Ok(Text(text)) => Ok(text),
        Err(_) => Err(TokenError::Malformed("iss is not a text")),
    }
}

/// One audience or several (RFC 7519 section 4.1.3).
fn audiences(raw: &RawValue) -> Result<Vec<Cow<'_, str>>, TokenError> {
    let text = raw.get();
    let named: Result<Vec<Text<'_>>, _> = match text.starts_with('[') {
        true => serde_json::from_str(text),
        false => serde_json::from_str(text).map(|one| vec![one]),
    };
    match named {
        Ok(named) if named.len() <= TOKEN_AUDIENCES_MAX => {
            Ok(named.into_iter().map(|Text(text)| text).collect())
        }
        _ => Err(TokenError::Malformed(
            "aud is neither a text nor a list of up to 64 texts",
        )),
    }
}

/// `too_many` and `malformed` say which member it is.
fn patterns(
    texts: &[Text<'_>],
    too_many: &'static str,
    malformed: &'static str,
) -> Result<Vec<Pattern>, TokenError> {
    if texts.len() > TOKEN_PATTERNS_MAX {
        return Err(TokenError::Malformed(too_many));
    }
    let parsed = texts.iter().map(|Text(text)| Pattern::parse(text));
    let parsed = parsed.collect::<Result<_, _>>();
    parsed.map_err(|_| TokenError::Malformed(malformed))
}

/// The claims that are looked at, as they stand.
#[derive(Default)]
struct Raw<'a> {
    exp: Option<&'a RawValue>,
    nbf: Option<&'a RawValue>,
    iat: Option<&'a RawValue>,
    iss: Option<&'a RawValue>,
    aud: Option<&'a RawValue>,
    sub: Option<&'a RawValue>,
    sid: Option<&'a RawValue>,
    jti: Option<&'a RawValue>,
    granted: Option<&'a RawValue>,
}

impl<'a> Raw<'a> {
    fn deserialize_with<D: Deserializer<'a>>(
        self,
        claim: &str,
        deserializer: D,
    ) -> Result<Self, D::Error> {
        ForClaim { raw: self, claim }.deserialize(deserializer)
    }

    fn slot(&mut self, name: &str, claim: &str) -> Option<&mut Option<&'a RawValue>> {
        match name {
            "exp" => Some(&mut self.exp),
            "nbf" => Some(&mut self.nbf),
            "iat" => Some(&mut self.iat),
            "iss" => Some(&mut self.iss),
            "aud" => Some(&mut self.aud),
            "sub" => Some(&mut self.sub),
            "sid" => Some(&mut self.sid),
            "jti" => Some(&mut self.jti),
            name if name == claim => Some(&mut self.granted),
            _ => None,
        }
    }
}

/// Reads [`Raw`] with a name that is only known when the server runs.
struct ForClaim<'a, 'c> {
    raw: Raw<'a>,
    claim: &'c str,
}

impl<'a> DeserializeSeed<'a> for ForClaim<'a, '_> {
    type Value = Raw<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Raw<'a>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for ForClaim<'a, '_> {
    type Value = Raw<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of claims")
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<Raw<'a>, M::Error> {
        while let Some(Text(name)) = map.next_key()? {
            match self.raw.slot(&name, self.claim) {
                None => _ = map.next_value::<IgnoredAny>()?,
                Some(slot) => {
                    if slot.replace(map.next_value()?).is_some() {
                        return Err(M::Error::custom("a claim is there twice"));
                    }
                }
            }
        }
        Ok(self.raw)
    }
}
