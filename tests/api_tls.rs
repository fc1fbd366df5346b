//! The API over TLS, and certificates in place of its keys, over real sockets on both engines.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use support::tls::{
    Authority, Files, Issued, VERSIONS, handshake, parameters, trusting, trusting_with_own,
};
use support::{Client, ENGINES, Server, command, status_of};
use tickring_tls::rustls::ClientConfig;

/// An API over TLS that accepts certificates of one authority.
struct Api {
    files: Files,
    site: Authority,
    clients: Authority,
    server: Server,
}

const KEYS: &str = "[[api_key]]\nname = 'desk'\ncertificate = 'publisher.desk.example'\npublish = ['md.>']\n\
                    [[api_key]]\nname = 'operator'\nvariable = 'TEST_OPERATOR'\noperate = true\n";
const OPERATOR: &str = "a key of the API that may operate";

impl Api {
    fn start(engine: &str, keys: &str) -> Self {
        let (files, site) = (Files::new(), Authority::new("of the site"));
        let clients = Authority::new("of the clients");
        files.write_certificate("api", &site.issue(&["localhost"]));
        files.write("clients.pem", clients.pem());
        files.write("tickring.toml", settings(&files, keys));
        let file = files.flag("tickring.toml");
        let mut command = command(&["serve", "--io", engine, "--shards", "1", "--config", &file]);
        command.env("TEST_OPERATOR", OPERATOR);
        Self {
            server: Server::spawn(command),
            files,
            site,
            clients,
        }
    }

    fn config(&self, own: Option<&Issued>) -> Arc<ClientConfig> {
        let site = self.site.der();
        Arc::new(match own {
            Some(own) => trusting_with_own(&site, VERSIONS[0], own),
            None => trusting(&site, VERSIONS[0]),
        })
    }

    /// A connection whose client has shown this certificate.
    fn connect(&self, own: &Issued) -> Client {
        let stream = std::net::TcpStream::connect(self.server.api).expect("it listens");
        let tls = handshake(stream, &self.config(Some(own)), "localhost");
        Client::of(tls.expect("a handshake"))
    }

    /// The status of a request; 0 if the handshake or the connection fails.
    fn ask(&self, own: Option<&Issued>, request: &str) -> u16 {
        ask(self.server.api, &self.config(own), request)
    }
}

fn settings(files: &Files, keys: &str) -> String {
    let path = |name: &str| files.flag(name);
    format!(
        "api_tls_certificates = ['{}']\napi_tls_keys = ['{}']\napi_tls_client_authorities = '{}'\n{keys}",
        path("api.pem"),
        path("api.key"),
        path("clients.pem")
    )
}

fn ask(api: SocketAddr, config: &Arc<ClientConfig>, request: &str) -> u16 {
    use std::io::{Read as _, Write as _};
    let stream = std::net::TcpStream::connect(api).expect("it listens");
    let Ok(mut tls) = handshake(stream, config, "localhost") else {
        return 0;
    };
    if tls.write_all(request.as_bytes()).is_err() {
        return 0;
    }
    let mut answer = String::new();
    match tls.read_to_string(&mut answer) {
        Ok(_) => status_of(&answer),
        Err(_) => 0,
    }
}

/// Status and body of the answer to a request; the connection may go on.
fn send(client: &mut Client, request: &str) -> (u16, String) {
    client.send(request.as_bytes());
    let head = client.read_head().to_ascii_lowercase();
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let len = len.expect("a length").parse().expect("a number");
    let body = String::from_utf8(client.read_exactly(len)).expect("text");
    (status_of(&head), body)
}

fn publish(topic: &str, header: &str) -> String {
    let body = format!(r#"{{"topic":"{topic}","data":1}}"#);
    format!(
        "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// A certificate counts as the key that names it, with its scopes and no others; one of another authority does not come
/// through the handshake; and keys go on to count.
#[test]
fn a_certificate_is_a_key() {
    for engine in ENGINES {
        let api = Api::start(engine, KEYS);
        let desk = api.clients.issue(&["publisher.desk.example"]);
        let other = api.clients.issue(&["other.example"]);
        let foreign = Authority::new("another").issue(&["publisher.desk.example"]);
        let bearer = format!("Authorization: Bearer {OPERATOR}\r\n");
        for (own, request, status) in [
            (Some(&desk), publish("md.AAPL", ""), 200),
            (Some(&desk), publish("chat.a", ""), 403),
            (Some(&desk), get("/metrics"), 403),
            (Some(&other), publish("md.AAPL", ""), 401),
            (None, publish("md.AAPL", ""), 401),
            (None, publish("md.AAPL", &bearer), 403),
            (Some(&foreign), get("/healthz"), 0),
            (None, get("/healthz"), 200),
            (None, get("/metrics"), 401),
        ] {
            assert_eq!(api.ask(own, &request), status, "{engine} {request}");
        }
    }
}

/// A certificate stands for one client: a wildcard in it matches no key, nor does its common name. The answer says what is
/// missing.
#[test]
fn a_certificate_has_to_name_its_client() {
    for engine in ENGINES {
        let api = Api::start(engine, KEYS);
        let mut params = parameters(&[]);
        let name = "publisher.desk.example";
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let common_name = api.clients.sign(params, key);
        let wildcard = api.clients.issue(&["*.desk.example"]);
        let upper = api
            .clients
            .issue(&["other.example", "Publisher.Desk.Example"]);
        for (own, status, said) in [
            (&common_name, 401, "no DNS name in subjectAltName"),
            (&wildcard, 401, "a wildcard stands for no client"),
            (&upper, 200, "published"),
        ] {
            let mut client = api.connect(own);
            let answer = send(&mut client, &publish("md.AAPL", ""));
            assert_eq!(answer.0, status, "{}", answer.1);
            assert!(answer.1.contains(said), "{}", answer.1);
        }
    }
}

/// A connection stays as good as the certificate that its client has shown: when the authority that signed it is replaced,
/// the next request is refused and the connection ends. If the authority is still there, it goes on.
#[test]
fn replaced_authorities_hold_for_open_connections() {
    for engine in ENGINES {
        let mut api = Api::start(engine, KEYS);
        let name = "publisher.desk.example";
        let before = api.clients.issue(&[name]);
        let mut open = api.connect(&before);
        let request = publish("md.AAPL", "").replace("Connection: close\r\n", "");
        assert_eq!(send(&mut open, &request).0, 200);
        let next = Authority::new("of the next clients");
        let both = api.clients.pem() + &next.pem();
        for (authorities, status) in [(both, 200), (next.pem(), 401)] {
            api.files.write("clients.pem", authorities);
            api.server.signal("-HUP");
            api.server
                .wait_for_log("settings, certificates and keys were read again");
            let (answered, body) = send(&mut open, &request);
            assert_eq!(answered, status, "{body}");
        }
        assert!(open.read_to_end().is_empty(), "it is closed");
        assert_eq!(api.ask(Some(&before), &request), 0);
        api.clients = next;
        let after = api.clients.issue(&[name]);
        assert_eq!(api.ask(Some(&after), &publish("md.AAPL", "")), 200);
    }
}

/// A certificate of the API without `subjectAltName` is of no use, and the log says why.
#[test]
fn a_certificate_without_a_name_is_reported() {
    for engine in ENGINES {
        let api = Api::start(engine, KEYS);
        let mut params = parameters(&[]);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "localhost");
        let key = rcgen::KeyPair::generate().expect("a key");
        api.files
            .write_certificate("api", &api.site.sign(params, key));
        api.server.signal("-HUP");
        let line = api.server.wait_for_log("subjectAltName");
        assert!(line.contains("api.pem"), "{line}");
        assert_eq!(api.ask(None, &get("/healthz")), 0);
    }
}

/// Where no key names a certificate, each accepted one allows everything.
#[test]
fn without_keys_a_certificate_is_enough() {
    for engine in ENGINES {
        let api = Api::start(engine, "");
        let own = api.clients.issue(&["anyone.example"]);
        assert_eq!(api.ask(Some(&own), &publish("any.topic", "")), 200);
        assert_eq!(api.ask(None, &publish("any.topic", "")), 401);
    }
}

/// Whoever does not speak TLS, or speaks it slowly, gets nothing and disturbs nobody.
#[test]
fn only_tls_is_spoken() {
    for engine in ENGINES {
        let api = Api::start(engine, KEYS);
        let mut idle: Vec<_> = (0..200).map(|_| Client::connect(api.server.api)).collect();
        for client in &mut idle {
            client.send(&[0x16]);
        }
        let mut plain = Client::connect(api.server.api);
        plain.send(get("/healthz").as_bytes());
        assert!(!plain.read_to_end().starts_with(b"HTTP/1.1 200"));
        for _ in 0..20 {
            assert_eq!(api.ask(None, &get("/healthz")), 200);
        }
    }
}

/// `tickring health` asks over TLS where the API is served so.
#[test]
fn health_is_asked_over_tls() {
    for engine in ENGINES {
        let api = Api::start(engine, KEYS);
        let health = |file: &Path| {
            let file = file.display().to_string();
            let address = api.server.api.to_string();
            let mut health = command(&["health", "--config", &file, "--api-listen", &address]);
            health.env("TEST_OPERATOR", OPERATOR);
            health.output().expect("it runs").status.success()
        };
        assert!(health(&api.files.path("tickring.toml")));
        api.files.write("plain.toml", "");
        assert!(!health(&api.files.path("plain.toml")));
    }
}

/// A new certificate is used after a reload, for new connections; one that does not fit its key changes nothing.
#[test]
fn certificates_of_the_api_are_replaced() {
    for engine in ENGINES {
        let mut api = Api::start(engine, KEYS);
        let before = api.config(None);
        let next = Authority::new("the next");
        api.files
            .write_certificate("next", &next.issue(&["localhost"]));
        let text = settings(&api.files, KEYS).replace("api.pem", "next.pem");
        api.files.write("tickring.toml", &text);
        api.server.signal("-HUP");
        api.server.wait_for_log("nothing was changed");
        assert_eq!(ask(api.server.api, &before, &get("/healthz")), 200);
        api.files
            .write("tickring.toml", text.replace("api.key", "next.key"));
        api.server.signal("-HUP");
        api.server.wait_for_log("were read again");
        assert_eq!(ask(api.server.api, &before, &get("/healthz")), 0);
        api.site = next;
        assert_eq!(api.ask(None, &get("/healthz")), 200);
    }
}
