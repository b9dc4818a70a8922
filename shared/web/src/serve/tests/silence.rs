//! Tests that log lines about requests hold nothing of their tokens.

use std::io::Write;
use std::sync::Mutex;

use goldleaves_auth::{TokenOptions, TokenVerifier, WallClock};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::Problem;

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_is_logged_or_answered() {
    let page = Page::default();
    let writer = page.clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let ours = Targets::new().with_target("goldleaves", LevelFilter::TRACE);
    let _logs = tracing::subscriber::set_default(tracing_subscriber::registry().with(ours).with(lines));

    let verifier = TokenVerifier::new(TokenOptions::new("secret-of-the-server"), WallClock::system());
    let server = Server::start(hasty(), move |request: Request<WebBody>| {
        let problem = verifier.verify(request.headers()).unwrap_err();
        let response = Problem::unauthorized(problem).response(&"r".parse().unwrap());
        std::future::ready(response)
    });
    let head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer t0ken-of-somebody";
    let refused = raw(&server, format!("{head}\r\n\r\n").as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 401") && !refused.contains("t0ken"), "{refused}");
    assert!(raw(&server, format!("{head}\r\nb\0d: x\r\n\r\n").as_bytes()).await.starts_with("HTTP/1.1 400"));
    assert!(!raw(&server, head.as_bytes()).await.contains("t0ken"));
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("a connection broke off"), "the bad request is told: {text}");
    assert!(!text.contains("t0ken") && !text.contains("secret-of"), "{text}");
}
