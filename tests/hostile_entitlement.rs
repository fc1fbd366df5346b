//! Clients with a token that try to see more than it grants, or to make the server work for what it does not grant, over real
//! sockets on both engines.

mod support;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken as issuer;
use serde_json::{Value, json};
use support::{Client, ENGINES, Server, text};

const SECRET: &str = "a shared secret of at least 32 bytes, for tests";
/// As `limits.rs` has them: errors in a row that are answered, and filters of one client.
const ERRORS_IN_A_ROW_MAX: usize = tickring::limits::ERRORS_IN_A_ROW_MAX as usize;
const CLIENT_FILTERS_MAX: usize = tickring::limits::CLIENT_FILTERS_MAX;

/// A server with one product, and its folder, removed when dropped.
struct Licensed {
    server: Server,
    folder: PathBuf,
}

impl Licensed {
    fn start(engine: &str) -> Self {
        let folder = support::scratch_folder("hostile-entitlement");
        let secret = folder.join("secret");
        std::fs::write(&secret, SECRET).expect("a file");
        let settings = format!(
            "auth = 'required'\ntoken_keys = [{secret:?}]\n[[product]]\nname = 'nasdaq'\ntopics = ['md.us.*']\n"
        );
        let file = folder.join("tickring.toml");
        std::fs::write(&file, settings).expect("a file");
        let file = file.display().to_string();
        let flags = ["serve", "--io", engine, "--shards", "2", "--config", &file];
        let server = Server::spawn(support::command(&flags));
        Self { server, folder }
    }

    /// A client with a token that grants every topic and no product; its welcome has been read.
    fn connect(&self, granted: &Value) -> Client {
        let header = format!("Authorization: Bearer {}\r\n", token(granted));
        let mut client = self.server.open("/ws", &header);
        assert!(client.read_text().contains("welcome"));
        client
    }
}

impl Drop for Licensed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn token(granted: &Value) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let expires_s = since.expect("after 1970").as_secs() + 3_600;
    let mut granted = granted.clone();
    granted["subscribe"] = json!([">"]);
    let claims = json!({ "sub": "ann", "exp": expires_s, "tickring": granted });
    let key = issuer::EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret");
    issuer::encode(&issuer::Header::default(), &claims, &key).expect("a token")
}

fn say(client: &mut Client, command: &Value) -> Value {
    client.send(&text(&command.to_string()));
    serde_json::from_str(&client.read_text()).expect("JSON")
}

/// Who tries one topic of a product after another gets an answer to each, nothing of the product, and then the end. Another
/// client notices nothing.
#[test]
fn guessing_at_products_ends_the_connection() {
    for engine in ENGINES {
        let licensed = Licensed::start(engine);
        licensed.server.publish("md.us.7", "1");
        let mut bystander = licensed.connect(&json!({ "products": { "nasdaq": "real-time" } }));
        let mut client = licensed.connect(&json!({}));
        for number in 0..ERRORS_IN_A_ROW_MAX {
            let topics = [format!("md.us.{number}"), "news.a".to_owned()];
            let answer = say(&mut client, &json!({ "op": "subscribe", "topics": topics }));
            assert_eq!(answer["code"], "not_entitled", "{answer}");
            assert_eq!(answer["indexes"], json!([0]), "{answer}");
        }
        let command = json!({ "op": "subscribe", "topics": ["md.>"] });
        client.send(&text(&command.to_string()));
        assert!(client.read_text().contains("not_entitled"));
        assert_eq!(client.read_close(), 1008);
        let command = json!({ "op": "subscribe", "topics": ["md.us.7"] });
        assert_eq!(say(&mut bystander, &command)["type"], "ack");
        assert!(bystander.read_text().contains("\"data\":1"));
    }
}

/// A filter that is not understood makes no subscription: neither a filtered one nor one of everything.
#[test]
fn malformed_filters_are_refused() {
    for engine in ENGINES {
        let licensed = Licensed::start(engine);
        licensed.server.publish("o.1", r#"{"desk":"fx"}"#);
        let mut client = licensed.connect(&json!({}));
        let many: Vec<u32> = (0..65).collect();
        for filter in [
            json!(null),
            json!([]),
            json!("desk"),
            json!({}),
            json!({ "field": "/desk" }),
            json!({ "field": "desk", "equals": ["fx"] }),
            json!({ "field": "/desk", "equals": [] }),
            json!({ "field": "/desk", "equals": [1.5] }),
            json!({ "field": "/desk", "equals": [{ "a": 1 }] }),
            json!({ "field": "/desk", "equals": many }),
            json!({ "field": "/desk", "equals": ["x".repeat(1_024)] }),
            json!({ "field": "/desk", "equals": ["fx"], "not": ["eq"] }),
        ] {
            let command = json!({ "op": "subscribe", "topics": ["o.*"], "filter": filter });
            assert_eq!(
                say(&mut client, &command)["code"],
                "bad_request",
                "{command}"
            );
            assert_eq!(
                say(&mut client, &json!({ "op": "ping" }))["type"],
                "pong",
                "and no value"
            );
        }
    }
}

/// One client has room for a number of different filters. The next one is refused, those that it has stay, and another
/// client has its own.
#[test]
fn filters_of_a_client_are_bounded() {
    for engine in ENGINES {
        let licensed = Licensed::start(engine);
        let subscribe = |number: usize| {
            let filter = json!({ "field": "/desk", "equals": [number] });
            json!({ "op": "subscribe", "topics": [format!("o.{number}")], "filter": filter })
        };
        let mut client = licensed.connect(&json!({}));
        for number in 0..CLIENT_FILTERS_MAX {
            assert_eq!(say(&mut client, &subscribe(number))["type"], "ack");
        }
        let refused = say(&mut client, &subscribe(CLIENT_FILTERS_MAX));
        assert_eq!(refused["code"], "limit", "{refused}");
        let mut other = licensed.connect(&json!({}));
        assert_eq!(
            say(&mut other, &subscribe(CLIENT_FILTERS_MAX))["type"],
            "ack"
        );
        for (topic, desk) in [("o.32", 32), ("o.0", 1), ("o.0", 0)] {
            let data = json!({ "desk": desk }).to_string();
            licensed.server.publish(topic, &data);
        }
        let heard: Value = serde_json::from_str(&client.read_text()).expect("JSON");
        assert_eq!(
            (&heard["topic"], &heard["data"]["desk"]),
            (&json!("o.0"), &json!(0))
        );
    }
}
