//! The keys of a feed of kind `replay`.

use super::super::ConfigError;
use super::super::value::Kind;
use super::reader::Reader;
use crate::limits::{REPLAY_SPEED_CEILING, REPLAY_SPEED_MILLI_FLOOR};
use crate::mapping::Records;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// A file of publications as a feed.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayFeed {
    /// The file.
    pub file: PathBuf,
    /// How fast it is played.
    pub speed: Speed,
    /// Play it once; otherwise it begins again at its end.
    pub is_once: bool,
}

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As a multiple of the recorded pace.
    Times(f64),
    /// As fast as the server takes it.
    Max,
}

impl Speed {
    /// Parses a speed.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that names it.
    pub(in super::super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let is_decimal = |byte: u8| byte.is_ascii_digit() || byte == b'.' || byte == b'-';
        let times: Option<f64> = text
            .bytes()
            .all(is_decimal)
            .then(|| text.parse().ok())
            .flatten();
        let times = times.ok_or("neither a number nor max")?;
        match times >= Self::FLOOR && times <= f64::from(REPLAY_SPEED_CEILING) {
            true => Ok(Self::Times(times)),
            false => Err("out of range"),
        }
    }

    /// The lowest speed.
    pub(in super::super) const FLOOR: f64 = REPLAY_SPEED_MILLI_FLOOR as f64 / 1e3;
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<ReplayFeed, ConfigError> {
    let file = PathBuf::from(reader.required_text("file", FILE)?);
    check_file(&file).map_err(|problem| reader.bad("file", &problem, FILE))?;
    let speed = match reader.take("speed") {
        None => {
            reader.show_default("speed", "1");
            Speed::Times(1.0)
        }
        Some(value) => {
            let kind = Kind::Speed;
            let read = kind.read_toml(value);
            read.map_err(|problem| reader.bad("speed", &problem, &kind.remedy()))?
                .speed()
        }
    };
    let is_once = reader.switch("once")?;
    Ok(ReplayFeed {
        file,
        speed,
        is_once,
    })
}

/// Looks at the first record of a file, so that a file of another kind is refused at the start.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that names it.
pub(in super::super) fn check_file(path: &Path) -> Result<(), String> {
    let unreadable = |error| format!("cannot be read: {error}");
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err("not a file".to_owned());
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut records = Records::new(BufReader::new(file));
    match records.read().map_err(unreadable)? {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(format!("line {} {error}", records.line())),
        None => Err("a file without a record".to_owned()),
    }
}

/// What to do about a wrong file.
pub(in super::super) const FILE: &str = "give the path of a file that tickring record has written";

#[cfg(test)]
mod tests {
    use super::*;

    /// Any multiple in range, or as fast as possible; nothing that only looks like a number.
    #[test]
    fn speeds_are_numbers_or_max() {
        for (text, expected) in [
            ("max", Ok(Speed::Max)),
            ("1", Ok(Speed::Times(1.0))),
            ("0.5", Ok(Speed::Times(0.5))),
            ("0.001", Ok(Speed::Times(0.001))),
            ("1000000", Ok(Speed::Times(1e6))),
            ("0", Err("out of range")),
            ("-1", Err("out of range")),
            ("1000001", Err("out of range")),
            ("nan", Err("neither a number nor max")),
            ("inf", Err("neither a number nor max")),
            ("1e3", Err("neither a number nor max")),
            ("", Err("neither a number nor max")),
            ("1.2.3", Err("neither a number nor max")),
        ] {
            assert_eq!(Speed::parse(text), expected, "{text}");
        }
    }
}
