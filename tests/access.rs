//! Tokens, keys of the API and revocation, over real sockets on both engines.

mod support;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken as issuer;
use serde_json::{Value, json};
use support::{ENGINES, PATIENCE, Server};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message, WebSocket};

const SECRET: &str = "a shared secret of at least 32 bytes, for tests";
const PUBLISHER: &str = "a key of the API that may publish";
const OPERATOR: &str = "a key of the API that may operate";

/// A server that requires tokens, and its folder, removed when dropped.
struct Guarded {
    server: Server,
    folder: PathBuf,
}

impl Guarded {
    fn start(engine: &str, settings: &str) -> Self {
        let folder = support::scratch_folder("access");
        let secret = folder.join("secret");
        std::fs::write(&secret, SECRET).expect("a file");
        let file = folder.join("tickring.toml");
        let text = format!(
            "auth = \"required\"\ntoken_keys = [{secret:?}]\n{settings}\n\
             [[api_key]]\nname = \"publisher\"\nvariable = \"TEST_PUBLISHER\"\npublish = [\"md.>\"]\n\
             [[api_key]]\nname = \"operator\"\nvariable = \"TEST_OPERATOR\"\noperate = true\nread = true\n"
        );
        std::fs::write(&file, text).expect("a file");
        let file = file.display().to_string();
        let mut command =
            support::command(&["serve", "--io", engine, "--shards", "2", "--config", &file]);
        command.env("TEST_PUBLISHER", PUBLISHER);
        command.env("TEST_OPERATOR", OPERATOR);
        Self {
            server: Server::spawn(command),
            folder,
        }
    }

    fn api(&self, key: &str, method: &str, path: &str, body: &Value) -> u16 {
        let header = format!("Authorization: Bearer {key}\r\n");
        self.server
            .api_with(method, path, &header, &body.to_string())
            .0
    }

    fn connect(&self, headers: &[(&'static str, String)]) -> Result<Client, u16> {
        let url = format!("ws://{}/ws", self.server.public);
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a header");
            request.headers_mut().insert(*name, value);
        }
        let stream = std::net::TcpStream::connect(self.server.public).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Client(socket)),
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Client(WebSocket<std::net::TcpStream>);

impl Client {
    fn read(&mut self) -> Value {
        let message = self.0.read().expect("a message");
        serde_json::from_str(message.to_text().expect("text")).expect("JSON")
    }

    fn say(&mut self, command: &Value) -> Value {
        self.0
            .send(Message::text(command.to_string()))
            .expect("sent");
        self.read()
    }

    fn close_code(&mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

fn token(subject: &str, expires_in_s: u64, topics: &[&str]) -> String {
    let now_s = now_s();
    let claims = json!({
        "sub": subject, "iat": now_s - 1, "exp": now_s + expires_in_s, "tickring": { "subscribe": topics },
    });
    let key = issuer::EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret");
    issuer::encode(&issuer::Header::default(), &claims, &key).expect("a token")
}

fn subscribe(topics: &[&str]) -> Value {
    json!({ "op": "subscribe", "topics": topics })
}

/// A token in a header, as a subprotocol or as the first message says what may be read. One that is not valid gets 401,
/// and none gets nothing but the chance to send one.
#[test]
fn a_token_says_what_may_be_read() {
    for engine in ENGINES {
        let guarded = Guarded::start(engine, "");
        let valid = token("ann", 3_600, &["md.>"]);
        let bearer = ("Authorization", format!("Bearer {valid}"));
        let offer = (
            "Sec-WebSocket-Protocol",
            format!("tickring.v1.json, bearer.{valid}"),
        );
        for header in [bearer, offer] {
            let mut client = guarded.connect(&[header]).expect("a connection");
            assert_eq!(client.read()["type"], "welcome");
            assert_eq!(client.say(&subscribe(&["md.AAPL"]))["type"], "ack");
            assert_eq!(client.say(&subscribe(&["chat.a"]))["code"], "forbidden");
            let value = json!({ "topic": "md.AAPL", "data": 1 });
            assert_eq!(
                guarded.api(PUBLISHER, "POST", "/api/v1/publish", &value),
                200
            );
            assert_eq!(client.read()["topic"], "md.AAPL");
            assert_eq!(
                guarded.api(PUBLISHER, "DELETE", "/api/v1/topics/md.AAPL", &Value::Null),
                204
            );
        }
        let forged = format!("Bearer {}x", &valid[..valid.len() - 1]);
        assert_eq!(
            guarded.connect(&[("Authorization", forged)]).err(),
            Some(401)
        );

        let mut client = guarded.connect(&[]).expect("a connection");
        assert_eq!(client.read()["type"], "welcome");
        assert_eq!(client.say(&subscribe(&["md.AAPL"]))["code"], "unauthorized");
        let answer = client.say(&json!({ "op": "auth", "token": valid }));
        assert!(
            answer["expires"].as_u64().is_some_and(|s| s > now_s()),
            "{answer}"
        );
        assert_eq!(client.say(&subscribe(&["md.AAPL"]))["type"], "ack");
    }
}

/// Whoever sends no token in time is closed with 4401, and so is whoever has an expired one; a revoked one with 4403.
#[test]
fn connections_end_with_their_tokens() {
    for engine in ENGINES {
        let settings = "token_timeout_ms = 200\ntoken_leeway_s = 0";
        let guarded = Guarded::start(engine, settings);
        let mut silent = guarded.connect(&[]).expect("a connection");
        assert_eq!(silent.close_code(), 4401);

        let short = format!("Bearer {}", token("ann", 2, &["md.>"]));
        let mut client = guarded
            .connect(&[("Authorization", short)])
            .expect("a connection");
        assert_eq!(client.read()["type"], "welcome");
        assert_eq!(client.read()["type"], "expiring");
        assert_eq!(client.close_code(), 4401);

        // The same of a token that comes as a message, and of one that takes the place of a longer one.
        for tokens in [&[2][..], &[3_600, 2]] {
            let mut client = guarded.connect(&[]).expect("a connection");
            assert_eq!(client.read()["type"], "welcome");
            for &expires_in_s in tokens {
                let token = token("ann", expires_in_s, &["md.>"]);
                let answer = client.say(&json!({ "op": "auth", "token": token }));
                assert_eq!(answer["type"], "ack");
            }
            // Without a timer of its own it would be noticed by the next look, which comes after 15 s.
            let later = format!("Bearer {}", token("bob", 10, &["md.>"]));
            let mut later = guarded
                .connect(&[("Authorization", later)])
                .expect("a connection");
            assert_eq!(later.read()["type"], "welcome");
            assert_eq!(client.read()["type"], "expiring");
            assert_eq!(client.close_code(), 4401);
            assert_eq!(later.say(&json!({ "op": "ping" }))["type"], "pong");
        }

        let bearer = |subject: &str| {
            [(
                "Authorization",
                format!("Bearer {}", token(subject, 3_600, &["md.>"])),
            )]
        };
        let mut ann = guarded.connect(&bearer("ann")).expect("a connection");
        let mut bob = guarded.connect(&bearer("bob")).expect("a connection");
        assert_eq!(bob.read()["type"], "welcome");
        let revocation = json!({ "subject": "ann" });
        assert_eq!(
            guarded.api(PUBLISHER, "POST", "/api/v1/revocations", &revocation),
            403
        );
        assert_eq!(
            guarded.api(OPERATOR, "POST", "/api/v1/revocations", &revocation),
            204
        );
        assert_eq!(ann.close_code(), 4403);
        assert_eq!(guarded.connect(&bearer("ann")).err(), Some(401));
        assert_eq!(bob.say(&subscribe(&["md.AAPL"]))["type"], "ack");
        assert_eq!(
            guarded.api(OPERATOR, "DELETE", "/api/v1/revocations/ann", &Value::Null),
            204
        );
        assert!(guarded.connect(&bearer("ann")).is_ok());
    }
}

/// With keys the API does for each sender what its key allows, and nothing without one but answer probes.
#[test]
fn api_keys_have_scopes() {
    let guarded = Guarded::start("epoll", "");
    let publication = |topic: &str| json!({ "topic": topic, "data": 1 });
    let publish =
        |key: &str, topic: &str| guarded.api(key, "POST", "/api/v1/publish", &publication(topic));
    assert_eq!(publish(PUBLISHER, "md.AAPL"), 200);
    assert_eq!(publish(PUBLISHER, "chat.a"), 403);
    assert_eq!(publish(OPERATOR, "md.AAPL"), 403);
    assert_eq!(
        publish("an unknown key of the API, as long", "md.AAPL"),
        401
    );
    let mixed = json!([publication("md.AAPL"), publication("chat.a")]);
    assert_eq!(
        guarded.api(PUBLISHER, "POST", "/api/v1/publish", &mixed),
        403
    );
    assert_eq!(guarded.api(OPERATOR, "GET", "/metrics", &Value::Null), 200);
    assert_eq!(guarded.api(PUBLISHER, "GET", "/metrics", &Value::Null), 403);
    for (path, status) in [
        ("/metrics", 401),
        ("/api/v1/publish", 401),
        ("/healthz", 200),
        ("/readyz", 200),
    ] {
        assert_eq!(guarded.server.api("GET", path, "").0, status, "{path}");
    }
    // No key and no token is shown in the log or in the command line.
    let seen =
        std::fs::read_to_string(format!("/proc/{}/cmdline", guarded.server.pid())).expect("/proc");
    assert!(!seen.contains(PUBLISHER) && !seen.contains(SECRET));
}
