//! The time of an update: a number in some unit, or a date and time of RFC 3339, as nanoseconds since the Unix epoch.

/// How an upstream writes a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Nanoseconds since the Unix epoch.
    Nanoseconds,
    /// Microseconds since the Unix epoch.
    Microseconds,
    /// Milliseconds since the Unix epoch.
    Milliseconds,
    /// Seconds since the Unix epoch.
    Seconds,
    /// A date and time such as `2026-11-30T16:00:00.25Z`.
    Rfc3339,
}

impl TimeUnit {
    /// The words for them in the configuration.
    pub const WORDS: [&'static str; 5] = ["ns", "us", "ms", "s", "rfc3339"];

    /// The unit for a word of the configuration.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "ns" => Self::Nanoseconds,
            "us" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "rfc3339" => Self::Rfc3339,
            _ => return None,
        })
    }

    /// Parses a time into nanoseconds since the Unix epoch; `None` if the text is not one. Finer parts than a
    /// nanosecond are cut off.
    pub(super) fn nanoseconds(self, text: &str) -> Option<u64> {
        match self {
            Self::Nanoseconds => decimal(text, 0),
            Self::Microseconds => decimal(text, 3),
            Self::Milliseconds => decimal(text, 6),
            Self::Seconds => decimal(text, 9),
            Self::Rfc3339 => rfc3339(text),
        }
    }
}

/// Parses digits, optionally with a fraction, and multiplies by ten to the power of `shift`.
fn decimal(text: &str, shift: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let mut value = digits(whole)?;
    digits(&fraction[..fraction.len().min(18)])?;
    let mut fraction = fraction.bytes();
    for _ in 0..shift {
        let digit = fraction.next().unwrap_or(b'0').checked_sub(b'0')?;
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// RFC 3339 section 5.6: a date, `T`, a time, perhaps a fraction, `Z` or an offset.
fn rfc3339(text: &str) -> Option<u64> {
    let field = |from: usize, to: usize| digits(text.get(from..to)?);
    let is_mark = |at: usize, marks: &[u8]| {
        text.as_bytes()
            .get(at)
            .is_some_and(|mark| marks.contains(mark))
    };
    let marks: [(usize, &[u8]); 5] = [(4, b"-"), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")];
    if !marks.iter().all(|&(at, marks)| is_mark(at, marks)) {
        return None;
    }
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let is_date =
        (1970..=2500).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit())?),
        None => ("0", rest),
    };
    let nanoseconds = decimal(&format!("0.{fraction}"), 9)?;
    let local = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = match zone.as_bytes() {
        b"Z" | b"z" => local,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (digits(&zone[1..3])?, digits(&zone[4..6])?);
            let offset = hours * 3_600 + minutes * 60;
            match sign {
                b'+' => local.checked_sub(offset)?,
                _ => local + offset,
            }
        }
        _ => return None,
    };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years begin in March here, so that the leap day is the last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    365 * year + leap_days + day_of_year - 719_468
}

fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every unit results in nanoseconds; a text that is not a time results in none.
    #[test]
    fn units_are_converted() {
        use TimeUnit::*;
        for (unit, text, expected) in [
            (
                Nanoseconds,
                "1700000000000000001",
                Some(1_700_000_000_000_000_001),
            ),
            (Nanoseconds, "5.9", Some(5)),
            (
                Microseconds,
                "1700000000000001",
                Some(1_700_000_000_000_001_000),
            ),
            (
                Milliseconds,
                "1700000000001",
                Some(1_700_000_000_001_000_000),
            ),
            (Milliseconds, "1.5", Some(1_500_000)),
            (Seconds, "1700000000", Some(1_700_000_000_000_000_000)),
            (
                Seconds,
                "1700000000.123456789123",
                Some(1_700_000_000_123_456_789),
            ),
            (Seconds, "18446744074", None),
            (Milliseconds, "-1", None),
            (Milliseconds, "1e3", None),
            (Milliseconds, "", None),
            (Milliseconds, ".5", None),
            (Milliseconds, "5.", None),
            (Milliseconds, "1.2.3", None),
            (Milliseconds, "1.-2", None),
            (Milliseconds, "now", None),
            (Rfc3339, "1970-01-01T00:00:00Z", Some(0)),
            (
                Rfc3339,
                "2000-02-29T23:59:59.5Z",
                Some(951_868_799_500_000_000),
            ),
            (
                Rfc3339,
                "2023-11-14T22:13:20.000000001Z",
                Some(1_700_000_000_000_000_001),
            ),
            (
                Rfc3339,
                "2023-11-15T00:13:20+02:00",
                Some(1_700_000_000_000_000_000),
            ),
            (
                Rfc3339,
                "2023-11-14 17:13:20-05:00",
                Some(1_700_000_000_000_000_000),
            ),
            (
                Rfc3339,
                "2024-03-01T00:00:00Z",
                Some(1_709_251_200_000_000_000),
            ),
            (Rfc3339, "2023-11-14T22:13:20", None),
            (Rfc3339, "2023-13-14T22:13:20Z", None),
            (Rfc3339, "2023-11-14T22:13:20.Z", None),
            (Rfc3339, "2023-11-14T22:13:20+2:00", None),
            (Rfc3339, "2023-11-14", None),
            (Rfc3339, "1970-01-01T00:00:00+01:00", None),
            (Rfc3339, "é023-11-14T22:13:20Z", None),
            (Rfc3339, "2023-11-14T22:13:20+0é0", None),
        ] {
            assert_eq!(unit.nanoseconds(text), expected, "{unit:?} {text:?}");
        }
    }
}
