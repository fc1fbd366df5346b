//! Tokens that no longer count, though they have not expired.
//!
//! A subject is revoked at a moment. Its tokens that were made until then are refused, and so are those that were made later
//! by no more than clocks may differ. Those that are made after that are accepted. A token that does not say when it was made (`iat`) is refused as long as its subject is listed.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Grant;
use crate::limits::REVOCATIONS_MAX;

/// The revoked subjects.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// When each was revoked, in seconds since the Unix epoch.
    subjects: HashMap<Box<str>, u64, RandomState>,
}

/// There is no room for another subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{REVOCATIONS_MAX} subjects are revoked already; take some back first")]
pub struct TooManyRevocations;

impl Revocations {
    /// Revokes the tokens of a subject that were made until `now_s`.
    ///
    /// # Errors
    /// When too many are revoked.
    pub fn revoke(&mut self, subject: &str, now_s: u64) -> Result<(), TooManyRevocations> {
        if let Some(revoked_s) = self.subjects.get_mut(subject) {
            *revoked_s = now_s.max(*revoked_s);
        } else if self.subjects.len() < REVOCATIONS_MAX {
            self.subjects.insert(subject.into(), now_s);
        } else {
            return Err(TooManyRevocations);
        }
        Ok(())
    }

    /// Takes a revocation back; true if there was one.
    pub fn restore(&mut self, subject: &str) -> bool {
        self.subjects.remove(subject).is_some()
    }

    /// Forgets what was revoked before `s`: of use where no token lives longer than that.
    pub fn forget_before(&mut self, s: u64) {
        self.subjects.retain(|_, revoked_s| *revoked_s >= s);
    }

    /// True if this grant no longer counts.
    #[must_use]
    pub fn is_revoked(&self, grant: &Grant) -> bool {
        let revoked_s = self.subjects.get(grant.subject());
        revoked_s.is_some_and(|&revoked_s| {
            grant
                .issued_s()
                .is_none_or(|s| s <= revoked_s.saturating_add(grant.leeway_s))
        })
    }

    /// How many subjects are revoked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subjects.len()
    }

    /// True if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Rights;
    use super::*;

    fn grant(subject: &str, issued_s: Option<u64>) -> Grant {
        Grant {
            subject: subject.into(),
            session: None,
            issued_s,
            expires_s: 1_000,
            leeway_s: 0,
            rights: Arc::new(Rights::default()),
        }
    }

    /// A revocation is about one subject and about the tokens made until then.
    #[test]
    fn older_tokens_of_the_subject_are_revoked() {
        let mut revocations = Revocations::default();
        revocations.revoke("ann", 500).unwrap();
        for (subject, issued_s, is_revoked) in [
            ("ann", Some(499), true),
            ("ann", Some(500), true),
            ("ann", Some(501), false),
            ("ann", None, true),
            ("bob", Some(1), false),
            ("bob", None, false),
        ] {
            let grant = grant(subject, issued_s);
            assert_eq!(revocations.is_revoked(&grant), is_revoked, "{grant:?}");
        }
        revocations.revoke("ann", 400).unwrap();
        assert!(
            revocations.is_revoked(&grant("ann", Some(500))),
            "the later one counts"
        );
        assert!(revocations.restore("ann") && !revocations.restore("ann"));
        assert!(!revocations.is_revoked(&grant("ann", None)));
    }

    /// The list is bounded, those on it can still be revoked again, and old ones can be forgotten.
    #[test]
    fn the_list_is_bounded() {
        let mut revocations = Revocations::default();
        for number in 0..REVOCATIONS_MAX {
            revocations.revoke(&number.to_string(), 1).unwrap();
        }
        assert_eq!(revocations.revoke("ann", 2), Err(TooManyRevocations));
        assert_eq!(revocations.revoke("7", 2), Ok(()));
        revocations.forget_before(2);
        assert_eq!(revocations.len(), 1);
    }
}
