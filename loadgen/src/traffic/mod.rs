//! What is sent and to whom: payloads, topics and their popularity, publications by HTTP, and what must come back.

pub mod expected;
pub mod interest;
pub mod payload;
pub mod post;
