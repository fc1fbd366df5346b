//! Settings that change while the server runs, over real sockets on both engines.

mod support;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken as issuer;
use serde_json::{Value, json};
use support::{Client, ENGINES, Server, status_of, upgrade_request};

/// A server with a file of settings, and its folder, removed when dropped.
struct Reloadable {
    server: Server,
    folder: PathBuf,
}

impl Reloadable {
    fn start(engine: &str, settings: &str) -> Self {
        let folder = support::scratch_folder("reload");
        write(&folder, settings);
        let file = folder.join(FILE).display().to_string();
        let command =
            support::command(&["serve", "--io", engine, "--shards", "2", "--config", &file]);
        Self {
            server: Server::spawn(command),
            folder,
        }
    }

    fn write(&self, settings: &str) {
        write(&self.folder, settings);
    }

    /// Writes the settings and has the API read them.
    fn reload(&self, settings: &str) -> (u16, Value) {
        self.write(settings);
        let (status, body) = self.server.api("POST", "/api/v1/reload", "");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// The status of a handshake on `/ws`.
    fn handshake(&self, headers: &str) -> u16 {
        let mut client = self.server.connect();
        client.send(upgrade_request("/ws", headers).as_bytes());
        status_of(&client.read_head())
    }

    fn say(&self, client: &mut Client, command: &Value) -> Value {
        client.send(&support::text(&command.to_string()));
        serde_json::from_str(&client.read_text()).expect("JSON")
    }
}

impl Drop for Reloadable {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// In place of KEY_FILE stands a file with the key of tokens.
fn write(folder: &Path, settings: &str) {
    let secret = folder.join("secret");
    std::fs::write(&secret, SECRET).expect("a file");
    let text = settings.replace("KEY_FILE", &secret.display().to_string());
    std::fs::write(folder.join(FILE), text).expect("a file");
}

const FILE: &str = "tickring.toml";
const SECRET: &str = "a shared secret of at least 32 bytes, for tests";

fn hex_digest(key: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn subscribe(topics: &[&str]) -> Value {
    json!({ "op": "subscribe", "topics": topics })
}

/// What can change does, for connections that are open too, and the answer names it; what cannot is named and stays.
#[test]
fn settings_change_while_the_server_runs() {
    for engine in ENGINES {
        let reloadable = Reloadable::start(engine, "subscriptions_max = 5\nlog = 'warn'");
        let mut client = reloadable.server.open("/ws", "");
        client.read_text();
        let all = subscribe(&["a", "b", "c"]);
        assert_eq!(reloadable.say(&mut client, &all)["type"], "ack");
        let publish = json!({ "op": "publish", "topic": "chat.a", "data": 1 });
        assert_eq!(reloadable.say(&mut client, &publish)["code"], "forbidden");
        assert_eq!(
            reloadable.handshake("Origin: https://evil.example\r\n"),
            101
        );

        let (status, body) = reloadable.reload(
            "subscriptions_max = 3\norigins = ['https://desk.example']\nclient_publish = ['chat.*']\n\
             log = 'info'\nshards = 1\nlisten = '127.0.0.1:1'\nio = 'auto'",
        );
        // Flags win over the file, so the address and the engine stay what they are without a word.
        let wanted = json!({
            "changed": ["origins", "client_publish", "subscriptions_max", "log"],
            "need_restart": [],
        });
        assert_eq!((status, body), (200, wanted));
        reloadable.server.wait_for_log("were read again");
        assert_eq!(
            reloadable.handshake("Origin: https://evil.example\r\n"),
            403
        );
        assert_eq!(
            reloadable.handshake("Origin: https://desk.example\r\n"),
            101
        );
        let fourth = reloadable.say(&mut client, &subscribe(&["d"]));
        assert_eq!(fourth["code"], "limit");
        assert_eq!(reloadable.say(&mut client, &publish)["type"], "ack");
        reloadable.server.publish("a", "7");
        assert!(
            client.read_text().contains(r#""data":7"#),
            "its subscriptions stay"
        );

        let (status, body) = reloadable.reload("receive_buffers_max = 64\nmin_wait_us = 5");
        assert_eq!(status, 200);
        let need_restart = json!(["min_wait_us", "receive_buffers_max"]);
        assert_eq!(body["need_restart"], need_restart);
        reloadable
            .server
            .wait_for_log("change with the next restart");
    }
}

/// A file that cannot be used changes nothing, whatever else is in it; the answer, the log and a metric say so.
#[test]
fn what_cannot_be_used_changes_nothing() {
    for engine in ENGINES {
        let reloadable = Reloadable::start(engine, "");
        for (settings, said) in [
            (
                "origins = ['https://a']\nidle_timeout_ms = 1",
                "idle_timeout_ms",
            ),
            ("origins = ['https://a']\norigin = 'x'", "did you mean"),
            ("origins = [", "TOML"),
        ] {
            let (status, body) = reloadable.reload(settings);
            let message = body["error"]["message"].as_str().expect("a text");
            assert_eq!(
                (status, &body["error"]["code"]),
                (422, &json!("bad_config"))
            );
            assert!(message.contains(said), "{message}");
            reloadable.server.wait_for_log("nothing was changed");
            assert_eq!(reloadable.handshake("Origin: https://b\r\n"), 101);
        }
        let (_, metrics) = reloadable.server.api("GET", "/metrics", "");
        assert!(metrics.contains("\ntickring_config_reload_errors_total 3\n"));
        assert!(metrics.contains("\ntickring_config_reloads_total 0\n"));
    }
}

/// SIGHUP does what the API does.
#[test]
fn sighup_reads_the_settings() {
    for engine in ENGINES {
        let reloadable = Reloadable::start(engine, "");
        reloadable.write("origins = ['https://a']");
        reloadable.server.signal("-HUP");
        let line = reloadable.server.wait_for_log("were read again");
        assert!(line.contains("origins"), "{line}");
        assert_eq!(reloadable.handshake("Origin: https://b\r\n"), 403);
        reloadable.write("origins = 7");
        reloadable.server.signal("-HUP");
        reloadable.server.wait_for_log("nothing was changed");
        assert_eq!(reloadable.handshake("Origin: https://b\r\n"), 403);
    }
}

/// Keys of the API come and go, and a reload needs the scope of an operator.
#[test]
fn keys_of_the_api_change() {
    for engine in ENGINES {
        let key = |name: &str, scope: &str| {
            let digest = hex_digest(name.as_bytes());
            format!("[[api_key]]\nname = '{name}'\nsha256 = '{digest}'\n{scope}\n")
        };
        let reloadable = Reloadable::start(engine, "");
        let ask = |name: &str| {
            let header = format!("Authorization: Bearer {name}\r\n");
            let (server, path) = (&reloadable.server, "/api/v1/reload");
            server.api_with("POST", path, &header, "").0
        };
        let both = key("operator-1", "operate = true") + &key("reader-1", "read = true");
        assert_eq!(reloadable.reload(&both).0, 200);
        assert_eq!(reloadable.server.api("POST", "/api/v1/reload", "").0, 401);
        assert_eq!((ask("operator-1"), ask("reader-1")), (200, 403));
        reloadable.write(&key("operator-2", "operate = true"));
        assert_eq!(ask("operator-1"), 200);
        assert_eq!((ask("operator-1"), ask("operator-2")), (401, 200));
    }
}

/// Clients without a token do what the settings say now: what a client is subscribed to and may not be any longer ends, and
/// begins again once it is allowed again. Who may not be without a token any longer is closed with 4401.
#[test]
fn rights_without_a_token_change() {
    for engine in ENGINES {
        let with = |patterns: &str| {
            format!(
                "auth = 'optional'\ntoken_keys = ['KEY_FILE']\nanonymous_subscribe = [{patterns}]"
            )
        };
        let reloadable = Reloadable::start(engine, &with("'news.>', 'fx.>'"));
        let mut client = reloadable.server.open("/ws", "");
        client.read_text();
        let both = subscribe(&["news.a", "fx.a"]);
        assert_eq!(reloadable.say(&mut client, &both)["type"], "ack");
        let hear = |client: &mut Client| -> Value {
            serde_json::from_str(&client.read_text()).expect("JSON")
        };

        let (status, body) = reloadable.reload(&with("'news.>', 'sport.>'"));
        let changed = json!(["anonymous_subscribe"]);
        assert_eq!((status, &body["changed"]), (200, &changed));
        assert_eq!(hear(&mut client)["ended"], json!(["fx.a"]));
        reloadable.server.publish("fx.a", "1");
        reloadable.server.publish("news.a", "2");
        assert_eq!(hear(&mut client)["data"], 2);
        let say = |client: &mut Client, topic| reloadable.say(client, &subscribe(&[topic]));
        assert_eq!(say(&mut client, "sport.a")["type"], "ack");
        assert_eq!(say(&mut client, "fx.b")["code"], "forbidden");

        assert_eq!(reloadable.reload(&with("'news.>', 'fx.>'")).0, 200);
        let told = hear(&mut client);
        assert_eq!(
            (&told["ended"], &told["resumed"]),
            (&json!(["sport.a"]), &json!(["fx.a"]))
        );
        assert_eq!(hear(&mut client)["data"], 1, "its value");

        let required = "auth = 'required'\ntoken_keys = ['KEY_FILE']";
        assert_eq!(reloadable.reload(required).0, 200);
        assert_eq!(client.read_close(), 4401);
        // Whether there are tokens at all is decided at the start.
        let (status, body) = reloadable.reload("");
        let waiting = json!(["auth", "token_keys"]);
        assert_eq!((status, &body["need_restart"]), (200, &waiting));
    }
}

/// What every token grants, and which topics belong to a product, changes for tokens that were shown before.
#[test]
fn rights_with_a_token_change() {
    for engine in ENGINES {
        let with = |common: &str, product: &str| {
            format!(
                "auth = 'required'\ntoken_keys = ['KEY_FILE']\ntoken_subscribe = [{common}]\n{product}"
            )
        };
        let product = "[[product]]\nname = 'fx'\ntopics = ['fx.>']";
        let reloadable = Reloadable::start(engine, &with("'fx.>'", ""));
        let bearer = format!("Authorization: Bearer {}\r\n", token(&["md.>"]));
        let mut client = reloadable.server.open("/ws", &bearer);
        client.read_text();
        let both = subscribe(&["md.A", "fx.A"]);
        assert_eq!(reloadable.say(&mut client, &both)["type"], "ack");
        for (settings, told) in [
            (
                with("", ""),
                json!({ "type": "entitlement", "ended": ["fx.A"] }),
            ),
            (
                with("'fx.>'", ""),
                json!({ "type": "entitlement", "resumed": ["fx.A"] }),
            ),
            (
                with("'fx.>'", product),
                json!({ "type": "entitlement", "ended": ["fx.A"], "products": ["fx"] }),
            ),
            (
                with("'fx.>'", ""),
                json!({ "type": "entitlement", "resumed": ["fx.A"] }),
            ),
        ] {
            assert_eq!(reloadable.reload(&settings).0, 200);
            let heard: Value = serde_json::from_str(&client.read_text()).expect("JSON");
            for (name, value) in told.as_object().expect("an object") {
                assert_eq!(&heard[name], value, "{heard}");
            }
        }
        reloadable.server.publish("md.A", "1");
        assert!(
            client.read_text().contains(r#""data":1"#),
            "its own subscription stays"
        );
    }
}

/// A connection that was counted for its own address, and then turns out to be a proxy's by new settings, is counted for its
/// client from then on, and nothing is left when it ends. One that came before addresses were needed is known, too.
#[test]
fn proxies_that_are_listed_later_name_their_clients() {
    for engine in ENGINES {
        for first in ["address_connections_max = 3", ""] {
            let reloadable = Reloadable::start(engine, first);
            let mut open: Vec<_> = (0..3).map(|_| reloadable.server.connect()).collect();
            for client in &mut open {
                client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
                assert_eq!(status_of(&client.read_head()), 200);
                client.read_exactly("ok\n".len());
            }
            let settings = "forwarded_from = ['127.0.0.1']\naddress_connections_max = 2";
            assert_eq!(reloadable.reload(settings).0, 200);
            let header = "X-Forwarded-For: 198.51.100.9,\r\n";
            let statuses = open.iter_mut().map(|client| {
                client.send(upgrade_request("/ws", header).as_bytes());
                status_of(&client.read_head())
            });
            assert_eq!(
                statuses.collect::<Vec<_>>(),
                [101, 101, 429],
                "{engine} {first}"
            );
            drop(open);
            support::tls::wait_for_metric(&reloadable.server, "tickring_connections", |now| {
                now == 0.0
            });
            assert_eq!(
                support::tls::metric(&reloadable.server, "tickring_panics_total"),
                0.0
            );
            assert_eq!(
                support::tls::metric(&reloadable.server, "tickring_client_addresses"),
                0.0
            );
        }
    }
}

/// What the next start would refuse is refused now, though it could not change before.
#[test]
fn a_reload_promises_no_start_that_fails() {
    for engine in ENGINES {
        let reloadable = Reloadable::start(engine, "auth = 'optional'\ntoken_keys = ['KEY_FILE']");
        let (status, body) = reloadable.reload("token_keys = ['KEY_FILE']");
        assert_eq!(status, 422, "{body}");
        let (status, body) = reloadable.reload("tls_listen = '127.0.0.1:1'");
        assert_eq!(status, 422, "{body}");
    }
}

/// A token that grants these topics for an hour.
fn token(topics: &[&str]) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let claims = json!({
        "sub": "ann", "exp": now.as_secs() + 3_600, "tickring": { "subscribe": topics },
    });
    let key = issuer::EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret");
    issuer::encode(&issuer::Header::default(), &claims, &key).expect("a token")
}

/// Fewer connections than there are close nobody, and the next ones get 503 until there is room again.
#[test]
fn connections_max_changes() {
    for engine in ENGINES {
        let reloadable = Reloadable::start(engine, "");
        let mut open: Vec<_> = (0..3).map(|_| reloadable.server.open("/ws", "")).collect();
        assert_eq!(reloadable.reload("connections_max = 2").0, 200);
        assert_eq!(reloadable.handshake(""), 503);
        for client in &mut open {
            client.read_text();
            assert_eq!(
                reloadable.say(client, &json!({ "op": "ping" }))["type"],
                "pong"
            );
        }
        assert_eq!(reloadable.reload("connections_max = 100").0, 200);
        assert_eq!(reloadable.handshake(""), 101);
    }
}
