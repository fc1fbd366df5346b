//! What the TLS port answers to first messages that are written byte by byte: no library would send most of them. What
//! OpenSSL can be made to ask for is in `hostile_tls.rs`.

mod support;

use support::tls::Site;
use support::{Client, ENGINES, tls};

/// A client's first message, of TLS 1.2 and older.
struct Hello {
    version: u16,
    suites: Vec<u16>,
    compressions: Vec<u8>,
    signatures: Vec<u16>,
    /// Besides those that every client sends: a number, and the content.
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Default for Hello {
    /// What the server accepts.
    fn default() -> Self {
        Self {
            version: TLS_1_2,
            suites: vec![ECDHE_ECDSA_AES128_GCM, RENEGOTIATION_SCSV],
            compressions: vec![0],
            signatures: vec![ECDSA_P256_SHA256],
            extensions: Vec::new(),
        }
    }
}

impl Hello {
    fn record(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(with_length_16(&numbers(&self.suites)));
        body.push(self.compressions.len() as u8);
        body.extend(&self.compressions);
        let name = [&[0][..], &with_length_16(b"localhost")].concat();
        let mut extensions = Vec::new();
        for (number, content) in [
            (SERVER_NAME, with_length_16(&name)),
            (GROUPS, with_length_16(&numbers(&[P_256]))),
            (POINT_FORMATS, vec![1, 0]),
            (SIGNATURES, with_length_16(&numbers(&self.signatures))),
            (EXTENDED_MASTER_SECRET, vec![]),
        ] {
            extensions.extend(extension(number, &content));
        }
        for (number, content) in &self.extensions {
            extensions.extend(extension(*number, content));
        }
        body.extend(with_length_16(&extensions));
        let message = [&[1, 0][..], &with_length_16(&body)].concat();
        [&[22, 3, 1][..], &with_length_16(&message)].concat()
    }
}

/// What the server answers first.
#[derive(Debug, PartialEq)]
enum Answer {
    /// Version, suite, compression and the numbers of the extensions.
    Hello(u16, u16, u8, Vec<u16>),
    /// A fatal alert.
    Alert(u8),
    Nothing,
}

fn ask(site: &Site, wire: &[u8]) -> Answer {
    let mut client = Client::connect(site.address());
    client.try_send(wire);
    client.stream.end_writing().expect("a socket");
    let bytes = client.read_to_end();
    match bytes[..] {
        [] => Answer::Nothing,
        [21, 3, _, 0, 2, 2, alert, ..] => Answer::Alert(alert),
        [22, 3, _, _, _, 2, _, _, _, ref body @ ..] => {
            let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
            let session_bytes = usize::from(body[34]);
            let at = 35 + session_bytes;
            let end = at + 5 + usize::from(number(at + 3));
            let mut extensions = Vec::new();
            let mut next = at + 5;
            while next < end {
                extensions.push(number(next));
                next += 4 + usize::from(number(next + 2));
            }
            Answer::Hello(number(0), number(at), body[at + 2], extensions)
        }
        ref other => panic!("neither a hello nor an alert: {other:?}"),
    }
}

/// Of what a client offers the server takes what is strong, and answers no extension that it should not.
#[test]
fn only_what_is_strong_is_taken() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        let answer = ask(&site, &Hello::default().record());
        let Answer::Hello(version, suite, compression, extensions) = answer else {
            panic!("{engine}: {answer:?}");
        };
        assert_eq!(
            (version, suite, compression),
            (TLS_1_2, ECDHE_ECDSA_AES128_GCM, 0)
        );
        assert!(extensions.contains(&RENEGOTIATION_INFO), "{extensions:?}");
        assert!(
            extensions.contains(&EXTENDED_MASTER_SECRET),
            "{extensions:?}"
        );

        // Weak suites before a strong one: the strong one is taken.
        let mut hello = Hello::default();
        hello.suites = [WEAK_SUITES, &hello.suites].concat();
        assert!(matches!(
            ask(&site, &hello.record()),
            Answer::Hello(_, ECDHE_ECDSA_AES128_GCM, 0, _)
        ));

        // Compression (CRIME), heartbeats (Heartbleed), truncated MACs, ALPN of other protocols beside ours.
        let mut hello = Hello {
            compressions: vec![1, 0],
            ..Hello::default()
        };
        hello.extensions = vec![(HEARTBEAT, vec![1]), (TRUNCATED_MAC, vec![])];
        let answer = ask(&site, &hello.record());
        let Answer::Hello(_, _, compression, extensions) = answer else {
            panic!("{engine}: {answer:?}");
        };
        assert_eq!(compression, 0, "{engine}");
        assert!(!extensions.contains(&HEARTBEAT) && !extensions.contains(&TRUNCATED_MAC));
    }
}

/// Old versions, weak suites alone, weak signatures alone, compression alone and no room for renegotiation in safety are
/// refused by an alert, and the server goes on.
#[test]
fn what_is_weak_is_refused() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in [0x0002, 0x0300, 0x0301, 0x0302] {
            let hello = Hello {
                version,
                ..Hello::default()
            };
            assert_eq!(
                ask(&site, &hello.record()),
                Answer::Alert(PROTOCOL_VERSION),
                "{engine}: {version:#x}"
            );
        }
        for &suite in WEAK_SUITES {
            let hello = Hello {
                suites: vec![suite, RENEGOTIATION_SCSV],
                ..Hello::default()
            };
            let answer = ask(&site, &hello.record());
            assert!(
                matches!(answer, Answer::Alert(_)),
                "{engine}: {suite:#x}: {answer:?}"
            );
        }
        for signatures in [vec![ECDSA_SHA1], vec![RSA_SHA1], vec![RSA_MD5], vec![]] {
            let hello = Hello {
                signatures,
                ..Hello::default()
            };
            let answer = ask(&site, &hello.record());
            assert!(matches!(answer, Answer::Alert(_)), "{engine}: {answer:?}");
        }
        for compressions in [vec![1], vec![]] {
            let hello = Hello {
                compressions,
                ..Hello::default()
            };
            let answer = ask(&site, &hello.record());
            assert!(matches!(answer, Answer::Alert(_)), "{engine}: {answer:?}");
        }
        // The first message of SSL 2.
        let ssl_2 = [&[0x80, 0x2E, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10][..], &[1; 37]].concat();
        assert!(!matches!(ask(&site, &ssl_2), Answer::Hello(..)), "{engine}");
        tls::ask(&mut site.connect(tls::VERSIONS[0]), "/healthz").expect("an answer");
    }
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
}

fn with_length_16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &with_length_16(content)].concat()
}

const TLS_1_2: u16 = 0x0303;
const ECDHE_ECDSA_AES128_GCM: u16 = 0xC02B;
/// RFC 5746 section 3.3: asks for secure renegotiation without the extension.
const RENEGOTIATION_SCSV: u16 = 0x00FF;
/// None, export, RC4, DES, 3DES, static RSA with CBC and GCM, anonymous, ECDHE with CBC, CCM.
const WEAK_SUITES: &[u16] = &[
    0x0000, 0x0003, 0x0004, 0x0005, 0x0009, 0x000A, 0x002F, 0x0035, 0x009C, 0x009D, 0x0018, 0x001B,
    0xC006, 0xC007, 0xC008, 0xC009, 0xC00A, 0xC023, 0xC024, 0xC0AC, 0xC0AE,
];
const SERVER_NAME: u16 = 0;
const TRUNCATED_MAC: u16 = 4;
const GROUPS: u16 = 10;
const P_256: u16 = 23;
const POINT_FORMATS: u16 = 11;
const SIGNATURES: u16 = 13;
const ECDSA_P256_SHA256: u16 = 0x0403;
const ECDSA_SHA1: u16 = 0x0203;
const RSA_SHA1: u16 = 0x0201;
const RSA_MD5: u16 = 0x0101;
const HEARTBEAT: u16 = 15;
const EXTENDED_MASTER_SECRET: u16 = 23;
const RENEGOTIATION_INFO: u16 = 0xFF01;
/// RFC 8446 section 6.
const PROTOCOL_VERSION: u8 = 70;
