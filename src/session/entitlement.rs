//! Products: whether a client may subscribe, what ends when that changes, and what begins again.
//!
//! A subscription that ends because a grant is gone is remembered as a wish of the client. When the grant comes back, the
//! subscription begins again. Wishes and subscriptions together are never more than a connection may have subscriptions.
//!
//! The client is told of each subscription that ends, with the reason, and again when a wish has another reason to wait.

use std::sync::Arc;

use super::command::Code;
use super::{Context, Standing};
use crate::access::Grant;
use crate::condition::Condition;
use crate::hub::{Filter, HubError, Mode, Pattern, Terms};
use crate::limits::PATTERN_COMPARISONS_PER_WORK;

/// Subscriptions that begin again once they are allowed. Costs nothing while there are none.
#[derive(Debug, Default)]
pub struct Wishes(Vec<Wish>);

#[derive(Debug)]
struct Wish {
    pattern: Pattern,
    terms: Terms,
    /// Why it does not begin, as the client was told.
    lack: Lack,
}

/// What has changed for the subscriptions of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Patterns that have ended, or that wait for another reason than before.
    pub(super) ended: Vec<(Pattern, Lack)>,
    /// Patterns that have begun again.
    pub(super) resumed: Vec<Pattern>,
}

/// Why a client may not be subscribed to a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// The pattern is not granted.
    Pattern,
    /// This product is not, in the class with this name.
    Product(Arc<str>, &'static str),
    /// The user shows this product on another connection.
    InUse(Arc<str>),
    /// A limit of the server is reached.
    Limit(HubError),
}

impl Lack {
    /// The product that is missing, if it is one.
    pub(super) fn product(&self) -> Option<&str> {
        match self {
            Self::Product(product, _) | Self::InUse(product) => Some(product),
            Self::Pattern | Self::Limit(_) => None,
        }
    }

    /// As clients are told.
    pub(super) const fn code(&self) -> Code {
        match self {
            Self::Pattern => Code::Forbidden,
            Self::Product(..) => Code::NotEntitled,
            Self::InUse(_) => Code::InUse,
            Self::Limit(_) => Code::Limit,
        }
    }
}

impl Wishes {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The memory that they take.
    pub(super) fn memory_bytes(&self) -> usize {
        let bytes = |wish: &Wish| size_of::<Wish>() + wish.pattern.memory_bytes();
        self.0.iter().map(bytes).sum()
    }

    /// The client no longer wants this.
    pub(super) fn forget(&mut self, pattern: &Pattern) {
        self.0.retain(|wish| wish.pattern != *pattern);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// Nor the table with these rows.
    pub(super) fn forget_table(&mut self, rows: &Pattern) {
        let is_it = |wish: &Wish| wish.terms.mode == Mode::Keyed && wish.pattern == *rows;
        self.0.retain(|wish| !is_it(wish));
    }

    fn patterns(&self) -> Vec<Pattern> {
        self.0.iter().map(|wish| wish.pattern.clone()).collect()
    }
}

impl Changes {
    /// True if nothing has changed.
    pub(super) fn are_none(&self) -> bool {
        self.ended.is_empty() && self.resumed.is_empty()
    }
}

impl<E> Context<'_, E> {
    /// The grant of the client, if it has shown a token.
    pub(super) fn grant(&self) -> Option<&Grant> {
        self.standing.as_deref().and_then(Standing::grant)
    }

    /// What is missing for a subscription to this pattern.
    pub(super) fn lack(&self, pattern: &Pattern) -> Option<Lack> {
        let standing = self.standing.as_deref()?;
        if !standing.may_subscribe(pattern) {
            return Some(Lack::Pattern);
        }
        let lacking = self.entitlements.lacking(standing.grant(), pattern);
        lacking.map(|(product, class)| Lack::Product(Arc::clone(&product.name), class.as_str()))
    }

    /// What of a pattern's products the user shows on an older connection that keeps it.
    pub(super) fn in_use(&self, pattern: &Pattern) -> Option<Lack> {
        let place = (self.client.who.0, self.client.generation);
        let in_use = self.entitlements.in_use(self.grant(), pattern, place);
        in_use.map(Lack::InUse)
    }

    /// Takes the seats for a pattern. A subscription that `was_allowed` before waits for those that others have.
    pub(super) fn take_seats(&mut self, pattern: &Pattern, was_allowed: bool) -> Result<(), Lack> {
        let grant = self.standing.as_deref().and_then(Standing::grant);
        let place = (self.client.who.0, self.client.generation);
        let taken = (self.entitlements).take_seats(grant, pattern, place, was_allowed);
        taken.map_err(Lack::InUse)
    }

    /// Gives back the seats that no subscription needs, unless the connection does not know yet that it has them.
    pub(super) fn release_seats(&mut self) {
        let wishes = self.standing.as_deref().and_then(Standing::wishes_known);
        let waiting = wishes.map(Wishes::patterns).unwrap_or_default();
        self.keep_seats(&waiting, false);
    }

    /// Gives back the seats that no subscription needs. `knows`, `waiting`: see `Entitlements::release_seats`.
    fn keep_seats(&mut self, waiting: &[Pattern], knows: bool) {
        let grant = self.standing.as_deref().and_then(Standing::grant);
        let place = (self.client.who.0, self.client.generation);
        let open = || self.hub.patterns(self.client.who);
        (self.entitlements).release_seats(grant, open, waiting, place, knows);
    }

    /// Counts a look at so many patterns as work, so that a client cannot make its commands expensive.
    pub(super) fn count_looks(&mut self, patterns: usize) {
        let comparisons = patterns as u64 * self.entitlements.comparisons();
        self.hub
            .add_work(comparisons / PATTERN_COMPARISONS_PER_WORK);
    }

    /// The filter of a subscription for which the client asks for this one.
    pub(super) fn filter(&self, of_client: Option<Arc<Condition>>) -> Filter {
        Filter {
            of_token: self.grant().and_then(|grant| grant.rights().filter.clone()),
            of_client,
        }
    }

    /// Looks at all subscriptions again after something has changed that they depend on. What is not allowed ends before
    /// anything else is composed, and what is allowed again begins.
    pub(super) fn reconsider(&mut self) -> Changes {
        let mut changes = Changes::default();
        let who = self.client.who;
        let subscribed = self.hub.terms(who);
        let wishes = self.wishes_mut().map(std::mem::take).unwrap_or_default();
        self.count_looks(subscribed.len() + wishes.len());
        let mut waiting = Vec::new();
        for (pattern, terms) in subscribed {
            let Err(lack) = self.admit(&pattern, &terms, true) else {
                continue;
            };
            self.hub.unsubscribe(who, &pattern);
            let counts = self.entitlements.counts_mut();
            counts.ended += u64::from(lack.product().is_some());
            changes.ended.push((pattern.clone(), lack.clone()));
            waiting.push(Wish {
                pattern,
                terms,
                lack,
            });
        }
        for wish in wishes.0 {
            let Err(lack) = self.admit(&wish.pattern, &wish.terms, false) else {
                changes.resumed.push(wish.pattern);
                continue;
            };
            if lack != wish.lack {
                (changes.ended).push((wish.pattern.clone(), lack.clone()));
            }
            waiting.push(Wish { lack, ..wish });
        }
        self.entitlements.counts_mut().resumed += changes.resumed.len() as u64;
        let wait_for_seats = waiting
            .iter()
            .filter(|wish| matches!(wish.lack, Lack::InUse(_)));
        let wait_for_seats: Vec<_> = wait_for_seats.map(|wish| wish.pattern.clone()).collect();
        if let Some(wishes) = self.wishes_mut() {
            wishes.0 = waiting;
        }
        self.keep_seats(&wait_for_seats, true);
        changes
    }

    /// Begins a subscription that was allowed before, or lets one that is open go on with the filter that it has to have now.
    fn admit(&mut self, pattern: &Pattern, terms: &Terms, is_open: bool) -> Result<(), Lack> {
        if let Some(lack) = self.lack(pattern) {
            return Err(lack);
        }
        self.take_seats(pattern, true)?;
        let filter = self.filter(terms.filter.of_client.clone());
        if is_open && filter == terms.filter {
            return Ok(());
        }
        let client = self.client;
        let wanted = Terms {
            filter,
            ..terms.clone()
        };
        let begun = self
            .hub
            .subscribe_on(client.who, client.format, pattern.clone(), wanted);
        begun.map(|_| ()).map_err(Lack::Limit)
    }

    fn wishes_mut(&mut self) -> Option<&mut Wishes> {
        self.standing.as_deref_mut().and_then(Standing::wishes_mut)
    }
}
