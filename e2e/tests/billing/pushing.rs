//! From an hour of usage to Stripe and back, as the API shows it.

use goldleaves_testkit::stripe::Faults;
use serde_json::json;

use crate::stripe_desk::{CUSTOMER, Desk, METER, seconds, text};
use crate::world::{Api, on_both, token};

on_both! {
    an_hour_is_sealed_pushed_and_confirmed,
    what_comes_late_is_a_further_row,
    nothing_is_pushed_before_its_mapping,
    what_is_corrected_goes_where_the_hour_went,
    a_mapping_has_its_hours_looked_at,
    a_meter_that_counted_another_route_leaves_nothing_of_it,
    many_old_hours_are_mapped_at_once,
    what_waits_is_a_file_for_the_dashboard,
    hours_are_confirmed_by_one_reading,
    an_hour_that_lacks_a_row_is_confirmed_by_nothing,
}

async fn report(desk: &Desk) -> (String, String, String) {
    let path = "/billing/report-usage/acme?start_date=2026-03-15&end_date=2026-03-16";
    let answer = desk.api.get(path, &token("acme", &[])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let json = answer.json();
    let number = |name: &str| json[name].to_string();
    (json["state"].as_str().unwrap().to_owned(), number("reported_quantity"), number("pushed_quantity"))
}

fn said(state: &str, reported: &str, pushed: &str) -> (String, String, String) {
    (state.to_owned(), reported.to_owned(), pushed.to_owned())
}

async fn an_hour_is_sealed_pushed_and_confirmed(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2.5", "2026-03-15T12:31:00Z").await;
    desk.settle().await;
    assert_eq!(report(&desk).await, said("unmapped", "0", "0"), "the hour is not over");
    desk.clock.set("2026-03-15T13:05:00Z");
    assert_eq!(report(&desk).await, said("unmapped", "2.5", "0"), "no row was made");
    desk.settle().await;
    assert_eq!(report(&desk).await, said("pushed", "2.5", "2.5"));
    assert_eq!(desk.double.total(CUSTOMER, METER), 2_500_000);
    let row = desk.rows().await.remove(0);
    assert_eq!((row["state"].as_str(), row["origin"].as_str()), (Some("pushed"), Some("sealed")));
    assert_eq!((&row["units"], &row["value"], &row["attempts"]), (&json!(2.5), &json!(2_500_000), &json!(1)));
    assert_eq!(row["event_timestamp"], "2026-03-15T12:00:30.000000Z");
    let identifier = row["identifier"].as_str().unwrap();
    assert!(identifier.starts_with("gl1-") && identifier.len() == 44, "{identifier}");
    assert!(row["confirmed_at"].is_null() && row["next_attempt_at"].is_null(), "{row}");
    desk.pass_time(1_800, 600).await;
    let row = desk.rows().await.remove(0);
    assert!(row["confirmed_at"].is_string(), "{row}");
    let lane = desk.lane().await;
    assert_eq!(
        (&lane["ledger_units"], &lane["stripe_units"], &lane["drift_units"]),
        (&json!(2.5), &json!(2.5), &json!(0))
    );
    assert_eq!(desk.double.calls("send"), 1);
    assert_eq!(desk.double.violations(), [""; 0]);
    // Compared again, a day later, and not only told what was pushed.
    let compared = desk.double.calls("summaries");
    desk.pass_time(26 * 3_600, 7_200).await;
    assert!(desk.double.calls("summaries") > compared);
    let lane = desk.lane().await;
    assert_eq!((&lane["stripe_units"], &lane["drift_units"]), (&json!(2.5), &json!(0)));
}

async fn what_comes_late_is_a_further_row(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2", "2026-03-15T12:31:00Z").await;
    let event = desk.api.used("acme", "/a", "1", "2026-03-15T12:32:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    desk.api.used("acme", "/a", "4", "2026-03-15T12:33:00Z").await;
    desk.settle().await;
    let void = json!({"kind": "void", "tenant_id": "acme", "event_id": event, "reason": "a test"});
    let path = format!("/billing/corrections/{}", uuid::Uuid::now_v7());
    assert_eq!(desk.api.put(&path, &token("any", &["admin"]), &void).await.status, 201);
    desk.settle().await;
    let rows = desk.rows().await;
    let shown: Vec<_> = rows.iter().map(|row| (row["revision"].clone(), row["value"].clone())).collect();
    assert_eq!(shown, [(json!(0), json!(3_000_000)), (json!(1), json!(4_000_000)), (json!(2), json!(-1_000_000))]);
    assert_eq!(rows[1]["event_timestamp"], "2026-03-15T12:01:30.000000Z");
    assert_eq!(desk.double.total(CUSTOMER, METER), 6_000_000);
    assert_eq!(report(&desk).await, said("pushed", "6", "6"));
    // Nothing more is made of it.
    desk.pass_time(3 * 86_400, 7_200).await;
    assert_eq!((desk.rows().await.len(), desk.double.calls("send")), (3, 3));
}

async fn nothing_is_pushed_before_its_mapping(api: Api) {
    let desk = Desk::on(api).await;
    let meter = json!({"event_name": METER, "stripe_meter_id": "mtr_units", "places": 0, "reason": "set-up"});
    assert_eq!(desk.put(&format!("meters/{METER}"), &meter).await.status, 201);
    for hour in ["09", "10", "11"] {
        desk.api.used("acme", "/a", "1.5", &format!("2026-03-15T{hour}:31:00Z")).await;
    }
    desk.settle().await;
    let states =
        async || desk.rows().await.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(states().await, ["unmapped"; 3]);
    let mapping = json!({"stripe_customer_id": CUSTOMER, "from_hour": "2026-03-15T10:00:00Z", "reason": "set-up"});
    let first = desk.put(&format!("mappings/acme/{METER}"), &mapping).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let again = desk.put(&format!("mappings/acme/{METER}"), &mapping).await;
    assert_eq!((again.status, again.json()), (200, first.json()));
    desk.settle().await;
    assert_eq!(states().await, ["unmapped", "pushed", "pushed"]);
    // Whole units: what is left of one goes over to the next.
    let values: Vec<_> = desk.rows().await.iter().map(|row| row["value"].clone()).collect();
    assert_eq!(values, [json!(null), json!(1), json!(2)]);
    assert_eq!(desk.double.total(CUSTOMER, METER), 3);
    let other = json!({"stripe_customer_id": "cus_other", "from_hour": "2026-03-15T10:00:00Z", "reason": "set-up"});
    assert_eq!(desk.put(&format!("mappings/acme/{METER}"), &other).await.refusal(), (409, "already_exists".to_owned()));
}

async fn what_is_corrected_goes_where_the_hour_went(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.double.add_customer("cus_other");
    let event = desk.api.used("acme", "/a", "2", "2026-03-15T13:31:00Z").await;
    desk.clock.set("2026-03-15T14:05:00Z");
    desk.settle().await;
    let path = format!("mappings/acme/{METER}");
    let other = |customer: Option<&str>, hour: &str| json!({"stripe_customer_id": customer, "from_hour": hour, "reason": "moved"});
    // Between the first mapping and hours that were pushed.
    for customer in [Some("cus_other"), None] {
        let answer = desk.put(&path, &other(customer, "2026-03-15T13:00:00Z")).await;
        assert_eq!(answer.refusal(), (409, "already_exists".to_owned()), "{customer:?}: {}", answer.text);
        assert!(answer.text.contains("choose a later from_hour"), "{}", answer.text);
    }
    // Of the hours before the first mapping nothing has gone anywhere, and of those from the next one on neither.
    assert_eq!(desk.put(&path, &other(Some("cus_other"), "2026-03-15T11:00:00Z")).await.status, 201);
    assert_eq!(desk.put(&path, &other(Some("cus_other"), "2026-03-15T14:00:00Z")).await.status, 201);
    // One that is there nevertheless moves nothing that has gone.
    desk.api
        .execute(
            "INSERT INTO stripe_mappings (tenant_id, meter, from_hour, stripe_customer_id, actor, created_at) VALUES \
             ('acme', 'goldleaves_units', '2026-03-15T13:00:00.000000Z', 'cus_other', 'any', '2026-03-15T14:05:00.000000Z')",
        )
        .await;
    let void = json!({"kind": "void", "tenant_id": "acme", "event_id": event, "reason": "a test"});
    let correction = format!("/billing/corrections/{}", uuid::Uuid::now_v7());
    assert_eq!(desk.api.put(&correction, &token("any", &["admin"]), &void).await.status, 201);
    desk.settle().await;
    let values: Vec<_> = desk.rows().await.iter().map(|row| row["value"].clone()).collect();
    assert_eq!(values, [json!(2_000_000), json!(-2_000_000)]);
    assert_eq!((desk.double.total(CUSTOMER, METER), desk.double.total("cus_other", METER)), (0, 0));
}

async fn a_mapping_has_its_hours_looked_at(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    for hour in [12, 13] {
        desk.api.used("acme", "/a", "2", &format!("2026-03-15T{hour}:31:00Z")).await;
    }
    desk.clock.set("2026-03-15T14:05:00Z");
    desk.settle().await;
    // A meter of hours that were looked at before there was one.
    desk.double.add_meter("mtr_a", "of_a");
    let meter = json!({"event_name": "of_a", "stripe_meter_id": "mtr_a", "route": "/a", "places": 6, "reason": "new"});
    assert_eq!(desk.put("meters/of_a", &meter).await.status, 201);
    desk.pusher.seal_once().await.unwrap();
    assert_eq!(desk.rows().await.len(), 2, "the steady look does not come back to them");
    let mapping = json!({"stripe_customer_id": CUSTOMER, "from_hour": "2026-03-15T13:00:00Z", "reason": "new"});
    assert_eq!(desk.put("mappings/acme/of_a", &mapping).await.status, 201);
    let rows = desk.rows().await;
    let made: Vec<_> = rows.iter().filter(|row| row["meter"] == "of_a").map(|row| row["hour"].clone()).collect();
    assert_eq!(made, [json!("2026-03-15T13:00:00.000000Z")]);
    desk.settle().await;
    assert_eq!((desk.double.total(CUSTOMER, "of_a"), desk.double.total(CUSTOMER, METER)), (2_000_000, 4_000_000));
}

async fn a_meter_that_counted_another_route_leaves_nothing_of_it(api: Api) {
    let desk = Desk::on(api).await;
    let meter = |route: &str| json!({"event_name": METER, "stripe_meter_id": "mtr_units", "route": route, "places": 6, "reason": "set-up"});
    assert_eq!(desk.put(&format!("meters/{METER}"), &meter("/a")).await.status, 201);
    for (route, units, hour) in [("/a", "2", 12), ("/b", "3", 13), ("/a", "7", 13)] {
        desk.api.used("acme", route, units, &format!("2026-03-15T{hour}:31:00Z")).await;
    }
    desk.clock.set("2026-03-15T14:05:00Z");
    desk.settle().await;
    assert_eq!(desk.rows().await.len(), 2, "of a route that nobody meant");
    assert_eq!(desk.put(&format!("meters/{METER}"), &meter("/b")).await.status, 200);
    let mapping = json!({"stripe_customer_id": CUSTOMER, "from_hour": "2026-03-15T12:00:00Z", "reason": "set-up"});
    assert_eq!(desk.put(&format!("mappings/acme/{METER}"), &mapping).await.status, 201);
    desk.pass_time(2 * 86_400, 14_400).await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 3_000_000);
    let lane = desk.lane().await;
    assert_eq!((&lane["ledger_units"], &lane["unsealed"], &lane["drift_units"]), (&json!(3), &json!(0), &json!(0)));
}

/// Hours that Stripe would not take any more go to minutes that have passed: there are fewer of these than hours.
async fn many_old_hours_are_mapped_at_once(api: Api) {
    let desk = Desk::on(api).await;
    let meter = json!({"event_name": METER, "stripe_meter_id": "mtr_units", "places": 6, "reason": "set-up"});
    assert_eq!(desk.put(&format!("meters/{METER}"), &meter).await.status, 201);
    let (first, hours) = (seconds("2026-03-15T12:00:00Z"), 130);
    for hour in 0..hours {
        desk.api.used("acme", "/a", "1", &text(first + hour * 3_600 + 60)).await;
    }
    desk.clock.forward(hours * 3_600);
    desk.settle().await;
    desk.clock.forward(36 * 86_400);
    let mapping = json!({"stripe_customer_id": CUSTOMER, "from_hour": "2026-03-15T12:00:00Z", "reason": "set-up"});
    assert_eq!(desk.put(&format!("mappings/acme/{METER}"), &mapping).await.status, 201);
    let states = async || {
        let rows = desk.rows().await;
        let count = |state: &str| rows.iter().filter(|row| row["state"] == state).count();
        ["unmapped", "pushed"].map(count)
    };
    desk.settle().await;
    let [waiting, pushed] = states().await;
    assert!(waiting > 0 && pushed >= 60 && waiting + pushed == 130, "{waiting} wait, {pushed} are pushed");
    desk.pass_time(3 * 3_600, 1_800).await;
    assert_eq!(states().await, [0, 130], "each hour has minutes of its own");
    assert_eq!(desk.double.total(CUSTOMER, METER), 130_000_000);
    assert_eq!(desk.double.violations(), [""; 0]);
    // Those hours have not changed: none of them is late.
    assert_eq!(desk.api.number("SELECT COUNT(*) FROM usage_late_hours WHERE changes <> sealed").await, 0);
}

async fn what_waits_is_a_file_for_the_dashboard(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2.5", "2026-03-15T12:31:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    // One that is pushed, one that waits.
    desk.api.used("acme", "/a", "4", "2026-03-15T13:31:00Z").await;
    desk.clock.set("2026-03-15T14:05:00Z");
    desk.pusher.seal_once().await.unwrap();
    let path = "/billing/stripe/pushes/acme?start_date=2026-03-15&end_date=2026-03-16&format=stripe-csv";
    let file = desk.api.get(path, &token("any", &["billing:read"])).await;
    assert_eq!((file.status, file.kind.split(';').next()), (200, Some("text/csv")), "{file:?}");
    let row = desk.rows().await.pop().unwrap();
    let wanted = format!(
        "identifier,timestamp,event_name,payload_stripe_customer_id,payload_value\r\n{},1773579630,{METER},{CUSTOMER},4000000\r\n",
        row["identifier"].as_str().unwrap()
    );
    assert_eq!(file.text, wanted);
    assert!(file.disposition.contains("stripe-meter-events.csv"), "{file:?}");
    let odd = desk.api.get(&path.replace("stripe-csv", "xml"), &token("any", &["billing:read"])).await;
    assert_eq!(odd.json()["detail"], "format must be json, csv or stripe-csv");
    let plain = desk.api.get(&path.replace("stripe-csv", "csv"), &token("any", &["billing:read"])).await;
    assert!(plain.text.starts_with("id,tenant_id,meter,hour,revision,units,value,state,origin,"), "{plain:?}");
    assert_eq!(plain.text.lines().count(), 3);
}

async fn hours_are_confirmed_by_one_reading(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    for hour in 12..20 {
        desk.api.used("acme", "/a", "3", &format!("2026-03-15T{hour}:10:00Z")).await;
    }
    desk.clock.set("2026-03-15T20:06:00Z");
    desk.settle().await;
    assert_eq!(desk.double.calls("send"), 8);
    let compared = desk.double.calls("summaries");
    desk.clock.forward(700);
    desk.settle().await;
    assert_eq!(desk.double.calls("summaries"), compared + 1, "eight rows, one reading");
    assert!(desk.rows().await.iter().all(|row| row["confirmed_at"].is_string()));
    assert_eq!(desk.lane().await["drift_units"], 0);
}

async fn an_hour_that_lacks_a_row_is_confirmed_by_nothing(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    // What comes late for the first hour is taken, and dropped; both rows are read back at once.
    desk.api.used("acme", "/a", "3", "2026-03-15T13:10:00Z").await;
    desk.clock.set("2026-03-15T14:06:00Z");
    desk.settle().await;
    desk.clock.set("2026-03-15T15:06:00Z");
    for (time, dropped) in [("2026-03-15T13:20:00Z", 1.0), ("2026-03-15T14:10:00Z", 0.0)] {
        desk.double.set_faults(Faults { dropped, ..Faults::default() });
        desk.api.used("acme", "/a", "3", time).await;
        desk.settle().await;
        // So that the second one is younger.
        desk.clock.forward(1);
    }
    desk.clock.forward(700);
    desk.settle().await;
    let confirmed = desk.rows().await.iter().map(|row| row["confirmed_at"].is_string()).collect::<Vec<_>>();
    assert_eq!(confirmed, [true, false, true]);
    desk.pass_time(3 * 3_600, 600).await;
    let row = desk.rows().await.remove(1);
    assert_eq!(row["state"], "failed", "{row}");
    assert!(row["last_error"].as_str().unwrap().starts_with("not_in_summary"), "{row}");
    let path = format!("pushes/{}/retry", row["id"].as_str().unwrap());
    assert_eq!(desk.post(&path, &json!({"reason": "looked at"})).await.status, 202);
    desk.pass_time(7_200, 600).await;
    let states = desk.rows().await.iter().map(|row| row["state"].clone()).collect::<Vec<_>>();
    assert_eq!(states, [json!("pushed"), json!("abandoned"), json!("pushed"), json!("pushed")]);
    assert_eq!(desk.double.total(CUSTOMER, METER), 9_000_000);
}
