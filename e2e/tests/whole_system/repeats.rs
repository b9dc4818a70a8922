//! One id, used for everything by everybody at once: what is billed is what the rule says of the set of calls.
//!
//! Some hundreds of calls as a rule; `GOLDLEAVES_SOAK=1` makes it 30,000, 10,000 of each tenant the very same.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::{Candidate, EventId, Verdict, judge};
use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::load::{Load, Receipt};
use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::soak;

on_both!(one_constant_id_and_ids_of_others_are_billed_by_the_rule);

const IDS: [&str; 2] = ["constant", "of-zeta"];
const TENANTS: [&str; 2] = ["acme", "zeta"];
const CLIENTS: usize = 8;

/// One tenant's calls with one id and one fingerprint.
type Set = (String, String, String);

/// Every event of either table, by set, and what became of each.
async fn sets(tables: &Tables, kind: Kind) -> BTreeMap<Set, Vec<(Candidate, Verdict)>> {
    let ts = match kind {
        Kind::Embedded => "ts",
        Kind::Distributed => "to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    };
    let columns = format!(
        "tenant_id || '|' || client_request_id || '|' || fingerprint || '|' || outcome || '|' || {ts} || '|' || \
         CAST(id AS TEXT)"
    );
    let billed = tables.texts(&format!("SELECT {columns} || '|' FROM usage_events")).await.unwrap();
    let repeats = format!("SELECT {columns} || '|' || CAST(duplicate_of AS TEXT) FROM usage_duplicates");
    let repeats = tables.texts(&repeats).await.unwrap();
    let mut sets: BTreeMap<Set, Vec<_>> = BTreeMap::new();
    for row in billed.iter().chain(&repeats) {
        let cells: Vec<&str> = row.split('|').collect();
        let [tenant, id, print, outcome, ts, event, of] = cells[..] else { panic!("{row}") };
        let candidate =
            Candidate { event_id: event_id(event), ts: ts.parse().unwrap(), completed: outcome == "completed" };
        let verdict = if of.is_empty() { Verdict::Billed } else { Verdict::RepeatOf(event_id(of)) };
        sets.entry((tenant.to_owned(), id.to_owned(), print.to_owned())).or_default().push((candidate, verdict));
    }
    sets
}

fn event_id(text: &str) -> EventId {
    EventId::new(text.parse().unwrap())
}

/// The n-th call of a client: half of the clients are each tenant's; most calls are the very same.
fn request(tokens: &[String; 2], client: usize, number: usize) -> Request {
    let id = IDS[usize::from(number % 5 == 4)];
    let query = if number % 7 == 6 { "?page=2" } else { "" };
    let target = format!("/api/v1/documents{query}");
    Request::get(&target).token(&tokens[client % 2]).header("X-Request-ID", id)
}

async fn one_constant_id_and_ids_of_others_are_billed_by_the_rule(kind: Kind) {
    let calls = if soak() { 30_000 } else { 600 };
    let upstream = Upstream::start_keeping_ids(|_| Answer::ok("the same")).await.unwrap();
    let deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    let tokens = TENANTS.map(|tenant| deployment.token(tenant).unwrap());
    let gateway = deployment.gateway().unwrap();
    let load = Load::start(gateway, CLIENTS, move |client, number| request(&tokens, client, number));
    wait_for("the calls", PATIENCE * 10, async || Ok((load.finished() >= calls).then_some(()))).await.unwrap();
    let receipts = load.receipts().await.unwrap();

    let tables = deployment.tables().await.unwrap();
    let all = i64::try_from(receipts.len()).unwrap();
    let count = "SELECT (SELECT COUNT(*) FROM usage_events) + (SELECT COUNT(*) FROM usage_duplicates)";
    wait_for("the records", PATIENCE * 4, async || Ok((tables.number(count).await? == all).then_some(())))
        .await
        .unwrap();
    let sets = sets(&tables, kind).await;
    check(&sets, &receipts);
    check_labels(&tables).await;
    for tenant in TENANTS {
        let of_tenant = sets.iter().filter(|(set, _)| set.0 == tenant).flat_map(|(_, events)| events);
        let billed = of_tenant.filter(|(_, verdict)| *verdict == Verdict::Billed).count();
        deployment.summary_of(tenant, billed as u64).await.unwrap();
    }
}

fn check(sets: &BTreeMap<Set, Vec<(Candidate, Verdict)>>, receipts: &[Receipt]) {
    // Two tenants, two ids, two fingerprints of the request.
    assert_eq!(sets.len(), 8, "{:?}", sets.keys());
    for (set, events) in sets {
        let repeats = events.iter().filter(|(_, verdict)| *verdict != Verdict::Billed).count();
        assert_eq!(repeats, 3, "of {} calls of {set:?}", events.len());
        let mut candidates: Vec<Candidate> = events.iter().map(|(candidate, _)| *candidate).collect();
        let expected: BTreeMap<EventId, Verdict> = judge(&mut candidates).into_iter().collect();
        let found: BTreeMap<EventId, Verdict> =
            events.iter().map(|(candidate, verdict)| (candidate.event_id, *verdict)).collect();
        assert_eq!(found, expected, "{set:?}");
    }
    let recorded: BTreeSet<String> =
        sets.values().flatten().map(|(candidate, _)| candidate.event_id.to_string()).collect();
    let served: BTreeSet<String> = receipts.iter().map(|receipt| receipt.event_id.clone().unwrap()).collect();
    assert_eq!(served.len(), receipts.len());
    assert_eq!(recorded, served);
}

/// One row has an id for its own; every other one's label says which event it is.
async fn check_labels(tables: &Tables) {
    let contents = tables.contents().await.unwrap();
    let (bare, own): (Vec<_>, Vec<_>) = contents.events.iter().partition(|row| IDS.contains(&row.request_id.as_str()));
    assert_eq!(bare.len(), IDS.len());
    for row in own {
        let id = row.client_request_id.as_deref().unwrap();
        assert_eq!(row.request_id, format!("{id}~{}", row.id));
    }
    assert!(contents.duplicates.iter().all(|row| Some(&row.request_id) == row.client_request_id.as_ref()));
}
