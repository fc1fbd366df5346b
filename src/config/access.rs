//! Who may do what: the settings of tokens, which need which, and the keys of the API, `[[api_key]]`.
//!
//! Secrets are in files or in environment variables, never in flags, which other users of the machine can read. Of the keys
//! of the API only digests are kept.

use super::ConfigError;
use super::effective::Effective;
use super::feed::Url;
use super::feed::reader::{Reader, Shown, is_name, read_tables};
use crate::access::{
    ApiKey, ApiKeys, Digest, Products, Proof, Rights, Scopes, Source, Sources, TokenPolicy,
    digest_of,
};
use crate::hub::Pattern;
use crate::limits::{API_KEY_BYTES_MIN, API_KEY_NAME_BYTES_MAX, API_KEYS_MAX};
use std::path::{Path, PathBuf};

/// Who may do what.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// Whether clients give a token.
    pub mode: AuthMode,
    /// What clients without a token may do. Where there are no tokens: subscribe to everything.
    pub anonymous: Rights,
    /// Which tokens are accepted.
    pub token: TokenPolicy,
    /// Where a token may stand.
    pub sources: Sources,
    /// Milliseconds for the token to come as a message.
    pub timeout_ms: u64,
    /// Where the keys come from that tokens are checked with.
    pub keys: KeySources,
    /// Who else decides about handshakes.
    pub hook: Option<HookConfig>,
    /// The keys of the API.
    pub api_keys: ApiKeys,
    /// The topics for which a client needs a licence.
    pub products: Products,
}

/// The server that is asked about handshakes without a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookConfig {
    /// Where it is.
    pub url: Url,
    /// The authorities that may have signed its certificate; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The header lines of a handshake that are passed on to it, in small letters.
    pub headers: Vec<String>,
    /// Milliseconds for its answer.
    pub timeout_ms: u64,
}

/// Whether clients give a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// There are no tokens.
    Off,
    /// Clients without one have the rights of anonymous ones.
    Optional,
    /// Clients without one are refused.
    Required,
}

/// Where keys come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySources {
    /// Files and variables.
    pub files: Vec<KeySource>,
    /// A document that is fetched.
    pub jwks: Option<JwksConfig>,
}

/// A place with keys on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// A document with keys that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksConfig {
    /// Where it is.
    pub url: Url,
    /// The authorities that may have signed that server's certificate; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Seconds after which it is fetched again unless the answer says otherwise.
    pub refresh_s: u64,
}

/// A key of the API, and how it is shown.
#[derive(Debug)]
pub(super) struct ApiKeyEntry {
    pub(super) key: ApiKey,
    pub(super) shown: Vec<Shown>,
}

impl Effective {
    /// The settings of who may do what.
    ///
    /// # Errors
    /// A setting that needs another one.
    pub(super) fn access(&self) -> Result<AccessConfig, ConfigError> {
        let mode = match self.word("auth") {
            "required" => AuthMode::Required,
            "optional" => AuthMode::Optional,
            _ => AuthMode::Off,
        };
        let keys = self.key_sources()?;
        let hook = self.hook()?;
        let parse = |text: &String| Source::parse(text).expect("it was checked when it was read");
        let sources: Vec<Source> = self.list("token-sources").iter().map(parse).collect();
        self.check_access(mode, &keys, hook.is_some(), &sources)?;
        let products = self.products(mode)?;
        let everything = || vec![Pattern::parse(">").expect("a pattern")];
        Ok(AccessConfig {
            mode,
            anonymous: Rights {
                subscribe: match mode {
                    AuthMode::Off => everything(),
                    AuthMode::Optional | AuthMode::Required => self.patterns("anonymous-subscribe"),
                },
                publish: self.patterns("client-publish"),
                ..Rights::default()
            },
            token: TokenPolicy {
                issuers: self.list("token-issuer").to_vec(),
                audiences: self.list("token-audience").to_vec(),
                leeway_s: self.number("token-leeway-s"),
                claim: self.word("token-claim").to_owned(),
                subscribe: self.patterns("token-subscribe"),
            },
            sources: Sources::new(sources),
            timeout_ms: self.number("token-timeout-ms"),
            keys,
            hook,
            api_keys: ApiKeys::new(
                self.api_keys
                    .iter()
                    .map(|entry| entry.key.clone())
                    .collect(),
            ),
            products,
        })
    }

    fn key_sources(&self) -> Result<KeySources, ConfigError> {
        let files =
            self.list("token-keys")
                .iter()
                .map(|text| match text.strip_prefix(VARIABLE_MARK) {
                    Some(name) => KeySource::Variable(name.to_owned()),
                    None => KeySource::File(text.into()),
                });
        let (url, ca) = (self.word("token-jwks-url"), self.word("token-jwks-ca"));
        if url.is_empty() && !ca.is_empty() {
            let problem = "there are authorities for a document that is not fetched";
            let remedy = "give the document's URL too, or neither";
            return Err(self.conflict("token-jwks-ca", "token-jwks-url", problem, remedy));
        }
        let jwks = (!url.is_empty()).then(|| JwksConfig {
            url: Url::parse_document(url).expect("it was checked when it was read"),
            ca: (!ca.is_empty()).then(|| ca.into()),
            refresh_s: self.number("token-jwks-refresh-s"),
        });
        Ok(KeySources {
            files: files.collect(),
            jwks,
        })
    }

    fn hook(&self) -> Result<Option<HookConfig>, ConfigError> {
        let (url, ca) = (self.word("auth-hook-url"), self.word("auth-hook-ca"));
        let headers = self.list("auth-hook-headers");
        if let Some(bad) = headers.iter().find(|name| !is_passed_on(name)) {
            return Err(ConfigError::BadValue {
                place: self.place_of("auth-hook-headers"),
                problem: format!("{bad:?} is no header that can be passed on"),
                remedy: "give names of header lines, such as Cookie".to_owned(),
            });
        }
        if url.is_empty() {
            if ca.is_empty() {
                return Ok(None);
            }
            let problem = "there are authorities for a server that is not asked";
            let remedy = "give the hook's URL too, or neither";
            return Err(self.conflict("auth-hook-ca", "auth-hook-url", problem, remedy));
        }
        Ok(Some(HookConfig {
            url: Url::parse_document(url).expect("it was checked when it was read"),
            ca: (!ca.is_empty()).then(|| ca.into()),
            headers: headers
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            timeout_ms: self.number("auth-hook-timeout-ms"),
        }))
    }

    fn check_access(
        &self,
        mode: AuthMode,
        keys: &KeySources,
        has_hook: bool,
        sources: &[Source],
    ) -> Result<(), ConfigError> {
        let has_keys = keys.exist();
        if mode != AuthMode::Optional && !self.list("anonymous-subscribe").is_empty() {
            let problem = "clients without a token are told apart only where a token is optional";
            let remedy = "give auth = \"optional\", or leave anonymous_subscribe out";
            return Err(self.conflict("auth", "anonymous-subscribe", problem, remedy));
        }
        if mode == AuthMode::Off {
            let second = match (keys.files.is_empty(), &keys.jwks, has_hook) {
                (false, _, _) => "token-keys",
                (true, Some(_), _) => "token-jwks-url",
                (true, None, true) => "auth-hook-url",
                (true, None, false) => return Ok(()),
            };
            let problem = "it is said how clients are known, and nobody asks them";
            let remedy = "give auth = \"required\" or \"optional\", or leave that out";
            return Err(self.conflict("auth", second, problem, remedy));
        }
        if !has_keys && !has_hook {
            let problem = "tokens cannot be checked without keys";
            let remedy = "give token_keys, token_jwks_url or auth_hook_url";
            return Err(self.conflict("auth", "token-keys", problem, remedy));
        }
        if has_keys && sources.is_empty() {
            let problem = "there is no place where a token is looked for";
            let remedy = "give token_sources, such as header and subprotocol";
            return Err(self.conflict("auth", "token-sources", problem, remedy));
        }
        let headers = self.list("auth-hook-headers");
        let passes_cookie = has_hook
            && headers
                .iter()
                .any(|name| name.eq_ignore_ascii_case("cookie"));
        if passes_cookie && self.origins().allow_all() {
            let problem = "a browser sends the cookie along whichever page connects";
            let remedy = "list the origins of your own pages, or leave Cookie out";
            return Err(self.conflict("auth-hook-headers", "origins", problem, remedy));
        }
        let is_cookie = |source: &Source| matches!(source, Source::Cookie(_));
        if has_keys && sources.iter().any(is_cookie) && self.origins().allow_all() {
            let problem = "a browser sends the cookie along whichever page connects";
            let remedy = "list the origins of your own pages";
            return Err(self.conflict("token-sources", "origins", problem, remedy));
        }
        Ok(())
    }
}

impl KeySources {
    /// Whether there is any place with keys.
    #[must_use]
    pub fn exist(&self) -> bool {
        !self.files.is_empty() || self.jwks.is_some()
    }
}

/// A header that one server may pass on to another (RFC 9110 section 7.6.1), and that tickring does not set itself.
fn is_passed_on(name: &str) -> bool {
    const OWN: &[&str] = &[
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-original-uri",
    ];
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token) && !OWN.contains(&&*name.to_ascii_lowercase())
}

/// Reads all keys of the API of a file. `environment` yields the variables that they may name.
///
/// # Errors
/// The first key that cannot be used.
pub(super) fn read_api_keys(
    path: &Path,
    value: &toml::Value,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<ApiKeyEntry>, ConfigError> {
    let readers = read_tables(API_KEY, API_KEYS_MAX, path, value, environment)?;
    let mut entries: Vec<ApiKeyEntry> = Vec::new();
    for mut reader in readers {
        let name = read_name(&mut reader, &entries)?;
        let proof = read_proof(&mut reader)?;
        if entries.iter().any(|other| other.key.proof == proof) {
            let (problem, remedy) = match proof {
                Proof::Key(_) => (
                    "its key is the key of another one",
                    "make another one: openssl rand -hex 32",
                ),
                Proof::Certificate(_) => (
                    "its certificate is the certificate of another one",
                    "give all scopes of a certificate in one [[api_key]]",
                ),
            };
            return Err(reader.bad("name", problem, remedy));
        }
        let scopes = Scopes {
            publish: reader.patterns("publish")?,
            read: reader.switch("read")?,
            operate: reader.switch("operate")?,
        };
        entries.push(ApiKeyEntry {
            key: ApiKey {
                name,
                proof,
                scopes,
            },
            shown: reader.finish()?,
        });
    }
    Ok(entries)
}

fn read_name(reader: &mut Reader<'_>, others: &[ApiKeyEntry]) -> Result<String, ConfigError> {
    let remedy = "give letters, digits, _, - and dots, such as name = \"desk\"";
    let name = reader.required_text("name", remedy)?;
    let problem = if !is_name(&name) {
        "not a name"
    } else if name.len() > API_KEY_NAME_BYTES_MAX {
        "too long"
    } else if others.iter().any(|other| other.key.name == name) {
        "the name of another key"
    } else {
        reader.name = Some(name.clone());
        return Ok(name);
    };
    Err(reader.bad("name", problem, remedy))
}

/// The name of a certificate, the digest of a key, or the variable with the key.
fn read_proof(reader: &mut Reader<'_>) -> Result<Proof, ConfigError> {
    let remedy = "give the SHA-256 of the key as 64 hexadecimal digits: printf %s KEY | sha256sum";
    let sha256 = reader.secret_text("sha256", remedy)?;
    let from = "give one of sha256, variable = \"NAME\", the environment variable that holds the key, and certificate = \"HOST\", \
                the name in a client's certificate";
    let variable = reader.text("variable", from)?;
    let certificate = reader.text("certificate", from)?;
    match (sha256, variable, certificate) {
        (Some(text), None, None) => match Digest::parse(text) {
            Some(digest) => Ok(Proof::Key(digest)),
            None => Err(reader.bad("sha256", "not a digest", remedy)),
        },
        (None, Some(name), None) => {
            let make = "set it to a random text where tickring is started: openssl rand -hex 32";
            match reader.variable(name) {
                None => Err(reader.bad("variable", "the environment variable is not set", make)),
                Some(key) if key.len() < API_KEY_BYTES_MIN => {
                    Err(reader.bad("variable", "the key in it is too short", make))
                }
                Some(key) => Ok(Proof::Key(digest_of(key.as_bytes()))),
            }
        }
        (None, None, Some(name)) if is_host(name) => Ok(Proof::Certificate(name.to_owned())),
        (None, None, Some(_)) => Err(reader.bad("certificate", "not a host name", from)),
        (None, None, None) => Err(reader.bad("sha256", "the key is missing", from)),
        _ => Err(reader.bad("name", "the key is given twice", from)),
    }
}

/// A host name as it stands in a certificate (RFC 6125): labels of letters, digits and hyphens.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// The heading of a key of the API in the file.
pub(super) const API_KEY: &str = "api_key";
/// What a place of keys begins with that is no file.
const VARIABLE_MARK: &str = "env:";

#[cfg(test)]
mod tests {
    use super::super::{Command, Flags};
    use super::*;
    use crate::hub::Topic;
    use std::ffi::OsString;

    fn read(line: &str) -> Result<AccessConfig, String> {
        let words = format!("tickring serve {line}");
        let flags = Flags::parse(words.split_whitespace().map(OsString::from)).unwrap();
        let loaded = super::super::load(&flags, []).and_then(|effective| effective.access());
        loaded.map_err(|error| error.to_string())
    }

    fn read_keys(text: &str) -> Result<Vec<ApiKeyEntry>, String> {
        let table: toml::Table = text.parse().expect(text);
        let environment = |name: &str| match name {
            "DESK_KEY" => Some("0123456789abcdefghijklmn".to_owned()),
            "SHORT" => Some("0123456789".to_owned()),
            _ => None,
        };
        let read = read_api_keys(Path::new("t.toml"), &table["api_key"], &environment);
        read.map_err(|error| error.to_string())
    }

    /// Without any setting everybody may read everything, as before there were tokens.
    #[test]
    fn off_means_open_to_readers() {
        let access = Effective::defaults(Command::Serve).access().unwrap();
        assert_eq!(access.mode, AuthMode::Off);
        let everything = Pattern::parse(">").unwrap();
        assert!(access.anonymous.may_subscribe(&everything));
        assert!(!access.anonymous.may_publish(&Topic::parse("a").unwrap()));
        assert!(access.api_keys.is_empty() && access.keys == KeySources::default());
    }

    /// Each setting arrives where it belongs.
    #[test]
    fn settings_arrive() {
        let access = read(
            "--auth optional --anonymous-subscribe news.> --token-keys a.pem,env:KEY --token-jwks-url https://id.example/jwks \
             --token-jwks-ca ca.pem --token-jwks-refresh-s 60 --token-issuer https://id.example --token-audience edge,b \
             --token-leeway-s 3 --token-claim https://desk.example/tickring --token-subscribe md.> --client-publish chat.* \
             --token-sources cookie:__Host-t,message,query:token --origins https://desk.example --token-timeout-ms 700",
        )
        .unwrap();
        assert_eq!(access.mode, AuthMode::Optional);
        let pattern = |text| vec![Pattern::parse(text).unwrap()];
        assert_eq!(access.anonymous.subscribe, pattern("news.>"));
        assert_eq!(access.anonymous.publish, pattern("chat.*"));
        let files = [
            KeySource::File("a.pem".into()),
            KeySource::Variable("KEY".to_owned()),
        ];
        assert_eq!(access.keys.files, files);
        let jwks = access.keys.jwks.unwrap();
        assert_eq!(jwks.url.to_string(), "https://id.example");
        assert_eq!((jwks.ca, jwks.refresh_s), (Some("ca.pem".into()), 60));
        assert_eq!(
            access.token,
            TokenPolicy {
                issuers: vec!["https://id.example".to_owned()],
                audiences: vec!["edge".to_owned(), "b".to_owned()],
                leeway_s: 3,
                claim: "https://desk.example/tickring".to_owned(),
                subscribe: pattern("md.>"),
            }
        );
        let sources = [
            Source::Cookie("__Host-t".to_owned()),
            Source::Message,
            Source::Query("token".to_owned()),
        ];
        assert_eq!(access.sources, Sources::new(sources.to_vec()));
        assert_eq!(access.timeout_ms, 700);
    }

    /// What would leave the server open, or closed to everybody, is refused when it starts.
    #[test]
    fn unsafe_combinations_are_refused() {
        for (line, said) in [
            ("--auth required", "tokens cannot be checked without keys"),
            ("--token-keys a.pem", "nobody asks them"),
            ("--token-jwks-url https://a/", "nobody asks them"),
            ("--auth-hook-url https://a/", "nobody asks them"),
            ("--auth-hook-ca a", "a server that is not asked"),
            (
                "--auth required --auth-hook-url https://a/",
                "whichever page connects",
            ),
            (
                "--auth required --auth-hook-headers Host",
                "can be passed on",
            ),
            (
                "--auth required --auth-hook-url http://a.example/",
                "not https://",
            ),
            ("--anonymous-subscribe a", "only where a token is optional"),
            (
                "--auth required --token-keys a --anonymous-subscribe a",
                "only where a token is optional",
            ),
            ("--token-jwks-ca a", "a document that is not fetched"),
            (
                "--auth required --token-keys a --token-sources=",
                "no place where a token is looked for",
            ),
            (
                "--auth required --token-keys a --token-sources cookie:t",
                "whichever page connects",
            ),
            (
                "--auth required --token-keys a --token-sources cookie:t --origins *",
                "whichever page connects",
            ),
            ("--token-sources body", "not a place of a token"),
            ("--token-jwks-url http://id.example/", "not https://"),
            ("--token-leeway-s 301", "out of range"),
            ("--auth yes", "not one of the choices"),
        ] {
            let refused = read(line).unwrap_err();
            assert!(refused.contains(said), "{line}: {refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
    }

    /// Keys of the API are known by their digests, and neither keys nor digests are shown.
    #[test]
    fn api_keys_are_read() {
        let entries = read_keys(
            r#"
            [[api_key]]
            name = "desk"
            variable = "DESK_KEY"
            publish = ["md.>"]
            [[api_key]]
            name = "grafana"
            sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            read = true
            "#,
        )
        .unwrap();
        let keys = ApiKeys::new(entries.iter().map(|entry| entry.key.clone()).collect());
        let desk = keys.identify(b"0123456789abcdefghijklmn").unwrap();
        assert!(desk.name == "desk" && desk.may_publish(&Topic::parse("md.AAPL").unwrap()));
        assert!(!desk.scopes.read && !desk.scopes.operate);
        let grafana = keys.identify(b"abc").unwrap();
        assert!(grafana.scopes.read && grafana.scopes.publish.is_empty());
        let shown = format!("{entries:?}");
        assert!(
            shown.contains("DESK_KEY") && shown.contains("<redacted>"),
            "{shown}"
        );
        assert!(
            !shown.contains("ba7816bf") && !shown.contains("0123456789"),
            "{shown}"
        );
    }

    /// What is wrong with a key is said with its place, and without the key.
    #[test]
    fn bad_api_keys_are_refused() {
        let good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (keys, said) in [
            (
                "name = 'a'",
                r#"[[api_key]] "a": sha256: the key is missing"#.to_owned(),
            ),
            ("name = 'a b'", "not a name".to_owned()),
            ("sha256 = 'x'", "[[api_key]] 1: name: missing".to_owned()),
            (
                "name = 'a'\nsha256 = 'ba78'",
                r#""a": sha256: not a digest"#.to_owned(),
            ),
            ("name = 'a'\nvariable = 'NONE'", "is not set".to_owned()),
            ("name = 'a'\nvariable = 'SHORT'", "too short".to_owned()),
            (
                "name = 'a'\ncertificate = 'a b'",
                "not a host name".to_owned(),
            ),
            (
                &format!("name = 'a'\nsha256 = '{good}'\ncertificate = 'a.example'"),
                "given twice".to_owned(),
            ),
            (
                "name = 'a'\ncertificate = 'a.example'\n[[api_key]]\nname = 'b'\ncertificate = 'a.example'",
                "the certificate of another one".to_owned(),
            ),
            (
                "name = 'a'\nkey = 'hunter2'",
                "the key is missing".to_owned(),
            ),
            (
                &format!("name = 'a'\nsha256 = '{good}'\nkey = 'hunter2'"),
                "no such key".to_owned(),
            ),
            (
                &format!("name = 'a'\nsha256 = '{good}'\nvariable = 'DESK_KEY'"),
                "given twice".to_owned(),
            ),
            (
                &format!("name = 'a'\nsha256 = '{good}'\npublish = ['a..b']"),
                "empty token".to_owned(),
            ),
            (
                &format!("name = 'a'\nsha256 = '{good}'\nread = 1"),
                "wrong type".to_owned(),
            ),
            (
                &format!(
                    "name = 'a'\nsha256 = '{good}'\n[[api_key]]\nname = 'b'\nsha256 = '{good}'"
                ),
                "the key of another one".to_owned(),
            ),
            (
                &format!(
                    "name = 'a'\nsha256 = '{good}'\n[[api_key]]\nname = 'a'\nvariable = 'DESK_KEY'"
                ),
                "the name of another key".to_owned(),
            ),
        ] {
            let refused = read_keys(&format!("[[api_key]]\n{keys}")).unwrap_err();
            assert!(refused.contains(&said), "{keys}: {refused}");
            assert!(
                !refused.contains("ba78") && !refused.contains("hunter2"),
                "{refused}"
            );
            assert!(!refused.contains("0123456789"), "{refused}");
        }
    }
}
