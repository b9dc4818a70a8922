//! Long answers that break off: where the rest of the rows can't be read, no client takes what it has for the whole, in whichever
//! form and version of HTTP, and behind a proxy too.

use std::net::SocketAddr;
use std::time::Duration;

use goldleaves_billing::AnswerLimits;
use goldleaves_testkit::nginx::Nginx;
use goldleaves_web::{ListenerOptions, ServeOptions, Stop, bind};
use sea_orm::{ConnectionTrait as _, Database, TransactionTrait as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::world::{Api, Kind, on_both, token};

on_both! {
    an_error_of_the_database_is_no_end,
    a_proxy_hands_the_break_on,
    a_slow_reader_gets_all_and_keeps_nothing,
    a_reader_that_stops_gets_no_end,
}

const ROWS: usize = 16_000;
/// Each row has it once.
const IN_EACH_ROW: &[u8] = b"/api/v1/documents";
const EVENTS: &str = "/billing/usage-events/acme?month=2026-03&format=csv";
/// Bytes that a reader's kernel holds for it; the rest stays with the server.
const RECEIVE_BYTES: u32 = 16 << 10;

/// A table that an answer is read of, and the answer.
const ANSWERS: [(&str, &str); 3] = [
    ("usage_events", EVENTS),
    ("billing_lines", "/billing/invoice/acme/1?format=csv"),
    ("billing_lines", "/billing/invoice/acme/1?format=json"),
];

/// Whole answers are far larger than what lies between the database and a reader that takes nothing.
async fn fill(api: &Api) {
    let (route, hash) = (String::from_utf8(IN_EACH_ROW.to_vec()).unwrap(), "0".repeat(64));
    let counted = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})");
    let (id, zero) = if api.is_sqlite() {
        ("printf('%08x-0000-7000-8000-000000000000', i)", "'00000000-0000-0000-0000-000000000000'")
    } else {
        (
            "(lpad(to_hex(i), 8, '0') || '-0000-7000-8000-000000000000')::uuid",
            "'00000000-0000-0000-0000-000000000000'::uuid",
        )
    };
    let (metadata, action, at) =
        (format!(r#"{{"user_agent":"{}"}}"#, "x".repeat(1_900)), "a".repeat(200), "'2026-03-10T10:00:00.000000Z'");
    for sql in [
        format!(
            "INSERT INTO usage_events (id, request_id, tenant_id, user_id, route, action, units, cost_cents, ts, metadata, \
                 created_at, updated_at, units_micro, client_request_id, fingerprint, epoch, seq, outcome, rate_version) \
             {counted} SELECT {id}, 'r-' || i, 'acme', 'ada', '{route}', 'read', 1, 25, {at}, '{metadata}', {at}, {at}, \
                 1000000, NULL, NULL, {zero}, i, 'completed', 1 FROM n"
        ),
        format!(
            "INSERT INTO billing_periods (tenant_id, number, starts_at, ends_at, time_zone, tzdb, total_cents, lines_hash, \
                 actor, reason, closed_at) VALUES ('acme', 1, '2026-01-01T00:00:00.000000Z', \
                 '2026-02-01T00:00:00.000000Z', 'UTC', '2026a', 1, '{hash}', 'ada', 'over', '2026-02-02T00:00:00.000000Z')"
        ),
        format!(
            "INSERT INTO billing_lines (tenant_id, number, line, for_number, kind, route, action, rate_version, events, \
                 units_micro, cents) {counted} SELECT 'acme', 1, i, 1, 'usage', '{route}{}', '{action}' || i, 1, 1, \
                 1000000, 25 FROM n",
            "/y".repeat(230)
        ),
    ] {
        api.execute(&sql).await;
    }
}

/// The API on a port of its own.
fn serve(api: &Api, options: ServeOptions) -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().unwrap(), ListenerOptions::default()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(goldleaves_web::serve(listener, api.service.clone(), options, Stop::default()));
    address
}

/// A client in the middle of an answer.
struct Reader {
    stream: TcpStream,
    version: &'static str,
    taken: Vec<u8>,
}

impl Reader {
    /// Asks, and takes the answer's head and the beginning of its body.
    async fn begin(address: SocketAddr, path: &str, version: &'static str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let token = token("acme", &["admin"]);
        let request = format!(
            "GET {path} {version}\r\nHost: billing\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reader = Self { stream, version, taken: Vec::new() };
        while reader.rows() < 3 {
            assert!(reader.take().await, "{path}: {}", String::from_utf8_lossy(&reader.taken));
        }
        assert!(reader.taken.starts_with(format!("{version} 200").as_bytes()));
        reader
    }

    /// Takes a piece; false at a clean end of the connection.
    async fn take(&mut self) -> bool {
        self.stream.read_buf(&mut self.taken).await.unwrap() > 0
    }

    fn rows(&self) -> usize {
        self.taken.windows(IN_EACH_ROW.len()).filter(|word| *word == IN_EACH_ROW).count()
    }

    /// Takes all that comes; returns whether this version of HTTP lets the client think that it has everything.
    async fn looks_whole(&mut self) -> bool {
        let ended = self.stream.read_to_end(&mut self.taken).await;
        ended.is_ok() && (self.version == "HTTP/1.0" || self.taken.ends_with(b"\r\n0\r\n\r\n"))
    }
}

async fn an_error_of_the_database_is_no_end(api: Api) {
    fill(&api).await;
    let address = serve(&api, ServeOptions::default());
    for (table, path) in ANSWERS {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let mut reader = Reader::begin(address, path, version).await;
            api.execute(&format!("ALTER TABLE {table} RENAME TO elsewhere")).await;
            let looks_whole = reader.looks_whole().await;
            assert!(!looks_whole && reader.rows() < ROWS, "{path} {version}: {} rows", reader.rows());
            api.execute(&format!("ALTER TABLE elsewhere RENAME TO {table}")).await;
            let mut reader = Reader::begin(address, path, version).await;
            assert!(reader.looks_whole().await, "{path} {version}");
            assert_eq!(reader.rows(), ROWS, "{path} {version}");
        }
    }
}

/// nginx asks in HTTP/1.0 unless it is told otherwise, and its own clients in HTTP/1.1.
async fn a_proxy_hands_the_break_on(api: Api) {
    fill(&api).await;
    let address = serve(&api, ServeOptions::default());
    let nginx = format!("location / {{ proxy_pass http://{address}; proxy_http_version 1.0; proxy_buffering off; }}");
    let nginx = Nginx::start(&nginx, &[]).await.unwrap();
    let mut reader = Reader::begin(nginx.address(), EVENTS, "HTTP/1.1").await;
    api.execute("ALTER TABLE usage_events RENAME TO elsewhere").await;
    assert!(!reader.looks_whole().await, "{} rows; {}", reader.rows(), nginx.log());
    api.execute("ALTER TABLE elsewhere RENAME TO usage_events").await;
    let mut reader = Reader::begin(nginx.address(), EVENTS, "HTTP/1.1").await;
    assert!(reader.looks_whole().await, "{}", nginx.log());
}

/// Holds the events so that whoever reads them waits, until it is dropped.
async fn hold(api: &Api) -> sea_orm::DatabaseTransaction {
    let held = Database::connect(api.url()).await.unwrap().begin().await.unwrap();
    held.execute_unprepared("LOCK TABLE usage_events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_killed_is_no_end() {
    let api = Api::on(Kind::Postgres).await;
    fill(&api).await;
    let address = serve(&api, ServeOptions::default());
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut reader = Reader::begin(address, EVENTS, version).await;
        let held = hold(&api).await;
        let reading = tokio::spawn(async move {
            let looks_whole = reader.looks_whole().await;
            (looks_whole, reader.rows())
        });
        let waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        // Where it gave up waiting in the same moment, it asks again.
        while api.number(&format!("SELECT COUNT(pg_terminate_backend(pid)) {waiting}")).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (looks_whole, rows) = reading.await.unwrap();
        assert!(!looks_whole && rows < ROWS, "{version}: {rows} rows");
        held.rollback().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_no_end() {
    let limits = AnswerLimits { statement: Duration::from_secs(4), ..AnswerLimits::default() };
    let api = Api::on(Kind::Postgres).await.limited(limits);
    fill(&api).await;
    let address = serve(&api, ServeOptions::default());
    let mut readers = Vec::new();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        readers.push(Reader::begin(address, EVENTS, version).await);
    }
    let held = hold(&api).await;
    for mut reader in readers {
        assert!(!reader.looks_whole().await, "{}: {} rows", reader.version, reader.rows());
        assert!(reader.rows() < ROWS, "{}", reader.version);
    }
    held.rollback().await.unwrap();
}

/// A reader that takes its time has no connection to the database meanwhile, and none of its tenant's turns.
async fn a_slow_reader_gets_all_and_keeps_nothing(api: Api) {
    fill(&api).await;
    let address = serve(&api, ServeOptions::default());
    let mut reader = Reader::begin(address, EVENTS, "HTTP/1.1").await;
    // As many as a tenant has turns, and more.
    let mut others = Vec::new();
    for _ in 0..api.billing.store().connections_max() {
        others.push(Reader::begin(address, EVENTS, "HTTP/1.1").await);
    }
    // All of them stand still once what lies between is full; then nobody uses the database.
    while api.billing.store().pool_use().busy > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let summary = api.get("/billing/usage-summary/acme?month=2026-03", &token("acme", &[])).await;
    assert_eq!(summary.status, 200, "{summary:?}");
    drop(others);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(reader.take().await);
    }
    assert!(reader.looks_whole().await);
    assert_eq!(reader.rows(), ROWS);
}

async fn a_reader_that_stops_gets_no_end(api: Api) {
    fill(&api).await;
    let stats = goldleaves_web::ServeStats::default();
    let options =
        ServeOptions { write_timeout: Duration::from_millis(300), stats: stats.clone(), ..ServeOptions::default() };
    let address = serve(&api, options);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut reader = Reader::begin(address, EVENTS, version).await;
        while stats.open() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!reader.looks_whole().await, "{version}");
        assert!(reader.rows() < ROWS, "{version}");
    }
}
