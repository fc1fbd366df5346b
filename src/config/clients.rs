//! The settings that limit what each client, each address and each subject may do.

use super::ConfigError;
use super::effective::Effective;
use super::value::Value;
use crate::access::{ClientLimits, Rate, Traffic};

impl Effective {
    /// The limits on clients.
    ///
    /// # Errors
    /// A limit on addresses where these are not known.
    pub(super) fn clients(&self) -> Result<ClientLimits, ConfigError> {
        for flag in ADDRESS_LIMITS {
            if *self.value(flag) != Value::Off {
                self.check_addresses_are_known(flag)?;
            }
        }
        let rate = |flag| self.number_or_none(flag).map(Rate::of);
        let address_handshakes: Option<u64> = self.number_or_none("address-handshakes-per-second");
        Ok(ClientLimits {
            handshakes: rate("handshakes-per-second"),
            address_handshakes: address_handshakes.map(|per_second| Rate {
                per_second,
                burst: per_second.max(self.number("address-handshakes-burst")),
            }),
            address_connections_max: self.number_or_none("address-connections-max"),
            connection: Traffic {
                messages: rate("messages-per-second"),
                bytes: rate("bytes-per-second"),
            },
            address: Traffic {
                messages: rate("address-messages-per-second"),
                bytes: rate("address-bytes-per-second"),
            },
            subject_connections_max: self.number_or_none("subject-connections-max"),
        })
    }
}

/// The limits that need the addresses of clients.
const ADDRESS_LIMITS: [&str; 4] = [
    "address-connections-max",
    "address-handshakes-per-second",
    "address-messages-per-second",
    "address-bytes-per-second",
];

#[cfg(test)]
mod tests {
    use super::super::{Command, Flags, load};
    use super::*;
    use std::ffi::OsString;

    fn read(line: &str) -> Result<ClientLimits, String> {
        let words = format!("tickring serve {line}");
        let flags = Flags::parse(words.split_whitespace().map(OsString::from));
        let flags = flags.map_err(|error| error.to_string())?;
        let loaded = load(&flags, []).and_then(|effective| effective.clients());
        loaded.map_err(|error| error.to_string())
    }

    /// By default nobody is limited by an address, which many people may share.
    #[test]
    fn there_are_no_limits_by_default() {
        let limits = Effective::defaults(Command::Serve).clients().unwrap();
        assert_eq!(limits, ClientLimits::default());
        assert!(!limits.need_addresses() && !limits.limit_traffic());
    }

    /// Each setting arrives where it belongs.
    #[test]
    fn settings_arrive() {
        let limits = read(
            "--handshakes-per-second 1 --address-handshakes-per-second 2 --address-handshakes-burst 3 --address-connections-max 4 \
             --messages-per-second 5 --bytes-per-second 6KiB --address-messages-per-second 7 --address-bytes-per-second 8KiB \
             --subject-connections-max 9",
        );
        let expected = ClientLimits {
            handshakes: Some(Rate::of(1)),
            address_handshakes: Some(Rate {
                per_second: 2,
                burst: 3,
            }),
            address_connections_max: Some(4),
            connection: Traffic {
                messages: Some(Rate::of(5)),
                bytes: Some(Rate::of(6 << 10)),
            },
            address: Traffic {
                messages: Some(Rate::of(7)),
                bytes: Some(Rate::of(8 << 10)),
            },
            subject_connections_max: Some(9),
        };
        assert_eq!(limits, Ok(expected));
    }

    /// A limit that cannot be kept is refused.
    #[test]
    fn addresses_must_be_known() {
        for flag in ADDRESS_LIMITS {
            let error = read(&format!("--{flag} 1000000 --direct-descriptors")).expect_err(flag);
            assert!(
                error.contains("not known with direct descriptors"),
                "{error}"
            );
        }
        assert!(read("--messages-per-second 5 --direct-descriptors").is_ok());
    }
}
