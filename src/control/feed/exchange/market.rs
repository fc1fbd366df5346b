//! The simulated market: virtual time goes in, ticks come out, and the same seed gives the same ticks.
//!
//! - *When* ticks happen: at the configured rate times a factor that alternates between calm and bursts. The mean of
//!   each cycle is 1, so the rate holds over a long time and varies over a short one.
//! - *Which symbol* ticks: one of a few symbols that have just ticked, since trading excites trading; or a symbol drawn
//!   by rank, where the first is the busiest.
//! - *What* a tick says: each symbol's fair price is a random walk with its own volatility, quoted with a spread around
//!   it.
//!
//! ```text
//!             session starts                 now and then, one of ten at most
//!                   │                                      │
//!                   ▼                                      ▼
//!   open ──▶ auction, volume 0, gap ──▶ open ──▶ halted (silence) ──▶ auction ──▶ open
//! ```
//!
//! Changes of status replace the next arrivals instead of adding to them, so the rate holds even when ten thousand
//! symbols open at once.
//!
//! Invariant: every visible quote has `bid < ask`; volume grows only in an open symbol or at its opening trade, and
//! never shrinks within a session.

use super::quote::{Quote, Status};
use super::random::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One update of one symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    /// Virtual time, in nanoseconds since the market was created.
    pub(super) at_ns: u64,
    /// Index of the symbol.
    pub(super) symbol: usize,
    /// The symbol's state after the tick.
    pub(super) quote: Quote,
}

/// All symbols and their planned changes of status.
#[derive(Debug)]
pub(super) struct Market {
    random: Random,
    rate: f64,
    symbols: Vec<Symbol>,
    /// Running sums of the symbols' weights, for drawing by weight.
    weights: Vec<f64>,
    /// Symbols that ticked lately, once per tick; overwritten in turn.
    recent: [usize; RECENT],
    ticks: u64,
    now_s: f64,
    next_tick_s: f64,
    activity: Activity,
    session_end_s: f64,
    next_halt_s: f64,
    halted: usize,
    /// Changes of status, the earliest first.
    changes: BinaryHeap<Reverse<Change>>,
}

#[derive(Debug)]
struct Symbol {
    /// Fair price, in cents.
    fair_cents: f64,
    /// The fair price is pulled back towards this over hours, so that it never drifts away for good.
    anchor_cents: f64,
    /// Standard deviation of the fair price's relative change from tick to tick.
    step: f64,
    /// Usual spread, as a fraction of the price.
    spread: f64,
    quote: Quote,
}

/// A change of status that is due at some time. Ordered by time, then by the order of planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    at_ns: u64,
    order: u64,
    symbol: usize,
    to: ChangeTo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ChangeTo {
    Auction,
    Open,
    Halted,
}

/// The factor of the rate, which is constant over a spell.
#[derive(Debug)]
struct Activity {
    factor: f64,
    until_s: f64,
    /// Length of the calm spell that compensates for the current burst; `None` while it is calm.
    calm_after_s: Option<f64>,
}

impl Market {
    /// A market about to open for the first time. `rate` is in ticks a second, over all symbols.
    ///
    /// # Panics
    /// If there are no symbols or no ticks.
    pub(super) fn new(prices_dollars: &[u32], rate: u32, seed: u64) -> Self {
        assert!(!prices_dollars.is_empty() && rate > 0);
        let mut random = Random::new(seed);
        let rate = f64::from(rate);
        let weight = |rank: usize| 1.0 / (rank as f64 + RANK_OFFSET);
        let total: f64 = (0..prices_dollars.len()).map(weight).sum();
        let symbols = prices_dollars.iter().enumerate().map(|(rank, &dollars)| {
            let ticks_per_second = rate * weight(rank) / total;
            Symbol::new(dollars, ticks_per_second, &mut random)
        });
        let symbols: Vec<_> = symbols.collect();
        let weights = (0..symbols.len()).scan(0.0, |sum, rank| {
            *sum += weight(rank);
            Some(*sum)
        });
        let mut market = Self {
            weights: weights.collect(),
            symbols,
            rate,
            recent: [0; RECENT],
            ticks: 0,
            now_s: 0.0,
            next_tick_s: 0.0,
            activity: Activity::burst(0.0, &mut random),
            session_end_s: 0.0,
            next_halt_s: random.between(HALT_INTERVAL_S.0, HALT_INTERVAL_S.1),
            halted: 0,
            changes: BinaryHeap::new(),
            random,
        };
        market.start_session();
        market
    }

    /// Virtual time reached, in nanoseconds.
    pub(super) fn now_ns(&self) -> u64 {
        nanoseconds(self.now_s)
    }

    /// Lets time pass until `to_ns`, or until `ticks_max` ticks have happened, and hands on each tick.
    pub(super) fn advance(&mut self, to_ns: u64, ticks_max: usize, mut on_tick: impl FnMut(Tick)) {
        let to_s = to_ns as f64 / 1e9;
        for _ in 0..ticks_max {
            if self.next_tick_s > to_s {
                self.now_s = self.now_s.max(to_s);
                return;
            }
            self.now_s = self.next_tick_s;
            on_tick(self.tick());
            self.plan_next_tick();
        }
    }

    /// Decides what happens at the current arrival.
    fn tick(&mut self) -> Tick {
        if self.now_s >= self.session_end_s {
            self.start_session();
        }
        if self.now_s >= self.next_halt_s {
            self.plan_halt();
        }
        let now_ns = self.now_ns();
        let due = self
            .changes
            .peek()
            .is_some_and(|change| change.0.at_ns <= now_ns);
        let symbol = if due && self.random.chance(CHANGES_FIRST) {
            let Reverse(change) = self.changes.pop().expect("one is due");
            self.carry_out(change);
            change.symbol
        } else {
            let symbol = self.draw_symbol();
            self.symbols[symbol].trade(self.activity.is_burst(), &mut self.random);
            symbol
        };
        self.recent[(self.ticks % RECENT as u64) as usize] = symbol;
        self.ticks += 1;
        Tick {
            at_ns: now_ns,
            symbol,
            quote: self.symbols[symbol].quote,
        }
    }

    /// The gaps between arrivals are uniformly random around their mean, measured in activity rather than time.
    fn plan_next_tick(&mut self) {
        let mut needed = self.random.between(0.0, 2.0) / self.rate;
        loop {
            let left = (self.activity.until_s - self.next_tick_s) * self.activity.factor;
            if needed <= left {
                self.next_tick_s += needed / self.activity.factor;
                return;
            }
            needed -= left;
            self.next_tick_s = self.activity.until_s;
            self.activity.change(&mut self.random);
        }
    }

    fn start_session(&mut self) {
        self.changes.clear();
        self.halted = 0;
        // Long enough for every symbol to open and trade, however slow the rate.
        let length_s = SESSION_S.max(TICKS_PER_SESSION * self.symbols.len() as f64 / self.rate);
        self.session_end_s = self.now_s + length_s;
        let now_ns = self.now_ns();
        for index in 0..self.symbols.len() {
            self.symbols[index].start_session(&mut self.random);
            self.plan(index, now_ns, ChangeTo::Auction);
            let open_s = self.now_s + self.random.between(OPENING_S.0, OPENING_S.1);
            self.plan(index, nanoseconds(open_s), ChangeTo::Open);
        }
    }

    /// Halts some open symbol, unless one of ten is halted already.
    fn plan_halt(&mut self) {
        self.next_halt_s = self.now_s + self.random.between(HALT_INTERVAL_S.0, HALT_INTERVAL_S.1);
        let symbol = self.random.below(self.symbols.len());
        if self.symbols[symbol].quote.status == Status::Open
            && (self.halted + 1) * HALTED_PART <= self.symbols.len()
        {
            self.halted += 1;
            // At once, so that it cannot be halted twice; the tick that says so comes next.
            self.symbols[symbol].quote.status = Status::Halted;
            self.plan(symbol, self.now_ns(), ChangeTo::Halted);
        }
    }

    fn plan(&mut self, symbol: usize, at_ns: u64, to: ChangeTo) {
        // Later plans come after earlier ones of the same time; ticks and symbols make it unique.
        let order = self.ticks;
        self.changes.push(Reverse(Change {
            at_ns,
            order,
            symbol,
            to,
        }));
    }

    fn carry_out(&mut self, change: Change) {
        let index = change.symbol;
        match change.to {
            ChangeTo::Halted => {
                let end_s = self.now_s + self.random.between(HALT_S.0, HALT_S.1);
                self.plan(index, nanoseconds(end_s), ChangeTo::Auction);
            }
            ChangeTo::Auction => {
                let symbol = &mut self.symbols[index];
                if symbol.quote.status == Status::Halted {
                    self.halted -= 1;
                    symbol.gap(HALT_GAP, &mut self.random);
                    let open_s = self.now_s + self.random.between(OPENING_S.0, OPENING_S.1);
                    self.plan(index, nanoseconds(open_s), ChangeTo::Open);
                }
                self.symbols[index].quote.status = Status::Auction;
                self.symbols[index].requote(&mut self.random);
            }
            ChangeTo::Open => self.symbols[index].open(&mut self.random),
        }
    }

    /// A symbol that is not halted. There always is one, as at most one in ten is halted.
    fn draw_symbol(&mut self) -> usize {
        let symbol = if self.random.chance(EXCITED) {
            self.recent[self.random.below(RECENT)]
        } else {
            let total = self.weights.last().copied().unwrap_or(0.0);
            let drawn = self.random.between(0.0, total);
            let rank = self.weights.partition_point(|&sum| sum <= drawn);
            rank.min(self.symbols.len() - 1)
        };
        let count = self.symbols.len();
        (0..count)
            .map(|offset| (symbol + offset) % count)
            .find(|&candidate| self.symbols[candidate].quote.status != Status::Halted)
            .expect("not all are halted")
    }
}

impl Symbol {
    fn new(dollars: u32, ticks_per_second: f64, random: &mut Random) -> Self {
        let cents = u64::from(dollars) * 100 + random.below(100) as u64;
        let volatility = random.between(VOLATILITY.0, VOLATILITY.1);
        Self {
            fair_cents: cents as f64,
            anchor_cents: cents as f64,
            // Variance adds up over the ticks of a second.
            step: (volatility / ticks_per_second.sqrt()).min(STEP_MAX),
            spread: random.between(SPREAD.0, SPREAD.1),
            quote: Quote {
                bid_cents: cents - 1,
                ask_cents: cents + 1,
                last_cents: cents,
                size: 100,
                volume: 0,
                close_cents: cents,
                status: Status::Auction,
            },
        }
    }

    fn start_session(&mut self, random: &mut Random) {
        self.quote.close_cents = self.quote.last_cents;
        self.quote.volume = 0;
        self.quote.status = Status::Auction;
        self.gap(OPENING_GAP, random);
    }

    /// News while nobody could trade: the fair price jumps.
    fn gap(&mut self, deviation: f64, random: &mut Random) {
        let jump = 1.0 + deviation * random.normal();
        self.move_to(self.fair_cents * jump);
    }

    fn move_to(&mut self, cents: f64) {
        let low = (self.anchor_cents / 4.0).max(PRICE_CENTS_MIN);
        self.fair_cents = cents.clamp(low, (self.anchor_cents * 4.0).max(low));
    }

    /// One step of the walk, and usually a trade if the symbol is open.
    fn trade(&mut self, burst: bool, random: &mut Random) {
        let step = self.step * if burst { BURST_STEP } else { 1.0 };
        let drift = (self.anchor_cents / self.fair_cents - 1.0) * PULL;
        self.move_to(self.fair_cents * (1.0 + drift + step * random.normal()));
        self.requote(random);
        if self.quote.status == Status::Open && random.chance(TRADES) {
            let spread = self.quote.ask_cents - self.quote.bid_cents;
            let inside = random.below(spread as usize + 1) as u64;
            self.quote.last_cents = match random.below(10) {
                0..=3 => self.quote.bid_cents,
                4..=7 => self.quote.ask_cents,
                _ => self.quote.bid_cents + inside,
            };
            self.take_size(round_lots(random));
        }
    }

    /// The opening trade, at the price of the auction.
    fn open(&mut self, random: &mut Random) {
        self.quote.status = Status::Open;
        self.requote(random);
        self.quote.last_cents = (self.quote.bid_cents + self.quote.ask_cents) / 2;
        self.take_size(100 * (1 + random.below(500) as u64));
    }

    fn take_size(&mut self, size: u64) {
        self.quote.size = size;
        self.quote.volume += size;
    }

    /// Bid and ask around the fair price; wider while there is no continuous trading.
    fn requote(&mut self, random: &mut Random) {
        let wide = if self.quote.status == Status::Open {
            1.0
        } else {
            3.0
        };
        let spread = self.fair_cents * self.spread * wide * random.between(0.5, 1.5);
        let spread_cents = (spread as u64).max(1);
        let half = spread_cents as f64 / 2.0;
        self.quote.bid_cents = (self.fair_cents - half) as u64;
        self.quote.ask_cents = self.quote.bid_cents + spread_cents;
    }
}

impl Activity {
    /// A burst begins now. The calm after it is long enough to bring the mean of both to 1.
    fn burst(now_s: f64, random: &mut Random) -> Self {
        let factor = random.between(BURST_FACTOR.0, BURST_FACTOR.1);
        let length_s = random.between(BURST_S.0, BURST_S.1);
        Self {
            factor,
            until_s: now_s + length_s,
            calm_after_s: Some(length_s * (factor - 1.0) / (1.0 - CALM_FACTOR)),
        }
    }

    fn is_burst(&self) -> bool {
        self.calm_after_s.is_some()
    }

    /// The next spell begins where this one ends.
    fn change(&mut self, random: &mut Random) {
        *self = match self.calm_after_s {
            Some(length_s) => Self {
                factor: CALM_FACTOR,
                until_s: self.until_s + length_s,
                calm_after_s: None,
            },
            None => Self::burst(self.until_s, random),
        };
    }
}

/// Mostly a few hundred shares, seldom thousands, now and then an odd lot.
fn round_lots(random: &mut Random) -> u64 {
    if random.chance(0.15) {
        return 1 + random.below(99) as u64;
    }
    100 * (1 + u64::from(random.next().trailing_zeros()) * (1 + random.below(4) as u64))
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Ticks a symbol has in a session on average, at least.
const TICKS_PER_SESSION: f64 = 20.0;
/// Seconds from one opening to the next, if the rate allows.
const SESSION_S: f64 = 240.0;
/// Seconds from an auction's start to the symbol's opening.
const OPENING_S: (f64, f64) = (0.5, 3.0);
/// Seconds between halts.
const HALT_INTERVAL_S: (f64, f64) = (8.0, 25.0);
/// Seconds a halt lasts until its auction.
const HALT_S: (f64, f64) = (3.0, 8.0);
/// At most one symbol in this many is halted.
const HALTED_PART: usize = 10;
/// Standard deviation of the opening gap: 1.2 %.
const OPENING_GAP: f64 = 0.012;
/// Standard deviation of the gap after a halt: 2.5 %, as there was a reason for it.
const HALT_GAP: f64 = 0.025;
/// Standard deviation of the relative change in one second: some two to eight times that of real
/// shares, so that there is something to see.
const VOLATILITY: (f64, f64) = (0.000_2, 0.001);
/// No single step is larger, however seldom a symbol ticks.
const STEP_MAX: f64 = 0.004;
/// How much more a price moves on a tick during a burst.
const BURST_STEP: f64 = 1.6;
/// The fraction of its distance from the anchor by which the fair price returns in a tick.
const PULL: f64 = 1e-5;
/// The spread as a part of the price: half a basis point to six.
const SPREAD: (f64, f64) = (0.000_05, 0.000_6);
/// No fair price is lower, so that the widest spread still leaves a positive bid.
const PRICE_CENTS_MIN: f64 = 100.0;
/// The fraction of ticks in open symbols that are trades; the others only change the quote.
const TRADES: f64 = 0.7;
/// The rate in calm, as a fraction of the mean.
const CALM_FACTOR: f64 = 0.7;
/// The rate in bursts, as a fraction of the mean.
const BURST_FACTOR: (f64, f64) = (2.0, 5.0);
/// Seconds a burst lasts.
const BURST_S: (f64, f64) = (0.2, 0.8);
/// The fraction of ticks that belong to a symbol that has just ticked.
const EXCITED: f64 = 0.35;
/// How many of the latest ticks count as "just".
const RECENT: usize = 16;
/// Flattens Zipf's law for the first ranks: of 200 symbols the busiest has 3 % of the ticks.
const RANK_OFFSET: f64 = 10.0;
/// The fraction of arrivals that go to changes of status while some are due; the rest are ticks.
const CHANGES_FIRST: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(count: usize) -> Vec<u32> {
        super::super::symbols::symbols(count)
            .into_iter()
            .map(|(_, price)| price)
            .collect()
    }

    /// The ticks of the first `seconds`, taken in uneven batches.
    fn ticks(symbols: usize, rate: u32, seed: u64, seconds: u64) -> Vec<Tick> {
        let mut market = Market::new(&prices(symbols), rate, seed);
        let mut ticks = Vec::new();
        let end_ns = seconds * 1_000_000_000;
        while market.now_ns() < end_ns {
            let to_ns = (market.now_ns() + 7_000_000 + seed % 5_000_000).min(end_ns);
            market.advance(to_ns, usize::MAX, |tick| ticks.push(tick));
        }
        ticks
    }

    /// The same seed gives the same ticks, however time is cut; another seed gives others.
    #[test]
    fn same_seed_same_ticks() {
        let some = ticks(50, 500, 7, 20);
        assert_eq!(some, ticks(50, 500, 7, 20));
        assert_ne!(some, ticks(50, 500, 8, 20));
        let mut market = Market::new(&prices(50), 500, 7);
        let mut others = Vec::new();
        while market.now_ns() < 20_000_000_000 && others.len() < some.len() {
            market.advance(20_000_000_000, 3, |tick| others.push(tick));
        }
        assert_eq!(some, others);
    }

    /// In every tick of every seed: bid below ask, positive prices and sizes, the last price near the
    /// quote, time never backwards, volume never shrinking within a session.
    #[test]
    fn quotes_are_sound() {
        for seed in 0..6 {
            let mut last_ns = 0;
            let mut volumes = vec![0; 40];
            for Tick {
                at_ns,
                symbol,
                quote,
            } in ticks(40, 300, seed, 600)
            {
                assert!(
                    0 < quote.bid_cents && quote.bid_cents < quote.ask_cents,
                    "{quote:?}"
                );
                assert!(quote.size > 0 && quote.close_cents > 0);
                assert!(at_ns >= last_ns);
                let (near, last) = (quote.bid_cents as f64, quote.last_cents as f64);
                assert!(
                    quote.status != Status::Open || (last / near - 1.0).abs() < 0.05,
                    "{quote:?}"
                );
                let starts = quote.volume == 0 && quote.status == Status::Auction;
                assert!(quote.volume >= volumes[symbol] || starts);
                volumes[symbol] = quote.volume;
                last_ns = at_ns;
            }
        }
    }

    /// A halted symbol is silent until its auction, and trades again only when it opens. Halts do
    /// happen, and so do new sessions.
    #[test]
    fn halted_symbols_do_not_trade() {
        let mut status = [Status::Auction; 40];
        let mut volumes = [0; 40];
        let (mut halts, mut sessions) = (0, 0);
        for Tick { symbol, quote, .. } in ticks(40, 300, 3, 600) {
            let before = status[symbol];
            if before == Status::Halted {
                assert_eq!(quote.status, Status::Auction);
            }
            if quote.status != Status::Open {
                assert!(quote.volume == volumes[symbol] || quote.volume == 0);
            }
            halts += usize::from(quote.status == Status::Halted);
            sessions += usize::from(symbol == 0 && quote.volume == 0 && volumes[symbol] > 0);
            status[symbol] = quote.status;
            volumes[symbol] = quote.volume;
        }
        assert!(halts > 10, "{halts}");
        assert_eq!(sessions, 2);
    }

    /// Over a long time the rate is the configured one within 1 %; over a short time it is not.
    #[test]
    fn long_run_rate_is_as_asked() {
        for (symbols, rate, seed) in [(200, 400, 1), (1, 100, 2), (2_000, 400, 3)] {
            let seconds = 1_200;
            let ticks = ticks(symbols, rate, seed, seconds);
            let expected = f64::from(rate) * seconds as f64;
            let off = ticks.len() as f64 / expected - 1.0;
            assert!(off.abs() < 0.01, "{off}");
            let mut per_second = vec![0_u32; seconds as usize];
            ticks
                .iter()
                .for_each(|tick| per_second[(tick.at_ns / 1_000_000_000) as usize] += 1);
            let busiest = f64::from(*per_second.iter().max().expect("some"));
            assert!(busiest > 1.5 * f64::from(rate), "bursts: {busiest}");
        }
    }

    /// Soon after the start every symbol is open, having come with a gap from its close.
    #[test]
    fn every_symbol_opens() {
        let mut open = [false; 200];
        let mut gaps = 0;
        for Tick { symbol, quote, .. } in ticks(200, 2_000, 5, 5) {
            if quote.status == Status::Open && !open[symbol] {
                open[symbol] = true;
                gaps += usize::from(
                    quote.last_cents.abs_diff(quote.close_cents) * 500 > quote.close_cents,
                );
            }
        }
        assert!(open.iter().all(|&is_open| is_open));
        assert!(gaps > 100, "{gaps}");
    }

    /// However long it runs, prices stay within a factor of four of where they began.
    #[test]
    fn prices_do_not_wander_off() {
        let start = prices(3);
        let mut market = Market::new(&start, 50, 11);
        market.advance(36_000_000_000_000, usize::MAX, |tick| {
            let factor = tick.quote.bid_cents as f64 / (f64::from(start[tick.symbol]) * 100.0);
            assert!((0.2..4.1).contains(&factor), "{factor}");
        });
    }
}
