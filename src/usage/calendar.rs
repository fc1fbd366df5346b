//! Times in UTC, as the log writes them: `2026-11-30T22:05:09Z`.

/// Days from 1970 to a day of the proleptic Gregorian calendar. Years are counted from March, so that a leap day is the
/// last day of its year.
const fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
    // 1 March of the year 0 to 1 January 1970.
    days - 719_468
}

/// The year, the month and the day that is so many days after 1 January 1970.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// A second since the Unix epoch as text.
pub(super) fn format_utc(s: u64) -> String {
    let (year, month, day) = civil_from_days(s / DAY_S);
    let (hour, minute, second) = (s / 3_600 % 24, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The second since the Unix epoch that a text of this form names.
pub(super) fn parse_utc(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let mut time = time.split(':').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let is_time = (1970..=9_999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let days = is_time.then(|| days_from_civil(year, month, day))?;
    let s = days * DAY_S + hour * 3_600 + minute * 60 + second;
    // Only one text names a second: not 31 February.
    (format_utc(s) == text).then_some(s)
}

/// A month in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    /// Its first second since the Unix epoch.
    pub start_s: u64,
    /// The first second of the next month.
    pub end_s: u64,
}

impl Month {
    /// The month that a text such as `2026-11` names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let start_s = parse_utc(&format!("{text}-01T00:00:00Z"))?;
        // The 32nd day after the first is in the next month.
        let (year, month, _) = civil_from_days(start_s / DAY_S + 31);
        let end_s = days_from_civil(year, month, 1) * DAY_S;
        Some(Self { start_s, end_s })
    }
}

const DAY_S: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    /// Known days, both ways, and every day of four centuries follows the one before.
    #[test]
    fn days_are_counted() {
        for (s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_790_000_000, "2026-09-21T14:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(format_utc(s), text);
            assert_eq!(parse_utc(text), Some(s));
        }
        for day in 0..150_000 {
            let (year, month, date) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, date), day);
        }
    }

    /// What is no time in this form is none.
    #[test]
    fn mistakes_are_none() {
        for text in [
            "",
            "2026-11-30",
            "2026-11-31T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-30T24:00:00Z",
            "2026-11-30T00:00:00",
            "2026-11-30T00:00:00+01:00",
            "2026-1-1T0:0:0Z",
        ] {
            assert_eq!(parse_utc(text), None, "{text}");
        }
        for text in ["", "2026", "2026-13", "2026-00", "26-11", "2026-11-01"] {
            assert_eq!(Month::parse(text), None, "{text}");
        }
    }

    /// A month ends where the next one begins.
    #[test]
    fn months_follow_each_other() {
        let month = |text| Month::parse(text).unwrap();
        assert_eq!(month("2026-11").end_s, month("2026-12").start_s);
        assert_eq!(month("2026-12").end_s, month("2027-01").start_s);
        assert_eq!(
            month("2028-02").end_s - month("2028-02").start_s,
            29 * DAY_S
        );
        assert_eq!(
            month("2027-02").end_s - month("2027-02").start_s,
            28 * DAY_S
        );
    }
}
