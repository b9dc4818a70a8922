//! The guide to Stripe, played: its calls are made as they stand there, and its words are those of the program.

use goldleaves_billing::stripe::rules::RowState;
use serde_json::{Value, json};

use crate::stripe_desk::{CUSTOMER, Desk, METER, METER_ID};
use crate::world::{Answer, Api, token};

const GUIDE: &str = include_str!("../../../docs/STRIPE.md");

/// A call of the guide.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    method: &'static str,
    path: &'static str,
    body: String,
}

/// The calls that stand between fences, in their order.
fn calls() -> Vec<Call> {
    let (mut calls, mut lines) = (Vec::new(), GUIDE.lines().map(str::trim));
    while let Some(line) = lines.next() {
        let Some((method, path)) = line.split_once(" /billing/").filter(|(method, _)| ["PUT", "POST"].contains(method))
        else {
            continue;
        };
        let body = lines.next().unwrap_or_default().replace("mtr_…", METER_ID).replace("cus_…", CUSTOMER);
        calls.push(Call { method, path, body });
    }
    calls
}

async fn play(desk: &Desk, Call { method, path, body }: &Call) -> Answer {
    let path = format!("/billing/{path}");
    desk.api.call(method, &path, &token("any", &["admin"]), body.clone()).await
}

/// The first cells of the table under these words.
fn words_under(heading: &str) -> Vec<&'static str> {
    let (_, rest) = GUIDE.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    let rows = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).filter_map(|row| row.split('`').nth(1)).collect()
}

#[tokio::test]
async fn the_guide_leads_from_nothing_to_a_push_and_through_a_restore() {
    let desk = Desk::on(Api::start().await).await;
    desk.clock.set("2026-12-01T00:30:00Z");
    let calls = calls();
    let [meter, mapping, adopting] = calls.as_slice() else { panic!("{calls:#?}") };
    for call in [meter, mapping] {
        let answer = play(&desk, call).await;
        assert_eq!(answer.status, 201, "{call:?}: {}", answer.text);
    }
    desk.api.used("acme", "/a", "2.5", "2026-12-01T00:31:00Z").await;
    // Five minutes after its end an hour is sealed, and not before.
    desk.clock.set("2026-12-01T01:04:59Z");
    desk.settle().await;
    assert_eq!(desk.api.number("SELECT COUNT(*) FROM stripe_pushes").await, 0);
    desk.clock.set("2026-12-01T01:05:00Z");
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 2_500_000);
    for read in ["pushes/acme?start_date=2026-12-01&end_date=2026-12-02", "drift", "meters", "mappings/acme"] {
        assert_eq!(desk.get(read).await["items"].as_array().unwrap().len(), 1, "{read}");
    }
    desk.double.push_foreign(CUSTOMER, METER, desk.clock.now() - 600, 7);
    desk.pass_time(26 * 3_600, 3_600).await;
    assert_eq!(desk.lane().await["blocked"], "stripe_has_more");
    let answer = play(&desk, adopting).await;
    assert_eq!((answer.status, &answer.json()["adopted"]), (200, &json!(1)), "{}", answer.text);
    desk.pass_time(2 * 3_600, 3_600).await;
    let lane = desk.lane().await;
    assert_eq!((&lane["blocked"], &lane["drift_units"]), (&Value::Null, &json!(0)));
    assert_eq!(desk.double.total(CUSTOMER, METER), 2_500_000, "what somebody else pushed is made up for");
}

#[test]
fn the_guide_names_every_state_and_every_reason() {
    let mut states: Vec<&str> = RowState::ALL.iter().map(|state| state.shown()).collect();
    states.dedup();
    assert_eq!(words_under("## What happens"), states);
    let mut reasons = goldleaves_billing_api::push::BLOCKED_FOR.to_vec();
    let mut named = words_under("## Blocked lanes");
    reasons.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, reasons);
}
