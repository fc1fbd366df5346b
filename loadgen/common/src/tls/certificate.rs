//! Reads the parts of a certificate that an error message needs: its owner and its issuer (RFC 5280 §4.1). Nothing is
//! trusted because of this, and parts that cannot be read are left out.

/// Owner and issuer of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Its issuer is its owner.
    pub is_self_signed: bool,
    /// The issuer's common name, or that of its organisation.
    pub issuer: Option<String>,
}

impl Names {
    /// Reads them from a certificate in DER; None if it is not a certificate.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).value_of(SEQUENCE)?);
        let mut fields = Der(certificate.value_of(SEQUENCE)?);
        // The version is left out in version 1.
        let (tag, _) = fields.clone().next()?;
        if tag == VERSION {
            fields.next();
        }
        let _serial = fields.value_of(INTEGER)?;
        let _signature_algorithm = fields.value_of(SEQUENCE)?;
        let issuer = fields.value_of(SEQUENCE)?;
        let _validity = fields.value_of(SEQUENCE)?;
        let subject = fields.value_of(SEQUENCE)?;
        let named = |attribute| name_part(issuer, attribute);
        Some(Self {
            is_self_signed: issuer == subject,
            issuer: named(COMMON_NAME).or_else(|| named(ORGANISATION)),
        })
    }
}

/// The value of an attribute of a distinguished name, if it can be shown.
fn name_part(name: &[u8], attribute: &[u8]) -> Option<String> {
    let mut parts = Der(name);
    while let Some((SET, part)) = parts.next() {
        let mut pair = Der(Der(part).value_of(SEQUENCE)?);
        if pair.value_of(OBJECT_IDENTIFIER)? == attribute {
            let (_, value) = pair.next()?;
            let text = String::from_utf8_lossy(value);
            let shown = text.chars().filter(|c| !c.is_control());
            return Some(shown.take(NAME_CHARS_MAX).collect());
        }
    }
    None
}

/// Elements of DER (X.690 §8.1), in order.
#[derive(Clone)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and value; None if there is none, or an incomplete one.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first & LONG_LENGTH != 0 {
            let (octets, after) = rest.split_at_checked(usize::from(first & !LONG_LENGTH))?;
            if octets.len() > size_of::<u32>() {
                return None;
            }
            let joined = |length: usize, octet: &u8| length << 8 | usize::from(*octet);
            length = octets.iter().fold(0, joined);
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The next element's value, if it has this tag.
    fn value_of(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, value) = self.next()?;
        (found == tag).then_some(value)
    }
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT`.
const VERSION: u8 = 0xa0;
const LONG_LENGTH: u8 = 0x80;
/// 2.5.4.3 and 2.5.4.10.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];
/// A name as a part of one line.
const NAME_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Owner and issuer are distinguished; a certificate that is cut off anywhere is refused, or yields less.
    #[test]
    fn names() {
        let parameters = |name: &str| {
            let mut parameters =
                rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("valid");
            parameters
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            parameters
        };
        let key = rcgen::KeyPair::generate().expect("a key");
        let own = parameters("server").self_signed(&key).expect("signed");
        let authority = rcgen::Issuer::new(parameters("Test CA"), key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let issued = parameters("server").signed_by(&key, &authority);
        let issued = issued.expect("signed");
        let read = |certificate: &rcgen::Certificate| Names::read(certificate.der());
        assert_eq!(
            read(&own),
            Some(Names {
                is_self_signed: true,
                issuer: Some("server".to_owned())
            })
        );
        assert_eq!(
            read(&issued),
            Some(Names {
                is_self_signed: false,
                issuer: Some("Test CA".to_owned())
            })
        );
        let der = issued.der();
        assert!((0..der.len()).all(|length| Names::read(&der[..length]).is_none()));
        assert_eq!(Names::read(b"-----BEGIN CERTIFICATE-----"), None);
    }
}
