//! Writes times, rates, bytes and counts for people: short and unambiguous.

/// A time with three digits and its unit.
pub fn duration(ns: u64) -> String {
    let ns_f = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", three_digits(ns_f / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", three_digits(ns_f / 1e6)),
        _ => format!("{} s", three_digits(ns_f / 1e9)),
    }
}

/// A number a second, with separators, and decimals only when it is small.
pub fn rate(value: f64) -> String {
    if value < 100.0 {
        three_digits(value)
    } else {
        grouped(value.round() as u64)
    }
}

/// Bytes with a decimal unit.
pub fn bytes(value: f64) -> String {
    match value {
        _ if value < 1e3 => format!("{value:.0} B"),
        _ if value < 1e6 => format!("{} kB", three_digits(value / 1e3)),
        _ if value < 1e9 => format!("{} MB", three_digits(value / 1e6)),
        _ => format!("{} GB", three_digits(value / 1e9)),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A number with separators.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are short and never ambiguous.
    #[test]
    fn numbers() {
        let times = [0, 999, 1_000, 12_345, 999_499, 1_500_000, 61_000_000_000];
        let shown = [
            "0 ns", "999 ns", "1.00 µs", "12.3 µs", "999 µs", "1.50 ms", "61.0 s",
        ];
        assert_eq!(times.map(duration), shown);
        assert_eq!(
            [0, 7, 1_000, 1_234_567].map(grouped),
            ["0", "7", "1,000", "1,234,567"]
        );
        assert_eq!([0.5, 99.9, 1_234.4].map(rate), ["0.50", "99.9", "1,234"]);
        assert_eq!(
            [12.0, 2_500.0, 3.21e6, 1e9].map(bytes),
            ["12 B", "2.50 kB", "3.21 MB", "1.00 GB"]
        );
    }
}
