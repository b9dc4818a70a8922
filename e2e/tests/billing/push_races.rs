//! Programs that set meters and mappings while another one looks for hours: whoever comes second sees what the first one did.

use std::time::Duration;

use goldleaves_testkit::child::wait_for;
use sea_orm::{ConnectionTrait as _, Database, DatabaseTransaction, TransactionTrait as _};
use serde_json::json;

use crate::stripe_desk::{CUSTOMER, Desk, METER};
use crate::world::{Api, Kind};

const PATIENCE: Duration = Duration::from_secs(60);
/// The lock of whoever makes rows.
const REPORTS_LOCK: i64 = 0x474c_0004_0000_0000;
const METER_SET: &str = "INSERT INTO stripe_meters (meter, event_name, stripe_meter_id, places, checked_at)";
const MAPPING_SET: &str = "INSERT INTO stripe_mappings (tenant_id, meter, from_hour, stripe_customer_id, actor)";

/// Another program's transaction, which has the lock.
async fn holding(desk: &Desk) -> DatabaseTransaction {
    let transaction = Database::connect(desk.api.url()).await.unwrap().begin().await.unwrap();
    transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({REPORTS_LOCK})")).await.unwrap();
    transaction
}

/// Waits until so many wait for the lock.
async fn queued(desk: &Desk, count: i64) {
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'";
    let are_queued = async || Ok((desk.api.number(waiting).await >= count).then_some(()));
    wait_for("programs that wait for the lock", PATIENCE, are_queued).await.unwrap();
}

async fn used(desk: &Desk, hours: &[i64]) {
    for hour in hours {
        desk.api.used("acme", "/a", "2", &format!("2026-03-15T{hour}:31:00Z")).await;
    }
    desk.clock.set("2026-03-15T14:05:00Z");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_beside_the_look_for_hours_maps_each_once() {
    for is_look_first in [true, false] {
        let desk = Desk::on(Api::on(Kind::Postgres).await).await;
        let meter = json!({"event_name": METER, "stripe_meter_id": "mtr_units", "places": 6, "reason": "set-up"});
        assert_eq!(desk.put(&format!("meters/{METER}"), &meter).await.status, 201);
        used(&desk, &[12, 13]).await;
        let other = holding(&desk).await;
        let look = async |place: i64| {
            queued(&desk, place).await;
            desk.pusher.seal_once().await.unwrap();
        };
        let map = async |place: i64| {
            queued(&desk, place).await;
            let mapping =
                json!({"stripe_customer_id": CUSTOMER, "from_hour": "2026-03-15T12:00:00Z", "reason": "set-up"});
            assert_eq!(desk.put(&format!("mappings/acme/{METER}"), &mapping).await.status, 201);
        };
        let release = async {
            queued(&desk, 2).await;
            other.rollback().await.unwrap();
        };
        let (first, second) = if is_look_first { (0, 1) } else { (1, 0) };
        tokio::join!(look(first), map(second), release);
        let rows = desk.rows().await;
        let shown: Vec<_> = rows.iter().map(|row| (row["revision"].clone(), row["state"].clone())).collect();
        assert_eq!(shown, [(json!(0), json!("pending")), (json!(0), json!("pending"))], "look first: {is_look_first}");
        desk.settle().await;
        assert_eq!(desk.double.total(CUSTOMER, METER), 4_000_000);
    }
}

/// Late usage is looked at for the meters that there are when the look has its turn: one that was set since it began, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_usage_counts_for_a_meter_that_was_set_beside_the_look() {
    let desk = Desk::on(Api::on(Kind::Postgres).await).await;
    desk.map().await;
    used(&desk, &[12]).await;
    desk.settle().await;
    desk.double.add_meter("mtr_all", "all_units");
    let other = holding(&desk).await;
    let set = async {
        queued(&desk, 1).await;
        for sql in [
            format!("{METER_SET} VALUES ('all', 'all_units', 'mtr_all', 6, now())"),
            format!("{MAPPING_SET} VALUES ('acme', 'all', '2026-03-15T12:00:00Z', '{CUSTOMER}', 'ada')"),
        ] {
            other.execute_unprepared(&sql).await.unwrap();
        }
        // Its rows would have been made of what had been used by then; this comes afterwards.
        desk.api.used("acme", "/a", "3", "2026-03-15T12:40:00Z").await;
        other.commit().await.unwrap();
    };
    let (looked, ()) = tokio::join!(desk.pusher.seal_once(), set);
    looked.unwrap();
    desk.settle().await;
    let totals = [METER, "all_units"].map(|name| desk.double.total(CUSTOMER, name));
    assert_eq!(totals, [5_000_000, 5_000_000]);
}

/// Rows are frozen for the meter as it is, and not as it was when the look began: nobody sends what goes by another name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meter_that_is_changed_beside_the_look_is_the_one_that_counts() {
    let desk = Desk::on(Api::on(Kind::Postgres).await).await;
    desk.map().await;
    used(&desk, &[12, 13]).await;
    desk.double.add_meter("mtr_whole", "whole_units");
    let other = holding(&desk).await;
    let change = async {
        queued(&desk, 1).await;
        let sql = "UPDATE stripe_meters SET event_name = 'whole_units', stripe_meter_id = 'mtr_whole', places = 0";
        other.execute_unprepared(sql).await.unwrap();
        other.commit().await.unwrap();
    };
    let (looked, ()) = tokio::join!(desk.pusher.seal_once(), change);
    looked.unwrap();
    desk.settle().await;
    let totals = [METER, "whole_units"].map(|name| desk.double.total(CUSTOMER, name));
    assert_eq!(totals, [0, 4]);
}
