//! Which servers this one trusts when it connects over TLS: those whose certificates are signed by an authority of the
//! system, or by one that the operator names.

use std::path::Path;
use std::sync::Arc;
use tickring_tls::rustls::crypto::ring::default_provider;
use tickring_tls::rustls::pki_types::CertificateDer;
use tickring_tls::rustls::pki_types::pem::PemObject as _;
use tickring_tls::rustls::{ClientConfig, RootCertStore};

/// How connections to others over TLS are made: the authorities in the file `ca` are trusted, or those of the system.
/// HTTP/1.1 is offered, which WebSocket begins with too (RFC 6455 section 4.1).
///
/// # Errors
/// What is wrong with the authorities. Reading files, this may block.
pub(super) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let bad = |error: String| format!("{}: {error}", path.display());
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| bad(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| bad(error.to_string()))?;
            }
        }
        // Certificates that cannot be read or parsed are the system's affair as long as others can.
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if roots.is_empty() {
        let remedy = "there is no certificate authority to trust: install ca-certificates, or name a file with the authorities";
        return Err(remedy.to_owned());
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // tickring-tls processes records itself after the handshake.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}
