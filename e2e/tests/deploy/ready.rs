//! `deploy/ready`, the image's health check, against a real ops listener.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use goldleaves_web::{Check, CheckState, ListenerOptions, Ops, Stop, bind, serve_ops};
use tokio_util::sync::CancellationToken;

/// The script's exit code, asked about this address.
async fn ready(ops_addr: Option<String>) -> Option<i32> {
    tokio::task::spawn_blocking(move || {
        let mut command = Command::new(crate::file("deploy/ready"));
        command.env_remove("OPS_ADDR").envs(ops_addr.map(|address| ("OPS_ADDR", address)));
        command.output().unwrap().status.code()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_whether_the_program_is_ready() {
    let up = Arc::new(AtomicBool::new(true));
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), ListenerOptions::default()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let is_up = Arc::clone(&up);
    let check = Check::new("test", move || CheckState::when(is_up.load(Ordering::Relaxed), "stopping"));
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve_ops(listener, Ops::new(String::new).ready(check), Stop::on(stop.clone())));
    // As compose.yaml sets it: the address to listen on, of which only the port matters here.
    let address = Some(format!("0.0.0.0:{port}"));
    assert_eq!(ready(address.clone()).await, Some(0));
    up.store(false, Ordering::Relaxed);
    assert_eq!(ready(address.clone()).await, Some(1), "not ready");
    stop.cancel();
    server.await.unwrap();
    assert_ne!(ready(address).await, Some(0), "nobody listens");
    assert_ne!(ready(None).await, Some(0), "no address");
}
