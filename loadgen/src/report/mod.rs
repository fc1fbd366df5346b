//! Shows a result to people and writes it for programs.

pub mod hdr_log;
pub mod html;
pub mod input;
pub mod json;
pub mod live;
mod phases;
pub mod progress;
mod result_files;
pub mod table;

pub use self::result_files::{ResultFiles, check_writable, write};
