//! Threads of the server that end unexpectedly: nothing is lost silently.
//!
//! The server runs inside the test, on an engine that fails when the test says so.

mod support;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{Client, PATIENCE, status_of, upgrade_request};
use tickring::config::Config;
use tickring::server::{self, Places, ServerError};
use tickring_ring::epoll::Epoll;
use tickring_ring::sys::Doorbell;
use tickring_ring::{
    Counters, Event, Lease, Options, Outgoing, Path, Ring, RingError, Socket, Token,
};

/// The thread whose engine is to fail, and how.
static VICTIM: Mutex<Option<(&str, How)>> = Mutex::new(None);

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Panic,
    Error,
    /// It does not come back while it is the victim.
    Hang,
}

/// An engine whose next wait fails once its thread is the victim.
struct Failing(Epoll);

impl Failing {
    fn make(options: Options) -> Result<Self, RingError> {
        Epoll::new(options).map(Self).map_err(RingError::Other)
    }
}

impl Ring for Failing {
    fn adopt(&mut self, socket: Socket) -> std::io::Result<Token> {
        self.0.adopt(socket)
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> std::io::Result<()> {
        loop {
            let thread = std::thread::current();
            let victim = *VICTIM.lock().expect("no holder panics");
            match victim.filter(|&(name, _)| thread.name() == Some(name)) {
                Some((_, How::Panic)) => panic!("the defect"),
                Some((_, How::Error)) => return Err(std::io::Error::other("the defect")),
                Some((_, How::Hang)) => std::thread::sleep(Duration::from_millis(10)),
                None => break,
            }
        }
        // It has to look again.
        let soon = Duration::from_millis(20);
        self.0.wait(Some(timeout.unwrap_or(soon).min(soon)), events)
    }

    fn listen(
        &mut self,
        listener: std::net::TcpListener,
    ) -> std::io::Result<tickring_ring::ListenerId> {
        self.0.listen(listener)
    }
    fn stop_listening(&mut self) {
        self.0.stop_listening();
    }
    fn resume_accept(&mut self) {
        self.0.resume_accept();
    }
    fn connect(
        &mut self,
        address: SocketAddr,
        source: Option<SocketAddr>,
    ) -> std::io::Result<Token> {
        self.0.connect(address, source)
    }
    fn send(&mut self, token: Token, bytes: Outgoing) {
        self.0.send(token, bytes);
    }
    fn send_progress(&self, token: Token) -> usize {
        self.0.send_progress(token)
    }
    fn path(&self, token: Token) -> Option<Path> {
        self.0.path(token)
    }
    fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.0.take_spare()
    }

    fn give_spare(&mut self, spare: Vec<u8>) {
        self.0.give_spare(spare);
    }
    fn pause_receive(&mut self, token: Token) {
        self.0.pause_receive(token);
    }
    fn resume_receive(&mut self, token: Token) {
        self.0.resume_receive(token);
    }
    fn shutdown_write(&mut self, token: Token) {
        self.0.shutdown_write(token);
    }
    fn close(&mut self, token: Token, reset: bool) {
        self.0.close(token, reset);
    }
    fn doorbell(&self) -> Doorbell {
        self.0.doorbell()
    }
    fn ring_doorbell(&mut self, target: &Doorbell) {
        self.0.ring_doorbell(target);
    }
    fn release(&mut self, lease: Lease) {
        self.0.release(lease);
    }
    fn may_lend(&self, lease: &Lease) -> bool {
        self.0.may_lend(lease)
    }
    fn counters(&self) -> Counters {
        self.0.counters()
    }
    fn engine(&self) -> &'static str {
        self.0.engine()
    }
}

/// A server in this process.
struct Server {
    public: SocketAddr,
    api: SocketAddr,
    thread: JoinHandle<Result<(), ServerError>>,
}

impl Server {
    fn start(config: Config) -> Self {
        let (say, hear) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let ready = |places: &Places| {
                say.send((places.public, places.api))
                    .expect("the test waits")
            };
            server::run_on(&config, None, "00ff".into(), Failing::make, ready)
        });
        let (public, api) = hear.recv_timeout(PATIENCE).expect("it starts");
        Self {
            public,
            api,
            thread,
        }
    }

    fn open(&self) -> Client {
        open(self.public)
    }

    /// Status and body of a request, none once nobody answers.
    fn ask(&self, path: &str) -> Option<(u16, String)> {
        std::net::TcpStream::connect(self.api).ok()?;
        let mut client = Client::connect(self.api);
        client.try_send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        let answer = String::from_utf8(client.read_to_end()).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((status_of(head), body.to_owned()))
    }
}

fn open(public: SocketAddr) -> Client {
    let mut client = Client::connect(public);
    client.send(upgrade_request("/ws", "").as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

fn config() -> Config {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        listen: loopback,
        api_listen: loopback,
        shards: 2,
        ..Config::default()
    }
}

/// A shard or the sequencer that panics, or whose engine fails: the clients of those that live are told to
/// connect again, those of the dead are cut off and not left hanging, health says what has failed,
/// newcomers are not swallowed by a port behind which nobody is, and the process ends with the status of a
/// defect.
#[test]
fn a_failed_thread_ends_the_server() {
    let _alone = alone();
    for (thread, name) in [("shard-1", "shard 1"), ("sequencer", "the sequencer")] {
        for how in [How::Panic, How::Error] {
            let server = Server::start(config());
            assert_eq!(server.ask("/healthz").map(|answer| answer.0), Some(200));
            let mut clients: Vec<_> = (0..20).map(|_| server.open()).collect();
            *VICTIM.lock().expect("no holder panics") = Some((thread, how));

            let until = Instant::now() + PATIENCE;
            let told = loop {
                match server.ask("/healthz") {
                    Some((200, _)) => assert!(Instant::now() < until, "health tells nothing"),
                    Some((503, told)) => break told,
                    // It may have been over before we looked.
                    other => break other.map_or_else(String::new, |other| panic!("{other:?}")),
                }
            };
            assert!(told.is_empty() || told.contains(name), "{told}");

            let codes: Vec<_> = clients.iter_mut().map(close_code).collect();
            assert!(codes.contains(&Some(1012)), "{thread} {how:?}: {codes:?}");
            assert!(codes.iter().all(|code| matches!(code, Some(1012) | None)));
            if thread == "sequencer" {
                assert!(codes.iter().all(Option::is_some), "{how:?}: {codes:?}");
            }
            drop(clients);
            let error = server
                .thread
                .join()
                .expect("no panic")
                .expect_err("a failure");
            assert_eq!(error.exit_status(), 70, "{error}");
            assert!(error.to_string().contains(name), "{error}");
            assert!(std::net::TcpStream::connect(server.public).is_err());
            *VICTIM.lock().expect("no holder panics") = None;
        }
    }
}

/// When the control thread panics, the shards send their clients away by themselves.
#[test]
fn a_failed_control_thread_ends_the_server() {
    let _alone = alone();
    let (say, hear) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let ready = |places: &Places| {
            let public = places.public;
            let clients: Vec<_> = (0..10).map(|_| open(public)).collect();
            say.send(clients).expect("the test waits");
            panic!("the defect");
        };
        let make = |options| Epoll::new(options).map_err(RingError::Other);
        server::run_on(&config(), None, "00ff".into(), make, ready)
    });
    let mut clients = hear.recv_timeout(PATIENCE).expect("it starts");
    for client in &mut clients {
        assert_eq!(close_code(client), Some(1012));
    }
    drop(clients);
    let error = server.join().expect("caught").expect_err("a failure");
    assert_eq!(error.exit_status(), 70, "{error}");
    assert!(error.to_string().contains("the control thread"), "{error}");
}

/// A shard that hangs does not keep a server that is told to end, once the drain time is over.
#[test]
fn a_shard_that_hangs_does_not_outlive_the_drain() {
    let _alone = alone();
    let server = Server::start(Config {
        drain_timeout_ms: 100,
        ..config()
    });
    *VICTIM.lock().expect("no holder panics") = Some(("shard-1", How::Hang));
    let process = std::process::id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-TERM", &process])
        .status();
    assert!(kill.is_ok_and(|status| status.success()));
    let until = Instant::now() + PATIENCE;
    while !server.thread.is_finished() {
        assert!(Instant::now() < until, "the server does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    *VICTIM.lock().expect("no holder panics") = None;
    let ended = server.thread.join().expect("no panic");
    ended.expect("an orderly end");
}

/// One server at a time in this process, which signals and victims concern as a whole.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The code of the Close that comes; none if the connection is cut off without.
fn close_code(client: &mut Client) -> Option<u16> {
    loop {
        match client.read_frame()? {
            (0x88, payload) => return Some(u16::from_be_bytes([payload[0], payload[1]])),
            _ => continue,
        }
    }
}
