//! Code that loadgen and its conformance suite share. It knows nothing of scenarios, cases or results.
//!
//! | module | what it is for |
//! |---|---|
//! | [`error`] | what can end the program, and the exit status for it |
//! | [`calendar`] · [`quantity`] | moments and quantities in words |
//! | [`output`] · [`files`] | where text and results are written |
//! | [`secrets`] | addresses without passwords and tokens |
//! | [`addresses`] · [`url`] · [`headers`] | where to connect, and what the upgrade request adds |
//! | [`tls`] | which certificates TLS trusts, and why TLS failed |
//! | [`ports`] · [`shortage`] | resources that this machine lacks for more connections |
//! | [`interrupt`] | Ctrl-C |

#![forbid(unsafe_code)]

pub mod addresses;
pub mod calendar;
pub mod error;
pub mod files;
pub mod headers;
pub mod interrupt;
pub mod output;
pub mod ports;
pub mod quantity;
pub mod secrets;
pub mod shortage;
pub mod tls;
pub mod url;
