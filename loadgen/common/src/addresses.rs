//! The addresses of a name, tried in the resolver's order.
//!
//! A name often has several addresses, and not every one may answer: `localhost` is `::1` and `127.0.0.1`, and a server
//! may listen on only one of them. A client tries them one after the other (RFC 8305 §4, §5). It goes on to the next
//! address when one has failed, or when it has not answered within [`HEAD_START`]. An address that was only slow gets a
//! second try without that limit. The last address that worked comes first from then on.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// At least one address.
#[derive(Debug)]
pub struct Addresses {
    all: Vec<SocketAddr>,
    /// Which of them comes first: the last one that worked.
    first: AtomicUsize,
}

impl Addresses {
    /// The addresses that a resolver has found, without repetitions; None if there are none.
    pub fn new(found: impl IntoIterator<Item = SocketAddr>) -> Option<Self> {
        let mut all = Vec::new();
        for address in found {
            if !all.contains(&address) && all.len() < ADDRESSES_MAX {
                all.push(address);
            }
        }
        (!all.is_empty()).then_some(Self {
            all,
            first: AtomicUsize::new(0),
        })
    }

    /// The one to begin with.
    pub fn first(&self) -> SocketAddr {
        self.all[self.first.load(Ordering::Relaxed)]
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The addresses that a socket bound to `source` can reach: those of the same IP version; None if there are none.
    pub fn reachable_from(&self, source: IpAddr) -> Option<Self> {
        let is_same_kind = |address: &SocketAddr| address.is_ipv4() == source.is_ipv4();
        Self::new(self.all.iter().copied().filter(is_same_kind))
    }

    /// Begins to connect to one of them.
    pub fn route(&self) -> Route {
        Route {
            start: self.first.load(Ordering::Relaxed) as u8,
            ..Route::default()
        }
    }

    /// The address that `route` currently tries.
    pub fn at(&self, route: &Route) -> SocketAddr {
        self.all[route.place(self.count())]
    }

    /// `route` has led to a connection: its address comes first from now on.
    pub fn has_worked(&self, route: &Route) {
        // Nothing else is ordered by it.
        self.first
            .store(route.place(self.count()), Ordering::Relaxed);
    }
}

/// The progress of one attempt through the addresses of a name.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// The index of its first address.
    start: u8,
    /// How many places after that the current address is.
    step: u8,
    /// The addresses that have failed, a bit for each place.
    failed: u64,
    /// Every address has had its head start: those that were slow are tried again without a limit.
    is_patient: bool,
    /// The outcomes so far.
    causes: Vec<String>,
}

impl Route {
    const fn place(&self, count: usize) -> usize {
        (self.start as usize + self.step as usize) % count
    }

    /// How long to wait for the current address before the next one is tried; None: without a limit.
    pub fn patience(&self, addresses: &Addresses) -> Option<Duration> {
        let others = all_steps(addresses.count()) & !self.failed & !(1 << self.step);
        (!self.is_patient && others != 0).then_some(HEAD_START)
    }

    /// The current address has failed, for this reason. Returns whether another one is to be tried.
    pub fn fail(&mut self, addresses: &Addresses, cause: &str) -> bool {
        self.failed |= 1 << self.step;
        self.note(addresses, cause);
        self.advance(addresses.count())
    }

    /// The current address has used up its head start. Returns whether another one is to be tried.
    pub fn pass_over(&mut self, addresses: &Addresses) -> bool {
        self.note(addresses, "no answer so far");
        self.advance(addresses.count())
    }

    /// The reasons why an attempt has failed or has not succeeded yet; empty if there is only one address, whose own
    /// failure suffices.
    pub fn causes(&self) -> String {
        self.causes.join("; ")
    }

    fn note(&mut self, addresses: &Addresses, cause: &str) {
        if addresses.count() > 1 {
            let address = addresses.at(self);
            // One that was slow at first has one entry, its last.
            self.causes
                .retain(|line| !line.starts_with(&format!("{address}: ")));
            self.causes.push(format!("{address}: {cause}"));
        }
    }

    fn advance(&mut self, count: usize) -> bool {
        let left = all_steps(count) & !self.failed;
        let later = left & !((2 << self.step) - 1);
        if later != 0 {
            self.step = later.trailing_zeros() as u8;
            return true;
        }
        // Those that are left and were tried before were slow; the patient round goes through them once.
        if self.is_patient || left == 0 {
            return false;
        }
        self.is_patient = true;
        self.step = left.trailing_zeros() as u8;
        true
    }
}

/// A bit for each of `count` steps.
const fn all_steps(count: usize) -> u64 {
    u64::MAX >> (64 - count)
}

/// How long to wait for an address before the next one is tried (RFC 8305 §5: 250 ms).
pub const HEAD_START: Duration = Duration::from_millis(250);
/// More addresses than any name needs.
const ADDRESSES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u8) -> Addresses {
        let each = (1..=count).map(|last| SocketAddr::from(([192, 0, 2, last], 80)));
        Addresses::new(each).expect("at least one")
    }

    /// Addresses are tried in order, each once; in the end, the failure of each is named.
    #[test]
    fn failures_lead_on() {
        let addresses = addresses(3);
        let mut route = addresses.route();
        let mut tried = vec![addresses.at(&route)];
        for number in 0..2 {
            assert!(route.patience(&addresses).is_some(), "others are left");
            assert!(route.fail(&addresses, &format!("refused {number}")));
            tried.push(addresses.at(&route));
        }
        assert_eq!(tried, addresses.all);
        assert!(route.patience(&addresses).is_none(), "it is the last one");
        assert!(!route.fail(&addresses, "unreachable"));
        assert_eq!(
            route.causes(),
            "192.0.2.1:80: refused 0; 192.0.2.2:80: refused 1; 192.0.2.3:80: unreachable"
        );
    }

    /// An address that was slow is tried again when the others have failed, and then without a limit.
    #[test]
    fn the_slow_get_a_second_try() {
        let addresses = addresses(3);
        let mut route = addresses.route();
        assert!(route.pass_over(&addresses));
        assert!(route.fail(&addresses, "refused"));
        assert!(
            route.patience(&addresses).is_some(),
            "the slow one may answer yet"
        );
        assert!(route.pass_over(&addresses), "back to the first");
        assert_eq!(addresses.at(&route), addresses.all[0]);
        assert!(route.patience(&addresses).is_none());
        assert!(route.fail(&addresses, "timed out"));
        assert_eq!(addresses.at(&route), addresses.all[2]);
        assert!(!route.fail(&addresses, "timed out too"));
        assert_eq!(
            route.causes(),
            "192.0.2.2:80: refused; 192.0.2.1:80: timed out; 192.0.2.3:80: timed out too"
        );
    }

    /// The address that has worked comes first, and the others still follow.
    #[test]
    fn what_worked_comes_first() {
        let addresses = addresses(3);
        let mut route = addresses.route();
        assert!(route.fail(&addresses, "refused"));
        addresses.has_worked(&route);
        assert_eq!(addresses.first(), addresses.all[1]);
        let mut route = addresses.route();
        let mut tried = vec![addresses.at(&route)];
        while route.fail(&addresses, "refused") {
            tried.push(addresses.at(&route));
        }
        assert_eq!(tried, [1, 2, 0].map(|place| addresses.all[place]));
    }

    /// A single address has no limit from the beginning, and no second try.
    #[test]
    fn one_alone() {
        let addresses = addresses(1);
        let mut route = addresses.route();
        assert!(route.patience(&addresses).is_none());
        assert!(!route.fail(&addresses, "refused"));
        assert!(route.causes().is_empty());
        assert!(Addresses::new([]).is_none());
    }

    /// From a source, only addresses of its IP version are tried; repeated and surplus ones are left out.
    #[test]
    fn sources_choose() {
        let both = ["[::1]:80", "127.0.0.1:80", "[::1]:80"]
            .map(|text| text.parse::<SocketAddr>().expect("an address"));
        let both = Addresses::new(both).expect("some");
        assert_eq!(both.count(), 2);
        let from = |source: &str| both.reachable_from(source.parse().expect("an address"));
        assert_eq!(
            from("127.0.0.2").expect("one").first().to_string(),
            "127.0.0.1:80"
        );
        assert_eq!(from("::1").expect("one").first().to_string(), "[::1]:80");
        assert!(addresses(2).reachable_from(IpAddr::from([0; 16])).is_none());
        assert_eq!(addresses(200).count(), ADDRESSES_MAX);
    }
}
