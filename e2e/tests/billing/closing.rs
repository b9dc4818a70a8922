//! Periods: closed in order, frozen, and what comes late is billed with the next one.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Api, Event, on_both, token};

on_both!(
    periods_are_closed_in_order_and_stay_closed,
    what_comes_late_is_carried,
    what_lies_before_the_first_period_is_carried,
    what_was_left_out_is_never_given_back,
    a_credit_before_the_first_usage_is_on_the_first_invoice,
    without_a_range_every_unbilled_late_hour_is_listed,
    a_zone_that_changes_makes_no_gap,
    what_was_due_is_closed_by_the_clock,
    who_has_corrections_alone_is_closed_by_the_clock,
    what_an_earlier_version_left_out_stays_so,
    bills_are_of_years_that_somebody_can_mean,
    dates_of_amounts_and_cards_are_days_of_the_tenant,
);

async fn close(api: &Api, path: &str, body: &Value) -> (u16, Value) {
    let answer = api.put(&format!("/billing/periods/{path}"), &token("ops", &["billing:write"]), body).await;
    (answer.status, answer.json())
}

async fn invoice(api: &Api, path: &str) -> Value {
    let answer = api.get(&format!("/billing/invoice/{path}"), &token("acme", &[])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn periods_are_closed_in_order_and_stay_closed(api: Api) {
    api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    api.used("acme", "/b", "1.5", "2026-03-31T23:59:59.999999Z").await;
    api.used("acme", "/a", "4", "2026-04-01T00:00:00Z").await;
    let open = invoice(&api, "acme").await;
    assert_eq!((&open["number"], &open["state"]), (&json!(1), &json!("open")));
    assert_eq!(open["period_start"], "2026-03-01T00:00:00.000000Z", "the month of the first usage");
    assert_eq!(open["period_end"], "2026-04-01T00:00:00.000000Z");
    assert_eq!(open["total_cost_cents"], 88, "87.5, rounded once");
    let why = json!({"reason": "the month is over"});
    assert_eq!(close(&api, "acme/2", &why).await.1["code"], "out_of_order");
    let (status, period) = close(&api, "acme/1", &why).await;
    assert_eq!(status, 201, "{period}");
    assert_eq!((&period["number"], &period["total_cost_cents"]), (&json!(1), &json!(88)));
    assert_eq!(period["lines_hash"], open["lines_hash"], "what was shown is what is frozen");
    assert_eq!(close(&api, "acme/1", &why).await, (200, period.clone()));
    for other in [json!({"reason": "another"}), json!({"reason": "the month is over", "ends_at": "2026-05-01"})] {
        let (status, problem) = close(&api, "acme/1", &other).await;
        assert_eq!((status, &problem["code"]), (409, &json!("already_exists")), "{problem}");
    }
    let frozen = invoice(&api, "acme/1").await;
    assert_eq!((&frozen["state"], &frozen["lines"]), (&json!("closed"), &open["lines"]));
    let lines = frozen["lines"].as_array().unwrap();
    let cents: i64 = lines.iter().map(|line| line["cost_cents"].as_i64().unwrap()).sum();
    assert_eq!(cents, 88, "the lines are the total");
    let early = json!({"reason": "r", "ends_at": "2999-01-01"});
    assert_eq!(close(&api, "acme/2", &early).await.1["code"], "too_early");
    for (body, member) in [
        (json!({"reason": "r", "ends_at": "2026-03-05"}), "ends_at"),
        (json!({"reason": "r", "starts_at": "2026-04-01"}), "starts_at"),
        (json!({"reason": "r", "ends_at": "soon"}), "ends_at"),
        (json!({"reason": "r", "ends_at": 5}), "ends_at"),
        (json!({"ends_at": "2026-05-01"}), "reason"),
    ] {
        let (status, problem) = close(&api, "acme/2", &body).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains(member), "{body}: {problem}");
    }
    let (status, second) = close(&api, "acme/2", &why).await;
    assert_eq!((status, &second["starts_at"]), (201, &json!("2026-04-01T00:00:00.000000Z")));
    let periods = api.get("/billing/periods/acme", &token("acme", &[])).await.json();
    assert_eq!(periods, json!({"items": [period, second], "next_cursor": null}));
    assert_eq!(api.get("/billing/invoice/acme/9", &token("acme", &[])).await.status, 404);
    assert_eq!(api.get("/billing/invoice/acme/x", &token("acme", &[])).await.status, 400);
}

async fn what_comes_late_is_carried(api: Api) {
    let event = api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    let why = json!({"reason": "the month is over"});
    assert_eq!(close(&api, "acme/1", &why).await.0, 201);
    api.used("acme", "/late", "1", "2026-03-30T10:00:00Z").await;
    let void = json!({"kind": "void", "tenant_id": "acme", "event_id": event, "reason": "a test call"});
    let amount =
        json!({"kind": "amount", "tenant_id": "acme", "cents": 7, "ts": "2026-03-04T00:00:00Z", "reason": "fee"});
    let writer = token("ops", &["billing:write"]);
    for body in [void, amount] {
        assert_eq!(api.put(&format!("/billing/corrections/{}", Uuid::now_v7()), &writer, &body).await.status, 201);
    }
    let periods = api.get("/billing/periods/acme", &token("acme", &[])).await.json();
    assert_eq!(periods["items"][0]["unbilled_late_cents"], 25 - 50 + 7);
    api.used("acme", "/a", "4", "2026-04-10T00:00:00Z").await;
    assert_eq!(invoice(&api, "acme/1").await["total_cost_cents"], 50, "what is closed stays");
    let open = invoice(&api, "acme").await;
    assert_eq!(open["total_cost_cents"], 100 + 25 - 50 + 7);
    let kinds: Vec<String> = open["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| format!("{} {} {}", line["kind"].as_str().unwrap(), line["for_number"], line["cost_cents"]))
        .collect();
    assert_eq!(kinds, ["late 1 -50", "late 1 25", "amount 1 7", "usage 2 100"]);
    let (status, second) = close(&api, "acme/2", &why).await;
    assert_eq!((status, &second["total_cost_cents"]), (201, &json!(82)));
    let third = invoice(&api, "acme").await;
    assert_eq!((&third["total_cost_cents"], &third["lines"]), (&json!(0), &json!([])), "carried once");
    let late = api.get("/billing/late/acme?month=2026-03", &token("acme", &[])).await.json();
    assert!(late["items"].as_array().unwrap().iter().all(|hour| hour["period_number"] == 1), "{late}");
}

async fn a_zone_that_changes_makes_no_gap(api: Api) {
    let admin = token("ops", &["admin"]);
    let zone = async |name: &str| {
        let body = json!({"time_zone": name, "reason": "they moved"});
        assert!(api.put("/billing/tenants/acme", &admin, &body).await.status < 300);
    };
    zone("Asia/Kolkata").await;
    api.used("acme", "/a", "1", "2026-02-28T18:30:00Z").await;
    api.used("acme", "/a", "1", "2026-03-31T18:29:59Z").await;
    api.used("acme", "/a", "1", "2026-03-31T18:30:00Z").await;
    let why = json!({"reason": "the month is over"});
    let (_, first) = close(&api, "acme/1", &why).await;
    assert_eq!(
        (&first["starts_at"], &first["ends_at"]),
        (&json!("2026-02-28T18:30:00.000000Z"), &json!("2026-03-31T18:30:00.000000Z"))
    );
    assert_eq!(first["total_cost_cents"], 50, "the hour that midnight cuts is read from the events");
    zone("Europe/Berlin").await;
    let (_, second) = close(&api, "acme/2", &why).await;
    assert_eq!(
        (&second["starts_at"], &second["ends_at"]),
        (&json!("2026-03-31T18:30:00.000000Z"), &json!("2026-04-30T22:00:00.000000Z"))
    );
    assert_eq!(second["total_cost_cents"], 25);
}

async fn what_was_due_is_closed_by_the_clock(api: Api) {
    api.used("acme", "/a", "1", "2026-01-10T00:00:00Z").await;
    api.used("other", "/a", "1", "2026-02-10T00:00:00Z").await;
    let closed = api.billing.close_due_periods(24).await.unwrap();
    assert!(closed.count >= 2 && closed.failed.is_empty(), "{closed:?}");
    assert_eq!(api.billing.close_due_periods(24).await.unwrap().count, 0);
    let january = invoice(&api, "acme/1").await;
    assert_eq!((&january["state"], &january["total_cost_cents"]), (&json!("closed"), &json!(25)));
}

async fn who_has_corrections_alone_is_closed_by_the_clock(api: Api) {
    write(
        &api,
        &json!({"kind": "amount", "tenant_id": "acme", "cents": 500, "ts": "2026-02-10", "reason": "a set-up fee"}),
    )
    .await;
    let open = invoice(&api, "acme").await;
    assert_eq!((&open["number"], &open["period_start"]), (&json!(1), &json!("2026-02-01T00:00:00.000000Z")), "{open}");
    assert_eq!(open["total_cost_cents"], 500, "{open}");
    assert!(api.billing.close_due_periods(24).await.unwrap().count >= 1);
    let february = invoice(&api, "acme/1").await;
    assert_eq!((&february["state"], &february["total_cost_cents"]), (&json!("closed"), &json!(500)), "{february}");
    assert_eq!(february["lines_hash"], open["lines_hash"]);
    assert_eq!(api.billing.close_due_periods(24).await.unwrap().count, 0);
    // One that is dated ahead keeps the first period no later than now.
    write(&api, &json!({"kind": "amount", "tenant_id": "sister", "cents": 5, "ts": "2099-01-01", "reason": "r"})).await;
    assert!(invoice(&api, "sister").await["period_start"].as_str().unwrap() < "2099", "this month");
}

/// Usage and an amount before the first period, which a version closed that kept nothing of them in mind.
async fn what_an_earlier_version_left_out_stays_so(api: Api) {
    for tenant in ["acme", "globex"] {
        api.used(tenant, "/a", "8", "2026-02-27T10:00:00Z").await;
        api.used(tenant, "/a", "2", "2026-03-03T10:00:00Z").await;
        let first = json!({"starts_at": "2026-03-01", "reason": "billed elsewhere before"});
        assert_eq!(close(&api, &format!("{tenant}/1"), &first).await.0, 201);
        // It billed no amount that is dated so.
        write(&api, &json!({"kind": "amount", "tenant_id": tenant, "cents": -7, "ts": "2026-01-05", "reason": "r"}))
            .await;
    }
    api.execute("DELETE FROM billing_lines WHERE number = 0").await;
    api.execute("UPDATE billing_periods SET closed_at = '2026-05-01T00:00:00.000000Z'").await;
    let open = async |tenant: &str| {
        let open = api.get(&format!("/billing/invoice/{tenant}"), &token("ops", &["admin"])).await.json();
        open["total_cost_cents"].as_i64().unwrap()
    };
    assert_eq!(open("acme").await, 0, "nothing is billed of what was left out");
    api.execute("UPDATE usage_late_hours SET changed_at = '2026-04-01T00:00:00.000000Z'").await;
    // At the start of a program, or else with the next close.
    assert_eq!(api.billing.note_left_out().await.unwrap(), 2);
    assert_eq!(api.billing.note_left_out().await.unwrap(), 0);
    assert_eq!(open("acme").await, -7, "amounts are billed wherever they lie");
    api.used("acme", "/a", "4", "2026-02-27T10:30:00Z").await;
    assert_eq!(open("acme").await, 100 - 7, "what comes from now on is late");
    let why = json!({"reason": "the month is over"});
    assert_eq!(close(&api, "acme/2", &why).await.1["total_cost_cents"], 93);
    assert_eq!(open("acme").await, 0);
    api.execute("DELETE FROM billing_lines WHERE number = 0 AND tenant_id = 'globex'").await;
    api.used("globex", "/a", "1", "2026-04-03T10:00:00Z").await;
    assert_eq!(close(&api, "globex/2", &why).await.1["total_cost_cents"], 25 - 7);
    api.used("globex", "/a", "4", "2026-02-27T10:30:00Z").await;
    assert_eq!(open("globex").await, 100, "left out with the close before");
}

async fn bills_are_of_years_that_somebody_can_mean(api: Api) {
    let path = || format!("/billing/corrections/{}", Uuid::now_v7());
    let (writer, admin) = (token("ops", &["billing:write"]), token("ops", &["admin"]));
    api.used("acme", "/a", "1", "2026-03-03T10:00:00Z").await;
    for ts in ["0001-01-01", "0226-03-01T00:00:00Z", "1999-12-31T23:59:59.999999Z", "2101-01-01", "9999-12-31"] {
        let amount = json!({"kind": "amount", "tenant_id": "acme", "cents": 5, "ts": ts, "reason": "r"});
        let answer = api.put(&path(), &writer, &amount).await;
        assert_eq!(answer.refusal(), (400, "body_invalid".to_owned()), "{ts}");
        assert!(answer.text.contains("ts must lie in the years 2000 to 2100"), "{answer:?}");
        let first = json!({"starts_at": ts, "ends_at": "2026-04-01", "reason": "r"});
        let answer = api.put("/billing/periods/acme/1", &writer, &first).await;
        assert!(answer.status == 400 && answer.text.contains("starts_at must lie in the years"), "{answer:?}");
    }
    assert_eq!(api.number("SELECT COUNT(*) FROM usage_corrections").await, 0);
    for ts in ["2000-01-01", "2100-12-31T23:59:59Z"] {
        write(&api, &json!({"kind": "amount", "tenant_id": "acme", "cents": 5, "ts": ts, "reason": "r"})).await;
    }
    let last = "start_date=2100-12-01&end_date=2101-01-01";
    let bill = api.get(&format!("/billing/usage-summary/acme?{last}"), &admin).await.json();
    assert_eq!(bill["adjustments_cents"], 5);
}

async fn dates_of_amounts_and_cards_are_days_of_the_tenant(api: Api) {
    let admin = token("ops", &["admin"]);
    let zone = json!({"time_zone": "America/New_York", "reason": "they are there"});
    assert_eq!(api.put("/billing/tenants/acme", &admin, &zone).await.status, 201);
    let amount = json!({"kind": "amount", "tenant_id": "acme", "cents": 5, "ts": "2026-03-01", "reason": "r"});
    let made = api.put(&format!("/billing/corrections/{}", Uuid::now_v7()), &admin, &amount).await.json();
    assert_eq!(made["ts"], "2026-03-01T05:00:00.000000Z", "{made}");
    let bill = api.get("/billing/usage-summary/acme?month=2026-03", &admin).await.json();
    assert_eq!(bill["adjustments_cents"], 5, "in the month that was meant");
    for (tenant, from) in [(json!("acme"), "2100-01-01T05:00:00.000000Z"), (json!(null), "2100-01-01T00:00:00.000000Z")]
    {
        let card = json!({"tenant_id": tenant, "pricing": {"model": "per_unit", "cents_per_unit": "3"},
            "effective_from": "2100-01-01", "reason": "r"});
        let made = api.put(&format!("/billing/rate-cards/{}", Uuid::now_v7()), &admin, &card).await.json();
        assert_eq!(made["effective_from"], from, "{made}");
    }
}

async fn write(api: &Api, body: &Value) {
    let path = format!("/billing/corrections/{}", Uuid::now_v7());
    let answer = api.put(&path, &token("ops", &["billing:write"]), body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

async fn what_lies_before_the_first_period_is_carried(api: Api) {
    let own = token("acme", &[]);
    // What was there when the first period was given a later start was left out knowingly.
    api.used("acme", "/a", "8", "2026-02-27T10:00:00Z").await;
    api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    let first = json!({"starts_at": "2026-03-01", "reason": "billed elsewhere before"});
    let (status, period) = close(&api, "acme/1", &first).await;
    assert_eq!((status, &period["total_cost_cents"]), (201, &json!(50)));
    assert_eq!(invoice(&api, "acme").await["total_cost_cents"], 0);
    let event = api.used("acme", "/a", "4", "2026-02-27T10:30:00Z").await;
    write(&api, &json!({"kind": "amount", "tenant_id": "acme", "cents": -7, "ts": "2026-01-05", "reason": "r"})).await;
    let open = invoice(&api, "acme").await;
    assert_eq!(open["total_cost_cents"], 100 - 7, "{open}");
    assert!(open["lines"].as_array().unwrap().iter().all(|line| line["for_number"] == 1), "{open}");
    let periods = api.get("/billing/periods/acme", &own).await.json();
    assert_eq!(periods["items"][0]["unbilled_late_cents"], 93);
    let late = api.get("/billing/late/acme?start_date=2026-01-01&end_date=2026-03-01", &own).await.json();
    let hours = late["items"].as_array().unwrap();
    assert!(hours.len() == 2 && hours.iter().all(|hour| hour["period_number"] == 1), "{late}");
    let found = api.get(&format!("/billing/usage-events/acme/{event}"), &own).await.json();
    assert_eq!(found["matches"][0]["period"]["number"], 1, "{found}");
    let (status, second) = close(&api, "acme/2", &json!({"reason": "the month is over"})).await;
    assert_eq!((status, &second["total_cost_cents"]), (201, &json!(93)));
    assert_eq!(invoice(&api, "acme").await["total_cost_cents"], 0, "carried once");
    assert_eq!(invoice(&api, "acme/1").await["lines"].as_array().unwrap().len(), 1, "what is closed stays");
}

async fn what_was_left_out_is_never_given_back(api: Api) {
    let left_out = api.used("acme", "/a", "8", "2026-02-27T10:00:00Z").await;
    let call = |time: &str, outcome, units: &str| Event {
        outcome,
        units: units.to_owned(),
        request: Some("order-7".to_owned()),
        ..Event::at("acme", time)
    };
    api.record(&[call("2026-02-28T20:00:00Z", "client_aborted", "6")]).await;
    api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    let first = json!({"starts_at": "2026-03-01", "reason": "billed elsewhere before"});
    let (status, period) = close(&api, "acme/1", &first).await;
    assert_eq!((status, &period["total_cost_cents"]), (201, &json!(50)));
    for body in [
        json!({"kind": "void", "tenant_id": "acme", "event_id": left_out, "reason": "r"}),
        json!({"kind": "adjust", "tenant_id": "acme", "event_id": left_out, "units": "-1", "reason": "r"}),
    ] {
        let path = format!("/billing/corrections/{}", Uuid::now_v7());
        let refused = api.put(&path, &token("ops", &["billing:write"]), &body).await;
        assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("not_billed")), "{refused:?}");
    }
    // A call that was left out moves into the period: what it counts there is billed, and nothing is given back for before.
    api.record(&[call("2026-03-01T03:00:00Z", "completed", "4")]).await;
    let open = invoice(&api, "acme").await;
    assert_eq!(open["total_cost_cents"], 100, "{open}");
    let (status, second) = close(&api, "acme/2", &json!({"reason": "the month is over"})).await;
    assert_eq!((status, &second["total_cost_cents"]), (201, &json!(100)));
    let report = api.get("/billing/usage-report/acme?month=2026-03", &token("acme", &[])).await.json();
    assert_eq!(report["total_cost_cents"], 150, "what both invoices say");
    assert_eq!(invoice(&api, "acme").await["total_cost_cents"], 0, "carried once");
}

async fn a_credit_before_the_first_usage_is_on_the_first_invoice(api: Api) {
    api.used("acme", "/a", "4", "2026-03-03T10:00:00Z").await;
    write(&api, &json!({"kind": "amount", "tenant_id": "acme", "cents": -500, "ts": "2026-02-26", "reason": "r"}))
        .await;
    let open = invoice(&api, "acme").await;
    assert_eq!((&open["number"], &open["total_cost_cents"]), (&json!(1), &json!(-400)), "{open}");
    let (_, first) = close(&api, "acme/1", &json!({"reason": "the month is over"})).await;
    assert_eq!((&first["total_cost_cents"], &first["lines_hash"]), (&json!(-400), &open["lines_hash"]));
    let periods = api.get("/billing/periods/acme", &token("acme", &[])).await.json();
    assert_eq!(periods["items"][0]["unbilled_late_cents"], 0, "billed once");
    assert_eq!(invoice(&api, "acme").await["total_cost_cents"], 0);
}

async fn without_a_range_every_unbilled_late_hour_is_listed(api: Api) {
    let own = token("acme", &[]);
    api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    let why = json!({"reason": "the month is over"});
    assert_eq!(close(&api, "acme/1", &why).await.0, 201);
    api.used("acme", "/a", "2", "2026-03-04T10:00:00Z").await;
    let late = api.get("/billing/late/acme", &own).await.json();
    assert_eq!(late["items"].as_array().unwrap().len(), 1, "{late}");
    assert_eq!(
        (&late["items"][0]["hour"], &late["items"][0]["period_number"]),
        (&json!("2026-03-04T10:00:00.000000Z"), &json!(1))
    );
    assert_eq!(close(&api, "acme/2", &why).await.0, 201);
    assert_eq!(api.get("/billing/late/acme", &own).await.json()["items"], json!([]), "billed with the second");
}
