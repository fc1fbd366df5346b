//! Which certificate a client is shown, which clients' certificates are accepted, and what replaced files change.

mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use support::tls::{
    Authority, Files, Issued, Site, VERSIONS, ask, connect, curious, metric, parameters, shown,
    trusting, trusting_with_own, wait_for_metric,
};
use support::{ENGINES, Server};
use tickring_tls::rustls::pki_types::CertificateDer;
use tickring_tls::rustls::pki_types::pem::PemObject as _;
use tickring_tls::rustls::{ClientConfig, HandshakeKind};
use tungstenite::Message;

/// The name that a client asks for decides, and a wildcard stands for one label. A client that asks for an unknown
/// name, or for none, is shown the first certificate.
#[test]
fn the_name_that_a_client_asks_for_decides() {
    let authority = Authority::new("names");
    let files = Files::new();
    let certificates = [
        ("first", authority.issue(&["first.example"])),
        ("wild", authority.issue(&["*.wild.example"])),
        ("two", authority.issue(&["a.example", "b.example"])),
    ];
    for (name, issued) in &certificates {
        files.write_certificate(name, issued);
    }
    for engine in ENGINES {
        let server = files.start(engine, &["first", "wild", "two"], &[]);
        let address = server.tls.expect("a port with TLS");
        for version in VERSIONS {
            let strict = Arc::new(trusting(&authority.der(), version));
            for (name, expected) in [
                ("first.example", 0),
                ("x.wild.example", 1),
                ("y.wild.example", 1),
                ("a.example", 2),
                ("b.example", 2),
            ] {
                let tls = connect(address, &strict, name).expect("the client accepts it");
                assert!(shown(&tls) == certificates[expected].1.der(), "{name}");
            }
            // An address is not a name: such a client asks for none.
            let (lax, _) = curious(version);
            let lax = Arc::new(lax);
            for name in [
                "unknown.example",
                "wild.example",
                "x.y.wild.example",
                "127.0.0.1",
            ] {
                let tls = connect(address, &lax, name).expect("a handshake");
                assert!(shown(&tls) == certificates[0].1.der(), "{engine} {name}");
            }
        }
    }
}

/// A certificate whose key the client cannot use is passed over, whatever its name: here with OpenSSL as the client, and
/// keys on Ed25519, RSA and P-256 for the same name.
#[test]
fn a_certificate_that_the_client_cannot_use_is_passed_over() {
    let authority = Authority::new("key types");
    let files = Files::new();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    files.write_certificate(
        "ed25519",
        &authority.sign(parameters(&["same.example"]), ed25519),
    );
    files.write_certificate("p256", &authority.issue(&["same.example"]));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj"])
        .args(["/CN=same", "-addext", "subjectAltName=DNS:same.example"])
        .args(["-keyout", &files.flag("rsa.key")])
        .args(["-out", &files.flag("rsa.pem")])
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl is installed").success());
    for engine in ENGINES {
        let server = files.start(engine, &["ed25519", "rsa", "p256"], &[]);
        let address = server.tls.expect("a port with TLS");
        for version in ["-tls1_2", "-tls1_3"] {
            for (algorithms, signed_with) in [
                ("ed25519", "ed25519"),
                ("RSA-PSS+SHA256", "RSA-PSS"),
                ("ECDSA+SHA256", "ECDSA"),
                ("ECDSA+SHA256:ed25519", "ed25519"),
            ] {
                let said = openssl(address, &[version, "-sigalgs", algorithms]);
                let line = said
                    .lines()
                    .find(|line| line.starts_with("Peer signature type: "));
                let line = line.unwrap_or_else(|| panic!("{version} {algorithms}: {said}"));
                assert!(
                    line.to_lowercase().ends_with(&signed_with.to_lowercase()),
                    "{version} {algorithms}: {line}"
                );
            }
            let said = openssl(address, &[version, "-sigalgs", "DSA+SHA256"]);
            assert!(!said.contains("Peer signature type: "), "{said}");
        }
    }
}

/// What `openssl s_client` says about a connection that it makes and ends.
fn openssl(address: SocketAddr, flags: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(["-servername", "same.example"])
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Replaced files are used for new connections, without any signal; a connection that is open goes on.
#[test]
fn replaced_certificates_are_used_for_new_connections() {
    for engine in ENGINES {
        let site = Site::start(engine, &["--shards", "2"]);
        for version in VERSIONS {
            let mut echo = site.open(version, "/echo");
            let new = site.authority.issue(&["localhost"]);
            // As certbot and others do it: a new file takes the place of the old one.
            site.files.write_certificate("next", &new);
            for part in ["pem", "key"] {
                let [from, to] =
                    ["next", "server"].map(|name| site.files.path(&format!("{name}.{part}")));
                std::fs::rename(from, to).expect("a file");
            }
            site.server.wait_for_log("new connections get them");
            wait_until_all_show(&site, &new.der());
            echo.send(Message::text("still here")).expect("sent");
            assert_eq!(echo.read().expect("an echo").to_string(), "still here");
        }
    }
}

/// Waits until new connections are shown a certificate, on every shard: the shards are told one after the other.
fn wait_until_all_show(site: &Site, certificate: &CertificateDer<'static>) {
    let until = std::time::Instant::now() + support::PATIENCE;
    let mut in_a_row = 0;
    while in_a_row < 20 {
        assert!(std::time::Instant::now() < until, "an old one is shown");
        let is_new = shown(&site.connect(VERSIONS[1])) == *certificate;
        in_a_row = if is_new { in_a_row + 1 } else { 0 };
    }
}

/// One file may hold the key and the chain, so that both are replaced at once.
#[test]
fn one_file_may_hold_both() {
    for engine in ENGINES {
        let authority = Authority::new("both");
        let files = Files::new();
        let write = |issued: &Issued| {
            files.write("next", issued.key.clone() + &issued.certificate);
            for name in ["site.pem", "site.key"] {
                let path = files.path(name);
                if !path.exists() {
                    std::os::unix::fs::symlink(files.path("both"), path).expect("a link");
                }
            }
            std::fs::rename(files.path("next"), files.path("both")).expect("a file");
        };
        write(&authority.issue(&["localhost"]));
        let server = files.start(engine, &["site"], &[]);
        let new = authority.issue(&["localhost"]);
        write(&new);
        server.wait_for_log("new connections get them");
        let config = Arc::new(trusting(&authority.der(), VERSIONS[1]));
        let address = server.tls.expect("a port with TLS");
        let until = std::time::Instant::now() + support::PATIENCE;
        while shown(&connect(address, &config, "localhost").expect("a handshake")) != new.der() {
            assert!(std::time::Instant::now() < until, "{engine}");
        }
        let errors = metric(&server, "tickring_certificate_reload_errors_total");
        assert_eq!(errors, 0.0, "{engine}");
    }
}

/// SIGHUP has the files read at once, changed or not.
#[test]
fn sighup_reads_the_files_again() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        site.server.signal("-HUP");
        site.server.wait_for_log("were read again");
        assert_eq!(
            metric(&site.server, "tickring_certificate_reloads_total"),
            1.0
        );
        let mut tls = site.connect(VERSIONS[1]);
        ask(&mut tls, "/healthz").expect("an answer");
    }
}

/// A new file that cannot be used changes nothing: it is logged with its path, counted, and the old certificate is shown
/// until a good one is there.
#[test]
fn a_bad_file_keeps_the_old_certificate() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        let old = shown(&site.connect(VERSIONS[1]));
        let good = site.authority.issue(&["localhost"]);
        let other = site.authority.issue(&["localhost"]);
        let half = &good.certificate[..good.certificate.len() / 2];
        let response = ocsp_response(&site);
        let bad = [
            ("server.pem", half.to_owned()),
            ("server.pem", String::new()),
            ("server.pem", "no certificate".to_owned()),
            ("server.pem", other.certificate),
            ("server.key", good.key[..good.key.len() / 2].to_owned()),
            ("server.key", other.key),
        ]
        .map(|(file, text)| (file, text.into_bytes()));
        let bad_response = ("server.pem.ocsp", response[..response.len() / 2].to_vec());
        let bad = [&bad[..], &[bad_response]].concat();
        for (number, (file, bytes)) in bad.iter().enumerate() {
            site.files.write_certificate("server", &good);
            site.files.write(file, bytes);
            site.server.signal("-HUP");
            let line = site.server.wait_for_log("stay as they were");
            assert!(
                line.contains("server.") && line.contains("ERROR"),
                "{number}: {line}"
            );
            assert!(shown(&site.connect(VERSIONS[1])) == old, "{number}");
        }
        let errors = metric(&site.server, "tickring_certificate_reload_errors_total");
        assert!(errors >= bad.len() as f64, "{errors}");
        std::fs::remove_file(site.files.path("server.pem.ocsp")).expect("it is there");
        std::fs::remove_file(site.files.path("server.key")).expect("it is there");
        site.server.signal("-HUP");
        site.server.wait_for_log("cannot read");
        assert!(shown(&site.connect(VERSIONS[1])) == old);
        site.files.write_certificate("server", &good);
        site.server.signal("-HUP");
        wait_until_all_show(&site, &good.der());
    }
}

/// An OCSP response beside the certificate is stapled, and one that is replaced takes its place; without one there is
/// none.
#[test]
fn an_ocsp_response_is_stapled() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            let (config, seen) = curious(version);
            let config = Arc::new(config);
            let stapled = || {
                connect(site.address(), &config, "localhost").expect("a handshake");
                seen.stapled()
            };
            assert!(stapled().is_empty());
            let response = ocsp_response(&site);
            for wanted in [&response[..], &[]] {
                match wanted {
                    [] => std::fs::remove_file(site.files.path("server.pem.ocsp")).expect("a file"),
                    response => site.files.write("server.pem.ocsp", response),
                }
                site.server.signal("-HUP");
                site.server.wait_for_log("were read again");
                let until = std::time::Instant::now() + support::PATIENCE;
                while stapled() != wanted {
                    assert!(std::time::Instant::now() < until, "{engine}");
                }
                if !wanted.is_empty() {
                    let said = openssl(site.address(), &["-status"]);
                    assert!(said.contains("OCSP Response Status: successful"), "{said}");
                }
            }
        }
    }
}

/// A response that says that the site's certificate is good, made by OpenSSL.
fn ocsp_response(site: &Site) -> Vec<u8> {
    let files = &site.files;
    files.write("authority.pem", site.authority.pem());
    files.write("authority.key", site.authority.key_pem());
    let serial = Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-in"])
        .arg(files.path("server.pem"))
        .output();
    let serial = String::from_utf8(serial.expect("openssl is installed").stdout).expect("text");
    let serial = serial.trim().strip_prefix("serial=").expect("a serial");
    files.write(
        "index",
        format!("V\t400101000000Z\t\t{serial}\tunknown\t/CN=server\n"),
    );
    let made = Command::new("openssl")
        .current_dir(files)
        .args(["ocsp", "-index", "index", "-CA", "authority.pem"])
        .args(["-rsigner", "authority.pem", "-rkey", "authority.key"])
        .args(["-issuer", "authority.pem", "-cert", "server.pem"])
        .args(["-no_nonce", "-ndays", "7", "-respout", "response"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl is installed").success());
    std::fs::read(files.path("response")).expect("a response")
}

/// The log says at the start, and again when files are replaced, which certificates expire within two weeks, have
/// expired or are not valid yet. The metrics say when each expires; files of one name are told apart.
#[test]
fn certificates_that_expire_are_announced() {
    let authority = Authority::new("times");
    let days = |days: u64| std::time::Duration::from_secs(days * 24 * 60 * 60);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let valid_from_to = |from, until| {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let mut params = parameters(&["localhost"]);
        (params.not_before, params.not_after) = (epoch + from, epoch + until);
        authority.sign(params, rcgen::KeyPair::generate().expect("a key"))
    };
    for engine in ENGINES {
        let files = Files::new();
        std::fs::create_dir(files.path("a")).expect("a folder");
        std::fs::create_dir(files.path("b")).expect("a folder");
        files.write_certificate("good", &valid_from_to(now - days(1), now + days(60)));
        files.write_certificate("a/x", &valid_from_to(now - days(1), now + days(13)));
        files.write_certificate("b/x", &valid_from_to(now + days(1), now + days(60)));
        let server = files.start(engine, &["a/x", "b/x", "good"], &[]);
        let line = server.wait_for_log("expires in 1");
        assert!(line.contains("a/x.pem") && line.contains("WARN"), "{line}");
        let line = server.wait_for_log("is not valid before");
        assert!(line.contains("b/x.pem") && line.contains("WARN"), "{line}");
        for (label, expires) in [
            ("a/x.pem", now + days(13)),
            ("b/x.pem", now + days(60)),
            ("good.pem", now + days(60)),
        ] {
            let (_, text) = server.api("GET", "/metrics", "");
            let sample = format!(
                "tickring_certificate_expiry_seconds{{certificate=\"{label}\"}} {}\n",
                expires.as_secs()
            );
            assert!(text.contains(&sample), "{sample}: {text}");
        }
        files.write_certificate("good", &valid_from_to(now - days(60), now - days(1)));
        server.signal("-HUP");
        let line = server.wait_for_log("has expired");
        assert!(line.contains("good.pem"), "{line}");
    }
}

/// `demo --tls` makes a certificate, which clients accept that trust the file it names, and no others. The next start
/// uses it again. One that cannot be used is replaced.
#[test]
fn the_demo_makes_a_certificate_of_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    for engine in ENGINES {
        let files = Files::new();
        let start = || {
            let mut command = support::command(&["demo", "--tls", "--tls-listen", "127.0.0.1:0"]);
            command.args(["--io", engine, "--shards", "1", "--rate", "1"]);
            command.env("XDG_DATA_HOME", files.path("data"));
            Server::spawn(command)
        };
        let read = |name: &str| {
            std::fs::read_to_string(files.path("data/tickring/demo").join(name)).expect("a file")
        };
        let connect_trusting = |server: &Server, authority: &str| {
            let authority = CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM");
            let address = server.tls.expect("a port with TLS");
            for name in ["localhost", "127.0.0.1", "::1"] {
                let config = Arc::new(trusting(&authority, VERSIONS[1]));
                let mut tls = connect(address, &config, name)?;
                let page = ask(&mut tls, "/")?;
                assert!(page.starts_with("HTTP/1.1 200"), "{page}");
            }
            std::io::Result::Ok(())
        };
        let server = start();
        server.wait_for_log("a certificate was made");
        let authority = read("authority.pem");
        connect_trusting(&server, &authority).expect("the certificate is accepted");
        let stranger = Authority::new("stranger").pem();
        assert!(connect_trusting(&server, &stranger).is_err());
        let key = files.path("data/tickring/demo/key.pem");
        let mode = std::fs::metadata(&key)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!read("key.pem").contains("CERTIFICATE") && !authority.contains("PRIVATE"));
        drop(server);

        let server = start();
        assert_eq!(read("authority.pem"), authority);
        connect_trusting(&server, &authority).expect("the certificate is accepted");
        drop(server);

        std::fs::write(&key, "no key").expect("a file");
        let server = start();
        assert_ne!(read("authority.pem"), authority);
        connect_trusting(&server, &read("authority.pem")).expect("the certificate is accepted");
    }
}

/// Where clients' certificates are required, only one by a known authority is served; where they are optional, a client
/// without one is served too. One by another authority is refused in both.
#[test]
fn clients_certificates_are_checked() {
    for engine in ENGINES {
        for (mode, serves_without) in [("required", false), ("optional", true)] {
            let clients = Clients::new();
            let server = clients.start(engine, mode);
            for version in VERSIONS {
                let own = clients.authority.issue(&["client"]);
                let foreign = Authority::new("another").issue(&["client"]);
                for (own, is_served) in [
                    (Some(&own), true),
                    (None, serves_without),
                    (Some(&foreign), false),
                ] {
                    let config = clients.config(version, own);
                    let kind = kind_of_served(&server, &config);
                    assert_eq!(kind.is_some(), is_served, "{engine} {mode} {version:?}");
                }
            }
            let errors = if serves_without { 2.0 } else { 4.0 };
            wait_for_metric(&server, "tickring_tls_errors_total", |count| {
                count == errors
            });
        }
    }
}

/// A ticket would let a client in after its certificate has expired, or its authority is no longer accepted. So where
/// certificates are asked for there are no tickets, and each connection is checked.
#[test]
fn a_client_with_a_certificate_is_checked_each_time() {
    for engine in ENGINES {
        let clients = Clients::new();
        let server = clients.start(engine, "required");
        for version in VERSIONS {
            clients.trust(&clients.authority);
            server.signal("-HUP");
            server.wait_for_log("were read again");
            let own = clients.authority.issue(&["client"]);
            let config = clients.config(version, Some(&own));
            let wait_for = |wanted| {
                let until = std::time::Instant::now() + support::PATIENCE;
                while kind_of_served(&server, &config) != wanted {
                    assert!(std::time::Instant::now() < until, "{engine} {wanted:?}");
                }
            };
            wait_for(Some(HandshakeKind::Full));
            assert_eq!(kind_of_served(&server, &config), Some(HandshakeKind::Full));
            clients.trust(&Authority::new("another"));
            server.signal("-HUP");
            server.wait_for_log("were read again");
            wait_for(None);
        }
    }
}

/// A server that asks its clients for certificates of one authority.
struct Clients {
    site_authority: Authority,
    authority: Authority,
    files: Files,
}

impl Clients {
    fn new() -> Self {
        let clients = Self {
            site_authority: Authority::new("of the site"),
            authority: Authority::new("of the clients"),
            files: Files::new(),
        };
        let server = clients.site_authority.issue(&["localhost"]);
        clients.files.write_certificate("server", &server);
        clients.trust(&clients.authority);
        clients
    }

    fn trust(&self, authority: &Authority) {
        self.files.write("clients.pem", authority.pem());
    }

    fn start(&self, engine: &str, mode: &str) -> Server {
        let authorities = self.files.flag("clients.pem");
        let flags = [
            "--tls-client-authorities",
            &authorities,
            "--tls-client-certificates",
            mode,
        ];
        self.files.start(engine, &["server"], &flags)
    }

    fn config(
        &self,
        version: &'static tickring_tls::rustls::SupportedProtocolVersion,
        own: Option<&Issued>,
    ) -> Arc<ClientConfig> {
        let site = self.site_authority.der();
        Arc::new(match own {
            Some(own) => trusting_with_own(&site, version, own),
            None => trusting(&site, version),
        })
    }
}

/// How a client's handshake went whose WebSocket is served; `None` if it is refused. In TLS 1.3 a client learns that only
/// after its own handshake. It is one connection: between two, the server may have read its files.
fn kind_of_served(server: &Server, config: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let address = server.tls.expect("a port with TLS");
    let stream = connect(address, config, "localhost").ok()?;
    let (mut echo, _) = tungstenite::client("wss://localhost/echo", stream).ok()?;
    echo.send(Message::text("hello")).expect("sent");
    assert_eq!(echo.read().expect("an echo").to_string(), "hello");
    echo.get_ref().conn.handshake_kind()
}
