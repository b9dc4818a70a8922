//! `deploy/nats.conf` in a real nats-server: it starts with it, and its logins may do what their programs do and no more.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use goldleaves_domain::{Delivery, Publisher as _};
use goldleaves_e2e::nats_wire::NatsWire;
use goldleaves_stream::{
    ConnectSettings, Connection, Consumer, ConsumerOptions, Existence, Next, PublisherOptions, StreamPublisher,
    StreamRoom, Topology,
};
use goldleaves_testkit::child::{Child, wait_for};
use goldleaves_testkit::scratch::Scratch;
use tokio::net::TcpStream;

use crate::text;

const TOPOLOGY: Topology =
    Topology { replicas: 1, bytes_max: 1 << 30, bytes_min: 1 << 30, history: Duration::from_secs(45 * 86_400) };
const LOGINS: [&str; 3] = ["GATEWAY", "WORKER", "ADMIN"];

/// A server with the configuration of the deployment, on ports and in a folder of its own.
pub(crate) struct Deployed {
    pub(crate) port: u16,
    _child: Child,
    _scratch: Scratch,
}

impl Deployed {
    pub(crate) async fn start() -> Self {
        let scratch = Scratch::new("deployed-nats").unwrap();
        let mut conf = text("deploy/nats.conf");
        let port = free_port();
        for (there, here) in [
            ("\"0.0.0.0:4222\"", format!("\"127.0.0.1:{port}\"")),
            ("\"127.0.0.1:8222\"", format!("\"127.0.0.1:{}\"", free_port())),
            ("\"/data\"", format!("\"{}\"", scratch.path().display())),
        ] {
            assert_eq!(conf.matches(there).count(), 1, "{there}");
            conf = conf.replace(there, &here);
        }
        std::fs::write(scratch.join("nats.conf"), conf).unwrap();
        let log = std::fs::File::create(scratch.join("nats.log")).unwrap();
        let mut command = Command::new(goldleaves_testkit::nats::binary().unwrap());
        command.arg("-c").arg(scratch.join("nats.conf")).stdin(Stdio::null()).stderr(log);
        for login in LOGINS {
            command.env(format!("NATS_{login}_PASSWORD"), password(login));
        }
        let mut child = Child::spawn(command, "nats-server").unwrap();
        wait_for("nats-server", Duration::from_secs(30), async || {
            let ended = child.ended()?;
            anyhow::ensure!(ended.is_none(), "{}", std::fs::read_to_string(scratch.join("nats.log"))?);
            Ok(TcpStream::connect(("127.0.0.1", port)).await.ok())
        })
        .await
        .unwrap();
        Self { port, _child: child, _scratch: scratch }
    }

    pub(crate) async fn as_program(&self, login: &str) -> Connection {
        let url = format!("nats://{}:{}@127.0.0.1:{}", login.to_lowercase(), password(login), self.port);
        let servers = url.parse().unwrap();
        let name = login.to_lowercase();
        let settings = ConnectSettings { servers, credentials_file: None, ca_file: None, name };
        let connection = Connection::connect(&settings).await.unwrap();
        within(connection.connected()).await;
        connection
    }

    pub(crate) async fn as_anybody(&self, login: &str) -> NatsWire {
        NatsWire::connect(self.port, &login.to_lowercase(), &password(login)).await.unwrap()
    }
}

pub(crate) fn password(login: &str) -> String {
    format!("s3e5{login}0123456789")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Fails the test instead of hanging it.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap()
}

#[test]
fn the_server_calls_the_file_valid_and_asks_for_every_password() {
    let check = |logins: &[&str]| {
        let mut command = Command::new(goldleaves_testkit::nats::binary().unwrap());
        command.arg("-t").arg("-c").arg(crate::file("deploy/nats.conf"));
        command.envs(logins.iter().map(|login| (format!("NATS_{login}_PASSWORD"), password(login))));
        command.output().unwrap()
    };
    let whole = check(&LOGINS);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let lacking = check(&LOGINS[1..]);
    assert!(!lacking.status.success() && String::from_utf8_lossy(&lacking.stderr).contains("NATS_GATEWAY_PASSWORD"));
}

#[tokio::test]
async fn gateway_and_worker_do_their_work_with_their_own_logins() {
    let server = Deployed::start().await;
    // A gateway that is there before `migrate` makes the stream itself; then again, as `migrate` does.
    let gateway = server.as_program("GATEWAY").await;
    TOPOLOGY.declare(&gateway).await.unwrap();
    TOPOLOGY.declare(&server.as_program("ADMIN").await).await.unwrap();
    let publisher = StreamPublisher::new(gateway, TOPOLOGY, PublisherOptions::default());
    for subject in ["usage.v1.acme", "usage.seal.v1.gateway-1"] {
        let payload = format!("{{\"to\":\"{subject}\"}}").into();
        let delivery =
            Delivery { subject: subject.to_owned(), message_id: subject.to_owned(), payload, traceparent: None };
        within(publisher.publish(vec![delivery])).await.unwrap();
    }
    // Compares with the stream: that reads a message.
    within(publisher.verify()).await.unwrap();

    let connection = server.as_program("WORKER").await;
    let present = Topology::check(&connection).await.unwrap();
    assert!(present.stream && present.consumer);
    let mut consumer = Consumer::new(connection.clone(), ConsumerOptions::default());
    let mut seen = 0;
    while seen < 2 {
        let Next::Batch(batch) = within(consumer.next()).await else { panic!("stopped") };
        seen += batch.messages().len();
        consumer.hold(&batch).await;
        consumer.settle(&batch, |_| false).await;
    }
    assert_eq!(Topology::make_consumer(&connection, 1).await.unwrap(), Existence::Found);
    assert_eq!(StreamRoom::purge(&connection, 1).await.unwrap(), 0, "it may, and there is nothing to purge");
    assert!(connection.flush(Duration::from_secs(10)).await);
    let mut admin = server.as_anybody("ADMIN").await;
    wait_for("the acknowledgements", Duration::from_secs(30), async || {
        let info = admin.ask("$JS.API.CONSUMER.INFO.USAGE.meter", "").await?;
        Ok((info["ack_floor"]["stream_seq"] == 2 && info["num_ack_pending"] == 0).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_login_may_do_no_more_than_its_program_does() {
    let server = Deployed::start().await;
    TOPOLOGY.declare(&server.as_program("ADMIN").await).await.unwrap();
    let forbidden = [
        ("GATEWAY", "$JS.API.STREAM.DELETE.USAGE"),
        ("GATEWAY", "$JS.API.STREAM.PURGE.USAGE"),
        ("GATEWAY", "$JS.API.STREAM.UPDATE.USAGE"),
        ("GATEWAY", "$JS.API.CONSUMER.DELETE.USAGE.meter"),
        ("GATEWAY", "$JS.API.CONSUMER.MSG.NEXT.USAGE.meter"),
        ("WORKER", "$JS.API.STREAM.DELETE.USAGE"),
        ("WORKER", "$JS.API.CONSUMER.DELETE.USAGE.meter"),
        ("WORKER", "usage.v1.acme"),
    ];
    for (login, subject) in forbidden {
        let refusal = server.as_anybody(login).await.ask(subject, "").await.unwrap_err().to_string();
        assert!(refusal.contains("Permissions Violation"), "{login} asks {subject}: {refusal}");
    }
    assert!(NatsWire::connect(server.port, "gateway", "wrong").await.is_err());
    let info = server.as_anybody("ADMIN").await.ask("$JS.API.STREAM.INFO.USAGE", "").await.unwrap();
    assert_eq!(info["state"]["messages"], 0, "nothing was published by who may not");
}
