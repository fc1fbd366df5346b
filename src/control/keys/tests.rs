//! Keys that change, over the file system and over real sockets on loopback.

use std::cell::RefCell;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tickring_tls::rustls::crypto::ring::default_provider;
use tickring_tls::rustls::pki_types::PrivateKeyDer;
use tickring_tls::rustls::{self, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{Config, Flags, load};

/// Waiting for this long means that what is waited for does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// All on one thread, as on the control thread.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(PATIENCE, test).await.expect("it ends in time");
    });
}

fn times() -> KeyTimes {
    KeyTimes {
        files_interval: Duration::from_millis(5),
        request_timeout: Duration::from_secs(20),
        unknown_key_interval: Duration::ZERO,
        retry_min_ms: 1,
        retry_max_ms: 5,
    }
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tickring-keys-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config(line: &str) -> KeySources {
    let words = format!("tickring serve --auth required {line}");
    let flags = Flags::parse(words.split_whitespace().map(Into::into)).unwrap();
    let config: Config = load(&flags, []).unwrap().to_config().unwrap();
    config.access.keys
}

/// A document with so many keys.
fn document(keys: usize) -> String {
    let keys: Vec<String> = (0..keys)
        .map(|id| format!(r#"{{"kty":"oct","kid":"{id}","k":"{}"}}"#, "a".repeat(44)))
        .collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// An answer with a body.
fn ok(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

/// Keeps keys up to date until dropped, and yields each set.
struct Kept {
    counts: Rc<RefCell<Vec<usize>>>,
    renewed: Rc<Notify>,
    wanted: WantedKeys,
    new: NewKeys,
    metrics: Arc<ControlMetrics>,
    task: tokio::task::JoinHandle<()>,
}

impl Kept {
    fn start(keys: TokenKeys) -> Self {
        let (counts, renewed) = (Rc::default(), Rc::new(Notify::new()));
        let kept = Self {
            counts: Rc::clone(&counts),
            renewed: Rc::clone(&renewed),
            wanted: WantedKeys::default(),
            new: NewKeys::default(),
            metrics: Arc::default(),
            task: spawn_local(async {}),
        };
        let renew = move |keys: Arc<KeySet>| {
            counts.borrow_mut().push(keys.len());
            renewed.notify_one();
        };
        let (wanted, new) = (kept.wanted.clone(), kept.new.clone());
        let keeping = keys.keep(wanted, new, Arc::clone(&kept.metrics), renew);
        let task = spawn_local(async move { match keeping.await {} });
        Self { task, ..kept }
    }

    /// Waits until a set of so many keys was yielded.
    async fn has(&self, keys: usize) {
        while self.counts.borrow().last() != Some(&keys) {
            self.renewed.notified().await;
        }
    }

    /// Waits until so many attempts have failed.
    async fn has_failed(&self, times: u64) {
        while self.metrics.token_key_errors.value() < times {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn stop(self) {
        self.task.abort();
    }
}

/// Answers each connection with the next of the answers, and with the last for ever after.
struct Server {
    port: u16,
    requests: Rc<RefCell<Vec<String>>>,
}

impl Server {
    async fn start(answers: Vec<String>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Rc<RefCell<Vec<String>>> = Rc::default();
        let all = Rc::clone(&requests);
        spawn_local(async move {
            let mut answers = answers.into_iter().peekable();
            let mut last = String::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                last = answers.next().unwrap_or(last);
                match &tls {
                    None => answer(stream, &last, &all).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => answer(stream, &last, &all).await,
                        Err(_) => continue,
                    },
                }
            }
        });
        Self { port, requests }
    }

    fn sources(&self) -> KeySources {
        config(&format!(
            "--token-jwks-url http://127.0.0.1:{}/jwks.json?x=1",
            self.port
        ))
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &str,
    requests: &RefCell<Vec<String>>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    requests
        .borrow_mut()
        .push(String::from_utf8(request).unwrap());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn read(sources: KeySources) -> TokenKeys {
    TokenKeys::read(sources, times()).unwrap()
}

/// Files are read at the start and read again when they change, a bad one changes nothing, and a reload of the settings may
/// name others.
#[test]
fn files_are_kept_up_to_date() {
    run(async {
        let folder = Folder::new("files");
        let path = folder.write("keys.json", document(1));
        let keys = read(config(&format!("--token-keys {}", path.display())));
        assert_eq!(keys.current().len(), 1);
        let kept = Kept::start(keys);
        folder.write("keys.json", document(2));
        kept.has(2).await;
        let failures = kept.metrics.token_key_errors.value();
        folder.write("keys.json", "{\"keys\":[");
        kept.has_failed(failures + 1).await;
        assert_eq!(kept.counts.borrow().last(), Some(&2), "nothing changed");
        folder.write("keys.json", document(3));
        kept.has(3).await;
        let other = folder.write("other.json", document(4));
        kept.new
            .put(read(config(&format!("--token-keys {}", other.display()))));
        kept.has(4).await;
        folder.write("keys.json", document(1));
        folder.write("other.json", document(5));
        kept.has(5).await;
        std::fs::remove_file(other).unwrap();
        let failures = kept.metrics.token_key_errors.value();
        kept.has_failed(failures + 1).await;
        assert_eq!(kept.counts.borrow().last(), Some(&5));
        kept.stop();
    });
}

/// A server does not start with keys that it cannot read; the reason names the place and shows no key.
#[test]
fn bad_files_are_an_error_at_the_start() {
    let folder = Folder::new("bad");
    let short = folder.write("short", "hunter2");
    let many = folder.write("many", document(33));
    let full = folder.write("full", document(32));
    let place = |path: &Path| format!("--token-keys {}", path.display());
    for (line, said) in [
        (
            place(&short),
            "short: a shared secret of less than 32 bytes",
        ),
        (place(&many), "many: more than 32 keys"),
        (place(&folder.0.join("none")), "cannot read"),
        (place(&folder.0), "cannot read"),
        (
            "--token-keys env:TICKRING_TEST_NOT_SET".to_owned(),
            "TICKRING_TEST_NOT_SET is not set",
        ),
        (
            format!("--token-keys {},{}", full.display(), full.display()),
            "more than 32 keys",
        ),
    ] {
        let refused = TokenKeys::read(config(&line), times()).err().expect(&line);
        let text = refused.to_string();
        assert!(text.contains(said), "{line}: {text}");
        assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
    }
    // PATH is set wherever tests run, and is no secret.
    let path = std::env::var("PATH").unwrap();
    let read = TokenKeys::read(config("--token-keys env:PATH"), times());
    assert_eq!(read.is_ok(), path.len() >= 32);
}

/// The document is asked for as its server expects, and its keys come beside those of files.
#[test]
fn documents_are_fetched() {
    run(async {
        let folder = Folder::new("fetched");
        let path = folder.write("secret", "s".repeat(32));
        let server = Server::start(vec![ok("", &document(2))], None).await;
        let line = format!(
            "--token-keys {} --token-jwks-url http://127.0.0.1:{}/jwks.json?x=1",
            path.display(),
            server.port
        );
        let kept = Kept::start(read(config(&line)));
        kept.has(3).await;
        let request = server.requests.borrow()[0].to_ascii_lowercase();
        assert!(
            request.starts_with("get /jwks.json?x=1 http/1.1\r\n"),
            "{request}"
        );
        let host = format!("\r\nhost: 127.0.0.1:{}\r\n", server.port);
        assert!(request.contains(&host), "{request}");
        // Too many keys together: the file stays as it was, also when the document is fetched again.
        let failures = kept.metrics.token_key_errors.value();
        folder.write("secret", document(31));
        kept.has_failed(failures + 1).await;
        let renewals = kept.counts.borrow().len();
        kept.wanted.ask();
        while kept.counts.borrow().len() == renewals {
            kept.renewed.notified().await;
        }
        assert_eq!(kept.counts.borrow().last(), Some(&3));
        kept.stop();
    });
}

/// Bodies come in chunks, or end with the connection, too.
#[test]
fn all_framings_of_http_are_read() {
    run(async {
        let (one, two, three) = (document(1), document(2), document(3));
        let chunked = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            10,
            &two[..10],
            two.len() - 10,
            &two[10..]
        );
        let until_close = format!("HTTP/1.1 200 OK\r\n\r\n{three}");
        let server = Server::start(vec![ok("", &one), chunked, until_close], None).await;
        let kept = Kept::start(read(server.sources()));
        for keys in 1..=3 {
            kept.has(keys).await;
            kept.wanted.ask();
        }
        kept.stop();
    });
}

/// However a request fails, the keys stay, it is tried again, and then the new ones come.
#[test]
fn failures_change_nothing() {
    run(async {
        let huge = "x".repeat(TOKEN_KEY_FILE_BYTES_MAX + 1);
        let bad = [
            String::new(),
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned(),
            "nonsense\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\nX: {huge}\r\n\r\n"),
            ok("", &huge),
            format!("HTTP/1.1 200 OK\r\n\r\n{huge}"),
            ok("", "<html>"),
            ok("", "{\"keys\":[]}"),
            ok("", &document(33)),
        ];
        let failures = bad.len() as u64;
        let answers = std::iter::once(ok("", &document(1)));
        let answers = answers.chain(bad).chain([ok("", &document(2))]);
        let server = Server::start(answers.collect(), None).await;
        let kept = Kept::start(read(server.sources()));
        kept.has(1).await;
        kept.wanted.ask();
        kept.has(2).await;
        assert_eq!(*kept.counts.borrow(), [1, 2], "nothing in between");
        assert_eq!(kept.metrics.token_key_errors.value(), failures);
        kept.stop();
    });
}

/// The server starts without the document, and an unknown key makes it ask again, as often as the interval allows.
#[test]
fn unknown_keys_ask_again() {
    run(async {
        let server = Server::start(vec![ok("", &document(1)), ok("", &document(2))], None).await;
        let slow = KeyTimes {
            unknown_key_interval: Duration::from_secs(3_600),
            ..times()
        };
        let keys = TokenKeys::read(server.sources(), slow).unwrap();
        assert!(keys.current().is_empty());
        let kept = Kept::start(keys);
        kept.has(1).await;
        for _ in 0..100 {
            kept.wanted.ask();
            tokio::task::yield_now().await;
        }
        assert_eq!(server.requests.borrow().len(), 1, "the interval is an hour");
        kept.stop();

        let server = Server::start(vec![ok("", &document(1)), ok("", &document(2))], None).await;
        let kept = Kept::start(read(server.sources()));
        kept.has(1).await;
        kept.wanted.ask();
        kept.has(2).await;
        kept.stop();
    });
}

/// Over TLS the server must have a certificate that the operator's authority has signed, for the name in the URL.
#[test]
fn documents_come_over_tls() {
    run(async {
        let folder = Folder::new("tls");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca = folder.write("ca.pem", cert.pem());
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config_of_server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config_of_server));
        let server = Server::start(vec![ok("", &document(1))], Some(acceptor)).await;
        let with = |host: &str, ca: &Path| {
            let (port, ca) = (server.port, ca.display());
            config(&format!(
                "--token-jwks-url https://{host}:{port}/ --token-jwks-ca {ca}"
            ))
        };
        let kept = Kept::start(read(with("localhost", &ca)));
        kept.has(1).await;
        kept.stop();
        let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other_ca = folder.write("other.pem", other.cert.pem());
        for sources in [with("localhost", &other_ca), with("127.0.0.1", &ca)] {
            let kept = Kept::start(read(sources));
            kept.has_failed(2).await;
            assert!(kept.counts.borrow().is_empty());
            kept.stop();
        }
        assert_eq!(server.requests.borrow().len(), 1);
    });
}
