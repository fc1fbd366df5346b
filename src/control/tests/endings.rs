//! How the control thread ends: drained, by signals, and when a part has failed.

use super::super::*;
use super::harness::{FakeShard, Server, publish, wait_until};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

/// While shards drain: not ready, nothing is published, and what was acknowledged came before the end.
#[test]
fn draining_refuses_and_loses_nothing() {
    let server = Server::start(2);
    server
        .shards
        .iter()
        .for_each(|shard| shard.stubborn.store(true, Ordering::Relaxed));
    for number in 0..20 {
        let body = format!(r#"{{"topic":"t.{number}","data":1}}"#);
        assert_eq!(server.publish(&body).status, 200);
    }
    server.signal(EndSignal::Interrupt);
    wait_until("told to drain", || {
        server
            .shards
            .iter()
            .all(|shard| shard.drained.load(Ordering::Relaxed))
    });
    let answer = server.status("/readyz");
    assert_eq!(
        (answer.status, answer.json()["reasons"][0].as_str()),
        (503, Some("draining"))
    );
    assert_eq!(server.status("/healthz").status, 200);
    let answer = server.publish(r#"{"topic":"a","data":1}"#);
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "draining")
    );
    assert_eq!(
        server
            .shards
            .iter()
            .map(|shard| shard.taken().len())
            .sum::<usize>(),
        20
    );
    server
        .shards
        .iter()
        .for_each(|shard| shard.stubborn.store(false, Ordering::Relaxed));
    server.join().expect("an orderly end");
}

/// A shard too busy to hear of the end does not keep the server: the drain time does end it, in order.
#[test]
fn the_drain_time_ends_it() {
    let config = Config {
        drain_timeout_ms: 50,
        ..Config::default()
    };
    let server = Server::start_with(2, 1, config);
    server.shards[1].is_stalled.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    server.end().expect("an orderly end");
    assert!(begun.elapsed() < Duration::from_secs(4));
}

/// A second signal leaves at once, with the status of a process that the signal has ended.
#[test]
fn a_second_signal_leaves_at_once() {
    let server = Server::start(1);
    server.shards[0].stubborn.store(true, Ordering::Relaxed);
    server.signal(EndSignal::Terminate);
    server.signal(EndSignal::Interrupt);
    let error = server.join().expect_err("not in order");
    assert!(matches!(
        error,
        ControlError::Interrupted(EndSignal::Interrupt)
    ));
    assert_eq!(error.exit_status(), 130);
}

/// When a shard or the home dies without a word, that is told where people look, nothing more is
/// published, the living send their clients away for a restart, and the server ends with the status of a
/// defect. Callers that wait for a dead home are told.
#[test]
fn the_dead_end_the_server() {
    let body = r#"{"topic":"a","data":1}"#;
    for (victim, name) in [(0, "shard 0"), (2, "the sequencer")] {
        let server = Server::start(3);
        let home = &server.shards[2];
        home.is_stalled.store(true, Ordering::Relaxed);
        let address = server.address;
        let client = thread::spawn(move || publish(address, body));
        wait_until("the client waits", || {
            home.waiting.load(Ordering::Relaxed) == 1
        });
        for shard in &server.shards {
            shard.stubborn.store(true, Ordering::Relaxed);
        }
        server.shards[victim].die.store(true, Ordering::Relaxed);
        wait_until("it is noticed", || server.status("/healthz").status == 503);
        let text = server.status("/healthz").body;
        assert_eq!(text, format!("{name} has failed; the process ends\n"));
        let ready = server.status("/readyz");
        assert_eq!(ready.status, 503);
        assert_eq!(ready.json()["reasons"][0], format!("{name} has failed"));
        let refused = server.publish(body);
        assert_eq!(
            (refused.status, refused.error_code().as_str()),
            (503, "draining")
        );
        home.is_stalled.store(false, Ordering::Relaxed);
        let answer = client.join().expect("no panic");
        match victim {
            0 => assert_eq!(answer.status, 200, "the home lives"),
            _ => {
                assert_eq!(
                    (answer.status, answer.error_code().as_str()),
                    (503, "unanswered")
                );
                assert!(
                    !answer.head.contains("retry-after"),
                    "it may have been published"
                );
            }
        }
        wait_until("the living are told", || {
            let mut others = server.shards.iter().enumerate();
            others.all(|(index, shard)| index == victim || shard.restarts.load(Ordering::Relaxed))
        });
        wait_until("and told to drain", || {
            home.drained.load(Ordering::Relaxed) || victim == 2
        });
        for shard in &server.shards {
            shard.stubborn.store(false, Ordering::Relaxed);
        }
        let error = server.join().expect_err("not in order");
        assert!(
            error.to_string().starts_with(&format!("{name} has failed")),
            "{error}"
        );
        assert_eq!(error.exit_status(), 70);
    }
}

/// A failed server waits no longer for clients than is said, nor for the stubborn.
#[test]
fn a_failed_server_does_not_linger() {
    let config = Config {
        drain_timeout_ms: 50,
        ..Config::default()
    };
    let server = Server::start_with(2, 16, config);
    server.shards[1].stubborn.store(true, Ordering::Relaxed);
    server.shards[0].die.store(true, Ordering::Relaxed);
    let error = server.join().expect_err("not in order");
    assert!(matches!(error, ControlError::Failed(_)));
}

/// A part of the control thread that fails is not lost in silence: whoever runs it is told, be it a panic
/// or an error; a part that ends is no failure.
#[test]
fn parts_that_fail_are_noticed() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let why = |part: Box<dyn FnOnce() -> io::Result<()>>| {
        let told = std::rc::Rc::new(std::cell::RefCell::new(None));
        let tell = std::rc::Rc::clone(&told);
        LocalSet::new()
            .block_on(&runtime, async move {
                spawn_part(async { part() }, move |error| {
                    *tell.borrow_mut() = Some(error)
                })
                .await
            })
            .expect("the part's end is no panic here");
        told.take()
    };
    let panic = why(Box::new(|| panic!("the defect")));
    assert!(panic.is_some_and(|error| error.contains("the defect")));
    let error = why(Box::new(|| Err(io::Error::other("the reason"))));
    assert_eq!(error.as_deref(), Some("the reason"));
    assert_eq!(why(Box::new(|| Ok(()))), None);
}

/// A failure that ends the server makes it unready, and the first one is what is said.
#[test]
fn what_has_failed_is_told() {
    let publisher = Publisher::new(Vec::new(), Box::new(|| false));
    assert_eq!(publisher.unready_reasons(), [""; 0]);
    assert_eq!(publisher.failure(), None);
    publisher.fail("the API has failed".to_owned());
    publisher.fail("something else has failed".to_owned());
    assert_eq!(publisher.failure().as_deref(), Some("the API has failed"));
    assert_eq!(publisher.unready_reasons()[0], "the API has failed");
}

/// The same on both runtimes, from the real signals: SIGHUP changes nothing, SIGTERM ends in order.
#[test]
fn both_runtimes_serve_and_obey() {
    for io in [IoEngine::Auto, IoEngine::Epoll] {
        let wake = Doorbell::new().expect("an eventfd");
        let (shard, link) = FakeShard::spawn(&wake, 16, &Arc::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let config = Config {
            io,
            ..Config::default()
        };
        let metrics = vec![Arc::default()];
        let thread = thread::spawn(move || {
            run(
                &config,
                "00ff".into(),
                Parts {
                    links: vec![link],
                    metrics,
                    wake,
                    api: listener,
                    certificates: None,
                    api_tls: None,
                    keys: None,
                    live: None,
                    descriptors: 1_024,
                    usage: None,
                    is_memory_short: Box::new(|| false),
                },
                || {},
            )
        });
        assert_eq!(publish(address, r#"{"topic":"a","data":1}"#).status, 200);
        let send = |signal: &str| {
            let process = std::process::id().to_string();
            let status = std::process::Command::new("kill")
                .args([signal, &process])
                .status();
            assert!(status.is_ok_and(|status| status.success()));
        };
        send("-HUP");
        assert_eq!(publish(address, r#"{"topic":"a","data":2}"#).status, 200);
        send("-TERM");
        thread.join().expect("no panic").expect("an orderly end");
        assert!(shard.drained.load(Ordering::Relaxed));
        assert_eq!(shard.taken().len(), 2);
    }
}
