//! What a run leaves behind: a table on the terminal and, with `--out`, the files that the Autobahn
//! testsuite would leave (`index.json` and one JSON file per case) and a page with all of it.

pub mod html;
pub mod index;
pub mod table;
