//! A case: a number, a title, an expectation, the clause that it tests, and a function that holds the conversation and
//! judges it.

use std::fmt;
use std::str::FromStr;

use super::session::Session;
use super::verdict::Verdict;

/// One test of an implementation.
pub struct Case {
    /// The number it is known by, the original's for groups 1 to 13.
    pub number: Number,
    /// What the case does, in one line.
    pub title: String,
    /// What a conforming peer does.
    pub expectation: String,
    /// The clause that the expectation is based on, as in `RFC 6455 §5.4`.
    pub clause: &'static str,
    /// How much load it causes.
    pub weight: Weight,
    /// Who can be tested with it.
    pub subjects: Subjects,
    /// Holds the conversation.
    pub run: Run,
}

/// The function of a case: opens what it needs through the session, and returns a verdict.
pub type Run = Box<dyn Fn(&mut Session) -> Verdict + Send + Sync>;

impl Case {
    /// A light case for both servers and clients.
    pub fn new(
        number: impl Into<Number>,
        clause: &'static str,
        title: impl Into<String>,
        expectation: impl Into<String>,
        run: impl Fn(&mut Session) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self {
            number: number.into(),
            title: title.into(),
            expectation: expectation.into(),
            clause,
            weight: Weight::Light,
            subjects: Subjects::Both,
            run: Box::new(run),
        }
    }

    /// The same case with this weight.
    #[must_use]
    pub fn weighing(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    /// The same case, for servers only: it connects by itself, or breaks off the opening handshake.
    #[must_use]
    pub fn servers_only(self) -> Self {
        Self {
            subjects: Subjects::Servers,
            ..self
        }
    }
}

/// How much load a case causes, which decides what may run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Almost none; it may have to wait, so many run at a time.
    Light,
    /// Megabytes or thousands of messages: as many at a time as there are cores.
    Heavy,
    /// So much for the subject that nothing else can be judged meanwhile: runs alone, at the end.
    Alone,
}

/// Who can be tested with a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subjects {
    /// Servers and clients: it needs only an open connection.
    Both,
    /// Servers only.
    Servers,
}

/// A case's number, as in `6.4.1`; in numerical order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(Vec<u16>);

impl Number {
    /// The group: the part before the first dot.
    pub fn group(&self) -> u16 {
        self.0[0]
    }

    /// Group and subgroup if there are three parts, as in `6.4` of `6.4.1`; otherwise only the group.
    #[cfg(test)]
    pub fn subgroup(&self) -> String {
        let parts = if self.0.len() > 2 { 2 } else { 1 };
        join(&self.0[..parts])
    }

    /// Whether `pattern` matches this case: its own number, or a prefix followed by `.*`, or `*`.
    pub fn matches(&self, pattern: &str) -> bool {
        match pattern.strip_suffix('*') {
            None => self.to_string() == pattern,
            Some("") => true,
            Some(beginning) => {
                let beginning = beginning.strip_suffix('.').unwrap_or(beginning);
                let own = self.to_string();
                own == beginning
                    || own
                        .strip_prefix(beginning)
                        .is_some_and(|rest| rest.starts_with('.'))
            }
        }
    }
}

fn join(parts: &[u16]) -> String {
    let parts: Vec<String> = parts.iter().map(u16::to_string).collect();
    parts.join(".")
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&join(&self.0))
    }
}

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split('.')
            .map(str::parse)
            .collect::<Result<Vec<u16>, _>>()
            .map(Self)
            .map_err(|_| format!("{text:?} is not a case number, as in 6.4.1"))
    }
}

impl<const N: usize> From<[u16; N]> for Number {
    fn from(parts: [u16; N]) -> Self {
        const { assert!(N > 0, "a number has at least a group") };
        Self(parts.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pattern matches the case itself or a whole subtree, never a number that merely begins with the same digits.
    #[test]
    fn patterns() {
        let number = Number::from([12, 1, 10]);
        for pattern in ["12.1.10", "12.1.*", "12.*", "*"] {
            assert!(number.matches(pattern), "{pattern}");
        }
        for pattern in ["12.1.1", "1.*", "12.1", "12", "2.1.*", "12.1.1.*"] {
            assert!(!number.matches(pattern), "{pattern}");
        }
    }

    /// Cases are listed in the order of their numbers, not of their spelling.
    #[test]
    fn order() {
        let parse = |text: &str| text.parse::<Number>().expect("a number");
        assert!(parse("2.9") < parse("2.10") && parse("9.8.6") < parse("10.1.1"));
        assert!("1..2".parse::<Number>().is_err() && "a".parse::<Number>().is_err());
        assert!("".parse::<Number>().is_err());
    }
}
