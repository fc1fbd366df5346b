//! What a token grants.
//!
//! A grant is kept for each connection, so what many tokens have in common is kept once: the [`Rights`], in a
//! [`RightsPool`]. What is not granted is refused.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::ProductGrants;
use crate::condition::Condition;
use crate::hub::{Pattern, Topic};

/// What one token grants, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub(super) subject: Box<str>,
    pub(super) session: Option<Box<str>>,
    pub(super) issued_s: Option<u64>,
    /// Of the token itself.
    pub(super) expires_s: u64,
    /// By how much clocks may differ.
    pub(super) leeway_s: u64,
    pub(super) rights: Arc<Rights>,
}

/// The part of a grant that many tokens share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights {
    /// Which topics may be subscribed to: first what the token grants itself, then what every token does.
    pub subscribe: Vec<Pattern>,
    /// How many the token grants itself.
    pub own_subscribe: usize,
    /// Which topics may be published to.
    pub publish: Vec<Pattern>,
    /// Bounds.
    pub limits: GrantLimits,
    /// The classes of products.
    pub products: ProductGrants,
    /// Whether the user is a professional, by the terms of those who license products; `None`: it is not said.
    pub professional: Option<bool>,
    /// What a value must have to be sent to this client.
    pub filter: Option<Arc<Condition>>,
}

/// Bounds that a token sets. `None`: those of the configuration alone count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GrantLimits {
    /// Connections of the subject.
    pub connections_max: Option<u32>,
    /// Messages from one connection in a second.
    pub messages_per_second: Option<u32>,
    /// Bytes from one connection in a second.
    pub bytes_per_second: Option<u64>,
    /// Patterns that one connection may be subscribed to.
    pub subscriptions_max: Option<u32>,
}

impl Rights {
    /// True if every topic that `pattern` selects may be subscribed to, by one of the granted patterns alone.
    #[must_use]
    pub fn may_subscribe(&self, pattern: &Pattern) -> bool {
        self.subscribe
            .iter()
            .any(|granted| contains(granted, pattern))
    }

    /// True if this topic may be published to.
    #[must_use]
    pub fn may_publish(&self, topic: &Topic) -> bool {
        self.publish
            .iter()
            .any(|granted| granted.matches(topic.as_str()))
    }
}

impl Grant {
    /// For whom it is: the claim `sub`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The login session: the claim `sid`, or else the token's own id, `jti`.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// When the token was made (`iat`), in seconds since the Unix epoch, if it says so.
    #[must_use]
    pub const fn issued_s(&self) -> Option<u64> {
        self.issued_s
    }

    /// The second since the Unix epoch from which it no longer holds: the token's `exp`, and the leeway.
    #[must_use]
    pub const fn expires_s(&self) -> u64 {
        self.expires_s.saturating_add(self.leeway_s)
    }

    /// The memory that it takes, with its share of what other tokens have in common with it.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let patterns = self.rights.subscribe.iter().chain(&self.rights.publish);
        let bytes: usize = patterns.map(Pattern::memory_bytes).sum();
        let session = self.session.as_deref().map_or(0, str::len);
        let holders = Arc::strong_count(&self.rights).max(1);
        self.subject.len() + session + (size_of::<Rights>() + bytes) / holders
    }

    /// What it allows.
    #[must_use]
    pub const fn rights(&self) -> &Arc<Rights> {
        &self.rights
    }

    /// From now on every token grants these, and no others besides its own.
    pub(super) fn replace_common(&mut self, common: &[Pattern], pool: &mut RightsPool) {
        let own = &self.rights.subscribe[..self.rights.own_subscribe];
        let subscribe = with_common(own.to_vec(), common);
        if subscribe != self.rights.subscribe {
            self.rights = pool.share(Rights {
                subscribe,
                ..Rights::clone(&self.rights)
            });
        }
    }

    /// See [`Rights::may_subscribe`].
    #[must_use]
    pub fn may_subscribe(&self, pattern: &Pattern) -> bool {
        self.rights.may_subscribe(pattern)
    }

    /// See [`Rights::may_publish`].
    #[must_use]
    pub fn may_publish(&self, topic: &Topic) -> bool {
        self.rights.may_publish(topic)
    }

    /// True if `next` may take this one's place on an open connection: it is for the same subject. Whatever else a
    /// connection has belongs to that subject.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        self.subject == next.subject
    }
}

/// What a token grants itself, and what every token does.
pub(super) fn with_common(own: Vec<Pattern>, common: &[Pattern]) -> Vec<Pattern> {
    let mut subscribe = own;
    for pattern in common {
        if !subscribe.contains(pattern) {
            subscribe.push(pattern.clone());
        }
    }
    subscribe
}

/// True if every topic that `inner` selects is selected by `outer` too. That topics have a greatest number of tokens is left
/// out of account: a `>` that could only be one token for that reason still is not within `*`.
fn contains(outer: &Pattern, inner: &Pattern) -> bool {
    let mut inner = inner.as_str().split('.');
    for outer in outer.as_str().split('.') {
        let is_within = match (outer, inner.next()) {
            (_, None) => false,
            // Whatever follows is one token or more.
            (">", Some(_)) => return true,
            ("*", Some(token)) => token != ">",
            (literal, Some(token)) => literal == token,
        };
        if !is_within {
            return false;
        }
    }
    inner.next().is_none()
}

/// Keeps equal rights once. Each shard has one of its own.
#[derive(Debug, Default)]
pub struct RightsPool {
    known: HashSet<Arc<Rights>, RandomState>,
    /// How many there may be before those that nobody has any more are dropped.
    sweep_at: usize,
}

impl RightsPool {
    /// The shared form of these rights.
    pub fn share(&mut self, rights: Rights) -> Arc<Rights> {
        if let Some(known) = self.known.get(&rights) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = SWEEP_MIN.max(2 * self.known.len());
        }
        let shared = Arc::new(rights);
        self.known.insert(Arc::clone(&shared));
        shared
    }

    /// How many different rights are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True if none are kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Rights that are kept without a look whether somebody has them.
const SWEEP_MIN: usize = 64;

const _: () = assert!(
    size_of::<Grant>() <= 72,
    "a grant is kept for each connection"
);

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    fn grant(rights: Rights) -> Grant {
        Grant {
            subject: "ann".into(),
            session: None,
            issued_s: None,
            expires_s: 1_000,
            leeway_s: 10,
            rights: Arc::new(rights),
        }
    }

    /// Every topic of up to `DEPTH` tokens over three letters, one of which is in no pattern.
    fn topics() -> Vec<String> {
        const DEPTH: usize = 5;
        let mut all = Vec::new();
        let mut longest = vec![String::new()];
        for _ in 0..DEPTH {
            longest = longest
                .iter()
                .flat_map(|front| {
                    ["a", "b", "z"].map(|token| match front.is_empty() {
                        true => token.to_owned(),
                        false => format!("{front}.{token}"),
                    })
                })
                .collect();
            all.extend(longest.iter().cloned());
        }
        all
    }

    /// A pattern lies within another exactly if the other selects every topic that it selects: shown over all topics that
    /// are one token longer than any pattern here, with a token that no pattern names.
    #[test]
    fn containment_agrees_with_trying_every_topic() {
        let topics = topics();
        let mut random = Rng::with_seed(11);
        let mut any = || {
            let mut tokens: Vec<&str> = (0..random.usize(1..=4))
                .map(|_| ["a", "b", "*", "*"][random.usize(..4)])
                .collect();
            if random.u8(..3) == 0 {
                tokens.pop();
                tokens.push(">");
            }
            pattern(&tokens.join("."))
        };
        let mut within = 0;
        for _ in 0..3_000 {
            let (outer, inner) = (any(), any());
            let expected = topics
                .iter()
                .all(|topic| !inner.matches(topic) || outer.matches(topic));
            assert_eq!(contains(&outer, &inner), expected, "{inner} in {outer}");
            within += u32::from(expected);
        }
        assert!((100..2_900).contains(&within), "both happen: {within}");
    }

    /// Nothing is granted that the token does not grant, and not by two patterns together.
    #[test]
    fn rights_are_what_is_granted() {
        let grant = grant(Rights {
            subscribe: vec![pattern("md.*"), pattern("chat.a.>"), pattern("x")],
            publish: vec![pattern("chat.*")],
            ..Rights::default()
        });
        for yes in ["md.AAPL", "md.*", "chat.a.>", "chat.a.*", "chat.a.b.c", "x"] {
            assert!(grant.may_subscribe(&pattern(yes)), "{yes}");
        }
        for no in ["md", "md.>", "md.a.b", ">", "*", "chat.a", "chat.>", "y"] {
            assert!(!grant.may_subscribe(&pattern(no)), "{no}");
        }
        let topic = |text| Topic::parse(text).expect("a topic");
        assert!(grant.may_publish(&topic("chat.a")));
        for no in ["chat", "chat.a.b", "md.AAPL"] {
            assert!(!grant.may_publish(&topic(no)), "{no}");
        }
        let none = self::grant(Rights::default());
        assert!(!none.may_subscribe(&pattern("x")) && !none.may_publish(&topic("x")));
    }

    /// A grant ends with the leeway after its token's end.
    #[test]
    fn grants_end_after_the_leeway() {
        assert_eq!(grant(Rights::default()).expires_s(), 1_010);
    }

    /// Equal rights are kept once, for as long as somebody has them, and the pool does not grow with those who left.
    #[test]
    fn equal_rights_are_shared() {
        let rights = |topic: String| Rights {
            subscribe: vec![pattern(&topic)],
            ..Rights::default()
        };
        let mut pool = RightsPool::default();
        let one = pool.share(rights("a".to_owned()));
        assert!(Arc::ptr_eq(&one, &pool.share(rights("a".to_owned()))));
        assert!(!Arc::ptr_eq(&one, &pool.share(rights("b".to_owned()))));
        for number in 0..10_000 {
            pool.share(rights(format!("t.{number}")));
        }
        assert!(pool.len() <= 2 * SWEEP_MIN, "{}", pool.len());
        assert!(Arc::ptr_eq(&one, &pool.share(rights("a".to_owned()))));
    }
}
