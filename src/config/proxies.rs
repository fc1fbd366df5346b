//! The settings of proxies in front of the server.

use super::ConfigError;
use super::effective::Effective;
use crate::access::{ForwardedHeader, Networks, Proxies};

impl Effective {
    /// Which proxies are believed.
    ///
    /// # Errors
    /// A setting that cannot be together with another one.
    pub(super) fn proxies(&self) -> Result<Proxies, ConfigError> {
        for flag in ["proxy-protocol-from", "forwarded-from"] {
            if !self.list(flag).is_empty() {
                self.check_addresses_are_known(flag)?;
            }
        }
        Ok(Proxies {
            protocol_from: self.networks("proxy-protocol-from"),
            forwarded_from: self.networks("forwarded-from"),
            header: match self.word("forwarded-header") {
                "forwarded" => ForwardedHeader::Forwarded,
                _ => ForwardedHeader::XForwardedFor,
            },
        })
    }

    /// The kernel does not say the peer's address of a socket that belongs to the ring.
    ///
    /// # Errors
    /// If they do, and `flag` needs that address.
    pub(super) fn check_addresses_are_known(&self, flag: &str) -> Result<(), ConfigError> {
        if !self.switch("direct-descriptors") {
            return Ok(());
        }
        let problem = "the addresses of clients are not known with direct descriptors";
        let remedy = "leave one of the two out";
        Err(self.conflict("direct-descriptors", flag, problem, remedy))
    }

    fn networks(&self, flag: &str) -> Networks {
        let parse = |text: &String| text.parse().expect("it was checked when it was read");
        Networks::new(self.list(flag).iter().map(parse).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Flags, load};
    use super::*;
    use std::ffi::OsString;

    fn read(line: &str) -> Result<Proxies, String> {
        let words = format!("tickring serve {line}");
        let flags = Flags::parse(words.split_whitespace().map(OsString::from));
        let flags = flags.map_err(|error| error.to_string())?;
        let loaded = load(&flags, []).and_then(|effective| effective.proxies());
        loaded.map_err(|error| error.to_string())
    }

    /// Nobody is believed unless the operator says so.
    #[test]
    fn nobody_is_believed_by_default() {
        let proxies = Effective::defaults(Command::Serve).proxies().unwrap();
        assert!(proxies.is_empty());
        assert!(!proxies.contains("127.0.0.1".parse().unwrap()));
    }

    /// Each setting arrives where it belongs.
    #[test]
    fn settings_arrive() {
        let line = "--proxy-protocol-from 10.0.0.0/8,2001:db8::1 --forwarded-from 127.0.0.1 --forwarded-header forwarded";
        let proxies = read(line).unwrap();
        assert_eq!(proxies.header, ForwardedHeader::Forwarded);
        let is_in = |networks: &Networks, text: &str| networks.contains(text.parse().unwrap());
        assert!(is_in(&proxies.protocol_from, "10.1.2.3"));
        assert!(is_in(&proxies.protocol_from, "2001:db8::1"));
        assert!(!is_in(&proxies.protocol_from, "127.0.0.1"));
        assert!(is_in(&proxies.forwarded_from, "127.0.0.1"));
    }

    /// What is no network, and what cannot be together, is refused.
    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("--forwarded-from 10.0.0.1/8", "has bits beyond its prefix"),
            ("--proxy-protocol-from localhost", "is not a network"),
            (
                "--forwarded-from ::1 --direct-descriptors",
                "not known with direct descriptors",
            ),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(part), "{error}");
        }
    }
}
