//! What is true of any bytes that a peer or a file may contain, one module for each part that reads them.
//!
//! Each `check` panics if its property does not hold. libFuzzer runs them on inputs that it makes up (`fuzz/run`), and
//! `tests/fuzz.rs` runs them on the recorded inputs in `fuzz/corpus` in every `cargo test`. Where another implementation
//! exists, it is asked too.

pub mod config;
pub mod deflate_offers;
pub mod frames;
pub mod handshake;
pub mod http_head;
pub mod inflate;
pub mod proxy_header;
pub mod session;
pub mod token;

/// Panics if the property does not hold for an input.
pub type Check = fn(&[u8]);

/// Every target, by the name of its binary and of its folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Check); 9] = [
    ("config", config::check),
    ("deflate_offers", deflate_offers::check),
    ("frames", frames::check),
    ("handshake", handshake::check),
    ("http_head", http_head::check),
    ("inflate", inflate::check),
    ("proxy_header", proxy_header::check),
    ("session", session::check),
    ("token", token::check),
];

/// A peer that has said all it will ever say, as a stream for other implementations.
pub struct Script<'a> {
    /// What is left to read.
    pub input: &'a [u8],
    /// What was written.
    pub output: Vec<u8>,
}

impl<'a> Script<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            output: Vec::new(),
        }
    }
}

impl std::io::Read for Script<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.input.read(out)
    }
}

impl std::io::Write for Script<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
