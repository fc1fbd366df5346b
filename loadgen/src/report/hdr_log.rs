//! HdrHistogram logs, format 1.3: one line per second and distribution, for existing plotters and log processors.
//!
//! The main latency has no tag, so that a tool without support for tags draws it: the corrected latency in an open
//! loop, otherwise the latency from the time of sending. The others are tagged [`TAG_UNCORRECTED`], [`TAG_SEND_LAG`],
//! [`TAG_SPREAD`], [`TAG_STALENESS`]. Values are nanoseconds; `Interval_Max` is in milliseconds, as in the logs of
//! HdrHistogram's own writer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, LogEntry, LogIteratorError,
};

use crate::measure::histogram::{Encoded, Latencies};
use crate::measure::interval::Counters;
use crate::summary::Summary;
use crate::summary::second::{Second, SecondCpu, SecondHistograms};

/// In an open loop, latency from the time of sending.
pub const TAG_UNCORRECTED: &str = "uncorrected";
/// How late loadgen itself was.
pub const TAG_SEND_LAG: &str = "send-lag";
/// From the first subscriber to the last.
pub const TAG_SPREAD: &str = "spread";
/// How long subscribers lacked what was due to be sent.
pub const TAG_STALENESS: &str = "staleness";

/// The log of `summary`.
pub fn encode(summary: &Summary) -> String {
    let mut out = String::new();
    let is_open_loop = summary.latency.corrected.is_some();
    let untagged = if is_open_loop { CORRECTED } else { AS_SENT };
    let base_s = summary.measured_from_unix_ns as f64 / 1e9;
    let load = &summary.load;
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "#[loadgen {}: {} {}]\n\
         #[Values in nanoseconds, Interval_Max in milliseconds]\n\
         {UNTAGGED}{untagged}]\n\
         #[Histogram log format version 1.3]\n\
         #[BaseTime: {base_s:.3} (seconds since epoch)]\n\
         #[StartTime: {base_s:.3} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        summary.environment.version,
        load.scenario,
        load.url.replace(char::is_control, "?"),
    );
    for second in &summary.seconds {
        let histograms = &second.hdr_v2;
        let mut line = |tag: &str, histogram: &Encoded| {
            let _ = writeln!(
                out,
                "{tag}{:.3},{:.3},{:.3},{}",
                second.at_ns as f64 / 1e9,
                second.length_ns as f64 / 1e9,
                histogram.decode().max_ns() as f64 / 1e6,
                histogram.as_str()
            );
        };
        line("", histograms.headline());
        let others = [
            (
                TAG_UNCORRECTED,
                is_open_loop.then_some(&histograms.uncorrected),
            ),
            (TAG_SEND_LAG, histograms.send_lag.as_ref()),
            (TAG_SPREAD, histograms.spread.as_ref()),
            (TAG_STALENESS, histograms.staleness.as_ref()),
        ];
        for (tag, histogram) in others {
            if let Some(histogram) = histogram {
                line(&format!("Tag={tag},"), histogram);
            }
        }
    }
    out
}

/// Reads a log, also from other tools, as far as it goes: latencies, and as many messages as there are samples.
///
/// # Errors
/// What is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Summary, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not an HdrHistogram log: not UTF-8")?;
    let mut log = Log::default();
    // The parser wants every line to end, and none to be empty.
    let lines = format!("{}\n", text.trim_end());
    for entry in IntervalLogIterator::new(lines.as_bytes()) {
        match entry {
            Ok(LogEntry::StartTime(time)) => log.start = Some(time),
            Ok(LogEntry::BaseTime(time)) => log.base = Some(time),
            Ok(LogEntry::Interval(interval)) => log.add(&interval)?,
            Err(LogIteratorError::ParseError { offset }) => {
                let line = lines[..offset].lines().count() + 1;
                return Err(format!("line {line} is none of an HdrHistogram log"));
            }
        }
    }
    log.summary(text.contains(&format!("{UNTAGGED}{CORRECTED}]")))
}

/// The intervals of a log, by their beginning.
#[derive(Default)]
struct Log {
    start: Option<Duration>,
    base: Option<Duration>,
    intervals: BTreeMap<Duration, Interval>,
    foreign_tags: BTreeSet<String>,
}

#[derive(Default)]
struct Interval {
    length: Duration,
    untagged: Option<Encoded>,
    uncorrected: Option<Encoded>,
    send_lag: Option<Encoded>,
    spread: Option<Encoded>,
    staleness: Option<Encoded>,
}

impl Log {
    fn add(&mut self, line: &IntervalLogHistogram<'_>) -> Result<(), String> {
        let place: fn(&mut Interval) -> &mut Option<Encoded> =
            match line.tag().map(|tag| tag.as_str()) {
                None => |interval| &mut interval.untagged,
                Some(TAG_UNCORRECTED) => |interval| &mut interval.uncorrected,
                Some(TAG_SEND_LAG) => |interval| &mut interval.send_lag,
                Some(TAG_SPREAD) => |interval| &mut interval.spread,
                Some(TAG_STALENESS) => |interval| &mut interval.staleness,
                Some(other) => {
                    self.foreign_tags.insert(other.to_owned());
                    return Ok(());
                }
            };
        let start = line.start_timestamp();
        let histogram = Encoded::try_from(line.encoded_histogram().to_owned())
            .map_err(|error| format!("the interval at {} s: {error}", start.as_secs_f64()))?;
        let interval = self.intervals.entry(start).or_default();
        interval.length = interval.length.max(line.duration());
        match place(interval) {
            Some(sum) => sum.add(&histogram),
            empty => *empty = Some(histogram),
        }
        Ok(())
    }

    /// When the times of the intervals begin. Without BaseTime they count from StartTime, unless
    /// they are wall clock times themselves (the rule of HdrHistogram's own reader: no more than a
    /// year before StartTime).
    fn origin(&self) -> Duration {
        match (self.base, self.start, self.intervals.keys().next()) {
            (Some(base), ..) => base,
            (None, Some(start), Some(first)) if *first + YEAR < start => start,
            _ => Duration::ZERO,
        }
    }

    fn summary(self, is_corrected: bool) -> Result<Summary, String> {
        let origin = self.origin();
        let Some((first, _)) = self.intervals.first_key_value() else {
            let tags: Vec<String> = self.foreign_tags.into_iter().collect();
            return Err(match tags.as_slice() {
                [] => "a log without a single interval".to_owned(),
                tags => format!(
                    "all its intervals are tagged, {}: not of loadgen",
                    tags.join(", ")
                ),
            });
        };
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let first = *first;
        let empty = Latencies::new().encode();
        let mut seconds = Vec::new();
        for (start, interval) in self.intervals {
            let untagged = interval.untagged.unwrap_or_else(|| empty.clone());
            let (corrected, uncorrected) = match (is_corrected, interval.uncorrected) {
                (true, uncorrected) => {
                    (Some(untagged), uncorrected.unwrap_or_else(|| empty.clone()))
                }
                (false, _) => (None, untagged),
            };
            let mut second = Second {
                at_ns: nanoseconds(start - first),
                length_ns: nanoseconds(interval.length),
                counts: Counters {
                    messages_received: uncorrected.decode().count(),
                    ..Counters::default()
                },
                p50_ns: 0,
                p99_ns: 0,
                max_ns: 0,
                cpu: SecondCpu::default(),
                hdr_v2: SecondHistograms {
                    corrected,
                    uncorrected,
                    send_lag: interval.send_lag,
                    spread: interval.spread,
                    staleness: interval.staleness,
                },
            };
            second.refresh();
            seconds.push(second);
        }
        Ok(Summary::of_log(nanoseconds(origin + first), seconds))
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Says what the lines without a tag are. This is our own addition; other readers take it for a comment.
const UNTAGGED: &str = "#[Untagged: ";
const CORRECTED: &str = "latency from the intended time of sending (corrected)";
const AS_SENT: &str = "latency from the time of sending";

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at_ns: u64, values_ns: &[u64]) -> Second {
        let mut latencies = Latencies::new();
        for value_ns in values_ns {
            latencies.record(*value_ns, 1);
        }
        let mut corrected = latencies.clone();
        corrected.record(9_000_000, 1);
        let mut second = Second {
            at_ns,
            length_ns: 1_000_000_000,
            counts: Counters {
                messages_received: latencies.count(),
                ..Counters::default()
            },
            p50_ns: 0,
            p99_ns: 0,
            max_ns: 0,
            cpu: SecondCpu::default(),
            hdr_v2: SecondHistograms {
                corrected: Some(corrected.encode()),
                uncorrected: latencies.encode(),
                send_lag: Some(latencies.encode()),
                spread: None,
                staleness: Some(corrected.encode()),
            },
        };
        second.refresh();
        second
    }

    fn summary() -> Summary {
        let seconds = vec![
            second(0, &[1_000, 2_000]),
            second(1_000_000_000, &[5_000_000; 3]),
        ];
        Summary::of_log(1_763_737_000_250_000_000, seconds)
    }

    /// hdrhistogram's own reader finds every line, with its tag, its time and its histogram.
    #[test]
    fn readable_by_the_crates_reader() {
        let text = encode(&summary());
        let entries: Vec<LogEntry> = IntervalLogIterator::new(text.as_bytes())
            .collect::<Result<_, _>>()
            .expect("a log");
        let start = Duration::from_millis(1_763_737_000_250);
        assert_eq!(
            entries[..2],
            [LogEntry::BaseTime(start), LogEntry::StartTime(start)]
        );
        let mut seen = Vec::new();
        for entry in &entries[2..] {
            let LogEntry::Interval(interval) = entry else {
                panic!("{entry:?}");
            };
            let histogram =
                Encoded::try_from(interval.encoded_histogram().to_owned()).expect("HDR V2");
            let max_ms = histogram.decode().max_ns() as f64 / 1e6;
            assert!((interval.max() - max_ms).abs() < 0.001, "{entry:?}");
            seen.push((
                interval.tag().map(|tag| tag.as_str()),
                interval.start_timestamp().as_secs(),
                histogram.decode().count(),
            ));
        }
        let expected = [
            (None, 0, 3),
            (Some(TAG_UNCORRECTED), 0, 2),
            (Some(TAG_SEND_LAG), 0, 2),
            (Some(TAG_STALENESS), 0, 3),
            (None, 1, 4),
            (Some(TAG_UNCORRECTED), 1, 3),
            (Some(TAG_SEND_LAG), 1, 3),
            (Some(TAG_STALENESS), 1, 4),
        ];
        assert_eq!(seen, expected);
    }

    /// A log that is written and read again has the same seconds at the same times.
    #[test]
    fn round_trip() {
        let (written, read) = (
            summary(),
            decode(encode(&summary()).as_bytes()).expect("a log"),
        );
        assert_eq!(read.seconds, written.seconds);
        assert_eq!(read.measured_from_unix_ns, written.measured_from_unix_ns);
    }

    /// A log of another tool is read: no header, wall clock times, no line feed at the end.
    #[test]
    fn foreign_logs() {
        let mut latencies = Latencies::new();
        latencies.record(1_234, 5);
        let encoded = latencies.encode();
        let text = format!(
            "#[Logged by something else]\n1763737000.500,1.000,0.001,{0}\r\n1763737001.500,0.500,0.001,{0}",
            encoded.as_str()
        );
        let read = decode(text.as_bytes()).expect("a log");
        assert_eq!(read.totals.messages_received, 10);
        assert_eq!(read.measured_from_unix_ns, 1_763_737_000_500_000_000);
        assert_eq!(read.measured_ns, 1_500_000_000);
        assert!(read.latency.corrected.is_none());
    }

    /// What is not a log is refused, with the line.
    #[test]
    fn not_a_log() {
        let complaint = |text: &str| decode(text.as_bytes()).expect_err("refused");
        assert!(complaint("#only a comment\n").contains("without a single interval"));
        assert!(complaint("0.0,1.0,1.0,HISTFAAAAAAAA\n").contains("0 s"));
        assert!(complaint("#fine\nTag=x\n").contains("line 2"));
        let tagged = format!(
            "Tag=GC,0.0,1.0,1.0,{}\n",
            Latencies::new().encode().as_str()
        );
        assert!(complaint(&tagged).contains("GC"));
    }
}
