//! What is published for a symbol: bid, ask, last trade, and the state of trading.

use std::io::Write as _;

/// The state of trading in one symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Orders gather for one price; quotes are indicative, nothing trades.
    Auction,
    /// Continuous trading.
    Open,
    /// Trading is suspended: nothing moves.
    Halted,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auction => "auction",
            Self::Open => "open",
            Self::Halted => "halted",
        }
    }
}

/// The state of one symbol after a tick. Prices are whole cents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    /// Best price of a buyer; below `ask`.
    pub(super) bid_cents: u64,
    /// Best price of a seller.
    pub(super) ask_cents: u64,
    /// Price of the last trade.
    pub(super) last_cents: u64,
    /// Shares in the last trade; at least one.
    pub(super) size: u64,
    /// Shares traded in this session.
    pub(super) volume: u64,
    /// Last price of the session before.
    pub(super) close_cents: u64,
    pub(super) status: Status,
}

impl Quote {
    /// Appends the JSON text, prices with exactly two decimals.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        let [bid, ask, last, close] = [
            self.bid_cents,
            self.ask_cents,
            self.last_cents,
            self.close_cents,
        ]
        .map(|cents| (cents / 100, cents % 100));
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "{{\"bid\":{}.{:02},\"ask\":{}.{:02},\"last\":{}.{:02},\"size\":{},\"volume\":{},\
             \"close\":{}.{:02},\"status\":\"{}\"}}",
            bid.0,
            bid.1,
            ask.0,
            ask.1,
            last.0,
            last.1,
            self.size,
            self.volume,
            close.0,
            close.1,
            self.status.as_str(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text is the one the dashboard reads, zeroes and all.
    #[test]
    fn json_has_two_decimals() {
        let quote = Quote {
            bid_cents: 18_742,
            ask_cents: 18_744,
            last_cents: 18_700,
            size: 300,
            volume: 120_300,
            close_cents: 5,
            status: Status::Open,
        };
        let mut out = Vec::new();
        quote.write_json(&mut out);
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            r#"{"bid":187.42,"ask":187.44,"last":187.00,"size":300,"volume":120300,"close":0.05,"status":"open"}"#
        );
    }
}
