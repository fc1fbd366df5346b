//! tickring itself, as the user runs it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;

/// A server on free ports, ended with its owner.
pub struct Tickring {
    child: Child,
    websocket: String,
    api: String,
}

impl Tickring {
    /// `tickring serve` with `more` flags, ready to be connected to.
    pub fn start(more: &[&str]) -> Self {
        let beside = Path::new(env!("CARGO_BIN_EXE_loadgen"));
        let program = beside.with_file_name("tickring");
        build(beside);
        let mut child = Command::new(&program)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--api-listen",
                "127.0.0.1:0",
            ])
            .args(["--shards", "1", "--pin=false", "--log", "warn"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|cause| panic!("{}: {cause}", program.display()));
        let stdout = child.stdout.take().expect("piped");
        let (mut websocket, mut api) = (None, None);
        // The addresses are printed when connections are accepted.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("websocket"), Some(url)) => websocket = Some(url.to_owned()),
                (Some("api"), Some(url)) => api = Some(url.to_owned()),
                _ => {}
            }
            if websocket.is_some() && api.is_some() {
                break;
            }
        }
        Self {
            child,
            websocket: websocket.expect("tickring prints its address"),
            api: api.expect("tickring prints its address"),
        }
    }

    /// Address of `path` for WebSocket.
    pub fn url(&self, path: &str) -> String {
        self.websocket.replace("/ws", path)
    }

    /// Address of the publish API.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Tickring {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A test of this package alone does not build the server.
fn build(loadgen: &Path) {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut command = Command::new(cargo);
        command.args([
            "build",
            "--quiet",
            "--package",
            "tickring",
            "--bin",
            "tickring",
        ]);
        if loadgen
            .components()
            .any(|part| part.as_os_str() == "release")
        {
            command.arg("--release");
        }
        let target = loadgen
            .parent()
            .and_then(Path::parent)
            .expect("target/PROFILE/loadgen");
        let status = command
            .arg("--target-dir")
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "building tickring");
    });
}
