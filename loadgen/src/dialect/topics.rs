//! The names of topics.

use std::sync::Arc;

/// The topics of a run: those of a recorded feed below `PREFIX.`; or `PREFIX.00`, `PREFIX.01`, …, all of the same
/// length, so that all messages have the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicNames {
    /// The names below the prefix, if they are not numbers.
    listed: Option<Arc<[String]>>,
    prefix: String,
    separator: char,
    count: u32,
    digits: usize,
}

impl TopicNames {
    /// `count` topics under `prefix`, which must be words joined by `separator`.
    pub fn new(prefix: &str, separator: char, count: u32) -> Result<Self, String> {
        let is_word = |token: &str| !token.is_empty() && unfit_character(token).is_none();
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.split(separator).all(is_word) {
            return Err(format!(
                "must be words with {separator} between, without spaces, quotes, backslashes and the signs \
                 * > # +, at most {PREFIX_BYTES_MAX} bytes"
            ));
        }
        let digits = count.saturating_sub(1).to_string().len();
        Ok(Self {
            listed: None,
            prefix: prefix.to_owned(),
            separator,
            count,
            digits,
        })
    }

    /// The same prefix with these names below it.
    pub fn with_names(mut self, names: Arc<[String]>) -> Self {
        self.count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        self.listed = Some(names);
        self
    }

    /// How many.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Appends the name of topic `index`.
    pub fn write_name(&self, index: u16, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let (separator, digits) = (self.separator, self.digits);
        match &self.listed {
            Some(names) => write!(
                out,
                "{}{separator}{}",
                self.prefix,
                names[usize::from(index)]
            ),
            None => write!(out, "{}{separator}{index:0digits$}", self.prefix),
        }
        .expect("writing to a Vec does not fail");
    }

    /// The name of topic `index`.
    pub fn name(&self, index: u16) -> String {
        let mut name = Vec::with_capacity(self.name_bytes());
        self.write_name(index, &mut name);
        String::from_utf8(name).expect("topic names are text")
    }

    /// Bytes of each name.
    pub const fn name_bytes(&self) -> usize {
        self.prefix.len() + 1 + self.digits
    }

    /// Everything below the prefix, where `any` is the server's wildcard.
    pub fn wildcard(&self, any: &str) -> String {
        format!("{}{}{any}", self.prefix, self.separator)
    }

    /// The numbers of all topics.
    pub fn all(&self) -> impl Iterator<Item = u16> + use<> {
        // Stamps have sixteen bits for it; the command line was checked.
        (0..self.count).map(|index| index as u16)
    }
}

/// The first character of `name` that some dialect does not allow in a topic: separators, wildcards, and characters
/// that JSON would escape. All other characters of any script are allowed.
pub fn unfit_character(name: &str) -> Option<char> {
    let is_unfit = |c: &char| c.is_whitespace() || c.is_control() || "*>#+\"\\".contains(*c);
    name.chars().find(is_unfit)
}

/// tickring's topics may have 255 bytes in all; NATS' subjects and MQTT's topics may be longer.
const PREFIX_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    /// Names may be of any script and contain what markets use; names that some dialect cannot carry are refused.
    #[test]
    fn names_of_markets() {
        for prefix in [
            "lg",
            "md.Zürich",
            "^GSPC",
            "EUR/USD",
            "BRK%2EB",
            "📈",
            "a-b_c",
        ] {
            let names = TopicNames::new(prefix, '.', 11).expect(prefix);
            assert_eq!(names.name(3), format!("{prefix}.03"));
            assert_eq!(names.name(3).len(), names.name_bytes());
        }
        for prefix in [
            "", "a b", "a..b", ".a", "a*", "a\"", "a\\", "a\u{a0}b", "a\n", "C#",
        ] {
            assert!(TopicNames::new(prefix, '.', 1).is_err(), "{prefix}");
        }
        assert!(TopicNames::new(&"ü".repeat(101), '.', 1).is_err());
    }
}
