//! The compressed messages, made once for all cases that send the same.
//!
//! The messages repeat after 256 KiB, and a deflate stream refers back to at most 32 KiB. So once the window is full,
//! message k + period may have the same octets as message k, since the window before it is the same. The result on the
//! wire is a correct compressed stream, but only its distinct part had to be compressed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::COUNT;
use super::data::{Data, Kind};
use crate::deflate::{Deflater, Streams, WINDOW_BYTES_MAX};

/// A sequence of compressed messages.
pub struct Prepared {
    messages: Vec<Vec<u8>>,
    /// Messages from this one on repeat.
    steady: usize,
    period: usize,
}

/// What distinguishes two sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    units: usize,
    window_bits: u8,
    forgets: bool,
}

impl Prepared {
    /// The sequence that the deflater of these streams would produce. Waits if another case is making it.
    pub fn of(data: &Data, kind: Kind, units: usize, streams: &Streams) -> Arc<Self> {
        type Made = HashMap<Key, Arc<OnceLock<Arc<Prepared>>>>;
        static MADE: OnceLock<Mutex<Made>> = OnceLock::new();
        let (window_bits, forgets) = streams.deflater.parameters();
        let key = Key {
            kind,
            units,
            window_bits,
            forgets,
        };
        let slot = MADE
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .clone();
        slot.get_or_init(|| Arc::new(Self::make(data, key))).clone()
    }

    fn make(data: &Data, key: Key) -> Self {
        let period = Data::period(key.units);
        let steady = steady_from(key.units, key.forgets);
        let mut deflater = Deflater::new(key.window_bits, key.forgets);
        let messages = (0..COUNT.min(steady + period))
            .map(|index| deflater.compress(data.message(index, key.units)))
            .collect();
        Self {
            messages,
            steady,
            period,
        }
    }

    /// The payload of message `index`, compressed.
    pub fn message(&self, index: usize) -> &[u8] {
        &self.messages[class(index, self.steady, self.period)]
    }
}

/// From this message on, the window before a message is the same as one period earlier.
pub fn steady_from(units: usize, forgets: bool) -> usize {
    if forgets {
        0
    } else {
        WINDOW_BYTES_MAX.div_ceil(units)
    }
}

/// The first message with the same octets and the same window before it.
pub fn class(index: usize, steady: usize, period: usize) -> usize {
    if index < steady {
        index
    } else {
        steady + (index - steady) % period
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::{Agreed, Inflater};

    /// A strict inflater accepts the repeated octets: every parameter, whole periods long.
    #[test]
    fn repeated_octets_are_a_correct_stream() {
        let data = Data::of(Kind::Json);
        for (client_window_bits, client_no_context_takeover) in
            [(15, false), (15, true), (9, false), (8, false)]
        {
            let agreed = Agreed {
                server_no_context_takeover: false,
                client_no_context_takeover,
                server_window_bits: 15,
                client_window_bits,
            };
            for units in [16 << 10, 128 << 10] {
                let streams = agreed.streams(false);
                let prepared = Prepared::of(&data, Kind::Json, units, &streams);
                let mut inflater = Inflater::new(client_window_bits, client_no_context_takeover);
                for index in 0..60 {
                    let message = inflater.inflate(prepared.message(index), 1 << 20);
                    let expected = data.message(index, units);
                    assert!(message.as_deref() == Ok(expected), "{agreed:?} {index}");
                }
            }
        }
    }
}
