//! The data of the compressed messages: five kinds like the original's, made by a fixed recipe.
//!
//! Each is [`UNITS`] characters (of text) or bytes long, a multiple of every message size. So the sequence of messages
//! repeats: message k equals message k modulo the period.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use fastrand::Rng;

/// What the messages contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Records as an API would send them; text.
    Json,
    /// A gray picture without compression; binary.
    Picture,
    /// Prose; as in the original it is sent in binary messages.
    Prose,
    /// A page with a large table; text.
    Html,
    /// A document with compressed streams in it; binary.
    Document,
}

impl Kind {
    /// In the order of 12.1 to 12.5.
    pub const ALL: [Self; 5] = [
        Self::Json,
        Self::Picture,
        Self::Prose,
        Self::Html,
        Self::Document,
    ];

    /// For titles.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Picture => "a bitmap",
            Self::Prose => "prose",
            Self::Html => "HTML",
            Self::Document => "a document of compressed parts",
        }
    }

    /// Whether it is sent in binary messages.
    pub const fn is_binary(self) -> bool {
        !matches!(self, Self::Json | Self::Html)
    }
}

/// One kind's data.
pub struct Data {
    octets: Vec<u8>,
    /// Where each unit begins, and the end; empty if units are octets.
    borders: Vec<u32>,
}

impl Data {
    /// Made at first use, then shared.
    pub fn of(kind: Kind) -> Arc<Self> {
        static MADE: [OnceLock<Arc<Data>>; 5] = [const { OnceLock::new() }; 5];
        MADE[kind as usize]
            .get_or_init(|| Arc::new(Self::make(kind)))
            .clone()
    }

    fn make(kind: Kind) -> Self {
        // The same data in each run.
        let mut random = Rng::with_seed(kind as u64 + 1);
        match kind {
            Kind::Json => Self::text(&json(&mut random)),
            Kind::Html => Self::text(&html(&mut random)),
            Kind::Prose => Self::binary(prose(&mut random).into_bytes()),
            Kind::Picture => Self::binary(picture(&mut random)),
            Kind::Document => Self::binary(document(&mut random)),
        }
    }

    fn text(text: &str) -> Self {
        let mut borders: Vec<u32> = text
            .char_indices()
            .map(|(at, _)| at as u32)
            .take(UNITS + 1)
            .collect();
        if borders.len() == UNITS {
            borders.push(text.len() as u32);
        }
        let end = *borders.last().expect("not empty") as usize;
        Self {
            octets: text.as_bytes()[..end].to_vec(),
            borders,
        }
    }

    fn binary(mut octets: Vec<u8>) -> Self {
        octets.truncate(UNITS);
        Self {
            octets,
            borders: Vec::new(),
        }
    }

    /// The message that comes `index`th when each has `units` units.
    pub fn message(&self, index: usize, units: usize) -> &[u8] {
        let from = index * units % UNITS;
        &self.octets[self.border(from)..self.border(from + units)]
    }

    /// The number of messages after which the sequence repeats.
    pub const fn period(units: usize) -> usize {
        UNITS / units
    }

    /// The last `bytes_max` bytes before message `index`, over messages and the border of a period.
    pub fn history(&self, index: usize, units: usize, bytes_max: usize) -> Vec<u8> {
        let mut history = Vec::with_capacity(bytes_max);
        for earlier in (0..index).rev() {
            let message = self.message(earlier, units);
            let rest = bytes_max - history.len();
            history.extend(message.iter().rev().take(rest));
            if history.len() == bytes_max {
                break;
            }
        }
        history.reverse();
        history
    }

    fn border(&self, unit: usize) -> usize {
        match self.borders.get(unit) {
            Some(at) => *at as usize,
            None => unit,
        }
    }
}

fn json(random: &mut Rng) -> String {
    let mut text = String::from("[");
    while text.len() < 2 * UNITS {
        let (price, volume) = (random.usize(..100_000), random.usize(..5_000));
        writeln!(
            text,
            "{{\"symbol\":\"{}\",\"name\":\"{} {}\",\"price\":{}.{:02},\"volume\":{volume},\
             \"currency\":\"{}\",\"tags\":[\"{}\",\"{}\"],\"active\":{}}},",
            pick(random, &SYMBOLS),
            pick(random, &WORDS),
            pick(random, &WORDS),
            price / 100,
            price % 100,
            pick(random, &["EUR", "€", "USD", "¥"]),
            pick(random, &WORDS),
            pick(random, &WORDS),
            random.usize(..2) == 0,
        )
        .expect("a string takes everything");
    }
    text
}

fn html(random: &mut Rng) -> String {
    let mut text = String::from("<!doctype html>\n<html><body><table class=\"quotes\">\n");
    while text.len() < 2 * UNITS {
        writeln!(
            text,
            "<tr class=\"{}\"><td><a href=\"/quote/{}\">{}</a></td><td>{} – {}</td><td>{}</td></tr>",
            pick(random, &["odd", "even"]),
            pick(random, &SYMBOLS),
            pick(random, &SYMBOLS),
            pick(random, &WORDS),
            pick(random, &WORDS),
            random.usize(..10_000),
        )
        .expect("a string takes everything");
    }
    text
}

fn prose(random: &mut Rng) -> String {
    let mut text = String::new();
    while text.len() < 2 * UNITS {
        let length = 4 + random.usize(..14);
        for word in 0..length {
            let space = if word + 1 < length { " " } else { ".\n" };
            text.push_str(pick(random, &WORDS));
            text.push_str(space);
        }
    }
    text
}

/// Soft waves with a little noise: neighbours are alike and seldom equal.
fn picture(random: &mut Rng) -> Vec<u8> {
    let wave = |at: usize, length: usize| {
        let phase = at % length;
        (phase.min(length - phase) * 128 / length) as u8
    };
    let pixels = (0..UNITS).map(|at| {
        let (x, y) = (at % PICTURE_WIDTH, at / PICTURE_WIDTH);
        wave(x, 190) + wave(y, 310) + (random.usize(..8) as u8)
    });
    pixels.collect()
}

/// Objects in words around streams that do not compress any further.
fn document(random: &mut Rng) -> Vec<u8> {
    let mut octets = b"%PDF-1.4\n".to_vec();
    let mut number = 1;
    while octets.len() < UNITS {
        let bytes = 500 + random.usize(..4_000);
        let head = format!(
            "{number} 0 obj\n<< /Type /XObject /Filter /FlateDecode /Length {bytes} >>\nstream\n"
        );
        octets.extend_from_slice(head.as_bytes());
        octets.extend((0..bytes).map(|_| random.usize(..256) as u8));
        octets.extend_from_slice(b"\nendstream\nendobj\n");
        number += 1;
    }
    octets
}

fn pick<'a>(random: &mut Rng, choices: &[&'a str]) -> &'a str {
    choices[random.usize(..choices.len())]
}

/// A multiple of every message size, and eight times the window.
pub const UNITS: usize = 1 << 18;
const PICTURE_WIDTH: usize = 512;
const SYMBOLS: [&str; 12] = [
    "ADS", "AIR", "ALV", "BAS", "BAYN", "BMW", "DTE", "ENR", "MRK", "RWE", "SAP", "SIE",
];
const WORDS: [&str; 40] = [
    "wind", "regen", "über", "straße", "haus", "licht", "grün", "morgen", "abend", "fluss", "berg",
    "brücke", "zug", "hafen", "schiff", "möwe", "salz", "brot", "käse", "apfel", "garten", "tür",
    "fenster", "uhr", "stunde", "woche", "jahr", "winter", "sommer", "stern", "wolke", "blatt",
    "wurzel", "stein", "sand", "feuer", "asche", "weg", "brief", "wort",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind fills its length, text is split between characters, and the sequence repeats.
    #[test]
    fn messages() {
        for kind in Kind::ALL {
            let data = Data::of(kind);
            for units in [16, 1 << 10, 1 << 17] {
                let period = Data::period(units);
                for index in [0, 1, period - 1] {
                    let message = data.message(index, units);
                    assert_eq!(message, data.message(index + period, units));
                    let length = match std::str::from_utf8(message) {
                        Ok(text) if !kind.is_binary() => text.chars().count(),
                        _ => message.len(),
                    };
                    assert_eq!(length, units, "{kind:?}");
                }
            }
        }
        let text = Data::of(Kind::Json);
        assert!(text.octets.len() > UNITS, "there are long characters");
    }

    /// The history is what the messages before put together end with.
    #[test]
    fn history() {
        let data = Data::of(Kind::Html);
        let all: Vec<u8> = (0..7)
            .flat_map(|k| data.message(k, 1 << 10).to_vec())
            .collect();
        assert_eq!(data.history(7, 1 << 10, 3_000), all[all.len() - 3_000..]);
        assert_eq!(data.history(1, 1 << 10, 1 << 15), data.message(0, 1 << 10));
    }
}
