//! The usage log: who could see which product, and when. The server appends to it, and `tickring usage` counts from it.
//!
//! A line is a JSON object. An *interval* is the time during which a user holds a product in a class: from the first
//! connection that holds it to the end of the last one.
//!
//! ```text
//! begin       an interval has begun: user, product, class, professional, address, from
//! end         it has ended: the same, and to
//! checkpoint  all intervals of this instance that have begun and not ended are still open
//! ```
//!
//! - One line a checkpoint is enough for all intervals, however many there are. If the process is killed, what is open
//!   counts until its last checkpoint.
//! - A file is complete by itself: a new file begins with all open intervals. So files can be counted in any order, and
//!   old ones can be put away.
//! - A line that was cut off is skipped and counted: the server begins a new line before it appends to a file.
//!
//! Everything here is without files and clocks: lines and times are arguments.

mod calendar;
mod count;
mod intervals;
mod record;

pub use calendar::Month;
pub use count::{Counts, Reportable};
pub use intervals::Intervals;
