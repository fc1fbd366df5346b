//! The plain dialect: the whole message is the data, and the server sends it to all others.

use crate::dialect::stamp::Stamp;
use crate::scenario::payload::Filler;

/// Appends one message of `size` bytes.
pub fn write_message(stamp: &Stamp, size: usize, filler: &Filler, out: &mut Vec<u8>) {
    let start = out.len();
    stamp.write(out);
    let padding = size.saturating_sub(out.len() - start);
    filler.write(padding, out);
}
