//! From when to when certificates are valid, and whether they name a host: what is said about it in the log and in the
//! metrics.

use std::path::{Path, PathBuf};

use tickring_tls::rustls::pki_types::CertificateDer;
use x509_parser::time::ASN1Time;

/// From when to when a certificate is valid, and whether clients can accept it at all.
#[derive(Clone, Debug)]
pub struct Validity {
    from: ASN1Time,
    until: ASN1Time,
    /// It has a name in `subjectAltName`.
    is_named: bool,
}

impl Validity {
    /// That of a certificate, if it can be read.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let validity = parsed.validity();
        let names = parsed.subject_alternative_name().ok().flatten();
        Some(Self {
            from: validity.not_before,
            until: validity.not_after,
            is_named: names.is_some_and(|names| !names.value.general_names.is_empty()),
        })
    }

    /// Its last second, since the Unix epoch.
    #[must_use]
    pub fn until_unix_seconds(&self) -> i64 {
        self.until.timestamp()
    }

    /// What the operator should know about it at `now_s` seconds since the Unix epoch, if anything.
    #[must_use]
    pub fn problem(&self, now_s: i64) -> Option<String> {
        let Self {
            from,
            until,
            is_named,
        } = self;
        let left_s = until.timestamp() - now_s;
        if !is_named {
            Some(
                "has no subjectAltName; clients refuse it, since they ignore the common name, so make one that has the \
                 host's name there"
                    .to_owned(),
            )
        } else if now_s < from.timestamp() {
            Some(format!(
                "is not valid before {from}; clients refuse it until then, so check the clock of this machine or use \
                 another certificate"
            ))
        } else if left_s < 0 {
            Some(format!(
                "has expired, on {until}; clients refuse it, so renew it"
            ))
        } else if left_s <= EXPIRY_WARNING_S {
            let days = left_s / DAY_S;
            Some(format!(
                "expires in {days} days, on {until}; renew it before that"
            ))
        } else {
            None
        }
    }
}

/// A name for each path: the file's own, or as much more of the path as tells it apart from the others.
pub(in crate::control) fn labels(paths: &[&Path]) -> Vec<String> {
    let end = |path: &Path, parts: usize| -> PathBuf {
        let all: Vec<_> = path.components().collect();
        all[all.len().saturating_sub(parts)..].iter().collect()
    };
    let label = |path: &&Path| {
        let others = || paths.iter().filter(|other| *other != path);
        let is_its_own =
            |parts: &usize| others().all(|other| end(other, *parts) != end(path, *parts));
        let parts = (1..path.components().count()).find(is_its_own);
        let label = parts.map_or_else(|| path.to_path_buf(), |parts| end(path, parts));
        label.display().to_string()
    };
    paths.iter().map(label).collect()
}

const DAY_S: i64 = 24 * 60 * 60;
/// Seconds before the end of a certificate from which on the log says so: those who renew by hand have two weeks for it,
/// and certbot, which renews 30 days before, has failed for two.
const EXPIRY_WARNING_S: i64 = 14 * DAY_S;

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is said from the first second to two weeks before the last; before, then and after, it is.
    #[test]
    fn what_is_due_is_said() {
        let (from_s, until_s) = (1_000_000_000, 1_100_000_000);
        let validity = Validity {
            from: ASN1Time::from_timestamp(from_s).expect("a time"),
            until: ASN1Time::from_timestamp(until_s).expect("a time"),
            is_named: true,
        };
        let problem = |now_s: i64| validity.problem(now_s);
        assert_eq!(problem(from_s), None);
        assert_eq!(problem(until_s - EXPIRY_WARNING_S - 1), None);
        for (now_s, said) in [
            (from_s - 1, "is not valid before Sep  9 01:46:40 2001"),
            (until_s - EXPIRY_WARNING_S, "expires in 14 days, on Nov "),
            (until_s - 1, "expires in 0 days"),
            (until_s + 1, "has expired, on Nov "),
        ] {
            let problem = problem(now_s).expect("a problem");
            assert!(problem.starts_with(said), "{problem}");
        }
        let unnamed = Validity {
            is_named: false,
            ..validity
        };
        let problem = unnamed.problem(from_s).expect("a problem");
        assert!(problem.starts_with("has no subjectAltName"), "{problem}");
    }

    /// Files of one name, as certbot makes them, are told apart by their folders.
    #[test]
    fn labels_are_short_and_unique() {
        let paths = [
            "/etc/letsencrypt/live/a.example/fullchain.pem",
            "/etc/letsencrypt/live/b.example/fullchain.pem",
            "/etc/tickring/own.pem",
            "own.crt",
        ];
        let labels = labels(&paths.map(Path::new));
        assert_eq!(
            labels,
            [
                "a.example/fullchain.pem",
                "b.example/fullchain.pem",
                "own.pem",
                "own.crt"
            ]
        );
        assert_eq!(
            super::labels(&["/a.pem", "a.pem", "x/a.pem"].map(Path::new)),
            ["/a.pem", "a.pem", "x/a.pem"]
        );
    }
}
