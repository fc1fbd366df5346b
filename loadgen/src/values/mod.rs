//! Values that users write: each type has one parser, with the same rules on the command line and in files.

mod io_name;
mod start_at;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tickring_protocol::deflate::Offer;

pub use self::io_name::IoName;
pub use self::start_at::{StartAt, unix_ns};

/// A parsed `--cores` list; never empty. (A separate type, since clap treats a plain `Vec` as repetition.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

/// Parsed `--reconnect`: the pause after a loss, and the longest after failed attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// After a loss.
    pub first_ns: u64,
    /// Longest after failed attempts.
    pub longest_ns: u64,
}

/// Two times, as in `100ms-5s`, or one for both.
pub fn parse_pauses(text: &str) -> Result<Pauses, String> {
    let (first, longest) = text.split_once('-').unwrap_or((text, text));
    let (first_ns, longest_ns) = (parse_time_ns(first)?, parse_time_ns(longest)?);
    if first_ns > longest_ns {
        return Err(format!("{first} is longer than {longest}"));
    }
    Ok(Pauses {
        first_ns,
        longest_ns,
    })
}

/// Connections that read slowly on purpose (`--slow-readers`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowReaders {
    /// Their share of all connections; 0: none.
    pub fraction: f64,
    /// The most that each reads per second.
    pub bytes_per_second: u64,
}

impl SlowReaders {
    /// Whether connection `number` is one of them: they are spread evenly.
    pub fn includes(&self, number: usize) -> bool {
        let before = (number as f64 * self.fraction) as u64;
        ((number + 1) as f64 * self.fraction) as u64 > before
    }
}

/// A share and a rate.
pub fn parse_slow_readers(text: &str) -> Result<SlowReaders, String> {
    let form = || "not FRACTION@BYTES_PER_SECOND, as in 0.1@20k".to_owned();
    let (fraction, bytes) = text.split_once('@').ok_or_else(form)?;
    let fraction: f64 = fraction.trim().parse().map_err(|_| form())?;
    let bytes_per_second = parse_bytes(bytes)? as u64;
    if !(fraction > 0.0 && fraction <= 1.0) || bytes_per_second == 0 {
        return Err(form());
    }
    Ok(SlowReaders {
        fraction,
        bytes_per_second,
    })
}

/// Parsed `--source`; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(pub Vec<IpAddr>);

/// A list of addresses and ranges of them.
pub fn parse_sources(text: &str) -> Result<Sources, String> {
    let address = |text: &str| {
        text.trim()
            .parse::<IpAddr>()
            .map_err(|_| format!("{:?} is not an IP address", text.trim()))
    };
    let mut sources = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (address(from)?, address(to)?);
        let range = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (u32::from(from).into(), u32::from(to).into()),
            (IpAddr::V6(from), IpAddr::V6(to)) => (u128::from(from), u128::from(to)),
            _ => return Err(format!("{part:?} mixes two kinds of IP")),
        };
        if range.0 > range.1 || range.1 - range.0 >= SOURCES_MAX {
            return Err(format!(
                "{part:?} is not a range of at most {SOURCES_MAX} addresses"
            ));
        }
        sources.extend((range.0..=range.1).map(|number| match from {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::from(number as u32)),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::from(number)),
        }));
    }
    Ok(Sources(sources))
}

/// The parameters of an offer of permessage-deflate (RFC 7692 §7.1).
pub fn parse_offer(text: &str) -> Result<Offer, String> {
    let mut offer = Offer {
        client_max_window_bits: None,
        ..Offer::default()
    };
    let bits = |name: &str, value: &str| match value.trim().trim_matches('"').parse::<u8>() {
        Ok(bits @ 9..=15) => Ok(Some(bits)),
        _ => Err(format!("{name}={value}: windows have 9 to 15 bits here")),
    };
    let parameters = text
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty() && *part != "permessage-deflate");
    for parameter in parameters {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value)),
            None => (parameter, None),
        };
        match (name, value) {
            ("server_no_context_takeover", None) => offer.server_no_context_takeover = true,
            ("client_no_context_takeover", None) => offer.client_no_context_takeover = true,
            ("client_max_window_bits", None) => offer.client_max_window_bits = Some(15),
            ("client_max_window_bits", Some(value)) => {
                offer.client_max_window_bits = bits(name, value)?;
            }
            ("server_max_window_bits", Some(value)) => {
                offer.server_max_window_bits = bits(name, value)?;
            }
            _ => {
                return Err(format!(
                    "{parameter:?} is not server_no_context_takeover, client_no_context_takeover, \
                     server_max_window_bits=N or client_max_window_bits[=N]"
                ));
            }
        }
    }
    Ok(offer)
}

/// A count, with k or m for thousand and million.
pub fn parse_count(text: &str) -> Result<usize, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1_000_usize),
        Some(b'm') => (&lower[..lower.len() - 1], 1_000_000),
        _ => (lower.as_str(), 1),
    };
    let number: Option<usize> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "not a whole number, as in 500 or 10k".to_owned())
}

/// Bytes, with k or m for 1024 and 1024².
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower
        .strip_suffix("ib")
        .or_else(|| lower.strip_suffix('b'))
        .unwrap_or(&lower)
        .trim_end();
    let (digits, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1_usize << 10),
        Some(b'm') => (&lower[..lower.len() - 1], 1 << 20),
        _ => (lower, 1),
    };
    let number: usize = digits
        .trim_end()
        .parse()
        .map_err(|_| "not a number of bytes, as in 20, 16k or 1m".to_owned())?;
    number
        .checked_mul(unit)
        .filter(|bytes| *bytes <= MESSAGE_BYTES_MAX)
        .ok_or_else(|| format!("more than {MESSAGE_BYTES_MAX} bytes"))
}

/// A time in nanoseconds, as in `500ms` or `1h30m`; a bare number is seconds.
pub fn parse_time_ns(text: &str) -> Result<u64, String> {
    let form = || "not a time, as in 10s, 500ms or 1h30m".to_owned();
    let (mut rest, mut time_ns, mut last_unit_ns) = (text.trim(), 0.0, f64::INFINITY);
    loop {
        let unit_at = rest.find(char::is_alphabetic).unwrap_or(rest.len());
        let (number, after) = rest.split_at(unit_at);
        let unit_end = after.find(|c: char| !c.is_alphabetic());
        let (unit, after) = after.split_at(unit_end.unwrap_or(after.len()));
        let unit_ns = match unit {
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "" if last_unit_ns.is_infinite() => 1e9,
            "m" | "min" => 60e9,
            "h" => 3_600e9,
            "d" => 86_400e9,
            "" => return Err(form()),
            _ => return Err(format!("unknown unit {unit:?}; use us, ms, s, m, h or d")),
        };
        let number: f64 = number.trim().parse().map_err(|_| form())?;
        let part_ns = number * unit_ns;
        if !(0.0..=TIME_NS_MAX).contains(&part_ns) || time_ns + part_ns > TIME_NS_MAX {
            return Err("must lie between 0 and 24 h".to_owned());
        }
        // Larger units come first, each once.
        if unit_ns >= last_unit_ns {
            return Err(form());
        }
        time_ns += part_ns;
        last_unit_ns = unit_ns;
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(time_ns as u64);
        }
    }
}

/// A moment: seconds since the Unix epoch, or + and a time from now.
pub fn parse_start_at(text: &str) -> Result<StartAt, String> {
    if let Some(time) = text.trim().strip_prefix('+') {
        return parse_time_ns(time).map(StartAt::After);
    }
    match text.trim().parse::<f64>() {
        Ok(seconds) if (UNIX_S_MIN..UNIX_S_MAX).contains(&seconds) => {
            Ok(StartAt::UnixTime(seconds))
        }
        _ => Err("not a moment, as in 1767225600 (seconds since 1970) or +5s".to_owned()),
    }
}

/// A share, as 0.5 or 50%.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.trim().parse::<f64>(),
    };
    share
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "must be a share from 0 to 1, or from 0% to 100%".to_owned())
}

/// A number per second, with k or m for thousand and million.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1e3),
        Some(b'm') => (&lower[..lower.len() - 1], 1e6),
        _ => (lower.as_str(), 1.0),
    };
    match digits.parse::<f64>().map(|number| number * unit) {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        Ok(rate) if rate.is_finite() && rate > RATE_MAX => {
            Err("at most 20m a second: beyond that loadgen only measures itself".to_owned())
        }
        _ => Err("not a rate a second, as in 5000, 0.5 or 20k".to_owned()),
    }
}

/// A list of cores and ranges.
pub fn parse_cores(text: &str) -> Result<Cores, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .map_err(|_| format!("{part:?} is not a core or a range, as in 0,2-3"))
        };
        let (from, to) = (number(from)?, number(to)?);
        if from > to || to >= CORES_MAX {
            return Err(format!("{part:?} is not a range of cores"));
        }
        cores.extend(from..=to);
    }
    Ok(Cores(cores))
}

/// Nobody benchmarks with larger messages, and prebuilt frames stay in memory.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const TIME_NS_MAX: f64 = 24.0 * 3_600e9;
/// The largest rate of a run. One thread could not even record more messages as due.
pub const RATE_MAX: f64 = 2e7;
/// A moment before 2001 or after 2200 is a mistake (perhaps milliseconds).
const UNIX_S_MIN: f64 = 1e9;
const UNIX_S_MAX: f64 = 7.3e9;
/// The size of the kernel's largest CPU set.
const CORES_MAX: usize = 8_192;
/// All of 127.0.0.0/16, twice.
const SOURCES_MAX: u128 = 1 << 17;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes, times, rates and core lists in the forms that the help shows.
    #[test]
    fn values() {
        assert_eq!(parse_bytes("20"), Ok(20));
        assert_eq!(parse_bytes("16k"), Ok(16_384));
        assert_eq!(parse_bytes("16 KiB"), Ok(16_384));
        assert_eq!(parse_bytes("1m"), Ok(1_048_576));
        assert!(
            parse_bytes("").is_err() && parse_bytes("1g").is_err() && parse_bytes("-1").is_err()
        );
        assert_eq!(parse_time_ns("10"), Ok(10_000_000_000));
        assert_eq!(parse_time_ns("1.5s"), Ok(1_500_000_000));
        assert_eq!(parse_time_ns("250ms"), Ok(250_000_000));
        assert_eq!(parse_time_ns("2m"), Ok(120_000_000_000));
        assert_eq!(parse_time_ns("1us"), Ok(1_000));
        assert_eq!(parse_time_ns("2.5 µs"), Ok(2_500));
        assert_eq!(parse_time_ns("1d"), Ok(86_400_000_000_000));
        assert_eq!(parse_time_ns("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(parse_time_ns("1m 1s500ms"), Ok(61_500_000_000));
        for bad in [
            "", "5d", "-1s", "1h-30m", "1h30", "30m1h", "1s1s", "24h1us", "1q", "s", "inf", "1e3",
        ] {
            assert!(parse_time_ns(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_start_at("+5s"), Ok(StartAt::After(5_000_000_000)));
        assert_eq!(
            parse_start_at("1767225600.5"),
            Ok(StartAt::UnixTime(1_767_225_600.5))
        );
        assert!(
            ["", "+", "5", "1767225600000", "tomorrow"]
                .map(parse_start_at)
                .iter()
                .all(Result::is_err)
        );
        assert_eq!(parse_rate("20k"), Ok(20_000.0));
        assert_eq!(parse_rate("20m"), Ok(2e7));
        assert!(parse_rate("21m").is_err_and(|why| why.contains("at most 20m")));
        assert!(
            parse_rate("0").is_err() && parse_rate("nan").is_err() && parse_rate("inf").is_err()
        );
        assert_eq!(parse_cores("0,2-4"), Ok(Cores(vec![0, 2, 3, 4])));
        assert!(
            parse_cores("3-1").is_err() && parse_cores("").is_err() && parse_cores("1,").is_err()
        );
    }

    /// Offers and sources are accepted in the forms that the help shows; anything else is refused.
    #[test]
    fn offers_and_sources() {
        let offer = parse_offer("permessage-deflate; server_max_window_bits=10").expect("valid");
        assert_eq!(
            (offer.server_max_window_bits, offer.client_max_window_bits),
            (Some(10), None)
        );
        for bad in [
            "server_max_window_bits",
            "server_max_window_bits=8",
            "client_max_window_bits=16",
            "gzip",
            "server_no_context_takeover=1",
        ] {
            assert!(parse_offer(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_sources("::1").map(|sources| sources.0.len()), Ok(1));
        for bad in [
            "",
            "127.0.0.2-127.0.0.1",
            "host",
            "::1-127.0.0.1",
            "0.0.0.0-9.9.9.9",
        ] {
            assert!(parse_sources(bad).is_err(), "{bad}");
        }
    }

    /// Whatever the fraction, that share of all connections is slow.
    #[test]
    fn slow_readers() {
        for (text, of_a_thousand) in [("0.1@20k", 100), ("1@1", 1_000), ("0.333@5", 333)] {
            let slow = parse_slow_readers(text).expect("valid");
            let count = (0..1_000).filter(|number| slow.includes(*number)).count();
            assert_eq!(count, of_a_thousand, "{text}");
        }
        for bad in ["", "0.1", "0@1k", "2@1k", "0.1@0", "x@1k", "nan@1"] {
            assert!(parse_slow_readers(bad).is_err(), "{bad}");
        }
    }
}
