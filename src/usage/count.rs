//! Counts reportable users from logs.
//!
//! A user is reportable for a product and a class in a month if one of its intervals touches that month, on any instance.
//! An interval that spans the end of a month counts in both.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::Month;
use super::record::{Kind, Record, Seen};
use crate::access::Class;

/// Who could see what in one month, as far as the logs were read.
#[derive(Debug)]
pub struct Counts {
    month: Month,
    users: BTreeMap<Reportable, BTreeSet<String>>,
    /// Lines that say nothing.
    skipped: u64,
}

/// What users are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reportable {
    /// The product.
    pub product: String,
    /// The class.
    pub class: Class,
    /// Whether they are professionals; `None`: their tokens do not say.
    pub professional: Option<bool>,
}

/// An interval of one file that has not ended there.
struct Open {
    seen: Seen,
    from_s: u64,
    to_s: u64,
}

impl Counts {
    /// Of this month; nothing has been read.
    #[must_use]
    pub const fn new(month: Month) -> Self {
        Self {
            month,
            users: BTreeMap::new(),
            skipped: 0,
        }
    }

    /// Reads one file. The order of files does not matter, and reading one twice changes nothing.
    ///
    /// # Errors
    /// What the operating system says of a read that failed.
    pub fn read(&mut self, file: impl std::io::BufRead) -> std::io::Result<()> {
        let mut open: HashMap<String, BTreeMap<u64, Open>> = HashMap::new();
        for line in file.split(b'\n') {
            let line = line?;
            match Record::parse(&line) {
                Some(record) => self.take(record, &mut open),
                None => self.skipped += u64::from(!line.trim_ascii().is_empty()),
            }
        }
        for interval in open.into_values().flat_map(BTreeMap::into_values) {
            self.add(&interval.seen, interval.from_s, interval.to_s);
        }
        Ok(())
    }

    /// The numbers of users.
    pub fn iter(&self) -> impl Iterator<Item = (&Reportable, usize)> {
        self.users.iter().map(|(what, users)| (what, users.len()))
    }

    /// Lines that could not be read: of a process that was killed while it wrote, or of another program.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The numbers as a table.
    #[must_use]
    pub fn to_table(&self) -> String {
        let heading = ["product", "class", "professional", "users"].map(str::to_owned);
        let rows = self.iter().map(|(what, users)| {
            [
                what.product.clone(),
                what.class.as_str().to_owned(),
                professional(what.professional).to_owned(),
                users.to_string(),
            ]
        });
        let rows: Vec<[String; 4]> = std::iter::once(heading).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3].map(width);
        let mut table = String::new();
        for [product, class, professional, users] in &rows {
            let [a, b, c, d] = widths;
            table += &format!("{product:<a$}  {class:<b$}  {professional:<c$}  {users:>d$}\n");
        }
        table
    }

    /// The numbers as JSON.
    #[must_use]
    pub fn to_json(&self, month: &str) -> Value {
        let rows = self.iter().map(|(what, users)| {
            json!({
                "product": what.product,
                "class": what.class.as_str(),
                "professional": what.professional,
                "users": users,
            })
        });
        let rows: Vec<Value> = rows.collect();
        json!({ "month": month, "reportable": rows, "skipped_lines": self.skipped })
    }

    fn take(&mut self, record: Record, open: &mut HashMap<String, BTreeMap<u64, Open>>) {
        let of_instance = open.entry(record.instance).or_default();
        match (record.record, record.interval, record.seen) {
            (Kind::Begin, Some(number), Some(seen)) => {
                let from_s = record.from.unwrap_or_default();
                let to_s = from_s;
                of_instance
                    .entry(number)
                    .or_insert(Open { seen, from_s, to_s });
            }
            (Kind::End, Some(number), Some(seen)) => {
                of_instance.remove(&number);
                let from_s = record.from.unwrap_or_default();
                self.add(&seen, from_s, record.to.unwrap_or(from_s));
            }
            (Kind::Checkpoint, ..) => {
                let to_s = record.to.unwrap_or_default();
                for interval in of_instance.values_mut() {
                    interval.to_s = interval.to_s.max(to_s);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, seen: &Seen, from_s: u64, to_s: u64) {
        if from_s >= self.month.end_s || to_s < self.month.start_s {
            return;
        }
        let what = Reportable {
            product: seen.product.clone(),
            class: seen.class,
            professional: seen.professional,
        };
        let users = self.users.entry(what).or_default();
        users.insert(seen.user.clone());
    }
}

const fn professional(professional: Option<bool>) -> &'static str {
    match professional {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not said",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastrand::Rng;

    use super::super::Intervals;
    use super::*;
    use crate::access::{Holdings, UsageChange};

    fn holdings(product: &str, professional: Option<bool>) -> Option<Arc<Holdings>> {
        Some(Arc::new(Holdings {
            professional,
            products: [(product.into(), Class::RealTime)].into(),
            address: None,
        }))
    }

    fn change(subject: &str, at_s: u64, before: bool, after: bool) -> UsageChange {
        let held = |holds: bool| holdings("nasdaq", Some(false)).filter(|_| holds);
        UsageChange {
            subject: subject.into(),
            at_s,
            before: held(before),
            after: held(after),
        }
    }

    fn count(month: &str, files: &[&str]) -> Counts {
        let mut counts = Counts::new(Month::parse(month).unwrap());
        files
            .iter()
            .for_each(|file| counts.read(file.as_bytes()).unwrap());
        counts
    }

    fn users(month: &str, files: &[&str]) -> usize {
        count(month, files).iter().map(|(_, users)| users).sum()
    }

    /// A user counts once, however many connections and instances it has; an interval over the end of a month counts in
    /// both; and what is open counts until the last checkpoint.
    #[test]
    fn users_are_counted_once() {
        let november = Month::parse("2026-11").unwrap();
        let (before_end_s, after_end_s) = (november.end_s - 10, november.end_s + 10);
        let (mut one, mut other) = (String::new(), String::new());
        let mut first = Intervals::new("aa".into());
        first.apply(&change("ann", before_end_s, false, true), &mut one);
        first.apply(&change("ann", before_end_s, false, true), &mut one);
        first.apply(&change("ann", before_end_s + 1, true, false), &mut one);
        assert_eq!(first.len(), 1, "another connection still holds it");
        let mut second = Intervals::new("bb".into());
        second.apply(&change("ann", before_end_s, false, true), &mut other);
        second.apply(&change("bob", before_end_s, false, true), &mut other);
        second.apply(&change("bob", before_end_s + 1, true, false), &mut other);
        assert_eq!(users("2026-11", &[&one, &other]), 2);
        assert_eq!(
            users("2026-12", &[&one, &other]),
            0,
            "there is no later checkpoint"
        );
        first.checkpoint(after_end_s, &mut one);
        assert_eq!(users("2026-12", &[&one, &other]), 1);
        assert_eq!(users("2026-12", &[&other, &one, &one]), 1);
        assert_eq!(users("2026-10", &[&one, &other]), 0);
        let mut next = String::new();
        first.restate(&mut next);
        first.end_all(after_end_s, &mut next);
        assert_eq!(
            users("2026-12", &[&next]),
            1,
            "a new file is complete by itself"
        );
        assert_eq!(users("2026-11", &[&next]), 1);
    }

    /// Wherever a file is cut off, what is whole counts, and no line of it is taken for another.
    #[test]
    fn a_cut_line_is_skipped() {
        let mut log = String::new();
        let mut intervals = Intervals::new("aa".into());
        intervals.apply(&change("ann", 1_790_000_000, false, true), &mut log);
        let whole = log.len();
        intervals.apply(&change("bob", 1_790_000_000, false, true), &mut log);
        for end in whole..log.len() - 1 {
            let counts = count("2026-09", &[&log[..end]]);
            assert_eq!(counts.iter().map(|(_, users)| users).sum::<usize>(), 1);
            assert_eq!(counts.skipped(), u64::from(end > whole));
            let mended = format!("{}\n{}", &log[..end], &log[..whole]);
            assert_eq!(users("2026-09", &[&mended]), 1);
        }
    }

    /// Whatever connections begin and end: the counts are those of a model that looks at each second.
    #[test]
    fn counts_agree_with_looking_at_every_second() {
        let months = ["2026-10", "2026-11", "2026-12"];
        let ends: Vec<Month> = months
            .iter()
            .map(|text| Month::parse(text).unwrap())
            .collect();
        for seed in 0..200 {
            let mut random = Rng::with_seed(seed);
            let mut at_s = ends[1].start_s - 50;
            let mut logs = [String::new(), String::new()];
            let mut instances = ["aa", "bb"].map(|name| Intervals::new(name.into()));
            let mut connections: Vec<(usize, usize)> = Vec::new();
            let mut seen: BTreeSet<(usize, usize)> = BTreeSet::new();
            let names = ["ann", "bob", "eve"];
            for _ in 0..60 {
                let month = |s: u64| ends.iter().position(|month| s < month.end_s).unwrap();
                match random.u8(..6) {
                    0 | 1 => {
                        let (instance, user) = (random.usize(..2), random.usize(..3));
                        let begun = change(names[user], at_s, false, true);
                        instances[instance].apply(&begun, &mut logs[instance]);
                        connections.push((instance, user));
                    }
                    2 if !connections.is_empty() => {
                        let at = random.usize(..connections.len());
                        let (instance, user) = connections.swap_remove(at);
                        let ended = change(names[user], at_s, true, false);
                        instances[instance].apply(&ended, &mut logs[instance]);
                        seen.insert((month(at_s), user));
                    }
                    3 => {
                        let instance = random.usize(..2);
                        let restated = &mut String::new();
                        instances[instance].restate(restated);
                        logs[instance] += restated;
                    }
                    _ => at_s += random.u64(..86_400 * 3),
                }
                at_s = at_s.min(ends[2].end_s - 1);
                for (instance, log) in instances.iter().zip(&mut logs) {
                    instance.checkpoint(at_s, log);
                }
                // Who was connected before and is now was connected in all months between.
                for &(_, user) in &connections {
                    seen.insert((month(at_s), user));
                }
            }
            for (at, text) in months.iter().enumerate() {
                // Months that passed between two steps are those that every interval over them touches.
                let counted = users(text, &[&logs[0], &logs[1]]);
                let known = seen.iter().filter(|(month, _)| *month == at).count();
                assert_eq!(counted, known, "seed {seed}, {text}");
            }
        }
    }

    /// The table and the JSON have a row for each product, class and kind of user.
    #[test]
    fn counts_are_shown() {
        let mut log = String::new();
        let mut intervals = Intervals::new("aa".into());
        for (user, professional) in [("ann", Some(true)), ("bob", None)] {
            let after = holdings("nasdaq", professional);
            let begun = UsageChange {
                subject: user.into(),
                at_s: 1_790_000_000,
                before: None,
                after,
            };
            intervals.apply(&begun, &mut log);
        }
        let counts = count("2026-09", &[&log, "half a li"]);
        let table = "product  class      professional  users\n\
                     nasdaq   real-time  not said          1\n\
                     nasdaq   real-time  yes               1\n";
        assert_eq!(counts.to_table(), table);
        let json = counts.to_json("2026-09");
        assert_eq!(json["reportable"][1]["professional"], true);
        assert_eq!(json["skipped_lines"], 1);
    }
}
