//! Whether latency grows: this distinguishes a server that falls behind from one that is slow but keeps up.
//!
//! Both have outstanding answers when the measured time ends. But a server that can handle `capacity` of `rate`
//! messages a second answers each message a little later than the one before, by `rate / capacity - 1` of the time
//! between them. That is the slope of latency over due time, computed here by least squares.

/// Latencies by the times at which their messages were due.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trend {
    count: f64,
    due_s: f64,
    latency_s: f64,
    due_due: f64,
    due_latency: f64,
    latency_latency: f64,
}

impl Trend {
    /// Adds `count` messages that were due at `due_ns` and answered this long after.
    pub fn record(&mut self, due_ns: u64, latency_ns: u64, count: u64) {
        let (due_s, latency_s) = (due_ns as f64 / 1e9, latency_ns as f64 / 1e9);
        let count = count as f64;
        self.add(&Self {
            count,
            due_s: count * due_s,
            latency_s: count * latency_s,
            due_due: count * due_s * due_s,
            due_latency: count * due_s * latency_s,
            latency_latency: count * latency_s * latency_s,
        });
    }

    /// Adds the messages of `other`.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.due_s += other.due_s;
        self.latency_s += other.latency_s;
        self.due_due += other.due_due;
        self.due_latency += other.due_latency;
        self.latency_latency += other.latency_latency;
    }

    /// The share of the rate that the server keeps up with. Where chance may be involved, the result favours the
    /// server; 1 if latency does not grow.
    pub fn share_kept(&self) -> f64 {
        let spread = |squares: f64, one: f64, other: f64| squares - one * other / self.count;
        let due_spread = spread(self.due_due, self.due_s, self.due_s);
        if self.count < COUNT_MIN || due_spread <= 0.0 {
            return 1.0;
        }
        let both = spread(self.due_latency, self.due_s, self.latency_s);
        let latency_spread = spread(self.latency_latency, self.latency_s, self.latency_s);
        let slope = both / due_spread;
        let unexplained = (latency_spread - slope * both).max(0.0);
        let error = (unexplained / (self.count - 2.0) / due_spread).sqrt();
        1.0 / (1.0 + (slope - ERRORS * error).max(0.0))
    }
}

/// Two points are always on a line.
const COUNT_MIN: f64 = 3.0;
/// This many standard errors may be chance: one slope in fifty is farther off.
const ERRORS: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` messages at `rate` a second, the latency of each by the time that it was due at, in seconds.
    fn trend(rate: f64, count: u32, mut latency_s: impl FnMut(f64) -> f64) -> Trend {
        let mut trend = Trend::default();
        for number in 0..count {
            let due_s = f64::from(number) / rate;
            let due_ns = 100_000_000_000 + (due_s * 1e9) as u64;
            trend.record(due_ns, (latency_s(due_s) * 1e9) as u64, 1);
        }
        trend
    }

    /// A server that can do a part of the rate is found to do that part, however small it is.
    #[test]
    fn a_server_that_falls_behind() {
        for share in [0.95, 0.78, 0.5, 0.01] {
            let growing = trend(1_000.0, 1_000, |due_s| 0.001 + due_s * (1.0 / share - 1.0));
            let kept = growing.share_kept();
            assert!((kept - share).abs() < 0.001, "{share}: {kept}");
        }
    }

    /// A slow server keeps up if its latency is constant, random, has a pause, or falls.
    #[test]
    fn a_server_that_is_slow() {
        let mut random = fastrand::Rng::with_seed(7);
        let at_random = trend(20.0, 60, |_| random.f64() * 0.4);
        let pause = |due_s: f64| (1.55 - due_s).max(0.0) * f64::from(u8::from(due_s > 1.45));
        for (name, slow) in [
            ("constant", trend(1_000.0, 1_000, |_| 0.4)),
            ("random", at_random),
            ("pause", trend(1_000.0, 3_000, pause)),
            ("faster", trend(1_000.0, 1_000, |due_s| 1.0 - due_s / 2.0)),
            ("few", trend(1.0, 2, |due_s| due_s)),
            ("none", Trend::default()),
        ] {
            let kept = slow.share_kept();
            assert!(kept > 0.99, "{name}: {kept}");
        }
    }

    /// Threads see parts of the messages; together they are the whole.
    #[test]
    fn parts_make_the_whole() {
        let mut sum = trend(1_000.0, 500, |due_s| due_s / 2.0);
        let mut rest = Trend::default();
        for number in 500..1_000_u64 {
            rest.record(100_000_000_000 + number * 1_000_000, number * 500_000, 1);
        }
        sum.add(&rest);
        assert!((sum.share_kept() - 1.0 / 1.5).abs() < 0.001);
    }
}
