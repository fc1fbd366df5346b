//! What a user may see now: the products of the configuration, the grants of the token, and what the API overrides.
//!
//! Each shard has an [`Entitlements`] of its own, which the control thread changes in parts. Only the seats are shared.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{
    Class, Grant, Holder, Kept, Product, ProductGrants, Products, SeatChange, Seats, Sessions,
};
use crate::hub::Pattern;

/// Products, overrides and seats, as a shard sees them.
#[derive(Debug, Default)]
pub struct Entitlements {
    shard: u16,
    products: Arc<Products>,
    /// By subject: what the operator says instead of the token.
    overrides: HashMap<Box<str>, Arc<ProductGrants>, RandomState>,
    seats: Arc<Seats>,
    /// There is a product that a user may show on one connection only, or there was one: a connection may have a seat.
    are_seats: bool,
    /// What users hold is reported for the usage log.
    is_logged: bool,
    reports: VecDeque<Report>,
    counts: EntitlementCounts,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntitlementCounts {
    /// Patterns that were refused since a product was not granted.
    pub refused: u64,
    /// Subscriptions that ended since a product was no longer granted.
    pub ended: u64,
    /// Subscriptions that began again since it was granted again.
    pub resumed: u64,
    /// Connections that lost their seat to a newer one.
    pub displaced: u64,
}

/// What others have to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A connection has lost its seat to a newer one here, or got one that it has waited for.
    Seat(SeatChange),
    /// What a connection holds has changed.
    Usage(Box<UsageChange>),
}

/// A change of what one connection of a user could see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageChange {
    /// The user.
    pub subject: Box<str>,
    /// When, in seconds since the Unix epoch.
    pub at_s: u64,
    /// What it held until then, if it held anything.
    pub before: Option<Arc<Holdings>>,
    /// What it holds from then on.
    pub after: Option<Arc<Holdings>>,
}

/// What one connection of a user can see, as far as it is licensed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Whether the user is a professional, if the token says so.
    pub professional: Option<bool>,
    /// The products, each with its class; never none.
    pub products: Box<[(Arc<str>, Class)]>,
    /// The client's address, if it is known.
    pub address: Option<IpAddr>,
}

impl Entitlements {
    /// Those of a shard. What users hold is reported if `is_logged`.
    #[must_use]
    pub fn new(shard: u16, products: Arc<Products>, seats: Arc<Seats>, is_logged: bool) -> Self {
        let are_seats = restricted(&products).next().is_some();
        Self {
            shard,
            are_seats,
            products,
            seats,
            is_logged,
            ..Self::default()
        }
    }

    /// True if there are products.
    #[must_use]
    pub fn has_products(&self) -> bool {
        !self.products.is_empty()
    }

    /// How many comparisons it takes to look at one pattern.
    #[must_use]
    pub fn comparisons(&self) -> u64 {
        self.products.patterns()
    }

    /// The class that a user has of a product: what the operator says, or else the token.
    #[must_use]
    pub fn class_of(&self, grant: Option<&Grant>, product: &str) -> Class {
        let Some(grant) = grant else {
            return Class::None;
        };
        let overridden = self.overrides.get(grant.subject());
        let overridden = overridden.and_then(|grants| grants.class_of(product));
        overridden
            .or_else(|| grant.rights().products.class_of(product))
            .unwrap_or_default()
    }

    /// The first product that this pattern needs and that the user does not have in the class that it needs.
    #[must_use]
    pub fn lacking(&self, grant: Option<&Grant>, pattern: &Pattern) -> Option<(&Product, Class)> {
        self.products.iter().find_map(|product| {
            let needed = product.needs(pattern);
            let is_granted = needed <= self.class_of(grant, &product.name);
            (!is_granted).then_some((product, needed))
        })
    }

    /// Takes the seats that this pattern needs. If the subscription `was_allowed` before, it waits for those that others have.
    ///
    /// # Errors
    /// The product that the user shows on an older connection.
    pub fn take_seats(
        &mut self,
        grant: Option<&Grant>,
        pattern: &Pattern,
        (index, generation): (u32, u32),
        was_allowed: bool,
    ) -> Result<(), Arc<str>> {
        let Some(grant) = grant else {
            return Ok(());
        };
        let holder = self.holder(index, generation);
        for product in restricted(&self.products) {
            if product.needs(pattern) < Class::RealTime {
                continue;
            }
            let (name, sessions) = (&product.name, product.sessions);
            let taken = (self.seats).take(name, grant.subject(), sessions, holder, was_allowed);
            match taken {
                Ok(None) => {}
                Ok(Some(displaced)) => {
                    self.counts.displaced += 1;
                    let lost = SeatChange::Lost(displaced);
                    self.reports.push_back(Report::Seat(lost));
                }
                Err(_) => return Err(Arc::clone(name)),
            }
        }
        Ok(())
    }

    /// The product that this pattern needs, and that the user shows on an older connection, which keeps it.
    #[must_use]
    pub fn in_use(
        &self,
        grant: Option<&Grant>,
        pattern: &Pattern,
        (index, generation): (u32, u32),
    ) -> Option<Arc<str>> {
        let grant = grant?;
        let holder = self.holder(index, generation);
        let product = restricted(&self.products).find(|product| {
            let (name, sessions) = (&product.name, product.sessions);
            product.needs(pattern) == Class::RealTime
                && self.seats.is_kept(name, grant.subject(), sessions, holder)
        });
        product.map(|product| Arc::clone(&product.name))
    }

    /// Gives back the seats that none of the `open` patterns needs, and no longer waits for those that none of the `waiting`
    /// ones needs. A connection that `knows` of all its seats also gives back those that were handed over to it.
    pub fn release_seats(
        &mut self,
        grant: Option<&Grant>,
        open: impl FnOnce() -> Vec<Pattern>,
        waiting: &[Pattern],
        (index, generation): (u32, u32),
        knows: bool,
    ) {
        let Some(grant) = grant.filter(|_| self.are_seats) else {
            return;
        };
        let open = open();
        let needed_by = |patterns: &[Pattern]| -> Vec<&str> {
            let needs = |product: &&Product| {
                let mut patterns = patterns.iter();
                patterns.any(|pattern| product.needs(pattern) == Class::RealTime)
            };
            let needed = restricted(&self.products).filter(needs);
            needed.map(|product| &*product.name).collect()
        };
        let kept = Kept {
            needed: &needed_by(&open),
            wanted: &needed_by(waiting),
            handed_over: !knows,
        };
        let holder = self.holder(index, generation);
        let got = self.seats.release(grant.subject(), holder, kept);
        let reports = got.into_iter().map(SeatChange::HandedOver);
        self.reports.extend(reports.map(Report::Seat));
    }

    /// Whether the usage log wants to know what users hold.
    #[must_use]
    pub const fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// How many comparisons it takes to find out what a user holds: each pattern of its products with each of the
    /// grant's.
    #[must_use]
    pub fn holdings_comparisons(&self, grant: &Grant) -> u64 {
        if !self.is_logged {
            return 0;
        }
        let has = |product: &&Product| self.class_of(Some(grant), &product.name) > Class::None;
        let patterns = self.products.iter().filter(has).map(Product::patterns);
        patterns.sum::<u64>() * grant.rights().subscribe.len() as u64
    }

    /// What a user holds, if the usage log wants to know and it holds anything.
    #[must_use]
    pub fn holdings(&self, grant: &Grant, address: Option<IpAddr>) -> Option<Arc<Holdings>> {
        if !self.is_logged {
            return None;
        }
        let products = self.products.iter().filter_map(|product| {
            let class = self.class_of(Some(grant), &product.name);
            let class = product.visible(class, &grant.rights().subscribe);
            (class > Class::None).then(|| (Arc::clone(&product.name), class))
        });
        let products: Box<[_]> = products.collect();
        (!products.is_empty()).then(|| {
            Arc::new(Holdings {
                professional: grant.rights().professional,
                products,
                address,
            })
        })
    }

    /// Reports a change of what a connection holds.
    pub fn report_usage(
        &mut self,
        grant: &Grant,
        at_s: u64,
        before: Option<Arc<Holdings>>,
        after: Option<Arc<Holdings>>,
    ) {
        if before != after {
            self.reports.push_back(Report::Usage(Box::new(UsageChange {
                subject: grant.subject().into(),
                at_s,
                before,
                after,
            })));
        }
    }

    /// What somebody else has to know.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// The products.
    #[must_use]
    pub const fn products(&self) -> &Arc<Products> {
        &self.products
    }

    /// From now on these are the products. What each connection has must be looked at again.
    pub fn replace_products(&mut self, products: Arc<Products>) {
        self.are_seats |= restricted(&products).next().is_some();
        self.products = products;
    }

    /// From now on the operator says this of a subject, or nothing. What its connections have must be looked at again.
    pub fn replace_override(&mut self, subject: &str, grants: Option<Arc<ProductGrants>>) {
        match grants {
            Some(grants) => _ = self.overrides.insert(subject.into(), grants),
            None => _ = self.overrides.remove(subject),
        }
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counts(&self) -> EntitlementCounts {
        self.counts
    }

    /// The same, to be added to.
    pub const fn counts_mut(&mut self) -> &mut EntitlementCounts {
        &mut self.counts
    }

    const fn holder(&self, index: u32, generation: u32) -> Holder {
        Holder {
            shard: self.shard,
            index,
            generation,
        }
    }
}

/// The products that a user may show on one connection only.
fn restricted(products: &Products) -> impl Iterator<Item = &Product> {
    products
        .iter()
        .filter(|product| product.sessions != Sessions::Any)
}
