//! What has changed from one JSON object to the next, as a merge patch (RFC 7396).
//!
//! Values are compared and passed on as text: `1.0` and `1.00` are different, and no number loses a digit. Objects are
//! compared member by member, whatever their order; arrays only as a whole, as the RFC has it.

use std::borrow::Cow;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::json::{Items, member, string};

/// Appends the patch that makes `new` of `old`, both valid values. Returns false if there is none, and then what was
/// appended means nothing: one of them is no object or has a key twice, or `new` has a member that is `null`, which a
/// patch would remove.
pub(super) fn write_between(old: &[u8], new: &[u8], out: &mut Vec<u8>) -> bool {
    let (Some(old), Some(new)) = (Members::of(old), Members::of(new)) else {
        return false;
    };
    write_changes(&old, &new, out)
}

fn write_changes(old: &Members<'_>, new: &Members<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let begin = |key: &[u8], out: &mut Vec<u8>| {
        out.push(if out.len() == start { b'{' } else { b',' });
        out.extend_from_slice(key);
        out.push(b':');
    };
    for Member { name, key, value } in &new.members {
        let before = old.find(name).map(|member| member.value);
        if before == Some(*value) && value.first() != Some(&b'n') {
            continue;
        }
        if value.first() == Some(&b'{') {
            let Some(value) = Members::of(value) else {
                return false;
            };
            let nothing = Members::default();
            let before = before.and_then(Members::of);
            let from = out.len();
            begin(key, out);
            let inside = out.len();
            if !write_changes(before.as_ref().unwrap_or(&nothing), &value, out) {
                return false;
            }
            if before.is_some() && out[inside..] == *b"{}" {
                out.truncate(from);
            }
            continue;
        }
        if value.first() == Some(&b'n') {
            return false;
        }
        begin(key, out);
        out.extend_from_slice(value);
    }
    for Member { name, key, .. } in &old.members {
        if new.find(name).is_none() {
            begin(key, out);
            out.extend_from_slice(b"null");
        }
    }
    if out.len() == start {
        out.push(b'{');
    }
    out.push(b'}');
    true
}

/// The members of an object, in order and by name.
#[derive(Default)]
struct Members<'a> {
    members: Vec<Member<'a>>,
    by_name: HashMap<Cow<'a, str>, usize, RandomState>,
}

/// A member: its key as a text, and key and value as they are written.
struct Member<'a> {
    name: Cow<'a, str>,
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Members<'a> {
    /// None: it is no object, has a key twice, or one that is no text.
    fn of(value: &'a [u8]) -> Option<Self> {
        let mut all = Self::default();
        for item in Items::of_object(value)? {
            let (key, value) = member(item)?;
            let name = string(key)?;
            let index = all.members.len();
            if all.by_name.insert(name.clone(), index).is_some() {
                return None;
            }
            all.members.push(Member { name, key, value });
        }
        Some(all)
    }

    fn find(&self, name: &str) -> Option<&Member<'a>> {
        self.by_name.get(name).map(|&index| &self.members[index])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use fastrand::Rng;
    use serde_json::{Value, json};

    use super::*;

    /// The algorithm of RFC 7396 section 2.
    pub(in super::super) fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            return target.clone_from(patch);
        };
        if !target.is_object() {
            *target = json!({});
        }
        let target = target.as_object_mut().unwrap();
        for (name, value) in patch {
            match value {
                Value::Null => drop(target.remove(name)),
                value => merge(target.entry(name.clone()).or_insert(Value::Null), value),
            }
        }
    }

    fn between(old: &str, new: &str) -> Option<String> {
        let mut out = b"before".to_vec();
        let has_one = write_between(old.as_bytes(), new.as_bytes(), &mut out);
        has_one.then(|| String::from_utf8(out.split_off(6)).unwrap())
    }

    /// Only what differs is in a patch, digit for digit.
    #[test]
    fn patches_say_what_differs() {
        for (old, new, patch) in [
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#, r#"{"b":3}"#),
            (r#"{"a":1.0}"#, r#"{"a":1.00}"#, r#"{"a":1.00}"#),
            (r#"{"a":1,"b":2}"#, r#"{ "b" : 2 }"#, r#"{"a":null}"#),
            (
                r#"{"a":{"b":1,"c":2}}"#,
                r#"{"a":{"c":3,"b":1}}"#,
                r#"{"a":{"c":3}}"#,
            ),
            (r#"{"a":{"b":1}}"#, r#"{"a":{ "b": 1}}"#, "{}"),
            (
                r#"{"a":[1,null]}"#,
                r#"{"a":[1,{"b":null}]}"#,
                r#"{"a":[1,{"b":null}]}"#,
            ),
            (r#"{"a":1}"#, r#"{"a":{"b":{}}}"#, r#"{"a":{"b":{}}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{}}"#, r#"{"a":{"b":null}}"#),
            (r#"{"\u0061":1,"b":1}"#, r#"{"a":1}"#, r#"{"b":null}"#),
            ("{}", "{}", "{}"),
        ] {
            assert_eq!(between(old, new).as_deref(), Some(patch), "{old} {new}");
        }
    }

    /// What a merge patch cannot say has none.
    #[test]
    fn some_changes_have_no_patch() {
        for (old, new) in [
            ("1", "{}"),
            ("{}", "[]"),
            ("{}", r#"{"a":null}"#),
            (r#"{"a":null}"#, r#"{"a":null}"#),
            (r#"{"a":1}"#, r#"{"a":{"b":null}}"#),
            (r#"{"a":1,"a":2}"#, "{}"),
            ("{}", r#"{"a":1,"\u0061":2}"#),
            ("{}", r#"{"\ud800":1}"#),
        ] {
            assert_eq!(between(old, new), None, "{old} {new}");
        }
    }

    /// Whoever applies a patch has the new value.
    #[test]
    fn patches_lead_to_the_new_value() {
        let mut random = Rng::with_seed(7);
        let mut some = 0;
        for _ in 0..5_000 {
            let (old, new) = (object(&mut random, 3), object(&mut random, 3));
            let Some(patch) = between(&old.to_string(), &new.to_string()) else {
                continue;
            };
            some += 1;
            let mut result = old.clone();
            merge(&mut result, &serde_json::from_str(&patch).unwrap());
            assert_eq!(result, new, "{old} {patch}");
        }
        assert!(some > 1_000, "{some}");
    }

    fn object(random: &mut Rng, depth: u8) -> Value {
        let names = ["a", "b", "c\"", "d"];
        let names = names.into_iter().filter(|_| random.bool());
        let names: Vec<&str> = names.collect();
        let members = names
            .into_iter()
            .map(|name| (name.to_owned(), value(random, depth)));
        Value::Object(members.collect())
    }

    fn value(random: &mut Rng, depth: u8) -> Value {
        match random.u8(..if depth == 0 { 5 } else { 8 }) {
            0 if random.u8(..5) == 0 => Value::Null,
            0 | 1 => json!(random.u8(..3)),
            2 => json!("x"),
            3 => json!([1, null]),
            4 => json!(true),
            _ => object(random, depth - 1),
        }
    }
}
