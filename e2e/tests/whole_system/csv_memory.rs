//! Long answers, CSV and invoices as JSON, are written while they are read: the program that writes them holds no more, however
//! long they are.

use goldleaves_e2e::deployment::{Deployment, Kind, SECRET};
use goldleaves_e2e::process::own_memory_kib;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::token::Claims;
use sea_orm::ConnectionTrait as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

on_both!(stays_flat_however_long_an_answer_is);

const ROWS: u32 = 300_000;
/// Each row has it once.
const ROUTE: &str = "/api/v1/documents";
/// The memory that the contract allows for an answer.
const HELD_KIB_MAX: u64 = 64 << 10;

async fn stays_flat_however_long_an_answer_is(kind: Kind) {
    let settings = [("UPSTREAM_URL", "http://127.0.0.1:9"), ("USAGE_RATE_CENTS", "25")];
    let mut deployment = Deployment::start_with(kind, &settings).await.unwrap();
    fill(&deployment.database().unwrap()).await;
    let token = Claims::new("ops", "ann").role("admin").sign(SECRET).unwrap();
    for form in ["csv", "json"] {
        // So that what is made once is there before anything is measured.
        read(&mut deployment, &format!("/billing/invoice/few/1?format={form}"), &token).await;
        let before = held(&mut deployment);
        let (rows, most) = read(&mut deployment, &format!("/billing/invoice/many/1?format={form}"), &token).await;
        assert_eq!(rows, ROWS, "{form}");
        println!("{} KiB more while {rows} rows were read as {form}", most.saturating_sub(before));
        assert!(most <= before + HELD_KIB_MAX, "{form}: {before} KiB before, {most} KiB while {rows} rows were read");
    }
}

/// Returns the memory that all programs hold.
fn held(deployment: &mut Deployment) -> u64 {
    deployment.programs().unwrap().iter().map(|program| own_memory_kib(program.id()).unwrap()).sum()
}

/// Reads a whole answer, and returns the rows of its body and the most that was held meanwhile.
async fn read(deployment: &mut Deployment, path: &str, token: &str) -> (u32, u64) {
    let mut connection = TcpStream::connect(deployment.billing().unwrap()).await.unwrap();
    let request = Request::get(path).token(token).header("Connection", "close").wire("billing");
    connection.write_all(&request).await.unwrap();
    let (mut answer, mut most) = (Vec::new(), 0);
    let mut looked_at = 0;
    while connection.read_buf(&mut answer).await.unwrap() > 0 {
        if answer.len() >= looked_at {
            looked_at = answer.len() + (1 << 20);
            most = most.max(held(deployment));
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let is_short = text.contains("\r\ncontent-length:");
    assert!(
        text.starts_with("HTTP/1.1 200") && (is_short || text.ends_with("\r\n0\r\n\r\n")),
        "{path}: it ended early"
    );
    (u32::try_from(text.matches(ROUTE).count()).unwrap(), most)
}

/// A closed period with many lines, and one with few.
async fn fill(url: &str) {
    let database = sea_orm::Database::connect(url).await.unwrap();
    // So long that an answer that is held whole takes more than is allowed.
    let action = "a".repeat(200);
    for (tenant, rows) in [("few", 10), ("many", ROWS)] {
        let counted = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})");
        for sql in [
            format!(
                "INSERT INTO billing_periods (tenant_id, number, starts_at, ends_at, time_zone, tzdb, total_cents, \
                     lines_hash, actor, reason, closed_at) VALUES ('{tenant}', 1, '2026-01-01T00:00:00.000000Z', \
                     '2026-02-01T00:00:00.000000Z', 'UTC', '2026a', {rows}, '{hash}', 'ada', 'over', \
                     '2026-02-02T00:00:00.000000Z')",
                hash = "0".repeat(64)
            ),
            format!(
                "INSERT INTO billing_lines (tenant_id, number, line, for_number, kind, route, action, rate_version, \
                     events, units_micro, cents) {counted} SELECT '{tenant}', 1, i, 1, 'usage', '{ROUTE}', \
                     '{action}' || i, 1, 1, 1000000, 25 FROM n"
            ),
        ] {
            database.execute_unprepared(&sql).await.unwrap();
        }
    }
}
