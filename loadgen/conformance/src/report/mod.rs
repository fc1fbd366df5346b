//! The output of a run: a table on the terminal and, with `--out`, the files that the Autobahn testsuite would write
//! (`index.json` and one JSON file per case) and a page with everything.

pub mod html;
pub mod index;
pub mod table;
