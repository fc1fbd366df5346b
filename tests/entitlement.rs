//! Products, seats and the usage log, over real sockets on both engines.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken as issuer;
use serde_json::{Value, json};
use support::{ENGINES, PATIENCE, Server};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

const SECRET: &str = "a shared secret of at least 32 bytes, for tests";
const PRODUCTS: &str = r#"
[[product]]
name = "nasdaq"
topics = ["md.us.*"]
delayed_topics = ["late.us.*"]

[[product]]
name = "cme"
topics = ["md.cme.*"]
sessions = "one-newest"

[[product]]
name = "ice"
topics = ["md.ice.*"]
sessions = "one-oldest"
"#;

/// A folder with the files of a server, removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn new() -> Self {
        let folder = Self(support::scratch_folder("entitlement"));
        std::fs::write(folder.0.join("secret"), SECRET).expect("a file");
        folder.configure(1, PRODUCTS);
        folder
    }

    fn configure(&self, usage_interval_s: u32, products: &str) {
        let text = format!(
            "auth = \"required\"\ntoken_keys = [{:?}]\nusage_log = {:?}\n\
             usage_interval_s = {usage_interval_s}\n{products}",
            self.0.join("secret"),
            self.log(),
        );
        std::fs::write(self.0.join("tickring.toml"), text).expect("a file");
    }

    fn log(&self) -> PathBuf {
        self.0.join("usage.log")
    }

    fn start(&self, engine: &str) -> Server {
        let file = self.0.join("tickring.toml").display().to_string();
        let flags = ["serve", "--io", engine, "--shards", "2", "--config", &file];
        Server::spawn(support::command(&flags))
    }

    /// The number of users by product, class and professional, in this month.
    fn count(&self, files: &[PathBuf]) -> Vec<(String, Value, u64)> {
        let month = Command::new("date")
            .args(["-u", "+%Y-%m"])
            .output()
            .expect("a date");
        let month = String::from_utf8(month.stdout).expect("text");
        let mut command = support::command(&["usage", "--json", "--month", month.trim()]);
        let output = command.args(files).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let counted: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let rows = counted["reportable"].as_array().expect("a list").iter();
        let row = |row: &Value| {
            let (product, class) = (&row["product"], &row["class"]);
            let what = format!("{}/{}", product.as_str().unwrap(), class.as_str().unwrap());
            (
                what,
                row["professional"].clone(),
                row["users"].as_u64().unwrap(),
            )
        };
        rows.map(row).collect()
    }
}

struct Client(WebSocket<std::net::TcpStream>);

impl Client {
    /// Connects with a token for this subject, and reads the welcome.
    fn connect(server: &Server, subject: &str, granted: &Value) -> Self {
        let mut client = Self::try_connect(server, subject, granted).expect("an upgrade");
        assert_eq!(client.read()["type"], "welcome");
        client
    }

    /// The same without the welcome; or the status and body of a refusal.
    fn try_connect(server: &Server, subject: &str, granted: &Value) -> Result<Self, (u16, String)> {
        let url = format!("ws://{}/ws", server.public);
        let mut request = url.into_client_request().expect("a request");
        let bearer = format!("Bearer {}", token(subject, granted));
        let bearer = HeaderValue::from_str(&bearer).expect("a header");
        request.headers_mut().insert("Authorization", bearer);
        let stream = std::net::TcpStream::connect(server.public).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(HandshakeError::Failure(Error::Http(refusal))) => {
                let body = refusal.body().clone().unwrap_or_default();
                let body = String::from_utf8(body).expect("text");
                Err((refusal.status().as_u16(), body))
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self) -> Value {
        loop {
            let message = self.0.read().expect("a message");
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).expect("JSON");
            }
        }
    }

    fn say(&mut self, command: &Value) -> Value {
        let text = command.to_string();
        self.0.send(Message::text(text)).expect("sent");
        self.read()
    }

    fn subscribe(&mut self, topics: &[&str]) -> Value {
        self.say(&json!({ "op": "subscribe", "topics": topics }))
    }

    fn close_code(&mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Ok(_) => {}
                Err(Error::ConnectionClosed) => panic!("closed without a code"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn token(subject: &str, granted: &Value) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = since.expect("after 1970").as_secs();
    let mut granted = granted.clone();
    granted["subscribe"] = json!([">"]);
    let claims =
        json!({ "sub": subject, "iat": now_s - 1, "exp": now_s + 3_600, "tickring": granted });
    let key = issuer::EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret");
    issuer::encode(&issuer::Header::default(), &claims, &key).expect("a token")
}

fn real_time(product: &str) -> Value {
    json!({ "products": { product: "real-time" }, "professional": false })
}

fn api(server: &Server, method: &str, path: &str, body: &Value) -> u16 {
    server.api_with(method, path, "", &body.to_string()).0
}

fn publish(server: &Server, topic: &str, data: &Value) {
    let body = json!({ "topic": topic, "data": data });
    assert_eq!(api(server, "POST", "/api/v1/publish", &body), 200);
}

/// The API changes what an open connection may see, both ways; the client is told, and gets nothing in between.
#[test]
fn the_api_changes_what_is_open() {
    for engine in ENGINES {
        let folder = Folder::new();
        let server = folder.start(engine);
        let mut ann = Client::connect(&server, "ann", &real_time("nasdaq"));
        let answer = ann.subscribe(&["md.us.*", "md.cme.x"]);
        assert_eq!(answer["code"], "not_entitled");
        assert_eq!(
            (&answer["indexes"], &answer["products"]),
            (&json!([1]), &json!(["cme"]))
        );
        assert_eq!(ann.subscribe(&["md.us.*", "news"])["type"], "ack");
        publish(&server, "md.us.a", &json!(1));
        assert_eq!(ann.read()["data"], 1);
        let path = "/api/v1/entitlements/ann";
        let none = json!({ "products": { "nasdaq": "none" } });
        assert_eq!(api(&server, "PUT", path, &none), 204);
        let told = ann.read();
        assert_eq!(
            (&told["type"], &told["ended"]),
            (&json!("entitlement"), &json!(["md.us.*"]))
        );
        publish(&server, "md.us.a", &json!(2));
        publish(&server, "news", &json!("x"));
        assert_eq!(ann.read()["topic"], "news");
        assert_eq!(api(&server, "DELETE", path, &Value::Null), 204);
        assert_eq!(ann.read()["resumed"], json!(["md.us.*"]));
        let snapshot = ann.read();
        assert_eq!(
            (&snapshot["data"], &snapshot["snapshot"]),
            (&json!(2), &json!(true))
        );
        assert_eq!(api(&server, "DELETE", path, &Value::Null), 404);
        let bad = json!({ "products": { "nasdaq": "all" } });
        assert_eq!(api(&server, "PUT", path, &bad), 400);
    }
}

/// One connection of a user shows a product, whichever of the shards it is on.
#[test]
fn a_product_is_shown_once() {
    for engine in ENGINES {
        let folder = Folder::new();
        let server = folder.start(engine);
        let grant = json!({ "products": { "cme": "real-time", "ice": "real-time" } });
        let mut clients: Vec<_> = (0..4)
            .map(|_| Client::connect(&server, "ann", &grant))
            .collect();
        let mut older = clients.remove(0);
        assert_eq!(older.subscribe(&["md.cme.x", "md.ice.x"])["type"], "ack");
        assert_eq!(clients[0].subscribe(&["md.ice.x"])["code"], "in_use");
        // The connections are spread over the shards: the one that is closed is on another for some of them.
        for mut newer in clients {
            assert_eq!(newer.subscribe(&["md.cme.x"])["type"], "ack");
            assert_eq!(older.close_code(), 4409);
            older = newer;
        }
        publish(&server, "md.cme.x", &json!(1));
        assert_eq!(older.read()["data"], 1);
    }
}

/// A reload that lets a user show a product once leaves it on one of the user's connections, whichever shards they are on.
/// The others are told and wait. Whenever the connection that shows it leaves, one that waits begins, once.
#[test]
fn who_waits_shows_a_product_when_the_other_leaves() {
    for engine in ENGINES {
        let folder = Folder::new();
        let product = "\n[[product]]\nname = \"eurex\"\ntopics = [\"md.eurex.*\"]\n";
        folder.configure(1, product);
        let server = folder.start(engine);
        let grant = real_time("eurex");
        let mut waiting: Vec<_> = (0..4)
            .map(|_| Client::connect(&server, "ann", &grant))
            .collect();
        for client in &mut waiting {
            assert_eq!(client.subscribe(&["md.eurex.x", "news"])["type"], "ack");
        }
        folder.configure(1, &format!("{product}sessions = \"one-oldest\"\n"));
        server.signal("-HUP");
        server.wait_for_log("were read again");
        publish(&server, "md.eurex.x", &json!("x"));
        let mut holders = Vec::new();
        for mut client in std::mem::take(&mut waiting) {
            let said = client.read();
            if said["type"] == "data" {
                holders.push(client);
                continue;
            }
            assert_eq!(said["ended"], json!(["md.eurex.x"]));
            assert_eq!(said["reasons"], json!(["in_use"]));
            waiting.push(client);
        }
        assert_eq!((holders.len(), waiting.len()), (1, 3));
        let mut newcomer = Client::connect(&server, "ann", &grant);
        assert_eq!(newcomer.subscribe(&["md.eurex.y"])["code"], "in_use");
        for round in 1..=3_u32 {
            holders.clear();
            support::tls::wait_for_metric(
                &server,
                "tickring_entitlements_resumed_total",
                |count| count >= f64::from(round),
            );
            publish(&server, "news", &json!(round));
            for mut client in std::mem::take(&mut waiting) {
                let said = client.read();
                if said["type"] == "data" {
                    assert_eq!(said["data"], round);
                    waiting.push(client);
                    continue;
                }
                assert_eq!(said["resumed"], json!(["md.eurex.x"]));
                let mut heard = [client.read(), client.read()].map(|update| update["data"].clone());
                heard.sort_by_key(Value::is_string);
                assert_eq!(heard, [json!(round), json!("x")]);
                holders.push(client);
            }
            assert_eq!(holders.len(), 1, "round {round}");
        }
    }
}

/// An override with a product that is not configured is refused, with its name, and nothing of it takes effect.
#[test]
fn an_override_with_an_unknown_product_changes_nothing() {
    for engine in ENGINES {
        let folder = Folder::new();
        let server = folder.start(engine);
        let mut ann = Client::connect(&server, "ann", &real_time("nasdaq"));
        assert_eq!(ann.subscribe(&["md.us.a"])["type"], "ack");
        let put = |subject: &str, products: Value| {
            let path = format!("/api/v1/entitlements/{subject}");
            let body = json!({ "products": products }).to_string();
            server.api_with("PUT", &path, "", &body)
        };
        let misspelt = |class: &str| json!({ "nasdaq": class, "nasdak": "none" });
        for (subject, class) in [("ann", "none"), ("eve", "real-time")] {
            let (status, body) = put(subject, misspelt(class));
            assert_eq!(status, 400);
            assert!(body.contains("nasdak"), "{body}");
        }
        publish(&server, "md.us.a", &json!(1));
        assert_eq!(ann.read()["data"], 1, "nothing has ended");
        let overrides = || support::tls::metric(&server, "tickring_entitlement_overrides");
        assert_eq!(overrides(), 0.0);
        assert_eq!(put("ann", json!({ "nasdaq": "none" })).0, 204);
        assert_eq!(ann.read()["ended"], json!(["md.us.a"]));
        assert_eq!(put("ann", misspelt("real-time")).0, 400);
        assert_eq!(overrides(), 1.0);
        assert_eq!(ann.subscribe(&["md.us.b"])["code"], "not_entitled");
        let mut eve = Client::connect(&server, "eve", &json!({}));
        assert_eq!(eve.subscribe(&["md.us.b"])["code"], "not_entitled");
    }
}

/// A token with a misspelt member does not let anybody in, by whichever way it comes; the client and the log hear the name.
#[test]
fn a_misspelt_restriction_grants_nothing() {
    for engine in ENGINES {
        let folder = Folder::new();
        let server = folder.start(engine);
        let misspelt = json!({ "filtr": { "field": "/desk", "equals": ["fx"] } });
        let Err((status, body)) = Client::try_connect(&server, "ann", &misspelt) else {
            panic!("it is let in");
        };
        assert_eq!(status, 401);
        assert!(body.contains("filtr"), "{body}");
        let line = server.wait_for_log("unknown member");
        assert!(line.contains("filtr"), "{line}");
        let mut ann = Client::connect(&server, "ann", &real_time("nasdaq"));
        let answer = ann.say(&json!({ "op": "auth", "token": token("ann", &misspelt) }));
        assert_eq!(answer["code"], "unauthorized");
        assert!(
            answer["message"]
                .as_str()
                .is_some_and(|why| why.contains("filtr"))
        );
        assert_eq!(
            ann.subscribe(&["md.us.a"])["type"],
            "ack",
            "the token of before counts"
        );
    }
}

/// A filter of the token holds for what is retained and what is published, and a client can only narrow it.
#[test]
fn a_filter_of_the_token_holds() {
    for engine in ENGINES {
        let folder = Folder::new();
        let server = folder.start(engine);
        let filter = |desks: &[&str]| json!({ "field": "/desk", "equals": desks });
        for (topic, desk) in [("o.1", "fx"), ("o.2", "eq"), ("o.3", "irs")] {
            publish(&server, topic, &json!({ "desk": desk }));
        }
        let grant = json!({ "filter": filter(&["fx", "irs"]) });
        let mut ann = Client::connect(&server, "ann", &grant);
        let wider = filter(&["eq", "irs"]);
        let command = json!({ "op": "subscribe", "topics": ["o.*"], "filter": wider });
        assert_eq!(ann.say(&command)["type"], "ack");
        assert_eq!(ann.read()["topic"], "o.3");
        for (topic, desk) in [("o.1", "eq"), ("o.2", "fx"), ("o.4", "irs")] {
            publish(&server, topic, &json!({ "desk": desk }));
        }
        assert_eq!(ann.read()["topic"], "o.4");
        let bad = json!({ "op": "subscribe", "topics": ["o.*"], "filter": { "field": "desk" } });
        assert_eq!(ann.say(&bad)["code"], "bad_request");
    }
}

/// However often the server is killed, everybody who was connected is counted, once; a new file is complete by itself.
#[test]
fn the_usage_log_survives_kills() {
    for engine in ENGINES {
        let folder = Folder::new();
        let mut expected = 0;
        for round in 0..3 {
            let mut server = folder.start(engine);
            let mut clients = Vec::new();
            for number in 0..=round {
                let subject = format!("user{number}");
                clients.push(Client::connect(&server, &subject, &real_time("nasdaq")));
                clients.push(Client::connect(&server, &subject, &real_time("nasdaq")));
            }
            expected = round + 1;
            let delayed = json!({ "products": { "nasdaq": "delayed" } });
            let bob = Client::connect(&server, "bob", &delayed);
            drop(bob);
            wait_until(|| {
                let rows = folder.count(&[folder.log()]);
                let has =
                    |what: &str, users| rows.iter().any(|row| row.0 == what && row.2 == users);
                has("nasdaq/real-time", expected) && has("nasdaq/delayed", 1)
            });
            server.signal("-KILL");
            server.wait();
        }
        // As if it had been killed in the middle of a line.
        let text = std::fs::read(folder.log()).expect("a log");
        std::fs::write(folder.log(), &text[..text.len() - 9]).expect("a file");
        let server = folder.start(engine);
        let _eve = Client::connect(&server, "eve", &real_time("nasdaq"));
        let all = expected + 1;
        let row = |users| ("nasdaq/real-time".to_owned(), json!(false), users);
        wait_until(|| folder.count(&[folder.log()]).contains(&row(all)));
        // Moved away, as logrotate does.
        let old = folder.0.join("usage.log.1");
        std::fs::rename(folder.log(), &old).expect("it is moved");
        wait_until(|| folder.log().exists() && folder.count(&[folder.log()]).contains(&row(1)));
        let both = [folder.log(), old];
        assert!(folder.count(&both).contains(&row(all)), "{both:?}");
    }
}

/// A log that is copied and cut, as logrotate does with `copytruncate`, has everything that is open again: nobody is left
/// out, and no line is broken. Somebody whose class has no topics is not counted.
#[test]
fn a_log_that_is_cut_is_whole_again() {
    for engine in ENGINES {
        let folder = Folder::new();
        let mut server = folder.start(engine);
        let _ann = Client::connect(&server, "ann", &real_time("nasdaq"));
        let bob = Client::connect(&server, "bob", &real_time("nasdaq"));
        let _eve = Client::connect(&server, "eve", &json!({ "products": { "cme": "delayed" } }));
        let read = || std::fs::read_to_string(folder.log()).expect("a log");
        let names = |user: &str| read().contains(&format!("\"user\":\"{user}\""));
        wait_until(|| names("ann") && names("bob"));
        let copy = folder.0.join("usage.log.1");
        std::fs::copy(folder.log(), &copy).expect("a copy");
        let file = std::fs::OpenOptions::new().write(true).open(folder.log());
        file.and_then(|file| file.set_len(0)).expect("it is cut");
        let _carol = Client::connect(&server, "carol", &real_time("nasdaq"));
        wait_until(|| names("ann") && names("bob") && names("carol"));
        drop(bob);
        wait_until(|| read().contains("\"record\":\"end\""));
        server.signal("-TERM");
        assert!(server.wait().success());
        let expected = [("nasdaq/real-time".to_owned(), json!(false), 3)];
        assert_eq!(folder.count(&[folder.log()]), expected);
        assert_eq!(folder.count(&[folder.log(), copy.clone()]), expected);
        for text in [read(), std::fs::read_to_string(copy).expect("a copy")] {
            for line in text.lines().filter(|line| !line.is_empty()) {
                let line: Result<Value, _> = serde_json::from_str(line);
                assert!(line.is_ok(), "{text}");
            }
        }
        let ends = read()
            .lines()
            .filter(|line| line.contains("\"end\""))
            .count();
        assert_eq!(ends, 3, "{}", read());
    }
}

/// SIGHUP begins a new log at once if the old one was moved away, however far the next checkpoint is.
#[test]
fn sighup_begins_a_new_log() {
    for engine in ENGINES {
        let folder = Folder::new();
        folder.configure(3_600, PRODUCTS);
        let server = folder.start(engine);
        let _ann = Client::connect(&server, "ann", &real_time("nasdaq"));
        let names_ann =
            || std::fs::read_to_string(folder.log()).is_ok_and(|log| log.contains("ann"));
        wait_until(names_ann);
        let old = folder.0.join("usage.log.1");
        std::fs::rename(folder.log(), old).expect("it is moved");
        server.signal("-HUP");
        wait_until(names_ann);
    }
}

/// Users that are closed down in an orderly way leave a log in which everything has ended.
#[test]
fn an_orderly_end_ends_everything() {
    for engine in ENGINES {
        let folder = Folder::new();
        let mut server = folder.start(engine);
        let _ann = Client::connect(&server, "ann", &real_time("nasdaq"));
        wait_until(|| std::fs::read_to_string(folder.log()).is_ok_and(|log| log.contains("ann")));
        server.signal("-TERM");
        assert!(server.wait().success());
        let log = std::fs::read_to_string(folder.log()).expect("a log");
        let last = log
            .lines()
            .rfind(|line| line.contains("ann"))
            .expect("a line");
        let last: Value = serde_json::from_str(last).expect("JSON");
        assert_eq!(last["record"], "end");
        assert!(last["from"].as_str() <= last["to"].as_str());
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "it does not come true");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
