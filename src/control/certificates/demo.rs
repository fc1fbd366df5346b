//! The certificate of `tickring demo --tls`: made at the first start, kept in the user's data folder.
//!
//! It is signed by an authority made with it, since browsers import authorities: Firefox takes no server's own
//! certificate as an authority, and no authority as a server's certificate. **The authority's key is thrown away** once it
//! has signed this one certificate. So whoever trusts the authority trusts this demo, and nobody can sign anything else
//! with it, not even who can read the files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::validity::Validity;
use super::{CertificateError, read_certificate};
use crate::config::{DEMO_AUTHORITY, DEMO_CHAIN, DEMO_KEY};

/// Makes the certificate, its key and its authority in `folder`, unless they are there and hold for another week.
///
/// # Errors
/// When they cannot be made or stored.
pub fn make_demo_certificate(folder: &Path, now: SystemTime) -> Result<(), CertificateError> {
    if is_good(folder, now) {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(|error| not_stored(folder, error))?;
    let names = names(
        fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .as_deref(),
    );
    let files = make(&names, now)?;
    write(&folder.join(DEMO_KEY), &files.key, 0o600)?;
    write(&folder.join(DEMO_AUTHORITY), &files.authority, 0o644)?;
    write(&folder.join(DEMO_CHAIN), &files.chain, 0o644)?;
    tracing::info!(folder = %folder.display(), names = names.join(" "), "a certificate was made for this demo");
    Ok(())
}

/// What is stored, in PEM.
struct Files {
    chain: String,
    key: String,
    authority: String,
}

/// Whether there is a certificate that the server can use for a while yet.
fn is_good(folder: &Path, now: SystemTime) -> bool {
    let Ok(certified) = read_certificate(&folder.join(DEMO_CHAIN), &folder.join(DEMO_KEY)) else {
        return false;
    };
    let validity = certified.cert.first().and_then(Validity::read);
    let later = now + RENEWAL;
    let later_s = later
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let holds = validity.is_some_and(|validity| validity.until_unix_seconds() > later_s as i64);
    holds && folder.join(DEMO_AUTHORITY).is_file()
}

/// The names of this machine as its own browsers know it, and the one that others may know.
fn names(host: Option<&str>) -> Vec<String> {
    let mut names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    let host = host.map(str::trim).unwrap_or_default().to_ascii_lowercase();
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-';
            (1..=63).contains(&label.len()) && label.bytes().all(is_letter)
        });
    if is_name && !names.contains(&host) {
        names.push(host);
    }
    names
}

fn make(names: &[String], now: SystemTime) -> Result<Files, rcgen::Error> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let (from, until) = (epoch + since - CLOCK_TOLERANCE, epoch + since + LIFE);

    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = (from, until);
    let host = names.last().map_or("localhost", String::as_str);
    let name = format!("tickring demo on {host}");
    params.distinguished_name.push(DnType::CommonName, name);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let mut params = CertificateParams::new(names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (from, until);
    params
        .distinguished_name
        .push(DnType::CommonName, "localhost");
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    Ok(Files {
        chain: certificate.pem() + &authority.pem(),
        key: key.serialize_pem(),
        authority: authority.pem(),
    })
}

/// Replaces a file at once, so that no other start of the demo reads half of it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        not_stored(path, error)
    })
}

fn not_stored(path: &Path, error: io::Error) -> CertificateError {
    let path = path.to_owned();
    CertificateError::NotStored { path, error }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a certificate is used: just over a year, as browsers allow it for those of public authorities.
const LIFE: Duration = Duration::from_secs(397 * 24 * 60 * 60);
/// How long before its end another one is made.
const RENEWAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Clocks of clients that are behind.
const CLOCK_TOLERANCE: Duration = DAY;

#[cfg(test)]
mod tests {
    use super::*;
    use tickring_tls::rustls::pki_types::pem::PemObject as _;
    use tickring_tls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    /// The certificate is for each name, by the authority that clients import and by none that they know already.
    #[test]
    fn the_certificate_is_for_this_machine() {
        let now = SystemTime::now();
        let names = names(Some("Desk-7.office\n"));
        assert_eq!(names, ["localhost", "127.0.0.1", "::1", "desk-7.office"]);
        let files = make(&names, now).expect("a certificate");
        let chain: Vec<_> = CertificateDer::pem_slice_iter(files.chain.as_bytes())
            .collect::<Result<_, _>>()
            .expect("PEM");
        let authority = CertificateDer::from_pem_slice(files.authority.as_bytes()).expect("PEM");
        let anchor = webpki::anchor_from_trusted_cert(&authority).expect("an authority");
        let own = webpki::EndEntityCert::try_from(&chain[0]).expect("a certificate");
        let time = |at: SystemTime| {
            UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).expect("after 1970"))
        };
        let algorithms = tickring_tls::rustls::crypto::ring::default_provider()
            .signature_verification_algorithms;
        let verify = |at| {
            own.verify_for_usage(
                algorithms.all,
                std::slice::from_ref(&anchor),
                &chain[1..],
                time(at),
                webpki::KeyUsage::server_auth(),
                None,
                None,
            )
            .is_ok()
        };
        assert!(verify(now) && verify(now + LIFE - DAY));
        assert!(!verify(now + LIFE + DAY));
        for name in &names {
            let name = ServerName::try_from(name.as_str()).expect("a name");
            assert!(own.verify_is_valid_for_subject_name(&name).is_ok());
        }
        let other = ServerName::try_from("other.example").expect("a name");
        assert!(own.verify_is_valid_for_subject_name(&other).is_err());
    }

    /// A host name that no certificate can hold is left out.
    #[test]
    fn strange_host_names_are_left_out() {
        for host in [
            None,
            Some(""),
            Some("a b"),
            Some("ä"),
            Some("a..b"),
            Some("localhost"),
        ] {
            assert_eq!(names(host), ["localhost", "127.0.0.1", "::1"]);
        }
    }
}
