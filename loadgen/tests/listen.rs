//! `loadgen conformance --listen` with clients on tungstenite: one that is right, one that is wrong on
//! purpose, and none at all.

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

/// The page comes in one piece, mistaken addresses are answered, and Ctrl-C shows what there is.
#[test]
fn pages_and_interrupts() {
    let server = Listening::start(&["--cases", "2.1"]);
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
}
