//! A deployment that has served every kind of call, its stream read and filled again, and its ledger as comparable text.

use std::collections::BTreeSet;
use std::time::Duration;

use goldleaves_domain::wire::{self, Message};
use goldleaves_domain::{Delivery, Publisher as _};
use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::Load;
use goldleaves_e2e::nats_wire::NatsWire;
use goldleaves_e2e::tables::Tables;
use goldleaves_stream::{
    ConnectSettings, Connection, Position, PublisherOptions, Reader, ReaderOptions, StreamPublisher, Topology,
};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Connection as Client, Request};
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use serde_json::Value;

/// The tenants whose calls the stream holds; the last one's subject is escaped.
pub(crate) const TENANTS: [&str; 3] = ["acme", "zeta", "Ünïted & sons"];
const TOPOLOGY: Topology =
    Topology { replicas: 1, bytes_max: 1 << 30, bytes_min: 1 << 30, history: Duration::from_secs(45 * 86_400) };
/// The long forms take minutes on two cores.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs a program to its end; what it printed on standard output.
pub(crate) fn output(launch: Launch) -> String {
    let output = launch.output().unwrap();
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{printed}{said}", output.status);
    printed.into_owned()
}

fn answer(received: &Received) -> Answer {
    match received.target().split('?').next().unwrap().rsplit('/').next() {
        Some("ai") => Answer::ok("an answer").header("X-Usage-Units", "2.333333"),
        Some("search") => Answer::ok("found").header("X-Usage-Units", "0.000001"),
        Some("broken") => Answer::cut_short(10, "abc"),
        Some("slow") => Answer::ok("late").after(Duration::from_secs(60)),
        _ => Answer::ok("hello"),
    }
}

/// The n-th call of a client: of one of the tenants, some of them under ids that others use too.
fn request(tokens: &[String; 3], round: &str, client: usize, number: usize) -> Request {
    let path = ["documents", "ai", "search", "documents?page=2"][number % 4];
    let request = Request::get(&format!("/api/v1/{path}")).token(&tokens[(number + client) % 3]);
    match number % 5 {
        0 | 1 => request.header("X-Request-ID", &format!("again-{}", number % 30)),
        2 => request,
        _ => request.header("X-Request-ID", &format!("{round}-{client}-{number}")),
    }
}

/// Calls until so many were answered.
async fn serve(fleet: &Fleet, round: &'static str, calls: u64) {
    let gateway = fleet.address().borrow().unwrap();
    let tokens = TENANTS.map(|tenant| fleet.token(tenant).unwrap());
    let load = Load::start(gateway, 4, move |client, number| request(&tokens, round, client, number));
    wait_for("the calls", LIMIT, async || Ok((load.finished() >= calls).then_some(()))).await.unwrap();
    assert!(load.receipts().await.unwrap().len() as u64 >= calls);
}

/// A fleet of four workers whose ledger has at least so many calls under two rates, repeats, and what was set aside. The
/// gateway is stopped: everything is sealed and recorded.
pub(crate) async fn used(calls: u64) -> (Upstream, Fleet) {
    let upstream = Upstream::start(answer).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    fleet.scale(4).await.unwrap();
    serve(&fleet, "one", calls / 2).await;
    output(fleet.program("migrate").setting("USAGE_RATE_CENTS", "33.333333"));
    let tables = fleet.tables().await.unwrap();
    wait_for("the new rate", PATIENCE, async || {
        Ok((tables.number("SELECT COUNT(*) FROM rate_cards WHERE effective_from < now()").await? == 2).then_some(()))
    })
    .await
    .unwrap();
    serve(&fleet, "two", calls / 2).await;

    let gateway = fleet.address().borrow().unwrap();
    let token = fleet.token(TENANTS[0]).unwrap();
    for number in 0..3 {
        let broken = Request::get("/api/v1/cases/broken").token(&token).header("X-Request-ID", &format!("b-{number}"));
        // It is cut off.
        let _ = broken.send(gateway).await;
    }
    let mut client = Client::open(gateway).await.unwrap();
    client.write(&Request::get("/api/v1/cases/slow").token(&token).wire("test")).await.unwrap();
    let slow = || upstream.served().iter().any(|received| received.target().ends_with("slow"));
    wait_for("a call in flight", PATIENCE, async || Ok(slow().then_some(()))).await.unwrap();
    fleet.kill_gateway().unwrap();
    fleet.start_gateway().await.unwrap();
    fleet.relayed(LIMIT).await.unwrap();
    assert!(fleet.stop_gateway().await.unwrap().success());
    fleet.recorded(LIMIT).await.unwrap();

    let contents = tables.contents().await.unwrap();
    let reasons: Vec<&str> = contents.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == "upstream_aborted").count(), 3, "{reasons:?}");
    assert!(reasons.contains(&"unknown") && contents.duplicates.len() > 10, "{reasons:?}");
    assert_eq!(tables.disagreements().await.unwrap(), Vec::<String>::new());
    (upstream, fleet)
}

pub(crate) async fn connect(server: &NatsServer) -> Connection {
    let servers = server.url().parse().unwrap();
    let settings = ConnectSettings { servers, credentials_file: None, ca_file: None, name: "test".to_owned() };
    let connection = Connection::connect(&settings).await.unwrap();
    tokio::time::timeout(PATIENCE, connection.connected()).await.unwrap();
    connection
}

/// Returns the number of events and seals these messages hold.
pub(crate) fn parts(messages: &[Delivery]) -> u64 {
    messages.iter().map(|message| wire::pieces(&message.payload).len() as u64).sum()
}

/// Every message of the stream, with its bytes and an id of its own.
pub(crate) async fn stored(connection: &Connection) -> Vec<Delivery> {
    let reader = Reader::open(connection, Position::First, None, ReaderOptions::default()).await.unwrap();
    let (mut reader, mut stored) = (reader.unwrap(), Vec::new());
    while let Some(batch) = reader.next().await.unwrap() {
        stored.extend(batch.into_iter().map(|message| delivery(message.payload)));
    }
    stored
}

/// Bytes on their way into the stream, under an id that it does not know.
pub(crate) fn delivery(payload: bytes::Bytes) -> Delivery {
    let first = wire::pieces(&payload).remove(0);
    let subject = match wire::parse(&payload[first]) {
        Ok(Message::Event(event)) => wire::event_subject(&event.tenant_id),
        Ok(Message::Seal(seal)) => wire::seal_subject(&seal.source),
        Err(_) => "usage.v1.unreadable".to_owned(),
    };
    Delivery { subject, message_id: uuid::Uuid::new_v4().to_string(), payload, traceparent: None }
}

pub(crate) async fn publish(connection: &Connection, batch: Vec<Delivery>) {
    TOPOLOGY.declare(connection).await.unwrap();
    let publisher = StreamPublisher::new(connection.clone(), TOPOLOGY, PublisherOptions::default());
    for part in batch.chunks(1_000) {
        tokio::time::timeout(LIMIT, publisher.publish(part.to_vec())).await.unwrap().unwrap();
    }
}

/// Waits until the workers of this server have acknowledged everything; what JetStream says of their consumer then.
pub(crate) async fn recorded(server: &NatsServer) -> Value {
    let mut wire = NatsWire::connect(server.port(), "", "").await.unwrap();
    wait_for("the workers to be done", LIMIT, async || {
        let info = wire.ask("$JS.API.CONSUMER.INFO.USAGE.meter", "").await?;
        Ok((info["num_pending"] == 0 && info["num_ack_pending"] == 0).then_some(info))
    })
    .await
    .unwrap()
}

// === the ledger as text ===

/// Every row of the ledger but its rates, every column, of all tenants but one and of these epochs.
pub(crate) async fn rows_of_others(tables: &Tables, tenant: &str, epochs: &[String]) -> Vec<String> {
    let of_epoch = format!("CAST(t.epoch AS TEXT) = ANY(string_to_array('{}', ','))", epochs.join(","));
    let of_others = format!("t.tenant_id IS DISTINCT FROM '{tenant}'");
    let mut rows = Vec::new();
    for (table, condition) in [
        ("usage_events", &of_others),
        ("usage_duplicates", &of_others),
        ("usage_dead_letters", &of_others),
        ("usage_rollups", &of_others),
        ("usage_receipts", &of_epoch),
        ("usage_epochs", &of_epoch),
    ] {
        let sql = format!("SELECT '{table} ' || t::text FROM {table} AS t WHERE {condition} ORDER BY 1");
        rows.extend(tables.texts(&sql).await.unwrap());
    }
    rows
}

/// Every row of the ledger, every column.
pub(crate) async fn rows(tables: &Tables) -> Vec<String> {
    rows_of_others(tables, "", &epochs(tables).await).await
}

/// The epochs the ledger knows of.
pub(crate) async fn epochs(tables: &Tables) -> Vec<String> {
    let sql = "SELECT CAST(epoch AS TEXT) FROM usage_epochs UNION SELECT CAST(epoch AS TEXT) FROM usage_receipts";
    tables.texts(sql).await.unwrap()
}

/// Returns what of a ledger depends on its events and rates alone: neither when a row was written, nor under which label, nor in
/// which part of a sum.
pub(crate) async fn meaning(tables: &Tables) -> Vec<String> {
    let mut rows = Vec::new();
    for (table, without) in [
        ("rate_cards", "ARRAY['created_at']"),
        ("usage_events", "ARRAY['created_at', 'updated_at', 'request_id']"),
        ("usage_duplicates", "ARRAY['created_at', 'updated_at']"),
        ("usage_dead_letters", "ARRAY['created_at']"),
        ("usage_receipts", "ARRAY['created_at', 'updated_at']"),
        ("usage_epochs", "ARRAY['created_at', 'updated_at']"),
    ] {
        let sql = format!("SELECT '{table} ' || (to_jsonb(t) - {without})::text FROM {table} AS t ORDER BY 1");
        rows.extend(tables.texts(&sql).await.unwrap());
    }
    let sums = "SELECT concat_ws(' ', 'usage_rollups', tenant_id, hour, route, action, rate_version, SUM(events), \
        SUM(units_micro)) FROM usage_rollups GROUP BY tenant_id, hour, route, action, rate_version \
        HAVING SUM(events) <> 0 OR SUM(units_micro) <> 0 ORDER BY 1";
    rows.extend(tables.texts(sums).await.unwrap());
    rows
}

/// Fails where two ledgers differ, and says in what.
pub(crate) fn assert_same(found: &[String], expected: &[String]) {
    let [found_set, expected_set] = [found, expected].map(|rows| rows.iter().collect::<BTreeSet<_>>());
    let lacking: Vec<_> = expected_set.difference(&found_set).take(5).collect();
    let extra: Vec<_> = found_set.difference(&expected_set).take(5).collect();
    assert!(lacking.is_empty() && extra.is_empty(), "lacking {lacking:#?}\nextra {extra:#?}");
    assert_eq!(found.len(), expected.len());
}

/// Returns what billing-api says of a database: summary and report of every tenant.
pub(crate) async fn bills(fleet: &Fleet, database: &str) -> Vec<Value> {
    let mut program = fleet.program("billing-api").setting("DATABASE_URL", database).start().unwrap();
    let address = program.address("billing listens on").await.unwrap();
    let mut bills = Vec::new();
    for tenant in TENANTS {
        let path = tenant.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        for view in ["usage-summary", "usage-report"] {
            let target = format!("/billing/{view}/{path}?start_date=2000-01-01&end_date=2100-01-01");
            let response = Request::get(&target).token(&fleet.token(tenant).unwrap()).send(address).await.unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
            let bill = response.json().unwrap();
            assert!(bill["total_events"].as_u64().unwrap() > 0, "{bill}");
            bills.push(bill);
        }
    }
    bills
}
