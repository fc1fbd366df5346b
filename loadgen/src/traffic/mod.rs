//! What is sent and to whom: payloads, topics and their popularity, publications over HTTP, and the expected answers.

pub mod expected;
pub mod interest;
pub mod payload;
pub mod post;
