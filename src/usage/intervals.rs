//! The intervals that are open now, and the lines about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{Kind, Record, Seen};
use crate::access::{Holdings, UsageChange};

/// The open intervals of one run of the server.
#[derive(Debug)]
pub struct Intervals {
    instance: Arc<str>,
    number_last: u64,
    open: BTreeMap<Seen, Open>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    from_s: u64,
    /// How many connections hold it.
    connections: u64,
}

impl Intervals {
    /// None yet, in this run of the server.
    #[must_use]
    pub const fn new(instance: Arc<str>) -> Self {
        Self {
            instance,
            number_last: 0,
            open: BTreeMap::new(),
        }
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What a connection holds has changed: appends the lines about what has begun and ended by this.
    pub fn apply(&mut self, change: &UsageChange, out: &mut String) {
        // First what begins: an interval that goes on is not closed.
        for seen in seen_by(&change.subject, change.after.as_deref()) {
            if let Some(open) = self.open.get_mut(&seen) {
                open.connections += 1;
                continue;
            }
            self.number_last += 1;
            let open = Open {
                number: self.number_last,
                from_s: change.at_s,
                connections: 1,
            };
            self.record(Kind::Begin, &seen, &open, None).write(out);
            self.open.insert(seen, open);
        }
        for seen in seen_by(&change.subject, change.before.as_deref()) {
            let Some(open) = self.open.get_mut(&seen) else {
                continue;
            };
            open.connections -= 1;
            if open.connections == 0
                && let Some(open) = self.open.remove(&seen)
            {
                let to_s = change.at_s.max(open.from_s);
                self.record(Kind::End, &seen, &open, Some(to_s)).write(out);
            }
        }
    }

    /// Appends a checkpoint: what is open is still open.
    pub fn checkpoint(&self, at_s: u64, out: &mut String) {
        let record = Record {
            record: Kind::Checkpoint,
            instance: self.instance.to_string(),
            interval: None,
            seen: None,
            from: None,
            to: Some(at_s),
        };
        record.write(out);
    }

    /// Appends all open intervals, for the beginning of a new file.
    pub fn restate(&self, out: &mut String) {
        for (seen, open) in &self.open {
            self.record(Kind::Begin, seen, open, None).write(out);
        }
    }

    /// Ends all of them, since the server ends.
    pub fn end_all(&mut self, at_s: u64, out: &mut String) {
        for (seen, open) in std::mem::take(&mut self.open) {
            let to_s = at_s.max(open.from_s);
            self.record(Kind::End, &seen, &open, Some(to_s)).write(out);
        }
    }

    fn record(&self, kind: Kind, seen: &Seen, open: &Open, to_s: Option<u64>) -> Record {
        Record {
            record: kind,
            instance: self.instance.to_string(),
            interval: Some(open.number),
            seen: Some(seen.clone()),
            from: Some(open.from_s),
            to: to_s,
        }
    }
}

/// What one connection of a user lets it see.
fn seen_by(subject: &str, holdings: Option<&Holdings>) -> Vec<Seen> {
    let holdings = holdings.into_iter();
    let seen = holdings.flat_map(|holdings| {
        holdings.products.iter().map(|(product, class)| Seen {
            user: subject.to_owned(),
            product: product.to_string(),
            class: *class,
            professional: holdings.professional,
            address: holdings.address,
        })
    });
    seen.collect()
}
