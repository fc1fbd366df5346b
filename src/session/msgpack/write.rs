//! Writes a JSON text as a MessagePack value.

use rmp::encode;

use super::super::json::text::{Items, lossy_string, member};
use super::{infallible, write_array, write_map, write_str, write_uint};

/// Appends the value of a JSON text. The text was checked when it was published: it is valid and nests no deeper than
/// [`JSON_DEPTH_MAX`](crate::limits::JSON_DEPTH_MAX), which limits this recursion.
pub(super) fn write_json(json: &[u8], out: &mut Vec<u8>) {
    let json = json.trim_ascii();
    match json.first() {
        Some(b'{') => {
            let members = Items::of_object(json).into_iter().flatten();
            write_map(members.clone().count() as u32, out);
            for (key, value) in members.filter_map(member) {
                write_str(&lossy_string(key), out);
                write_json(value, out);
            }
        }
        Some(b'[') => {
            let elements = Items::of_array(json).into_iter().flatten();
            write_array(elements.clone().count() as u32, out);
            elements.for_each(|element| write_json(element, out));
        }
        Some(b'"') => write_str(&lossy_string(json), out),
        Some(b't') => infallible(encode::write_bool(out, true)),
        Some(b'f') => infallible(encode::write_bool(out, false)),
        Some(b'-' | b'0'..=b'9') => write_number(json, out),
        _ => infallible(encode::write_nil(out)),
    }
}

fn write_number(json: &[u8], out: &mut Vec<u8>) {
    let digits = str::from_utf8(json).unwrap_or_default();
    if let Ok(value) = digits.parse() {
        write_uint(value, out);
    } else if let Ok(value) = digits.parse::<i64>()
        && value != 0
    {
        infallible(encode::write_sint(out, value));
    } else {
        // `-0` too, which as an integer would lose its sign.
        let value = digits.parse().unwrap_or(f64::NAN);
        infallible(encode::write_f64(out, value));
    }
}
