//! Who watches which topics, and which topics are published: drawn by a law from a seed.
//!
//! Under Zipf's law, the lower a topic's number, the more popular it is, with subscribers and publications alike. Each
//! subscriber's draw depends only on the seed and its number, so all threads (and later readers of a report) get the
//! same sets.

use fastrand::Rng;

/// The popularity of topics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// All are equally popular.
    Uniform,
    /// The topic of rank `k` (from 1) has weight `1 / k^exponent`.
    Zipf(f64),
}

impl Law {
    fn weight(self, topic: usize) -> f64 {
        match self {
            Self::Uniform => 1.0,
            Self::Zipf(exponent) => ((topic + 1) as f64).powf(-exponent),
        }
    }
}

impl std::fmt::Display for Law {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(exponent) => write!(f, "zipf:{exponent}"),
        }
    }
}

/// Draws topics by a law.
#[derive(Debug, Clone)]
pub struct Draw {
    /// For each topic, the sum of the weights up to and including it.
    sums: Vec<f64>,
    law: Law,
}

impl Draw {
    /// From `topics` topics.
    pub fn new(law: Law, topics: u32) -> Self {
        let mut sum = 0.0;
        let sums = (0..topics as usize)
            .map(|topic| {
                sum += law.weight(topic);
                sum
            })
            .collect();
        Self { sums, law }
    }

    /// Draws one topic.
    pub fn one(&self, random: &mut Rng) -> u16 {
        let total = self.sums.last().copied().unwrap_or(0.0);
        let point = random.f64() * total;
        let topic = self.sums.partition_point(|sum| *sum <= point);
        // Rounding can put the point at the very end. Topics have sixteen bits.
        topic.min(self.sums.len().saturating_sub(1)) as u16
    }

    /// Draws `count` different topics, one after the other by their weights among those that are left; returns them in
    /// the order of their numbers.
    pub fn distinct(&self, count: usize, random: &mut Rng) -> Vec<u16> {
        let count = count.min(self.sums.len());
        let mut is_drawn = vec![false; self.sums.len()];
        let mut drawn = Vec::with_capacity(count);
        // Rejecting what is there already is the same as drawing from the rest, …
        for _ in 0..REJECTIONS_PER_TOPIC * count {
            if drawn.len() == count {
                break;
            }
            let topic = self.one(random);
            if !std::mem::replace(&mut is_drawn[usize::from(topic)], true) {
                drawn.push(topic);
            }
        }
        if drawn.len() < count {
            // … but slow when the rest is light. The least of exponential variates with the weights as
            // their rates follow the same law (Efraimidis, Spirakis: Weighted random sampling with a
            // reservoir, 2006).
            let mut rest: Vec<(f64, u16)> = (0..self.sums.len())
                .filter(|topic| !is_drawn[*topic])
                .map(|topic| {
                    let variate = -(1.0 - random.f64()).ln() / self.law.weight(topic);
                    (variate, topic as u16)
                })
                .collect();
            rest.sort_by(|one, other| one.0.total_cmp(&other.0));
            let missing = count - drawn.len();
            drawn.extend(rest.iter().take(missing).map(|(_, topic)| *topic));
        }
        drawn.sort_unstable();
        drawn
    }
}

/// Who watches which topics.
#[derive(Debug, Clone)]
pub enum Interest {
    /// Everybody watches everything.
    All {
        /// Subscribe with a wildcard.
        by_wildcard: bool,
    },
    /// Each subscriber has its own set.
    Some {
        /// Topics of each.
        each: usize,
        /// How they are drawn.
        draw: Draw,
        /// The seed of the draws.
        seed: u64,
    },
}

impl Interest {
    /// The topics of subscriber `number`, in the order of their numbers; None: all.
    pub fn of(&self, number: usize) -> Option<Vec<u16>> {
        match self {
            Self::All { .. } => None,
            Self::Some { each, draw, seed } => {
                let mut seeds = Rng::with_seed(*seed ^ (number as u64).rotate_left(32));
                Some(draw.distinct(*each, &mut Rng::with_seed(seeds.u64(..))))
            }
        }
    }
}

/// Chooses the topic of the next publication.
#[derive(Debug, Clone)]
pub enum Turn {
    /// The topics in turn.
    Robin {
        /// The next one.
        next: u16,
        /// How many there are.
        topics: u32,
    },
    /// By a law.
    Drawn {
        /// The law.
        draw: Draw,
        /// Its random numbers.
        random: Rng,
    },
}

impl Turn {
    /// The next publication's topic.
    pub fn next(&mut self) -> u16 {
        match self {
            Self::Robin { next, topics } => {
                let topic = *next;
                *next = if u32::from(topic) + 1 < *topics {
                    topic + 1
                } else {
                    0
                };
                topic
            }
            Self::Drawn { draw, random } => draw.one(random),
        }
    }
}

/// So many repeated draws are cheaper than visiting every topic.
const REJECTIONS_PER_TOPIC: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets have the requested size, no repetition, and are the same for the same seed and number, whatever the law and
    /// however large the set.
    #[test]
    fn sets_are_distinct_and_repeatable() {
        for law in [Law::Uniform, Law::Zipf(1.0), Law::Zipf(3.0)] {
            for (topics, each) in [(1, 1), (5, 5), (100, 99), (5_000, 50), (65_536, 300)] {
                let interest = |seed| Interest::Some {
                    each,
                    draw: Draw::new(law, topics),
                    seed,
                };
                let set = interest(1).of(7).expect("a set");
                assert_eq!(set.len(), each, "{law} {topics}");
                assert!(
                    set.windows(2).all(|pair| pair[0] < pair[1]),
                    "{law}: {set:?}"
                );
                assert!(set.iter().all(|topic| u32::from(*topic) < topics));
                assert_eq!(interest(1).of(7).as_ref(), Some(&set));
                if topics > 100 {
                    assert_ne!(interest(2).of(7).as_ref(), Some(&set), "seeds matter");
                    assert_ne!(interest(1).of(8).as_ref(), Some(&set), "numbers matter");
                }
            }
        }
    }

    /// Single draws follow the law: each of the first ranks occurs as often as its weight says, within five standard
    /// deviations.
    #[test]
    fn draws_follow_the_law() {
        const DRAWS: usize = 200_000;
        for law in [Law::Uniform, Law::Zipf(0.8), Law::Zipf(1.2)] {
            let draw = Draw::new(law, 1_000);
            let mut random = Rng::with_seed(11);
            let mut counts = [0_u32; 1_000];
            for _ in 0..DRAWS {
                counts[usize::from(draw.one(&mut random))] += 1;
            }
            let total: f64 = (0..1_000).map(|topic| law.weight(topic)).sum();
            for topic in [0, 1, 2, 9, 99] {
                let share = law.weight(topic) / total;
                let expected = share * DRAWS as f64;
                let deviation = (expected * (1.0 - share)).sqrt();
                let got = f64::from(counts[topic]);
                assert!(
                    (got - expected).abs() < 5.0 * deviation,
                    "{law}, topic {topic}: {got} of {expected}"
                );
            }
        }
    }

    /// Both ways of drawing without repetition follow the same law: the second of two draws from three
    /// topics of weights 1, 1/2, 1/3 takes each topic as often as calculated by hand.
    #[test]
    fn rest_follows_the_law() {
        const DRAWS: usize = 100_000;
        // P(topic 2 is left out) = Σ over the orders of the other two.
        let weights = [1.0, 0.5, 1.0 / 3.0];
        let total: f64 = weights.iter().sum();
        let left_out = |topic: usize| -> f64 {
            let others: Vec<f64> = (0..3).filter(|t| *t != topic).map(|t| weights[t]).collect();
            others[0] / total * others[1] / (total - others[0])
                + others[1] / total * others[0] / (total - others[1])
        };
        let draw = Draw::new(Law::Zipf(1.0), 3);
        let mut random = Rng::with_seed(3);
        let mut counts = [0_u32; 3];
        for _ in 0..DRAWS {
            let set = draw.distinct(2, &mut random);
            let missing = (0..3_u16).find(|topic| !set.contains(topic)).expect("one");
            counts[usize::from(missing)] += 1;
        }
        for (topic, count) in counts.iter().enumerate() {
            let (expected, got) = (left_out(topic) * DRAWS as f64, f64::from(*count));
            assert!(
                (got - expected).abs() < 5.0 * expected.sqrt(),
                "topic {topic}: {got} of {expected}"
            );
        }
    }

    /// In turn, every topic occurs once before any occurs again.
    #[test]
    fn round_robin() {
        let mut turn = Turn::Robin { next: 0, topics: 3 };
        let topics: Vec<u16> = (0..7).map(|_| turn.next()).collect();
        assert_eq!(topics, [0, 1, 2, 0, 1, 2, 0]);
        let mut most = Turn::Robin {
            next: u16::MAX,
            topics: 65_536,
        };
        assert_eq!((most.next(), most.next()), (u16::MAX, 0));
    }
}
