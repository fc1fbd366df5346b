//! What a shard checks tokens with.

use std::sync::Arc;

use super::{Grant, KeySet, Revocations, RightsPool, TokenError, TokenPolicy};

/// Policy, keys and revocations, as they are now. Each shard has one of its own, which the control thread replaces in parts.
#[derive(Debug)]
pub struct Verifier {
    policy: Arc<TokenPolicy>,
    keys: Arc<KeySet>,
    revocations: Arc<Revocations>,
    rights: RightsPool,
    /// A token named a key that is not among these.
    is_key_unknown: bool,
    /// The name of an unknown member in the claim of a token.
    unknown_member: Option<Box<str>>,
    accepted: u64,
    refused: u64,
    signatures: u64,
}

/// Why a token grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not valid.
    #[error(transparent)]
    Invalid(#[from] TokenError),
    /// Its subject has been revoked since it was made.
    #[error("the token has been revoked")]
    Revoked,
}

impl Verifier {
    /// Nobody is revoked.
    #[must_use]
    pub fn new(policy: Arc<TokenPolicy>, keys: Arc<KeySet>) -> Self {
        Self {
            policy,
            keys,
            revocations: Arc::default(),
            rights: RightsPool::default(),
            is_key_unknown: false,
            unknown_member: None,
            accepted: 0,
            refused: 0,
            signatures: 0,
        }
    }

    /// What a token grants. `now_s` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Why it grants nothing.
    pub fn verify(&mut self, token: &[u8], now_s: u64) -> Result<Grant, Refused> {
        self.signatures += self.keys.len().max(1) as u64;
        let result = self.check(token, now_s);
        match &result {
            Ok(_) => self.accepted += 1,
            Err(refused) => {
                self.refused += 1;
                self.is_key_unknown |=
                    matches!(refused, Refused::Invalid(error) if error.may_need_keys());
                if let Refused::Invalid(TokenError::UnknownMember(name)) = refused {
                    self.unknown_member = Some(name.clone());
                }
            }
        }
        result
    }

    /// Tokens accepted so far, and tokens refused.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.accepted, self.refused)
    }

    /// Signatures checked so far, at most: a token that names no key is tried with all of them.
    #[must_use]
    pub const fn signatures(&self) -> u64 {
        self.signatures
    }

    /// Whether a token has named an unknown key since this was last asked.
    pub fn poll_unknown_key(&mut self) -> bool {
        std::mem::take(&mut self.is_key_unknown)
    }

    /// The last unknown member in the claim of a token, if a token has had one since this was last asked.
    pub fn poll_unknown_member(&mut self) -> Option<Box<str>> {
        self.unknown_member.take()
    }

    fn check(&mut self, token: &[u8], now_s: u64) -> Result<Grant, Refused> {
        let grant = (self.policy).verify(token, &self.keys, &mut self.rights, now_s)?;
        match self.is_revoked(&grant) {
            true => Err(Refused::Revoked),
            false => Ok(grant),
        }
    }

    /// Whether a grant of before no longer counts.
    #[must_use]
    pub fn is_revoked(&self, grant: &Grant) -> bool {
        self.revocations.is_revoked(grant)
    }

    /// From now on tokens are checked with these keys. Grants of before stay.
    pub fn replace_keys(&mut self, keys: Arc<KeySet>) {
        self.keys = keys;
    }

    /// Gives a grant of before what every token grants now.
    pub fn renew(&mut self, grant: &mut Grant) {
        grant.replace_common(&self.policy.subscribe, &mut self.rights);
    }

    /// From now on tokens have to be like this. Grants of before stay.
    pub fn replace_policy(&mut self, policy: Arc<TokenPolicy>) {
        self.policy = policy;
    }

    /// From now on these are revoked.
    pub fn replace_revocations(&mut self, revocations: Arc<Revocations>) {
        self.revocations = revocations;
    }
}
