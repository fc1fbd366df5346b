//! Tokens: JWT in the compact form (RFC 7519, RFC 7515 section 7.1), checked as RFC 8725 asks for.
//!
//! ```text
//! length ─▶ three parts ─▶ header: alg, kid, typ, no crit ─▶ keys of alg and kid ─▶ signature ─▶ claims
//! ```
//!
//! Nothing of the claims is looked at before the signature is found good, so an error says nothing about a token that
//! somebody made up.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserializer, IgnoredAny};
use serde::{Deserialize, de};

use super::claims::Claims;
use super::{Algorithm, Grant, KeySet, RightsPool};
use crate::hub::Pattern;
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_KEY_ID_BYTES_MAX};

/// Which tokens are accepted, and what they grant besides their own claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPolicy {
    /// Accepted values of `iss`; empty: any, and none.
    pub issuers: Vec<String>,
    /// Values of `aud` that mean this server. Empty: a token must not name an audience, for whoever it names is not this
    /// server (RFC 7519 section 4.1.3).
    pub audiences: Vec<String>,
    /// By how many seconds clocks may differ.
    pub leeway_s: u64,
    /// The name of the claim that grants topics.
    pub claim: String,
    /// What every token grants for subscribing besides.
    pub subscribe: Vec<Pattern>,
}

/// What is wrong with a token. It says nothing of what is in it, but for the name of an unknown member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than [`TOKEN_BYTES_MAX`] bytes.
    #[error("the token is longer than {} KiB", TOKEN_BYTES_MAX / 1024)]
    TooLong,
    /// Not a JWT, or a claim of the wrong form.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// The claim that grants topics has a member that this server does not know: perhaps one that should restrict it.
    #[error("the token is malformed: the claim that grants topics has the unknown member {0:?}")]
    UnknownMember(Box<str>),
    /// An algorithm that is not accepted, such as `none`.
    #[error(
        "the token's algorithm is not accepted: it must be HS256, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
    )]
    UnknownAlgorithm,
    /// There is no key that it could be signed with.
    #[error("the token is signed with a key that is unknown here")]
    UnknownKey,
    /// None of the keys has signed it.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// A claim is missing.
    #[error("the token lacks the claim {0}")]
    MissingClaim(&'static str),
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It is from another issuer.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// It is for another audience.
    #[error("the token is for another audience")]
    WrongAudience,
}

impl TokenError {
    /// A short name for metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed(_) => "malformed",
            Self::UnknownMember(_) => "unknown_member",
            Self::UnknownAlgorithm => "unknown_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::MissingClaim(_) => "missing_claim",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
        }
    }

    /// True if the keys may be out of date, so that fetching them again may help.
    #[must_use]
    pub const fn may_need_keys(&self) -> bool {
        matches!(self, Self::UnknownKey | Self::BadSignature)
    }
}

impl TokenPolicy {
    /// Checks a token, and yields what it grants. `now_s` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn verify(
        &self,
        token: &[u8],
        keys: &KeySet,
        rights: &mut RightsPool,
        now_s: u64,
    ) -> Result<Grant, TokenError> {
        let payload = verified_payload(token, keys)?;
        let claims = Claims::parse(&payload, &self.claim)?;
        self.check(&claims, now_s)?;
        claims.into_grant(self, rights)
    }

    /// What claims grant that come from somebody who is trusted, without a token around them: a JSON object like the
    /// payload of a token, of which issuer and audience do not count.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn accept_claims(
        &self,
        text: &[u8],
        rights: &mut RightsPool,
        now_s: u64,
    ) -> Result<Grant, TokenError> {
        let claims = Claims::parse(text, &self.claim)?;
        self.check_times(&claims, now_s)?;
        claims.into_grant(self, rights)
    }

    fn check_times(&self, claims: &Claims<'_>, now_s: u64) -> Result<(), TokenError> {
        if now_s >= claims.expires_s.saturating_add(self.leeway_s) {
            return Err(TokenError::Expired);
        }
        if (claims.issued_s).is_some_and(|s| s > now_s.saturating_add(self.leeway_s)) {
            // A revocation would not reach it.
            return Err(TokenError::NotYetValid);
        }
        if let Some(begins_s) = claims.begins_s
            && begins_s > now_s.saturating_add(self.leeway_s)
        {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }

    /// Times, issuer and audience.
    fn check(&self, claims: &Claims<'_>, now_s: u64) -> Result<(), TokenError> {
        self.check_times(claims, now_s)?;
        if !self.issuers.is_empty() {
            let issuer = claims.issuer.as_deref();
            let issuer = issuer.ok_or(TokenError::MissingClaim("iss"))?;
            if !self.issuers.iter().any(|accepted| accepted == issuer) {
                return Err(TokenError::WrongIssuer);
            }
        }
        match &claims.audiences {
            None if self.audiences.is_empty() => Ok(()),
            None => Err(TokenError::MissingClaim("aud")),
            Some(named) => {
                let is_ours = |named: &Cow<'_, str>| self.audiences.iter().any(|our| our == named);
                match named.iter().any(is_ours) {
                    true => Ok(()),
                    false => Err(TokenError::WrongAudience),
                }
            }
        }
    }
}

/// The claims as text, of a token that one of the keys has signed.
fn verified_payload(token: &[u8], keys: &KeySet) -> Result<Vec<u8>, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    let mut parts = token.split(|&byte| byte == b'.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed("it has not three parts"));
    };
    let signed = &token[..header.len() + 1 + payload.len()];
    let header_text = decode(header)?;
    let header = Header::parse(&header_text)?;
    let algorithm = Algorithm::named(&header.alg).ok_or(TokenError::UnknownAlgorithm)?;
    let signature = decode(signature)?;
    let mut error = TokenError::UnknownKey;
    for key in keys.candidates(algorithm, header.kid.as_deref()) {
        if key.verify(algorithm, signed, &signature) {
            return decode(payload);
        }
        error = TokenError::BadSignature;
    }
    Err(error)
}

fn decode(part: &[u8]) -> Result<Vec<u8>, TokenError> {
    let decoded = URL_SAFE_NO_PAD.decode(part);
    decoded.map_err(|_| TokenError::Malformed("a part is not base64url without padding"))
}

/// The header of a token (RFC 7515 section 4.1). What names or holds a key in it (`jwk`, `jku`, `x5c`, `x5u`) is never
/// looked at: keys come from the operator alone.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    /// There is a `crit`, whatever is in it.
    #[serde(default, deserialize_with = "present", rename = "crit")]
    has_crit: bool,
}

impl<'a> Header<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, TokenError> {
        const MALFORMED: TokenError =
            TokenError::Malformed("its header is not a JSON object as it should be");
        // Also what is ignored of it is UTF-8 (RFC 8259 section 8.1).
        let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?;
        let header: Self = serde_json::from_str(text).map_err(|_| MALFORMED)?;
        if header.has_crit {
            return Err(TokenError::Malformed(
                "its header demands an extension (crit), and none is known here",
            ));
        }
        if header
            .kid
            .as_ref()
            .is_some_and(|id| id.len() > TOKEN_KEY_ID_BYTES_MAX)
        {
            return Err(TokenError::Malformed("its kid is too long"));
        }
        // RFC 7519 section 5.1 and RFC 9068 section 2.1; other types are for other uses, such as logging out.
        let is_for_us = header.typ.as_ref().is_none_or(|kind| {
            let kind = kind.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            ["jwt", "at+jwt"].contains(&kind)
        });
        match is_for_us {
            true => Ok(header),
            false => Err(TokenError::Malformed("its typ is neither JWT nor at+jwt")),
        }
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    <IgnoredAny as de::Deserialize>::deserialize(deserializer).map(|_| true)
}
