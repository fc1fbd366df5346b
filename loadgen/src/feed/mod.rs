//! Recorded feeds for `loadgen replay`: checked once before the run, and read again during it.
//!
//! Both times the file is streamed: a reader on its own thread stays a bounded number of publications ahead of the
//! publisher.

mod quotes;
mod read;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use loadgen_common::error::Error;
use loadgen_common::quantity;
pub use read::TimeUnit;
use read::{FeedReader, Line};

use crate::values::RATE_MAX;

/// A feed that has been checked, and how to play it.
#[derive(Debug, Clone)]
pub struct FeedPlan {
    path: PathBuf,
    unit: TimeUnit,
    /// Its topics, by their numbers.
    pub topics: Arc<[String]>,
    numbers: Arc<HashMap<String, u16>>,
    /// Publications in it.
    pub lines: u64,
    /// Bytes of all data.
    pub data_bytes: u64,
    /// Lines that are older than a line before them; they are played at the time of that line.
    pub out_of_order: u64,
    /// From the first publication to the last, as recorded.
    pub span_ns: u64,
    /// How many times as fast it is played.
    pub speed: f64,
    /// How often it is played.
    pub times: u64,
}

/// A publication to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its time since the beginning of the run.
    pub due_ns: u64,
    /// Number of its topic.
    pub topic: u16,
    /// Its content, a JSON value.
    pub data: Vec<u8>,
}

impl FeedPlan {
    /// Which feed, and how fast, for the headline of a report.
    pub fn described(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        let name = name.to_string_lossy();
        match self.speed {
            1.0 => format!("{name} at its own pace"),
            speed => format!("{name} at {speed} × its pace"),
        }
    }

    /// Checks the file at `path`.
    ///
    /// # Errors
    /// Names the first line that is wrong.
    pub fn scan(path: &Path, unit: TimeUnit, speed: f64, times: u64) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::Usage(format!("{}: {problem}", path.display()));
        let mut reader = FeedReader::open(path, unit)?;
        let (mut topics, mut numbers) = (Vec::new(), HashMap::new());
        let (mut lines, mut data_bytes, mut out_of_order) = (0, 0, 0);
        let mut times_ns: Option<(i128, i128)> = None;
        while let Some(line) = reader.next_line()? {
            lines += 1;
            data_bytes += line.data.len() as u64;
            let (first_ns, last_ns) = times_ns.get_or_insert((line.at_ns, line.at_ns));
            let _ = first_ns;
            out_of_order += u64::from(line.at_ns < *last_ns);
            *last_ns = line.at_ns.max(*last_ns);
            if !numbers.contains_key(&line.topic) {
                let number = u16::try_from(topics.len())
                    .map_err(|_| wrong(&format!("more than {} topics", 1 << 16)))?;
                numbers.insert(line.topic.clone(), number);
                topics.push(line.topic);
            }
        }
        let (first_ns, last_ns) = times_ns.ok_or_else(|| wrong("there is nothing in it"))?;
        let span_ns = u64::try_from(last_ns - first_ns)
            .ok()
            .filter(|span_ns| *span_ns <= SPAN_NS_MAX)
            .ok_or_else(|| {
                wrong("more than ten years from its first to its last time: wrong --ts-unit?")
            })?;
        let plan = Self {
            path: path.to_owned(),
            unit,
            topics: topics.into(),
            numbers: Arc::new(numbers),
            lines,
            data_bytes,
            out_of_order,
            span_ns,
            speed,
            times,
        };
        plan.check_period()?;
        Ok(plan)
    }

    /// To be repeated, a feed needs a period.
    fn check_period(&self) -> Result<(), Error> {
        let rate = self.lines as f64 * 1e9 / self.round_ns();
        let problem = match self.span_ns {
            _ if self.times == 1 => return Ok(()),
            0 => "all its lines have one time, so there is no period to --loop".to_owned(),
            _ if rate > RATE_MAX => format!(
                "--loop would publish {}/s, at most 20m are possible: wrong --ts-unit?",
                quantity::rate(rate)
            ),
            _ => return Ok(()),
        };
        Err(Error::Usage(format!("{}: {problem}", self.path.display())))
    }

    /// The period: from the first publication of one round to the first of the next, which is the span plus one mean
    /// gap.
    fn round_ns(&self) -> f64 {
        let gap_ns = self.span_ns as f64 / (self.lines - 1).max(1) as f64;
        (self.span_ns as f64 + gap_ns.max(1e3)) / self.speed
    }

    /// The length of the whole feed as it is played; at least [`DURATION_NS_MIN`].
    pub fn duration_ns(&self) -> u64 {
        self.whole_ns() as u64
    }

    /// Publications a second, on average.
    pub fn rate(&self) -> f64 {
        self.lines as f64 * self.times as f64 * 1e9 / self.whole_ns()
    }

    fn whole_ns(&self) -> f64 {
        (self.round_ns() * self.times as f64).max(DURATION_NS_MIN)
    }

    /// Starts reading.
    pub fn play(&self) -> Feed {
        let (sender, batches) = sync_channel(BATCHES_AHEAD);
        let plan = self.clone();
        let thread = std::thread::Builder::new().name("feed".to_owned());
        let sender_of_thread = sender.clone();
        let started = thread.spawn(move || {
            if let Err(error) = plan.read_all(&sender_of_thread) {
                // Nobody listens any more when the run is over.
                let _ = sender_of_thread.send(Err(error));
            }
        });
        if let Err(cause) = started {
            let what = "starting the thread that reads the feed".to_owned();
            // The channel is empty: this does not wait.
            let _ = sender.send(Err(Error::Local { what, cause }));
        }
        Feed {
            batches,
            ready: Vec::new().into_iter(),
            next: None,
            is_over: false,
        }
    }

    fn read_all(&self, sender: &SyncSender<Batch>) -> Result<(), Error> {
        let mut batch = Vec::with_capacity(BATCH_LINES);
        for time in 0..self.times {
            let begin_ns = time as f64 * self.round_ns();
            let mut reader = FeedReader::open(&self.path, self.unit)?;
            let mut times_ns: Option<(i128, i128)> = None;
            while let Some(line) = reader.next_line()? {
                let (first_ns, newest_ns) = times_ns.get_or_insert((line.at_ns, line.at_ns));
                *newest_ns = line.at_ns.max(*newest_ns);
                let offset_ns = (*newest_ns - *first_ns) as f64 / self.speed;
                batch.push(self.recorded(line, (begin_ns + offset_ns) as u64)?);
                if batch.len() == BATCH_LINES {
                    let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_LINES));
                    if sender.send(Ok(full)).is_err() {
                        return Ok(());
                    }
                }
            }
        }
        // As above.
        let _ = sender.send(Ok(batch));
        Ok(())
    }

    fn recorded(&self, line: Line, due_ns: u64) -> Result<Recorded, Error> {
        let topic = self.numbers.get(&line.topic).ok_or_else(|| {
            let path = self.path.display();
            Error::Usage(format!(
                "{path}: has changed since it was looked through: {}",
                line.topic
            ))
        })?;
        Ok(Recorded {
            due_ns,
            topic: *topic,
            data: line.data,
        })
    }
}

type Batch = Result<Vec<Recorded>, Error>;

/// A feed being played.
pub struct Feed {
    batches: Receiver<Batch>,
    ready: std::vec::IntoIter<Recorded>,
    next: Option<Recorded>,
    is_over: bool,
}

/// What a feed has next.
#[derive(Debug, PartialEq, Eq)]
pub enum Upcoming {
    /// A publication, due at this time after the beginning.
    Due(u64),
    /// The reader has not read it yet.
    Late,
    /// The feed is over.
    Over,
}

impl Feed {
    /// When the next publication is due.
    ///
    /// # Errors
    /// When the file has become unreadable.
    pub fn peek(&mut self) -> Result<Upcoming, Error> {
        if self.next.is_none() {
            self.next = self.ready.next();
        }
        while self.next.is_none() && !self.is_over {
            match self.batches.try_recv() {
                Ok(batch) => {
                    self.ready = batch?.into_iter();
                    self.next = self.ready.next();
                }
                Err(TryRecvError::Empty) => return Ok(Upcoming::Late),
                Err(TryRecvError::Disconnected) => self.is_over = true,
            }
        }
        Ok(self
            .next
            .as_ref()
            .map_or(Upcoming::Over, |next| Upcoming::Due(next.due_ns)))
    }

    /// Takes the publication that [`Self::peek`] returned.
    pub fn take(&mut self) -> Option<Recorded> {
        self.next.take()
    }
}

/// Publications handed over together.
const BATCH_LINES: usize = 256;
/// Read-ahead: some 16,000 publications.
const BATCHES_AHEAD: usize = 64;
/// A feed without extent is a burst; it needs some time in which it can be counted.
const DURATION_NS_MIN: f64 = 100e6;
/// Ten years.
const SPAN_NS_MAX: u64 = 10 * 366 * 86_400 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn file(name: &str, content: &[u8]) -> PathBuf {
        let name = format!("loadgen-feed-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).expect("the temporary directory can be written");
        path
    }

    fn played(plan: &FeedPlan) -> Vec<(u64, u16, String)> {
        let mut feed = plan.play();
        let mut all = Vec::new();
        loop {
            match feed.peek().expect("readable") {
                Upcoming::Due(due_ns) => {
                    let recorded = feed.take().expect("peeked");
                    assert_eq!(recorded.due_ns, due_ns);
                    let data = String::from_utf8(recorded.data).expect("text");
                    all.push((due_ns, recorded.topic, data));
                }
                Upcoming::Late => std::thread::yield_now(),
                Upcoming::Over => return all,
            }
        }
    }

    const LINES: &str = "{\"ts\":100,\"topic\":\"a\",\"data\":1}\n\n{\"ts\":300,\"topic\":\"b\",\"data\":{\"x\":2}}\n{\"ts\":200,\"topic\":\"a\",\"data\":\"z\"}\n";

    /// The same feed in every form, at a multiple of its pace, several times: due times follow the record, and a line
    /// that is out of order is not sent before the line before it.
    #[test]
    fn forms_and_paces() {
        let csv = b"data,ts,topic\n1,100,a\n\"{\"\"x\"\":2}\",300,b\nz,200,a\n";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(LINES.as_bytes()).expect("a Vec");
        let gzip = gzip.finish().expect("a Vec");
        let marked = [b"\xef\xbb\xbf", LINES.as_bytes()].concat();
        let marked_csv = [b"\xef\xbb\xbf", &csv[..]].concat();
        for (name, content) in [
            ("jsonl", LINES.as_bytes()),
            ("csv", csv),
            ("gz", &gzip),
            ("marked.jsonl", &marked),
            ("marked.csv", &marked_csv),
        ] {
            let path = file(name, content);
            let plan = FeedPlan::scan(&path, TimeUnit::Ms, 2.0, 2).expect(name);
            assert_eq!(
                (plan.lines, plan.out_of_order, plan.span_ns),
                (3, 1, 200_000_000),
                "{name}"
            );
            assert_eq!(&*plan.topics, ["a", "b"]);
            let ms = 1_000_000;
            let expected = [
                (0, 0, "1".to_owned()),
                (100 * ms, 1, "{\"x\":2}".to_owned()),
                (100 * ms, 0, "\"z\"".to_owned()),
                (150 * ms, 0, "1".to_owned()),
                (250 * ms, 1, "{\"x\":2}".to_owned()),
                (250 * ms, 0, "\"z\"".to_owned()),
            ];
            assert_eq!(played(&plan), expected, "{name}");
            assert_eq!(plan.duration_ns(), 300 * ms);
            let _ = std::fs::remove_file(path);
        }
    }

    /// A fault in a feed is reported with its line, before anything is sent.
    #[test]
    fn wrong_lines_are_named() {
        for (name, content, words) in [
            (
                "cut",
                "{\"ts\":1,\"topic\":\"a\",\"data\":1}\n{\"ts\":2,",
                ", line 2, column 8: ",
            ),
            (
                "time",
                "{\"ts\":\"noon\",\"topic\":\"a\",\"data\":1}\n",
                "line 1: ts \"noon\"",
            ),
            ("columns", "time,topic,data\n", "ts is missing"),
            (
                "fields",
                "ts,topic,data\n1,a,1\n1,a\n",
                ", line 3: 2 fields under 3 columns",
            ),
            (
                "unclosed",
                "ts,topic,data\n1,a,1\n2,a,\"oops\n3,a,3\n",
                ", line 3, column 5: this quote is never closed",
            ),
            (
                "closed elsewhere",
                "ts,topic,data\n1,a,\"oops\n2,a,\"fine\"\n",
                ", line 3, column 6: text after a closing quote",
            ),
            (
                "header",
                "ts,topic,\"data\n1,a,1\n",
                ", line 1, column 10: this quote is never closed",
            ),
            (
                "column",
                "{\"ts\":1,\"topic\":\"a\",\"data\":1}\n{\"ts\":1,\"topic\":a}\n",
                ", line 2, column 17: ",
            ),
            (
                "absurd",
                "{\"ts\":1,\"topic\":\"a\",\"data\":1}\n{\"ts\":1e300,\"topic\":\"a\",\"data\":1}\n",
                ", line 2: ts \"1e300\" lies beyond the year 9999",
            ),
            (
                "infinite",
                "ts,topic,data\ninf,a,1\n",
                ", line 2: ts \"inf\"",
            ),
            ("empty", "", "there is nothing in it"),
            ("bare", "ts,topic,data\n", "nothing in it"),
        ] {
            let path = file(name, content.as_bytes());
            let error = FeedPlan::scan(&path, TimeUnit::Auto, 1.0, 1)
                .expect_err(name)
                .to_string();
            assert!(error.contains(words), "{name}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            let _ = std::fs::remove_file(path);
        }
        let error =
            FeedPlan::scan(Path::new("/dev/null"), TimeUnit::Auto, 1.0, 1).expect_err("no file");
        assert!(error.to_string().contains("regular file"), "{error}");
    }

    /// A feed without extent is played at once, whatever its one time; it cannot be repeated.
    #[test]
    fn feeds_without_extent() {
        let line = |ts: i64| format!("{{\"ts\":{ts},\"topic\":\"a\",\"data\":1}}\n");
        for (name, content, span_ns) in [
            ("one", line(1_700_000_000_000), 0),
            ("same", line(5).repeat(100), 0),
            ("negative", line(-7).repeat(3), 0),
            ("short", (0..50).map(line).collect(), 49),
        ] {
            let path = file(name, content.as_bytes());
            let plan = FeedPlan::scan(&path, TimeUnit::Ns, 1.0, 1).expect(name);
            assert_eq!(plan.span_ns, span_ns, "{name}");
            assert_eq!(plan.duration_ns(), 100_000_000, "{name}");
            assert_eq!(plan.rate(), plan.lines as f64 * 10.0, "{name}");
            let played = played(&plan);
            assert_eq!(played.len(), content.lines().count(), "{name}");
            assert!(played.iter().all(|(due_ns, ..)| *due_ns <= span_ns));
            let error = FeedPlan::scan(&path, TimeUnit::Ns, 1.0, 2).expect_err(name);
            assert_eq!(error.exit_status(), loadgen_common::error::status::USAGE);
            let error = error.to_string();
            assert!(error.contains("--loop"), "{name}: {error}");
            let _ = std::fs::remove_file(path);
        }
    }

    /// A truncated compressed feed is reported with the line in which it ends, wherever that is.
    #[test]
    fn a_cut_is_told_by_its_line() {
        let data = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let json = |number| format!("{{\"ts\":1,\"topic\":\"a\",\"data\":{}}}\n", data(number));
        let csv = |number| format!("1,a,{}\n", data(number));
        let json: String = (0..LINES_CUT).map(json).collect();
        let csv: String = (1..LINES_CUT).map(csv).collect();
        for text in [json, format!("ts,topic,data\n{csv}")] {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(text.as_bytes()).expect("a Vec");
            let gzip = gzip.finish().expect("a Vec");
            let mut lines = Vec::new();
            for length in (GZIP_HEADER_BYTES..gzip.len()).rev().step_by(997) {
                let path = file("cut.gz", &gzip[..length]);
                let error = FeedPlan::scan(&path, TimeUnit::Auto, 1.0, 1).expect_err("cut off");
                let error = error.to_string();
                let place = error.strip_suffix(": the compressed file is cut off here");
                let line = place.and_then(|place| place.rsplit_once("cut.gz, line "));
                let (_, line) = line.unwrap_or_else(|| panic!("{length}: {error}"));
                lines.push(line.parse::<u64>().expect("a number"));
                let mut readable = String::new();
                // It ends in an error, as it should.
                let _ = flate2::read::GzDecoder::new(&gzip[..length]).read_to_string(&mut readable);
                let ends = readable.matches('\n').count() as u64;
                assert_eq!(lines.last(), Some(&(ends + 1)), "cut at {length}");
                let _ = std::fs::remove_file(path);
            }
            // All lines were there, but for the checksum behind them.
            assert_eq!(lines.first(), Some(&(LINES_CUT + 1)));
            assert!(lines.len() > 10, "{lines:?}");
        }
    }

    const LINES_CUT: u64 = 5_000;
    /// RFC 1952 §2.3.
    const GZIP_HEADER_BYTES: usize = 10;
}
