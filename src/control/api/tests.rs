//! What no request can set off: defects of ours.

use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// A panic while a connection is served closes that one and is counted; the others are served.
#[test]
fn a_panic_costs_its_own_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let metrics = Arc::new(ControlMetrics::default());
    let router = Router::new()
        .route("/defect", get(async || panic!("the defect") as &str))
        .route("/healthz", get(async || "ok\n"));
    let connections = Connections::new(Bounds::default(), Arc::clone(&metrics));
    let counted = Arc::clone(&metrics);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let rules = Rules::new(address.ip(), &crate::config::Config::default());
        let serve = listener::serve(listener, router, connections, metrics, &rules, async {
            let _ = stopped.await;
        });
        tokio::task::LocalSet::new().block_on(&runtime, serve)
    });
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    for _ in 0..3 {
        assert_eq!(ask("/defect"), b"");
        assert!(ask("/healthz").starts_with(b"HTTP/1.1 200 "));
    }
    drop(stop);
    server.join().expect("no panic").expect("it has served");
    assert_eq!(counted.api_panics.value(), 3);
    assert_eq!(counted.api_connections.value(), 0);
}
