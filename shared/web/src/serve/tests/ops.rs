//! The ops endpoints over a real socket.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::{Check, CheckState, Ops, serve_ops};

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn metrics_liveness_and_readiness() {
    let listener = bind("127.0.0.1:0".parse().unwrap(), ListenerOptions::default()).unwrap();
    let address = listener.local_addr().unwrap();
    let up = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&up);
    let spool = Check::new("spool", move || match seen.load(Ordering::Relaxed) {
        true => CheckState::Up,
        false => CheckState::Down("no room".into()),
    });
    let ops = Ops::new(|| "answer 42\n# EOF\n".to_owned()).ready(spool).ready(Check::new("other", || CheckState::Up));
    let stop = Stop::default();
    let running = tokio::spawn(serve_ops(listener, ops, stop.clone()));

    let metrics = ask(address, "GET /metrics").await;
    assert!(
        metrics.contains("content-type: application/openmetrics-text") && metrics.ends_with("answer 42\n# EOF\n"),
        "{metrics}"
    );
    let classic = "GET /metrics HTTP/1.1\r\nAccept: text/plain\r\nX-Rest:";
    let classic = ask(address, classic).await;
    assert!(
        classic.contains("content-type: text/plain; version=0.0.4") && classic.ends_with("answer 42\n"),
        "{classic}"
    );
    let ready = ask(address, "GET /health/ready").await;
    let body = r#"{"status":"ready","checks":[{"name":"spool","ok":true},{"name":"other","ok":true}]}"#;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.ends_with(body), "{ready}");

    up.store(false, Ordering::Relaxed);
    let ready = ask(address, "GET /health/ready").await;
    let body = r#"{"status":"not ready","checks":[{"name":"spool","ok":false,"detail":"no room"},{"name":"other","ok":true}]}"#;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with(body), "{ready}");
    let live = ask(address, "GET /health/live").await;
    assert!(live.starts_with("HTTP/1.1 200") && live.ends_with(r#"{"status":"live","checks":[]}"#), "{live}");

    assert!(ask(address, "GET /other").await.starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));
    let head = ask(address, "HEAD /health/live").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    stop.graceful.cancel();
    assert_eq!(patiently(running).await.unwrap(), Served { left: 0 });
}
