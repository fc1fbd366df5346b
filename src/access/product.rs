//! Products: topics for which a client needs a licence.
//!
//! A topic that no product covers is governed by the granted patterns alone. A topic of a product needs the product's
//! grant as well, in the class that the product asks for this topic. If several products cover a topic, it needs all of
//! them.
//!
//! A pattern is treated like the topics that it selects: it is refused if it could select one topic that is not granted.
//! What is there to be selected at the moment does not matter, since a topic can begin at any time.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::hub::Pattern;
use crate::limits::{PRODUCT_NAME_BYTES_MAX, TOKEN_PRODUCTS_MAX};

/// How fresh the data of a product is that somebody may see. A higher class includes the lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// None of it.
    #[default]
    None,
    /// What is late enough.
    Delayed,
    /// All of it.
    RealTime,
}

impl<'de> Deserialize<'de> for Class {
    /// From its name, and nothing else that serde would take for one.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        let classes = [Self::None, Self::Delayed, Self::RealTime];
        let class = classes.into_iter().find(|class| class.as_str() == name);
        class.ok_or_else(|| D::Error::custom("a class is one of none, delayed, real-time"))
    }
}

impl Class {
    /// As tokens and logs write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Delayed => "delayed",
            Self::RealTime => "real-time",
        }
    }
}

/// How many connections of one user may show a product in real time at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sessions {
    /// As many as there are.
    #[default]
    Any,
    /// One. A newer one takes the place of the older one, which is closed.
    OneNewest,
    /// One. A newer one is refused while the older one is there.
    OneOldest,
}

/// One product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its name in tokens, messages and logs.
    pub name: Arc<str>,
    /// The topics that need the class real-time.
    pub topics: Vec<Pattern>,
    /// The topics for which the class delayed is enough.
    pub delayed_topics: Vec<Pattern>,
    /// How many connections of a user may show the topics in real time.
    pub sessions: Sessions,
}

impl Product {
    /// The class that everything needs which this pattern could select.
    #[must_use]
    pub fn needs(&self, pattern: &Pattern) -> Class {
        let is_among = |patterns: &[Pattern]| patterns.iter().any(|one| overlap(one, pattern));
        if is_among(&self.topics) {
            Class::RealTime
        } else if is_among(&self.delayed_topics) {
            Class::Delayed
        } else {
            Class::None
        }
    }

    /// How many patterns it has.
    #[must_use]
    pub fn patterns(&self) -> u64 {
        (self.topics.len() + self.delayed_topics.len()) as u64
    }

    /// What somebody can see of it who has this class and may subscribe to these patterns. That is less than the class if
    /// the product has no topics of the class, or if none of them may be subscribed to.
    #[must_use]
    pub fn visible(&self, class: Class, subscribe: &[Pattern]) -> Class {
        let is_within_reach = |topics: &[Pattern]| {
            let mut topics = topics.iter();
            topics.any(|topic| subscribe.iter().any(|granted| overlap(topic, granted)))
        };
        if class == Class::RealTime && is_within_reach(&self.topics) {
            Class::RealTime
        } else if class >= Class::Delayed && is_within_reach(&self.delayed_topics) {
            Class::Delayed
        } else {
            Class::None
        }
    }
}

/// All products of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Products(Vec<Product>);

impl Products {
    /// These.
    #[must_use]
    pub fn new(products: Vec<Product>) -> Self {
        Self(products)
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many patterns they have together: what a look at one pattern of a client costs.
    #[must_use]
    pub fn patterns(&self) -> u64 {
        self.iter().map(Product::patterns).sum()
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Product> {
        self.0.iter()
    }
}

/// The class that somebody has of each product. Of products that are not named it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProductGrants(Box<[(Box<str>, Class)]>);

impl ProductGrants {
    /// The class of a product, if it is named.
    #[must_use]
    pub fn class_of(&self, product: &str) -> Option<Class> {
        let found = self.0.iter().find(|(name, _)| **name == *product);
        found.map(|&(_, class)| class)
    }

    /// The products that are named.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// True if no product is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Box<str>, Class)> for ProductGrants {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Class)>>(grants: I) -> Self {
        let mut grants: Vec<_> = grants.into_iter().collect();
        // However they are written, equal grants are equal.
        grants.sort_unstable();
        Self(grants.into())
    }
}

impl<'de> Deserialize<'de> for ProductGrants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Named)
    }
}

/// Reads an object from product to class, in which no product is there twice.
struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = ProductGrants;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object from product to real-time, delayed or none")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ProductGrants, M::Error> {
        let mut grants: Vec<(Box<str>, Class)> = Vec::new();
        while let Some((name, class)) = map.next_entry::<Box<str>, Class>()? {
            if !(1..=PRODUCT_NAME_BYTES_MAX).contains(&name.len()) {
                return Err(M::Error::custom("a product has a name of 1 to 64 bytes"));
            }
            if grants.len() == TOKEN_PRODUCTS_MAX {
                return Err(M::Error::custom("there are more than 64 products"));
            }
            if grants.iter().any(|(other, _)| *other == name) {
                return Err(M::Error::custom("a product is there twice"));
            }
            grants.push((name, class));
        }
        Ok(grants.into_iter().collect())
    }
}

/// True if some topic is selected by both.
#[must_use]
pub fn overlap(one: &Pattern, other: &Pattern) -> bool {
    let (mut one, mut other) = (one.as_str().split('.'), other.as_str().split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            // A tail stands for one token or more.
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(one), Some(other)) if one == other || one == "*" || other == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    /// Every topic of up to five tokens over three letters, one of which is in no pattern.
    fn topics() -> Vec<String> {
        let mut all = Vec::new();
        let mut longest = vec![String::new()];
        for _ in 0..5 {
            let longer = longest.iter().flat_map(|front| {
                ["a", "b", "z"].map(|token| format!("{front}.{token}").trim_matches('.').to_owned())
            });
            longest = longer.collect();
            all.extend(longest.iter().cloned());
        }
        all
    }

    /// Somebody sees of a product what has the class that they have, if they may subscribe to some of it: real-time includes
    /// delayed, and nobody sees a class of which there are no topics.
    #[test]
    fn nobody_sees_what_is_out_of_reach() {
        let product = |topics: &[&str], delayed_topics: &[&str]| Product {
            name: "p".into(),
            topics: topics.iter().map(|text| pattern(text)).collect(),
            delayed_topics: delayed_topics.iter().map(|text| pattern(text)).collect(),
            sessions: Sessions::Any,
        };
        let both = product(&["md.*"], &["late.*"]);
        for (product, class, subscribe, visible) in [
            (&both, Class::RealTime, ">", Class::RealTime),
            (&both, Class::RealTime, "md.a", Class::RealTime),
            (&both, Class::RealTime, "late.>", Class::Delayed),
            (&both, Class::RealTime, "news.*", Class::None),
            (&both, Class::Delayed, ">", Class::Delayed),
            (&both, Class::Delayed, "md.*", Class::None),
            (&both, Class::None, ">", Class::None),
            (&product(&["md.*"], &[]), Class::Delayed, ">", Class::None),
            (
                &product(&[], &["late.*"]),
                Class::RealTime,
                ">",
                Class::Delayed,
            ),
        ] {
            let seen = product.visible(class, &[pattern(subscribe)]);
            assert_eq!(seen, visible, "{class:?} {subscribe} of {product:?}");
        }
        assert_eq!(both.visible(Class::RealTime, &[]), Class::None);
    }

    fn any_pattern(random: &mut Rng) -> Pattern {
        let mut tokens: Vec<&str> = (0..random.usize(1..=4))
            .map(|_| ["a", "b", "*"][random.usize(..3)])
            .collect();
        if random.u8(..3) == 0 {
            tokens.pop();
            tokens.push(">");
        }
        pattern(&tokens.join("."))
    }

    /// Two patterns overlap exactly if there is a topic that both select: shown over all topics that are one token longer
    /// than any pattern here.
    #[test]
    fn overlap_agrees_with_trying_every_topic() {
        let topics = topics();
        let mut random = Rng::with_seed(12);
        let mut overlapping = 0;
        for _ in 0..3_000 {
            let (one, other) = (any_pattern(&mut random), any_pattern(&mut random));
            let expected = topics
                .iter()
                .any(|topic| one.matches(topic) && other.matches(topic));
            assert_eq!(overlap(&one, &other), expected, "{one} and {other}");
            assert_eq!(overlap(&other, &one), expected, "{other} and {one}");
            overlapping += u32::from(expected);
        }
        assert!(
            (300..2_700).contains(&overlapping),
            "both happen: {overlapping}"
        );
    }

    /// A pattern needs the highest class that one of its topics needs.
    #[test]
    fn patterns_need_what_their_topics_need() {
        let product = Product {
            name: "nasdaq".into(),
            topics: vec![pattern("md.us.*")],
            delayed_topics: vec![pattern("late.us.*")],
            sessions: Sessions::Any,
        };
        for (text, class) in [
            ("md.us.AAPL", Class::RealTime),
            ("md.*.AAPL", Class::RealTime),
            (">", Class::RealTime),
            ("late.us.AAPL", Class::Delayed),
            ("late.>", Class::Delayed),
            ("md.eu.SAP", Class::None),
            ("md.us", Class::None),
            ("md.us.AAPL.depth", Class::None),
        ] {
            assert_eq!(product.needs(&pattern(text)), class, "{text}");
        }
    }

    /// Grants are read strictly: whatever is not exactly a class is refused, and so is a product that is there twice.
    #[test]
    fn grants_are_read() {
        let read = |text: &str| serde_json::from_str::<ProductGrants>(text);
        let grants = read(r#"{"b":"delayed","a":"real-time","c":"none"}"#).expect("grants");
        assert_eq!(
            grants,
            read(r#"{"a":"real-time","c":"none","b":"delayed"}"#).unwrap()
        );
        assert_eq!(grants.class_of("a"), Some(Class::RealTime));
        assert_eq!(grants.class_of("b"), Some(Class::Delayed));
        assert_eq!(grants.class_of("c"), Some(Class::None));
        assert_eq!(grants.class_of("d"), None);
        let many: String = (0..=TOKEN_PRODUCTS_MAX)
            .map(|n| format!("\"p{n}\":\"none\","))
            .collect();
        for bad in [
            r#"{"a":"realtime"}"#,
            r#"{"a":true}"#,
            r#"{"a":null}"#,
            r#"{"a":"delayed","a":"real-time"}"#,
            r#"{"":"delayed"}"#,
            r#"["a"]"#,
            &format!("{{{}\"x\":\"none\"}}", many),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
