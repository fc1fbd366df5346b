//! Says why a server's certificate is not accepted, or why TLS fails altogether, and what to do about it.

use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError as Bad, DigitallySignedStruct, Error, OtherError,
    SignatureScheme,
};

use super::certificate::Names;
use crate::calendar;

/// Verifies as rustls does, and remembers owner and issuer of the first certificate that was refused.
#[derive(Debug)]
pub struct Verifier {
    /// Makes the decision.
    pub judge: Arc<WebPkiServerVerifier>,
    /// Owner and issuer of the refused certificate.
    pub refused: Arc<OnceLock<Option<Names>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged =
            self.judge
                .verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        if judged.is_err() {
            self.refused.get_or_init(|| Names::read(certificate));
        }
        judged
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// One line that says what went wrong between loadgen and `server`, which was requested as `name`, and what can be
/// done. `refused`: owner and issuer of its refused certificate, if one was refused.
pub fn describe(
    error: &Error,
    server: &str,
    name: &ServerName<'_>,
    refused: Option<&Option<Names>>,
) -> String {
    match error {
        Error::InvalidCertificate(bad) => {
            let refused = refused.map(Option::as_ref);
            let (fault, remedy) = fault(bad, name, refused);
            format!(
                "TLS: the certificate of {server} {fault}: {remedy}do without verification with --insecure"
            )
        }
        Error::InvalidMessage(_) => {
            format!("TLS: {server} does not speak TLS ({error}); is it a ws:// address?")
        }
        Error::AlertReceived(alert) => match objection(*alert, name) {
            Some(objection) => format!("TLS: {server} {objection} (alert {alert:?})"),
            None => format!("TLS: {server} broke off with the alert {alert:?}"),
        },
        Error::PeerIncompatible(_) => {
            format!("TLS: {server} speaks no TLS that loadgen does, 1.2 or 1.3 ({error})")
        }
        _ => format!("TLS: {server}: {error}"),
    }
}

/// What is wrong with a certificate, and what can be done about it, with the last resort at the end.
fn fault(bad: &Bad, name: &ServerName<'_>, refused: Option<Option<&Names>>) -> (String, String) {
    let names = refused.flatten();
    let is_self_signed = names.is_some_and(|names| names.is_self_signed);
    let authority = match names.and_then(|names| names.issuer.as_deref()) {
        Some(issuer) => format!("the authority {issuer:?}"),
        None => "an authority".to_owned(),
    };
    match bad {
        Bad::UnknownIssuer if is_self_signed => (
            "is self-signed".to_owned(),
            "give it with --ca FILE, or ".to_owned(),
        ),
        Bad::UnknownIssuer => (
            format!("comes from {authority}, which is not trusted here"),
            "give that authority's certificate with --ca FILE, have the server send the certificates between \
             the two, if there are any, or "
                .to_owned(),
        ),
        // What the handshake is signed with is not the certificate's key.
        bad if refused.is_none() && is_signature(bad) => (
            format!("does not belong to the key that the server has ({bad})"),
            "give the server both of one making, or ".to_owned(),
        ),
        bad if is_signature(bad) && is_self_signed => (
            "is self-signed, and not the one of that name that is trusted here".to_owned(),
            format!("give this one with --ca FILE ({WHY_NOT}), or "),
        ),
        bad if is_signature(bad) => (
            format!("is not signed by the one that is trusted here as {authority}"),
            format!("give the certificate of the one that has signed it with --ca FILE ({WHY_NOT}), or "),
        ),
        Bad::ExpiredContext { time, not_after } => (
            format!(
                "(or one that vouches for it) expired on {}, and this machine's clock says {}",
                moment(*not_after),
                moment(*time)
            ),
            "have it renewed, or ".to_owned(),
        ),
        Bad::NotValidYetContext { time, not_before } => (
            format!(
                "(or one that vouches for it) is not valid before {}, and this machine's clock says {}",
                moment(*not_before),
                moment(*time)
            ),
            "set the clock right, wait, or ".to_owned(),
        ),
        // What rustls says of one that ends before it begins.
        Bad::Expired => (
            "is never valid: it ends before it begins".to_owned(),
            "have it made anew, or ".to_owned(),
        ),
        Bad::NotValidForNameContext { presented, .. } => {
            let asked = name.to_str();
            let its = match &presented[..] {
                [] => "it has no subjectAltName, and a common name does not count".to_owned(),
                presented => format!("it is for {}", joined(presented)),
            };
            (
                format!("is not for {asked}: {its}"),
                format!("have it made for {asked}, connect by a name that it has, or "),
            )
        }
        Bad::InvalidPurposeContext { presented, .. } => {
            let its: Vec<String> = presented.iter().map(ToString::to_string).collect();
            (
                format!(
                    "is not for servers, but for {} (extended key usage)",
                    its.join(" and ")
                ),
                "have it made for server authentication, or ".to_owned(),
            )
        }
        Bad::BadEncoding => (
            "cannot be read".to_owned(),
            "have it made anew, or ".to_owned(),
        ),
        Bad::UnsupportedSignatureAlgorithmContext { .. } => (
            "is signed in a way that is not accepted any more (as SHA-1 is)".to_owned(),
            "have it made anew, with ECDSA or RSA and SHA-256, or ".to_owned(),
        ),
        Bad::Other(cause) => match inner(cause).as_str() {
            "CaUsedAsEndEntity" => (
                "is an authority's own (CA:TRUE), which no server may show".to_owned(),
                "make it one without (openssl req -x509 … -addext basicConstraints=critical,CA:FALSE), or "
                    .to_owned(),
            ),
            "UnsupportedCertVersion" => (
                "is of X.509 version 1, which has no room for the server's name".to_owned(),
                "make it one of version 3, with a subjectAltName, or ".to_owned(),
            ),
            "UnsupportedCriticalExtension" => (
                "has a critical extension that loadgen does not know".to_owned(),
                "have it made without, or ".to_owned(),
            ),
            words => (format!("is not valid ({words})"), String::new()),
        },
        bad => (format!("is not valid ({bad})"), String::new()),
    }
}

/// Whether a signature does not match the key with which it is checked.
const fn is_signature(bad: &Bad) -> bool {
    matches!(
        bad,
        Bad::BadSignature | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
    )
}

/// What the server objects to; None if only its alert is known.
fn objection(alert: AlertDescription, name: &ServerName<'_>) -> Option<String> {
    Some(match alert {
        AlertDescription::ProtocolVersion => "speaks neither TLS 1.2 nor 1.3".to_owned(),
        AlertDescription::HandshakeFailure => {
            "finds nothing in common with loadgen: none of its cipher suites, or it requires a client certificate, which \
             loadgen does not have"
                .to_owned()
        }
        AlertDescription::CertificateRequired => {
            "requires a client certificate, which loadgen does not have".to_owned()
        }
        AlertDescription::NoApplicationProtocol => {
            "does not speak HTTP/1.1, in which a WebSocket begins (ALPN http/1.1)".to_owned()
        }
        AlertDescription::UnrecognisedName => {
            format!("does not serve the name {}", name.to_str())
        }
        _ => return None,
    })
}

/// The cause under its own name.
fn inner(cause: &OtherError) -> String {
    format!("{:?}", cause.0)
}

/// rustls writes a name of a certificate like `DnsName("example.org")`.
fn joined(presented: &[String]) -> String {
    let bare = |written: &String| match written.split_once('(') {
        Some((_, name)) => name
            .trim_end_matches(')')
            .trim_matches(|c: char| c == '"')
            .to_owned(),
        None => written.clone(),
    };
    let mut names: Vec<String> = presented.iter().take(NAMES_MAX).map(bare).collect();
    if presented.len() > NAMES_MAX {
        names.push(format!("{} more", presented.len() - NAMES_MAX));
    }
    names.join(", ")
}

fn moment(time: UnixTime) -> String {
    let since = std::time::Duration::from_secs(time.as_secs());
    let text = calendar::utc(UNIX_EPOCH + since);
    // To the second, and without a T between.
    let seconds = text.split_once('.').map_or(text.as_str(), |(head, _)| head);
    format!("{} UTC", seconds.replace('T', " "))
}

/// Why a certificate that looks right is not accepted.
const WHY_NOT: &str =
    "was it made anew? has it an RSA key of less than 2048 bits, which is refused?";
/// Names of a certificate that fit into a line; a shared certificate may have hundreds.
const NAMES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };
    use rustls::RootCertStore;

    use super::*;

    /// A certificate of its own key, with a way to sign others.
    struct Signed {
        der: CertificateDer<'static>,
        parameters: CertificateParams,
        key: KeyPair,
    }

    fn parameters(name: &str) -> CertificateParams {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).expect("valid");
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters
    }

    fn self_signed(parameters: CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let der = parameters.self_signed(&key).expect("signed").der().clone();
        Signed {
            der,
            parameters,
            key,
        }
    }

    fn authority(name: &str) -> Signed {
        let mut parameters = parameters(name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self_signed(parameters)
    }

    /// A certificate for `localhost`, changed by `change`, from `issuer`.
    fn issued(
        issuer: &Signed,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut parameters = parameters("localhost");
        change(&mut parameters);
        let key = KeyPair::generate().expect("a key");
        let issuer = rcgen::Issuer::from_params(&issuer.parameters, &issuer.key);
        let signed = parameters.signed_by(&key, &issuer).expect("signed");
        signed.der().clone()
    }

    /// The error for a server with the certificate `shown`, if only `trusted` is trusted.
    fn told(shown: &CertificateDer<'_>, trusted: &Signed) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der.clone()).expect("readable");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = Verifier {
            judge: judge.build().expect("valid"),
            refused: Arc::default(),
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let now = UnixTime::now();
        match verifier.verify_server_cert(shown, &[], &name, &[], now) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => describe(&error, "localhost:443", &name, verifier.refused.get()),
        }
    }

    /// The certificate as version 1 has it: without a version and without extensions (RFC 5280 §4.1).
    fn of_version_1(der: &[u8]) -> CertificateDer<'static> {
        fn element(tag: u8, value: &[u8]) -> Vec<u8> {
            let [high, low] = u16::try_from(value.len()).expect("short").to_be_bytes();
            // DER wants the shortest form.
            let header = match (high, low) {
                (0, ..0x80) => vec![tag, low],
                (0, _) => vec![tag, 0x81, low],
                _ => vec![tag, 0x82, high, low],
            };
            [&header, value].concat()
        }
        /// An element's length in bytes, its header included, and that of the header.
        fn measure(der: &[u8]) -> (usize, usize) {
            match der[1] {
                0x81 => (3 + usize::from(der[2]), 3),
                0x82 => (4 + usize::from(der[2]) * 256 + usize::from(der[3]), 4),
                length => (2 + usize::from(length), 2),
            }
        }
        let certificate = &der[measure(der).1..];
        let (fields_end, fields_start) = measure(certificate);
        let (mut fields, signature) = (
            &certificate[fields_start..fields_end],
            &certificate[fields_end..],
        );
        let mut kept = Vec::new();
        while !fields.is_empty() {
            let (length, _) = measure(fields);
            if !matches!(fields[0], 0xa0 | 0xa3) {
                kept.extend_from_slice(&fields[..length]);
            }
            fields = &fields[length..];
        }
        element(0x30, &[element(0x30, &kept), signature.to_vec()].concat()).into()
    }

    /// Each fault of a certificate is named, with what to do about it, and a valid certificate is accepted.
    #[test]
    fn faults_of_certificates() {
        let ca = authority("Test CA");
        let own = self_signed(parameters("localhost"));
        let (past, future) = (
            rcgen::date_time_ymd(2_020, 1, 1),
            rcgen::date_time_ymd(2_090, 1, 1),
        );
        let right = issued(&ca, |_| ());
        assert_eq!(told(&right, &ca), "accepted");
        assert_eq!(told(&own.der, &own), "accepted");
        for (shown, trusted, words) in [
            (&own.der, &ca, "is self-signed: give it with --ca FILE"),
            (
                &own.der,
                &self_signed(parameters("localhost")),
                "is self-signed, and not the one of that name that is trusted here: give this one with --ca FILE",
            ),
            (
                &right,
                &authority("Other CA"),
                "comes from the authority \"Test CA\", which is not trusted here: give that authority's certificate",
            ),
            (
                &right,
                &authority("Test CA"),
                "is not signed by the one that is trusted here as the authority \"Test CA\"",
            ),
            (
                &authority("localhost").der,
                &ca,
                "is an authority's own (CA:TRUE), which no server may show",
            ),
            (
                &issued(&ca, |parameters| parameters.not_after = past),
                &ca,
                "expired on 2020-01-01 00:00:00 UTC, and this machine's clock says 2",
            ),
            (
                &issued(&ca, |parameters| parameters.not_before = future),
                &ca,
                "is not valid before 2090-01-01 00:00:00 UTC, and this machine's clock says 2",
            ),
            (
                &issued(&ca, |changed| {
                    changed.subject_alt_names = parameters("example.org").subject_alt_names;
                }),
                &ca,
                "is not for localhost: it is for example.org: have it made for localhost",
            ),
            (
                &issued(&ca, |changed| changed.subject_alt_names.clear()),
                &ca,
                "is not for localhost: it has no subjectAltName",
            ),
            (
                &issued(&ca, |changed| {
                    changed.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                }),
                &ca,
                "is not for servers, but for client authentication (extended key usage)",
            ),
            (&of_version_1(&right), &ca, "is of X.509 version 1"),
            (
                &issued(&ca, |changed| {
                    let mut unknown =
                        rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                    unknown.set_criticality(true);
                    changed.custom_extensions.push(unknown);
                }),
                &ca,
                "has a critical extension that loadgen does not know",
            ),
            (&CertificateDer::from(vec![0x30, 0]), &ca, "cannot be read"),
        ] {
            let line = told(shown, trusted);
            assert!(line.contains(words), "{words}: {line}");
            assert!(
                line.starts_with("TLS: the certificate of localhost:443 ")
                    && line.ends_with("or do without verification with --insecure"),
                "{line}"
            );
            let jargon = ["Context", "Other(", "BadSignature", "DnsName", "UNIX"];
            assert!(!jargon.iter().any(|word| line.contains(word)), "{line}");
        }
    }

    /// A server whose key differs from its certificate's is not reported as having an untrusted certificate.
    #[test]
    fn signatures_of_the_handshake() {
        let name = ServerName::try_from("localhost").expect("a name");
        let line = describe(&Bad::BadSignature.into(), "localhost:443", &name, None);
        assert!(line.contains("does not belong to the key"), "{line}");
    }

    /// The server's objection is reported in words, with its alert.
    #[test]
    fn objections() {
        let name = ServerName::try_from("localhost").expect("a name");
        for (alert, words) in [
            (AlertDescription::ProtocolVersion, "neither TLS 1.2 nor 1.3"),
            (
                AlertDescription::CertificateRequired,
                "requires a client certificate",
            ),
            (AlertDescription::NoApplicationProtocol, "HTTP/1.1"),
            (AlertDescription::UnrecognisedName, "the name localhost"),
            (AlertDescription::HandshakeFailure, "cipher suites"),
            (AlertDescription::InternalError, "broke off"),
        ] {
            let line = describe(&Error::AlertReceived(alert), "h:1", &name, None);
            assert!(
                line.contains(words) && line.contains(&format!("{alert:?}")),
                "{line}"
            );
        }
    }
}
