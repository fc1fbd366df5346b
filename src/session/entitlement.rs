//! Products: whether a client may subscribe, what ends when that changes, and what begins again.
//!
//! A subscription that ends because a grant is gone is remembered as a wish of the client. When the grant comes back, the
//! subscription begins again. Wishes and subscriptions together are never more than a connection may have subscriptions.

use std::sync::Arc;

use super::{Context, Standing};
use crate::access::Grant;
use crate::condition::Condition;
use crate::hub::{Filter, Pattern, Terms};
use crate::limits::PRODUCT_COMPARISONS_PER_WORK;

/// Subscriptions that begin again once they are allowed. Costs nothing while there are none.
#[derive(Debug, Default)]
pub struct Wishes(Vec<Wish>);

#[derive(Debug)]
struct Wish {
    pattern: Pattern,
    /// The client's own filter.
    filter: Option<Arc<Condition>>,
}

/// What has changed for the subscriptions of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Patterns that have ended, each with the product that is no longer granted; none: the pattern itself is not.
    pub(super) ended: Vec<(Pattern, Option<Arc<str>>)>,
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

    fn add(&mut self, pattern: Pattern, filter: Option<Arc<Condition>>) {
        self.forget(&pattern);
        self.0.push(Wish { pattern, filter });
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

    /// Takes the seats for a pattern, to which a subscription may be open.
    pub(super) fn take_seats(&mut self, pattern: &Pattern, is_open: bool) -> Result<(), Lack> {
        let grant = self.standing.as_deref().and_then(Standing::grant);
        let place = (self.client.who.0, self.client.generation);
        let taken = self.entitlements.take_seats(grant, pattern, place, is_open);
        taken.map_err(Lack::InUse)
    }

    /// Gives back the seats that no subscription needs.
    pub(super) fn release_seats(&mut self) {
        let grant = self.standing.as_deref().and_then(Standing::grant);
        let place = (self.client.who.0, self.client.generation);
        let patterns = || self.hub.patterns(self.client.who);
        self.entitlements.release_seats(grant, patterns, place);
    }

    /// Counts a look at so many patterns as work, so that a client cannot make its commands expensive.
    pub(super) fn count_looks(&mut self, patterns: usize) {
        let comparisons = patterns as u64 * self.entitlements.comparisons();
        self.hub
            .add_work(comparisons / PRODUCT_COMPARISONS_PER_WORK);
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
        let wishes = self.standing.as_deref().map_or(0, Standing::wishes);
        self.count_looks(subscribed.len() + wishes);
        for (pattern, Terms { filter, .. }) in subscribed {
            let lack = self.lack(&pattern);
            let lack = lack.or_else(|| self.take_seats(&pattern, true).err());
            let lack = match lack {
                None => {
                    let wanted = self.filter(filter.of_client.clone());
                    if wanted == filter {
                        continue;
                    }
                    self.begin(&pattern, wanted).err()
                }
                lack => lack,
            };
            if let Some(lack) = lack {
                self.hub.unsubscribe(who, &pattern);
                if let Some(wishes) = self.wishes_mut() {
                    wishes.add(pattern.clone(), filter.of_client);
                }
                let product = match lack {
                    Lack::Pattern => None,
                    Lack::Product(product, _) | Lack::InUse(product) => Some(product),
                };
                changes.ended.push((pattern, product));
            }
        }
        let wishes = self
            .wishes_mut()
            .map(|wishes| std::mem::take(&mut wishes.0));
        for Wish { pattern, filter } in wishes.unwrap_or_default() {
            let has_ended_now = changes.ended.iter().any(|(ended, _)| *ended == pattern);
            let may_begin = !has_ended_now
                && self.lack(&pattern).is_none()
                && self.take_seats(&pattern, true).is_ok();
            let wanted = self.filter(filter.clone());
            if may_begin && self.begin(&pattern, wanted).is_ok() {
                changes.resumed.push(pattern);
            } else if let Some(wishes) = self.wishes_mut() {
                wishes.add(pattern, filter);
            }
        }
        self.release_seats();
        let counts = self.entitlements.counts_mut();
        let of_products = changes
            .ended
            .iter()
            .filter(|(_, product)| product.is_some());
        counts.ended += of_products.count() as u64;
        counts.resumed += changes.resumed.len() as u64;
        changes
    }

    /// Subscribes to a pattern that is allowed. If there is no room, it is as if it were not granted.
    fn begin(&mut self, pattern: &Pattern, filter: Filter) -> Result<(), Lack> {
        let client = self.client;
        let begun =
            self.hub
                .subscribe_on(client.who, client.format, pattern.clone(), filter.into());
        begun.map(|_| ()).map_err(|_| Lack::Pattern)
    }

    fn wishes_mut(&mut self) -> Option<&mut Wishes> {
        self.standing.as_deref_mut().and_then(Standing::wishes_mut)
    }
}
