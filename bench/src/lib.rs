//! What the baseline servers share: their two flags, and the listening socket's settings.
//!
//! Each baseline is one binary, one thread on one core, with the allocator that tickring uses and the
//! configuration its own project recommends. What differs between two of them is then the library or
//! the runtime, and nothing else. `bench/run` measures them side by side.

pub mod corked;

use std::net::{SocketAddr, TcpListener};
use std::process::exit;

/// The flags every baseline takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Address to listen on (`--listen ADDRESS:PORT`).
    pub listen: SocketAddr,
    /// Core to run on (`--core N`); without it the scheduler chooses.
    pub core: Option<usize>,
}

impl Arguments {
    /// Reads the command line; a mistake in it ends the process with status 2 and says which.
    #[must_use]
    pub fn parse() -> Self {
        Self::from_words(std::env::args().skip(1)).unwrap_or_else(|mistake| {
            eprintln!("{mistake}\nusage: --listen ADDRESS:PORT [--core N]");
            exit(2)
        })
    }

    fn from_words(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut listen, mut core) = (None, None);
        while let Some(flag) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| format!("{flag} needs a value"))?;
            let wrong = || format!("{flag} {value}: not valid");
            match flag.as_str() {
                "--listen" => listen = Some(value.parse().map_err(|_| wrong())?),
                "--core" => core = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(format!("{flag}: unknown flag")),
            }
        }
        Ok(Self {
            listen: listen.ok_or("--listen is missing")?,
            core,
        })
    }

    /// Pins this thread if asked to, binds the listening socket and says so on standard output; the
    /// harness waits for the port, not for the line.
    ///
    /// # Panics
    ///
    /// If the core does not exist or the address is taken: a baseline has nothing else to do then.
    #[must_use]
    pub fn pinned_listener(&self) -> TcpListener {
        if let Some(core) = self.core {
            tickring::sys::pin_to_core(core).unwrap_or_else(|error| panic!("core {core}: {error}"));
        }
        let listener = TcpListener::bind(self.listen)
            .unwrap_or_else(|error| panic!("{}: {error}", self.listen));
        println!("listening on {}", self.listen);
        listener
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::from_words(line.split_whitespace().map(str::to_owned))
    }

    /// Flags come in any order, and the core may be left out.
    #[test]
    fn flags_are_read() {
        let listen = "127.0.0.1:9001".parse().unwrap();
        assert_eq!(
            parse("--listen 127.0.0.1:9001"),
            Ok(Arguments { listen, core: None })
        );
        assert_eq!(
            parse("--core 1 --listen 127.0.0.1:9001"),
            Ok(Arguments {
                listen,
                core: Some(1)
            })
        );
    }

    /// A mistake names the flag it is in.
    #[test]
    fn mistakes_are_named() {
        for (line, named) in [
            ("", "--listen"),
            ("--listen", "--listen"),
            ("--listen x", "--listen x"),
            ("--cpu 1", "--cpu"),
        ] {
            let mistake = parse(line).unwrap_err();
            assert!(mistake.starts_with(named), "{line}: {mistake}");
        }
    }
}
