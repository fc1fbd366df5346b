//! `loadgen conformance --listen` with clients made with tungstenite: one that is right, one that is wrong on purpose,
//! and none at all.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use tungstenite::Message;

/// A running `loadgen conformance --listen` on a free port.
struct Listening {
    process: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Listening {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["conformance", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a first line");
        let address = line
            .strip_prefix("listening on http://")
            .and_then(|rest| rest.split('/').next())
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned();
        Self {
            process,
            output,
            address,
        }
    }

    /// All that a connection is told before it is closed; `answer` makes the client's messages.
    fn talk(&self, path: &str, answer: impl Fn(Message) -> Option<Message>) -> Vec<String> {
        let url = format!("ws://{}{path}", self.address);
        let (mut socket, _) = tungstenite::connect(url).expect("upgraded");
        let mut heard = Vec::new();
        while let Ok(message) = socket.read() {
            if let Message::Text(text) = &message {
                heard.push(text.to_string());
            }
            if (message.is_text() || message.is_binary())
                && let Some(answer) = answer(message)
            {
                // Some cases fail the connection.
                let _ = socket.send(answer);
            }
        }
        heard
    }

    /// Runs every case as a driver of the original's does, and asks how it went.
    fn drive(
        &self,
        agent: &str,
        answer: impl Fn(Message) -> Option<Message> + Copy,
    ) -> Vec<String> {
        let count: usize = self.talk("/getCaseCount", |_| None)[0]
            .parse()
            .expect("a count");
        let statuses = (1..=count).map(|case| {
            self.talk(&format!("/runCase?case={case}&agent={agent}"), answer);
            let path = format!("/getCaseStatus?case={case}&agent={agent}");
            self.talk(&path, |_| None).concat()
        });
        statuses.collect()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("listening");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// What is left of the output, and the exit status.
    fn end(mut self) -> (String, Option<i32>) {
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("output");
        (text, self.process.wait().expect("ended").code())
    }
}

/// A client that echoes passes, by the addresses and in the words of the original's server.
#[test]
fn a_right_client_passes() {
    let server = Listening::start(&["--once", "--cases", "1.1.*,2.*"]);
    let info = server.talk("/getCaseInfo?case=1", |_| None).concat();
    assert!(info.contains(r#""id":"1.1.1""#), "{info}");
    let statuses = server.drive("right", Some);
    assert_eq!(statuses.len(), 8 + 11);
    for status in statuses {
        assert!(status.contains(r#""behavior":"OK""#), "{status}");
        assert!(status.contains(r#""behaviorClose":"OK""#), "{status}");
    }
    server.talk("/updateReports?agent=right", |_| None);
    let (output, status) = server.end();
    assert!(
        output.contains("right: 19 of 19 cases run, 0 failed"),
        "{output}"
    );
    assert_eq!(status, Some(0));
}

/// A client that changes what it echoes fails exactly where that shows.
#[test]
fn a_wrong_client_fails() {
    let directory = std::env::temp_dir().join(format!("loadgen-listen-{}", std::process::id()));
    let out = directory.to_str().expect("a path in ASCII");
    let server = Listening::start(&["--once", "--cases", "1.1.1,1.1.2,1.2.2", "--out", out]);
    let statuses = server.drive("wrong", |message| Some(Message::text(message.to_string())));
    let is_ok: Vec<bool> = statuses
        .iter()
        .map(|status| status.contains(r#""behavior":"OK""#))
        .collect();
    assert_eq!(is_ok, [true, true, false], "{statuses:?}");
    server.talk("/updateReports?agent=wrong", |_| None);
    let (output, status) = server.end();
    assert!(output.contains("1.2.2"), "{output}");
    assert_eq!(status, Some(5));
    let index = std::fs::read(directory.join("index.json")).expect("written");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    assert_eq!(index["wrong"]["1.1.1"]["behavior"], "OK");
    assert_eq!(index["wrong"]["1.2.2"]["behavior"], "FAILED");
    std::fs::remove_dir_all(directory).expect("ours");
}

/// The report of all clients is one page beside `index.json`, each with its own cases.
#[test]
fn the_report_holds_every_client() {
    let directory = std::env::temp_dir().join(format!("loadgen-clients-{}", std::process::id()));
    let out = directory.to_str().expect("a path in ASCII");
    let server = Listening::start(&["--cases", "1.1.1,1.1.2,1.2.2", "--out", out]);
    server.drive("right", Some);
    server.talk("/updateReports?agent=right", |_| None);
    let early = std::fs::read_to_string(directory.join("index.html")).expect("written");
    server.drive("wrong", |message| Some(Message::text(message.to_string())));
    server.talk("/updateReports?agent=wrong&shutdownOnComplete=true", |_| {
        None
    });
    assert_eq!(server.end().1, Some(5));
    let page = std::fs::read_to_string(directory.join("index.html")).expect("written");
    let data = |page: &str| -> serde_json::Value {
        let data = page.split(r#"type="application/json">"#).nth(1);
        let data = data.and_then(|rest| rest.split("</script>").next());
        serde_json::from_str(data.expect("the page's data")).expect("JSON")
    };
    let behaviors = |agent: &serde_json::Value| -> Vec<String> {
        let cases = agent["cases"].as_array().expect("cases");
        assert!(
            cases
                .iter()
                .all(|case| !case["wire"].as_array().expect("a log").is_empty())
        );
        let behaviors = cases.iter().map(|case| &case["behavior"]);
        behaviors
            .map(|word| word.as_str().expect("a word").to_owned())
            .collect()
    };
    let (early, late) = (data(&early), data(&page));
    assert_eq!(early["agents"].as_array().map(Vec::len), Some(1));
    let agents = late["agents"].as_array().expect("agents");
    let names: Vec<&serde_json::Value> = agents.iter().map(|agent| &agent["name"]).collect();
    assert_eq!(names, ["right", "wrong"]);
    assert_eq!(behaviors(&agents[0]), ["OK", "OK", "OK"]);
    assert_eq!(behaviors(&agents[1]), ["OK", "OK", "FAILED"]);
    let index = std::fs::read(directory.join("index.json")).expect("written");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    assert_eq!(index.as_object().map(serde_json::Map::len), Some(2));
    std::fs::remove_dir_all(directory).expect("ours");
}

/// What keeps it from serving is one line and its status.
#[test]
fn bad_input() {
    let server = Listening::start(&["--cases", "2.1"]);
    for (arguments, status) in [
        (&["--listen", &*server.address][..], 1),
        (
            &["--listen", "127.0.0.1:0", "--out", "/proc/self/status/x"],
            1,
        ),
        (&["--listen", "127.0.0.1:0", "--cases", "20.2.*"], 2),
        (&["--listen", "127.0.0.1:0", "--cases", "1.77"], 2),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        let run = command.arg("conformance").args(arguments).output();
        let run = run.expect("it starts");
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(status), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
    server.talk("/stopServer", |_| None);
    assert_eq!(server.end().1, Some(0));
}

/// The page comes in one piece, mistaken addresses are answered, and Ctrl-C shows and writes what there is.
#[test]
fn pages_and_interrupts() {
    let directory = std::env::temp_dir().join(format!("loadgen-half-{}", std::process::id()));
    let out = directory.to_str().expect("a path in ASCII");
    let server = Listening::start(&["--cases", "2.1", "--out", out]);
    let page = server.get("/");
    assert!(
        page.starts_with("HTTP/1.1 200 ") && page.ends_with("</html>\n"),
        "{page}"
    );
    assert!(server.get("/cases.json").contains(r#""number":"2.1""#));
    assert!(
        server
            .get("/runCase?case=1&agent=x")
            .starts_with("HTTP/1.1 426 ")
    );
    assert!(server.get("/favicon.ico").starts_with("HTTP/1.1 404 "));
    server.talk("/runCase?case=1&agent=half", Some);
    assert!(
        server
            .get("/result.json?case=1&agent=half")
            .contains(r#""isGood":true"#)
    );
    let interrupt = Command::new("kill")
        .args(["-INT", &server.process.id().to_string()])
        .status();
    assert!(interrupt.expect("kill").success());
    let (output, status) = server.end();
    assert!(
        output.contains("half: 1 of 1 cases run, 0 failed"),
        "{output}"
    );
    assert_eq!(status, Some(130));
    let page = std::fs::read_to_string(directory.join("index.html")).expect("written");
    assert!(page.contains(r#""name":"half""#), "{page}");
    assert!(directory.join("index.json").exists());
    std::fs::remove_dir_all(directory).expect("ours");
}
