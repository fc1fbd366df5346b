//! The keys that tokens are checked with.
//!
//! Invariant: the algorithms of a key are decided when the key is read, by what the key is and by its `alg`. They are one,
//! but for an RSA key without `alg`, which is for the six signatures of RSA. The header of a token chooses among the keys of
//! the algorithm that it names, and never the algorithm of a key. So a public key cannot be passed off as a shared secret
//! (RFC 8725 section 2.1).

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki_types::pem::{self, SectionKind};
use ring::{hmac, signature};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::spki::PublicKey;
use crate::limits::{
    RSA_BITS_MAX, RSA_BITS_MIN, TOKEN_KEY_FILE_BYTES_MAX, TOKEN_KEY_ID_BYTES_MAX, TOKEN_KEYS_MAX,
    TOKEN_SECRET_BYTES_MIN,
};

/// How a token is signed (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256 and a shared secret.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The one of this name; `None` for all others, `none` among them.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "RS384" => Some(Self::Rs384),
            "RS512" => Some(Self::Rs512),
            "PS256" => Some(Self::Ps256),
            "PS384" => Some(Self::Ps384),
            "PS512" => Some(Self::Ps512),
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            // RFC 9864 gives Ed25519 a name of its own.
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }

    /// Its name in a token's header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Why a document of keys cannot be used: the fault of whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// More than [`TOKEN_KEY_FILE_BYTES_MAX`] bytes.
    #[error("larger than {} KiB", TOKEN_KEY_FILE_BYTES_MAX / 1024)]
    TooLong,
    /// More than [`TOKEN_KEYS_MAX`] keys.
    #[error("more than {TOKEN_KEYS_MAX} keys")]
    TooMany,
    /// A shared secret of less than [`TOKEN_SECRET_BYTES_MIN`] bytes.
    #[error(
        "a shared secret of less than {TOKEN_SECRET_BYTES_MIN} bytes; make one with: openssl rand -hex 32"
    )]
    SecretTooShort,
    /// Not PEM, though it begins so.
    #[error("not valid PEM")]
    BadPem,
    /// A private key, which has no place here.
    #[error(
        "a private key, which only the issuer of tokens may have; give the public key: openssl pkey -in FILE -pubout"
    )]
    PrivateKey,
    /// Something else in PEM, such as a certificate.
    #[error(
        "PEM without a public key (BEGIN PUBLIC KEY); from a certificate: openssl x509 -in FILE -noout -pubkey"
    )]
    NoPublicKey,
    /// A public key that is neither RSA nor P-256 nor P-384 nor Ed25519.
    #[error("a public key of an unknown kind; give RSA, EC P-256, EC P-384 or Ed25519")]
    UnknownKind,
    /// An RSA key outside the bounds.
    #[error("an RSA key that has not from {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")]
    RsaBits,
    /// Not a JWK Set.
    #[error(r#"not a JWKS document: a JSON object with an array "keys" (RFC 7517)"#)]
    NotJwks,
    /// A JWK Set in which no key can be used.
    #[error(
        "a JWKS document without a key for signatures with RSA, EC on P-256 or P-384, EdDSA on Ed25519, or HS256"
    )]
    NoUsableKey,
}

/// A set of keys. It does not change; new keys come as another set.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// One key. `Debug` shows its name and its algorithm.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<Box<str>>,
    material: Material,
    /// Which of the material's algorithms it is for; `None`: all of them.
    only: Option<Algorithm>,
}

#[derive(Clone)]
enum Material {
    Secret(hmac::Key),
    /// Big-endian, without leading zeros.
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    P256(Box<[u8]>),
    P384(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl KeySet {
    /// Reads a file: public keys in PEM, a JWKS document, or a shared secret. The secret is the file's bytes as they are,
    /// without the line end behind them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(document: &[u8]) -> Result<Self, KeyError> {
        if document.len() > TOKEN_KEY_FILE_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        let text = document.trim_ascii();
        if text.starts_with(b"{") {
            return Self::parse_jwks(text);
        }
        if text.windows(PEM_MARK.len()).any(|at| at == PEM_MARK) {
            return Self::parse_pem(text);
        }
        let secret = document.strip_suffix(b"\n").unwrap_or(document);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        Ok(Self {
            keys: vec![Key {
                id: None,
                material: Material::secret(secret)?,
                only: None,
            }],
        })
    }

    fn parse_pem(mut text: &[u8]) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        while let Some((kind, der)) = pem::from_buf(&mut text).map_err(|_| KeyError::BadPem)? {
            match kind {
                SectionKind::PublicKey => keys.push(Key {
                    id: None,
                    material: Material::public(&der)?,
                    only: None,
                }),
                SectionKind::PrivateKey
                | SectionKind::RsaPrivateKey
                | SectionKind::EcPrivateKey => return Err(KeyError::PrivateKey),
                _ => return Err(KeyError::NoPublicKey),
            }
        }
        match keys.len() {
            0 => Err(KeyError::NoPublicKey),
            1..=TOKEN_KEYS_MAX => Ok(Self { keys }),
            _ => Err(KeyError::TooMany),
        }
    }

    /// Reads a JWKS document (RFC 7517). Keys of kinds that are unknown here, for other uses, or with wrong members are
    /// skipped, as section 5 asks for.
    ///
    /// # Errors
    /// What is wrong with the document, or that no key of it can be used.
    pub fn parse_jwks(document: &[u8]) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        if document.len() > TOKEN_KEY_FILE_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        // Also what is skipped of it is UTF-8 (RFC 8259 section 8.1).
        let text = std::str::from_utf8(document).map_err(|_| KeyError::NotJwks)?;
        let document: Document<'_> = serde_json::from_str(text).map_err(|_| KeyError::NotJwks)?;
        let parsed = document.keys.iter().map(|raw| Jwk::parse(raw.get()));
        let keys: Vec<Key> = parsed.filter_map(|jwk| jwk?.into_key()).collect();
        match keys.len() {
            0 => Err(KeyError::NoUsableKey),
            1..=TOKEN_KEYS_MAX => Ok(Self { keys }),
            _ => Err(KeyError::TooMany),
        }
    }

    /// The keys of several sets as one.
    ///
    /// # Errors
    /// When together they are too many.
    pub fn merge<'s>(sets: impl IntoIterator<Item = &'s Self>) -> Result<Self, KeyError> {
        let sets = sets.into_iter();
        let keys: Vec<Key> = sets.flat_map(|set| set.keys.iter().cloned()).collect();
        match keys.len() {
            0..=TOKEN_KEYS_MAX => Ok(Self { keys }),
            _ => Err(KeyError::TooMany),
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True without a key: every token is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that may have signed a token with this header. With `kid`: those of that name; if there are none, those
    /// without a name, as keys in PEM are. Without `kid`: all of the algorithm.
    pub(super) fn candidates<'s>(
        &'s self,
        algorithm: Algorithm,
        id: Option<&'s str>,
    ) -> impl Iterator<Item = &'s Key> {
        let of_algorithm = move |key: &&Key| key.is_for(algorithm);
        let keys = move || self.keys.iter().filter(of_algorithm);
        let is_known = keys().any(|key| key.id.is_some() && key.id.as_deref() == id);
        keys().filter(move |key| match id {
            None => true,
            Some(_) if is_known => key.id.as_deref() == id,
            Some(_) => key.id.is_none(),
        })
    }
}

impl Key {
    /// True if this key may have signed a token that names this algorithm.
    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.material.algorithms().contains(&algorithm)
            && self.only.is_none_or(|only| only == algorithm)
    }

    /// True if this key has signed `message` with this algorithm, which is one of its own.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            _ if !self.is_for(algorithm) => return false,
            Material::Secret(key) => hmac::verify(key, message, signature),
            Material::Rsa { n, e } => {
                let parameters = match algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                let key = signature::RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signature)
            }
            Material::P256(point) => {
                signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
            }
            Material::P384(point) => {
                signature::UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(message, signature)
            }
            Material::Ed25519(key) => signature::UnparsedPublicKey::new(&signature::ED25519, key)
                .verify(message, signature),
        };
        verified.is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Key");
        shown.field("id", &self.id);
        match self.only {
            Some(only) => shown.field("algorithm", &only),
            None => shown.field("algorithms", &self.material.algorithms()),
        };
        shown.finish_non_exhaustive()
    }
}

impl Material {
    const fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Self::Secret(_) => &[Algorithm::Hs256],
            Self::Rsa { .. } => &[
                Algorithm::Rs256,
                Algorithm::Rs384,
                Algorithm::Rs512,
                Algorithm::Ps256,
                Algorithm::Ps384,
                Algorithm::Ps512,
            ],
            Self::P256(_) => &[Algorithm::Es256],
            Self::P384(_) => &[Algorithm::Es384],
            Self::Ed25519(_) => &[Algorithm::EdDsa],
        }
    }

    fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        match secret.len() < TOKEN_SECRET_BYTES_MIN {
            true => Err(KeyError::SecretTooShort),
            false => Ok(Self::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret))),
        }
    }

    fn public(der: &[u8]) -> Result<Self, KeyError> {
        match PublicKey::parse(der) {
            Some(PublicKey::Rsa { n, e }) => Self::rsa(n, e),
            Some(PublicKey::P256(point)) => Self::p256(point),
            Some(PublicKey::P384(point)) => Self::p384(point),
            Some(PublicKey::Ed25519(key)) => Self::ed25519(key),
            None => Err(KeyError::UnknownKind),
        }
    }

    /// Of a modulus and an exponent without leading zeros.
    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let unused_bits = n.first().map_or(0, |first| first.leading_zeros() as usize);
        let bits = 8 * n.len() - unused_bits;
        // What ring takes: an odd exponent from 3 to 33 bits.
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        let is_exponent = is_odd(e) && e != [1] && (e.len() < 5 || (e.len() == 5 && e[0] == 1));
        match (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) && is_odd(n) && is_exponent {
            true => Ok(Self::Rsa {
                n: n.into(),
                e: e.into(),
            }),
            false => Err(KeyError::RsaBits),
        }
    }

    /// Of an uncompressed point. Whether it is on the curve shows when a signature is checked.
    fn p256(point: &[u8]) -> Result<Self, KeyError> {
        match point.len() == 65 && point[0] == 4 {
            true => Ok(Self::P256(point.into())),
            false => Err(KeyError::UnknownKind),
        }
    }

    /// The same.
    fn p384(point: &[u8]) -> Result<Self, KeyError> {
        match point.len() == 97 && point[0] == 4 {
            true => Ok(Self::P384(point.into())),
            false => Err(KeyError::UnknownKind),
        }
    }

    fn ed25519(key: &[u8]) -> Result<Self, KeyError> {
        match key.len() {
            32 => Ok(Self::Ed25519(key.into())),
            _ => Err(KeyError::UnknownKind),
        }
    }
}

/// A key of a JWKS document, with the members that are looked at (RFC 7517 section 4, RFC 7518 section 6).
#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    alg: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "use")]
    usage: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_ops: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    crv: Option<Cow<'a, str>>,
    #[serde(borrow)]
    n: Option<Cow<'a, str>>,
    #[serde(borrow)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow)]
    y: Option<Cow<'a, str>>,
    #[serde(borrow)]
    k: Option<Cow<'a, str>>,
}

impl<'a> Jwk<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The key, if it is one for signatures of a known kind.
    fn into_key(self) -> Option<Key> {
        let material = self.material()?;
        let is_for_signatures = self.usage.is_none_or(|usage| usage == "sig");
        let may_verify = self
            .key_ops
            .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let only = match self.alg {
            None => None,
            Some(name) => Some(Algorithm::named(&name)?),
        };
        let is_of_algorithm = only.is_none_or(|only| material.algorithms().contains(&only));
        let is_named_well = (self.kid.as_ref()).is_none_or(|id| id.len() <= TOKEN_KEY_ID_BYTES_MAX);
        (is_for_signatures && may_verify && is_of_algorithm && is_named_well).then(|| Key {
            id: self.kid.map(|id| id.into_owned().into_boxed_str()),
            material,
            only,
        })
    }

    fn material(&self) -> Option<Material> {
        let bytes = |text: &Option<Cow<'_, str>>| {
            let text = text.as_ref()?;
            URL_SAFE_NO_PAD.decode(text.as_bytes()).ok()
        };
        let number = |text: &Option<Cow<'_, str>>| {
            let bytes = bytes(text)?;
            let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            Some(bytes[zeros..].to_vec())
        };
        let material = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => Material::rsa(&number(&self.n)?, &number(&self.e)?),
            ("EC", Some(curve)) => {
                let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
                let point = [&[4], &x[..], &y[..]].concat();
                match (curve, x.len(), y.len()) {
                    ("P-256", 32, 32) => Material::p256(&point),
                    ("P-384", 48, 48) => Material::p384(&point),
                    _ => return None,
                }
            }
            ("OKP", Some("Ed25519")) => Material::ed25519(&bytes(&self.x)?),
            ("oct", _) => Material::secret(&bytes(&self.k)?),
            _ => return None,
        };
        material.ok()
    }
}

/// What a file in PEM has in it.
const PEM_MARK: &[u8] = b"-----BEGIN ";
