//! Servers by other authors that send pings, and that split their messages differently from ours.

mod support;

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{engines, next_frame, run, run_json, serve, shake_hands, text_frame, url};
use tickring::limits::{EMPTY_FRAGMENTS_MAX, FRAGMENTS_MAX};

/// A ping with this payload.
fn ping(payload: &[u8]) -> Vec<u8> {
    [&[0x89, payload.len() as u8], payload].concat()
}

/// How the connections of a [`serve_pinging`] went.
#[derive(Default)]
struct Outcomes {
    /// Connections that have begun.
    begun: AtomicUsize,
    /// Of each that has ended its messages, or what was wrong.
    ended: Mutex<Vec<Result<u64, String>>>,
}

impl Outcomes {
    /// All of them, once every connection has ended: the server may notice that after its client has left.
    fn wait(&self) -> Vec<Result<u64, String>> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut ended = self.ended.lock().expect("no panic holds it");
            if ended.len() == self.begun.load(Ordering::Acquire) {
                return std::mem::take(&mut ended);
            }
            drop(ended);
            assert!(Instant::now() < deadline, "a connection has not ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An echo server that puts a ping of 4 to 8 bytes behind each echo. It says whether every ping had its own pong, in
/// order and, where `is_first`, before the next message, and whether nothing came after the client's Close.
fn serve_pinging(outcomes: &Arc<Outcomes>, is_first: bool) -> SocketAddr {
    let outcomes = Arc::clone(outcomes);
    serve(move |mut stream| {
        stream.set_nodelay(true).expect("a socket");
        outcomes.begun.fetch_add(1, Ordering::AcqRel);
        let outcome = match shake_hands(&mut stream) {
            Some(()) => ping_and_echo(&mut stream, is_first),
            None => Ok(0),
        };
        let mut ended = outcomes.ended.lock().expect("no panic holds it");
        ended.push(outcome);
    })
}

fn ping_and_echo(stream: &mut TcpStream, is_first: bool) -> Result<u64, String> {
    let (mut number, mut awaited) = (0_u64, VecDeque::new());
    while let Some((opcode, payload)) = next_frame(stream) {
        match opcode {
            0x8 => {
                // The answer, and a ping that nobody has to answer any more.
                let answer = [&[0x88, payload.len() as u8], &payload[..]].concat();
                let octets = [ping(b"late"), answer].concat();
                if stream.write_all(&octets).is_err() {
                    return Ok(number);
                }
                return match next_frame(stream) {
                    Some(frame) => Err(format!("{frame:?} after the Close")),
                    None => Ok(number),
                };
            }
            0xa if awaited.pop_front().as_ref() == Some(&payload) => {}
            0xa => return Err(format!("pong {payload:?}, then {awaited:?} were awaited")),
            _ if is_first && !awaited.is_empty() => {
                return Err("a message before the pong".to_owned());
            }
            _ => {
                number += 1;
                let length = 4 + (number % 5) as usize;
                awaited.push_back(number.to_le_bytes()[..length].to_vec());
                let mut octets = text_frame(&payload);
                octets[0] = 0x80 | opcode;
                octets.extend_from_slice(&ping(&number.to_le_bytes()[..length]));
                if stream.write_all(&octets).is_err() {
                    return Ok(number);
                }
            }
        }
    }
    Ok(number)
}

/// Every ping behind an echo is answered with its own payload, in a closed loop before the next message goes out, also
/// on connections that are closed and replaced; pings count as no messages, and no pong follows a Close.
#[test]
fn pings_behind_echoes_are_answered_first() {
    for engine in engines() {
        // In an open loop a message may go out before the ping is there.
        for (load, is_first) in [
            (&[][..], true),
            (&["-r", "300"], false),
            (&["--churn", "20"], true),
        ] {
            let outcomes = Arc::new(Outcomes::default());
            let url = url(serve_pinging(&outcomes, is_first));
            let common = [
                "echo", &url, "-c", "3", "-d", "500ms", "-w", "0", "--io", engine,
            ];
            let (run, json) = run_json("pinging", &[&common[..], load].concat());
            assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
            let mut echoed = 0;
            for outcome in outcomes.wait() {
                echoed += outcome.unwrap_or_else(|why| panic!("{engine} {load:?}: {why}"));
            }
            let totals = &json["totals"];
            let count = |field: &str| totals[field].as_u64().expect("a count");
            assert!(echoed > 10, "{engine}: {echoed}");
            let answered = count("messages_received") + count("received_late");
            assert!(answered <= echoed, "{engine}: {totals}");
            assert_eq!((count("corrupt"), count("foreign")), (0, 0), "{totals}");
        }
    }
}

/// The pong of a slow reader comes when everything before the ping has been read, at the pace that was asked for.
#[test]
fn a_slow_readers_pong_waits_for_what_comes_before() {
    for engine in engines() {
        // io_uring goes on reading until a pause takes effect: up to some 200 KB, on the loopback interface.
        let messages = if engine == "uring" { 400 } else { 60 };
        let waits: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let noted = Arc::clone(&waits);
        // Messages of 1 KB and a ping behind them, as soon as the connection is there, and the end.
        let url = url(serve(move |mut stream| {
            if shake_hands(&mut stream).is_none() {
                return;
            }
            let began = Instant::now();
            let mut octets = text_frame(&[b'x'; 1_000]).repeat(messages);
            octets.extend_from_slice(&ping(&7_u64.to_be_bytes()));
            if stream.write_all(&octets).is_err() {
                return;
            }
            if next_frame(&mut stream) != Some((0xa, 7_u64.to_be_bytes().to_vec())) {
                return;
            }
            let waits = || noted.lock().expect("no panic holds it");
            waits().push(began.elapsed());
            // It ends when both have answered: the run need not last longer.
            let deadline = Instant::now() + Duration::from_secs(60);
            while waits().len() < 2 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }));
        let arguments = "-c 2 -w 0 -d 90s --ping-interval 0 --slow-readers 0.5@40k --io";
        let mut all = vec!["idle", &url];
        all.extend(arguments.split(' '));
        all.push(engine);
        let run = run(&all);
        assert_eq!(run.status, 5, "{engine}: {}{}", run.stdout, run.stderr);
        let waits = waits.lock().expect("no panic holds it");
        assert_eq!(waits.len(), 2, "{engine}: one pong for each ping");
        // Nominally a second and a half, and at least four.
        let longest = waits.iter().max().expect("two");
        assert!(
            *longest >= Duration::from_millis(500),
            "{engine}: {waits:?}"
        );
    }
}

/// What bounds a client of tickring's own server does not bound a server: a message may have any number of
/// fragments, empty ones too.
#[test]
fn fragments_of_a_server_are_not_counted() {
    let fragments = usize::try_from(FRAGMENTS_MAX.max(EMPTY_FRAGMENTS_MAX)).expect("a size") + 1;
    let url = url(serve(move |mut stream| {
        if shake_hands(&mut stream).is_none() {
            return;
        }
        while let Some((opcode, payload)) = next_frame(&mut stream) {
            if !matches!(opcode, 1 | 2) {
                return;
            }
            // An empty beginning, nothing so many times, and all of the echo at the end.
            let mut octets = vec![opcode, 0];
            octets.extend([0, 0].repeat(fragments));
            let last = octets.len();
            octets.extend(text_frame(&payload));
            octets[last] = 0x80;
            if stream.write_all(&octets).is_err() {
                return;
            }
        }
    }));
    for engine in engines() {
        let arguments = [
            "echo", &url, "-c", "1", "-d", "500ms", "-w", "0", "--io", engine,
        ];
        let (run, json) = run_json("fragments", &arguments);
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        let totals = &json["totals"];
        let count = |field: &str| totals[field].as_u64().expect("a count");
        assert!(
            count("messages_received") + count("received_late") > 0,
            "{totals}"
        );
    }
}
