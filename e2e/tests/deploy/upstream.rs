//! `deploy/demo-upstream.conf` in a real nginx.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use goldleaves_testkit::child::{Child, wait_for};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_toolbox::Toolbox;
use tokio::net::TcpStream;

#[tokio::test]
async fn the_demo_upstream_says_what_arrived_and_what_it_was_worth() {
    let scratch = Scratch::new("demo-upstream").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let conf = crate::text("deploy/demo-upstream.conf");
    assert_eq!(conf.matches("listen 8080;").count(), 1);
    let conf = conf.replace("listen 8080;", &format!("listen {address};"));
    // As on the read-only file system of the container, nothing outside /tmp is written: here its place is our folder.
    let conf = conf.replace("/tmp/", &format!("{}/", scratch.path().display()));
    std::fs::write(scratch.join("nginx.conf"), conf).unwrap();
    let mut command = Command::new(Toolbox::of_target().nginx().unwrap());
    command.arg("-c").arg(scratch.join("nginx.conf")).args(["-g", "master_process off;"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Child::spawn(command, "nginx").unwrap();
    wait_for("nginx", Duration::from_secs(30), async || {
        anyhow::ensure!(child.ended()?.is_none(), "nginx ended");
        Ok(TcpStream::connect(address).await.ok())
    })
    .await
    .unwrap();

    let request = Request::post("/api/v1/ai/answers", "{}").header("X-Tenant-ID", "acme");
    let answer = request.header("X-Request-ID", "r-1").send(address).await.unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("X-Usage-Units"), Some("2.5"));
    let said = answer.json().unwrap();
    assert_eq!(said["tenant"], "acme");
    assert_eq!(said["request_id"], "r-1");
    let answer = Request::get("/api/v1/documents").send(address).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("X-Usage-Units"), None);
}
