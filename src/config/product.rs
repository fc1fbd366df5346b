//! Products, `[[product]]`: topics for which a client needs a licence, and the log of who could see them.

use super::ConfigError;
use super::access::AuthMode;
use super::effective::Effective;
use super::feed::reader::{Reader, Shown, is_name, read_tables};
use crate::access::{Product, Products, Sessions, overlap};
use crate::limits::{PRODUCT_NAME_BYTES_MAX, PRODUCT_PATTERNS_MAX, PRODUCTS_MAX};
use std::path::{Path, PathBuf};

/// The log of who could see products.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageConfig {
    /// The file.
    pub path: PathBuf,
    /// Seconds between two checkpoints.
    pub interval_s: u64,
}

/// A product, and how it is shown.
#[derive(Debug)]
pub(super) struct ProductEntry {
    pub(super) product: Product,
    pub(super) shown: Vec<Shown>,
}

impl Effective {
    /// All products.
    ///
    /// # Errors
    /// There are some, and nobody says who may see them.
    pub(super) fn products(&self, mode: AuthMode) -> Result<Products, ConfigError> {
        if mode == AuthMode::Off && !self.products.is_empty() {
            return Err(ConfigError::BadValue {
                place: self.place_of("auth"),
                problem: "there are products, and no token says who may see them".to_owned(),
                remedy: "give auth = \"required\" or \"optional\", or leave [[product]] out"
                    .to_owned(),
            });
        }
        let products = self.products.iter().map(|entry| entry.product.clone());
        Ok(Products::new(products.collect()))
    }

    /// The log of who could see products, if there is one.
    ///
    /// # Errors
    /// There is a log, and there are no products.
    pub(super) fn usage(&self) -> Result<Option<UsageConfig>, ConfigError> {
        let path = self.word("usage-log");
        if path.is_empty() {
            return Ok(None);
        }
        if self.products.is_empty() {
            return Err(ConfigError::BadValue {
                place: self.place_of("usage-log"),
                problem: "there are no products whose use could be logged".to_owned(),
                remedy: "add a [[product]] to the file, or leave usage_log out".to_owned(),
            });
        }
        Ok(Some(UsageConfig {
            path: path.into(),
            interval_s: self.number("usage-interval-s"),
        }))
    }
}

/// Reads all products of a file.
///
/// # Errors
/// The first one that cannot be used.
pub(super) fn read_products(
    path: &Path,
    value: &toml::Value,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<ProductEntry>, ConfigError> {
    let readers = read_tables(PRODUCT, PRODUCTS_MAX, path, value, environment)?;
    let mut entries: Vec<ProductEntry> = Vec::new();
    for mut reader in readers {
        let name = read_name(&mut reader, &entries)?;
        let topics = reader.patterns("topics")?;
        let delayed_topics = reader.patterns("delayed_topics")?;
        let remedy = "give patterns, such as topics = [\"md.us.>\"]";
        if topics.is_empty() && delayed_topics.is_empty() {
            return Err(reader.bad("topics", "the product has no topics", remedy));
        }
        if topics.len().max(delayed_topics.len()) > PRODUCT_PATTERNS_MAX {
            let problem = format!("more than {PRODUCT_PATTERNS_MAX} patterns");
            return Err(reader.bad("topics", &problem, remedy));
        }
        let is_in_both = |one| topics.iter().any(|other| overlap(one, other));
        if delayed_topics.iter().any(is_in_both) {
            return Err(reader.conflict(
                "topics",
                "delayed_topics",
                "a topic would need both classes",
                "give patterns that do not overlap",
            ));
        }
        let words = &["any", "one-newest", "one-oldest"];
        let sessions = match reader.word("sessions", words, "any")? {
            "one-newest" => Sessions::OneNewest,
            "one-oldest" => Sessions::OneOldest,
            _ => Sessions::Any,
        };
        entries.push(ProductEntry {
            product: Product {
                name: name.into(),
                topics,
                delayed_topics,
                sessions,
            },
            shown: reader.finish()?,
        });
    }
    Ok(entries)
}

fn read_name(reader: &mut Reader<'_>, others: &[ProductEntry]) -> Result<String, ConfigError> {
    let remedy = "give letters, digits, _, - and dots, such as name = \"nasdaq-l1\"";
    let name = reader.required_text("name", remedy)?;
    let problem = if !is_name(&name) {
        "not a name"
    } else if name.len() > PRODUCT_NAME_BYTES_MAX {
        "too long"
    } else if others.iter().any(|other| *other.product.name == *name) {
        "the name of another product"
    } else {
        reader.name = Some(name.clone());
        return Ok(name);
    };
    Err(reader.bad("name", problem, remedy))
}

/// The heading of a product in the file.
pub(super) const PRODUCT: &str = "product";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Class;
    use crate::hub::Pattern;

    fn read(text: &str) -> Result<Vec<ProductEntry>, String> {
        let table: toml::Table = text.parse().expect(text);
        let read = read_products(Path::new("t.toml"), &table["product"], &|_| None);
        read.map_err(|error| error.to_string())
    }

    /// A product is read as it is written, and shown so that it is read again.
    #[test]
    fn products_are_read() {
        let entries = read(
            r#"
            [[product]]
            name = "nasdaq-l1"
            topics = ["md.us.>"]
            delayed_topics = ["late.us.>"]
            sessions = "one-newest"
            [[product]]
            name = "cme"
            topics = ["md.cme.*"]
            "#,
        )
        .unwrap();
        let [nasdaq, cme] = [&entries[0].product, &entries[1].product];
        assert_eq!(nasdaq.sessions, Sessions::OneNewest);
        assert_eq!(cme.sessions, Sessions::Any);
        let needs = |text| nasdaq.needs(&Pattern::parse(text).unwrap());
        assert_eq!(needs("md.us.AAPL"), Class::RealTime);
        assert_eq!(needs("late.us.AAPL"), Class::Delayed);
        assert!(cme.delayed_topics.is_empty());
        let shown: Vec<_> = entries[1]
            .shown
            .iter()
            .map(|line| &*line.assignment)
            .collect();
        assert!(shown.contains(&r#"sessions = "any""#), "{shown:?}");
    }

    /// What is wrong with a product is said with its place.
    #[test]
    fn mistakes_are_refused() {
        for (product, said) in [
            ("topics = ['a']", "[[product]] 1: name: missing"),
            ("name = 'a b'\ntopics = ['a']", "not a name"),
            ("name = 'a'", r#"[[product]] "a": topics"#),
            ("name = 'a'\ntopics = ['a..b']", "empty token"),
            (
                "name = 'a'\ntopics = ['a.*']\ndelayed_topics = ['*.b']",
                "need both classes",
            ),
            (
                "name = 'a'\ntopics = ['a']\nsessions = 'one'",
                "not one of the choices",
            ),
            ("name = 'a'\ntopics = ['a']\nclass = 'x'", "class"),
            (
                "name = 'a'\ntopics = ['a']\n[[product]]\nname = 'a'\ntopics = ['b']",
                "the name of another product",
            ),
        ] {
            let refused = read(&format!("[[product]]\n{product}")).unwrap_err();
            assert!(refused.contains(said), "{product}: {refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
    }
}
