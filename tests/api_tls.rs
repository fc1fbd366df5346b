//! The API over TLS, and certificates in place of its keys, over real sockets on both engines.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use support::tls::{Authority, Files, Issued, VERSIONS, handshake, trusting, trusting_with_own};
use support::{ENGINES, Server, command, status_of};
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
        let mut idle: Vec<_> = (0..200)
            .map(|_| support::Client::connect(api.server.api))
            .collect();
        for client in &mut idle {
            client.send(&[0x16]);
        }
        let mut plain = support::Client::connect(api.server.api);
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
