//! An API that pushes to the double of Stripe, with one clock for both that a test drives.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use goldleaves_auth::{TokenOptions, TokenVerifier, WallClock};
use goldleaves_billing::stripe::{Books, BooksClock};
use goldleaves_billing_api::push::{Pacing, Pusher, StripeMetrics};
use goldleaves_billing_api::{BillingApi, BillingMetrics, Docs, StripeDesk};
use goldleaves_domain::Timestamp;
use goldleaves_runtime::{Metrics, Secret};
use goldleaves_stripe::Stripe;
use goldleaves_testkit::stripe::StripeDouble;
use serde_json::{Value, json};

use crate::world::{Answer, Api, NOW, SECRET, token};

pub(crate) const CUSTOMER: &str = "cus_acme";
pub(crate) const METER: &str = "goldleaves_units";
pub(crate) const METER_ID: &str = "mtr_units";
pub(crate) const WEBHOOK_SECRET: &str = "whsec_old,whsec_new";

/// Seconds since 1970 of a clock that a test drives.
#[derive(Debug, Clone)]
pub(crate) struct Driven(Arc<AtomicI64>);

impl Driven {
    pub(crate) fn at(time: &str) -> Self {
        Self(Arc::new(AtomicI64::new(seconds(time))))
    }

    pub(crate) fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, time: &str) {
        self.0.store(seconds(time), Ordering::SeqCst);
    }

    pub(crate) fn forward(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn books(&self) -> BooksClock {
        let clock = self.clone();
        BooksClock::Driven(Arc::new(move || Timestamp::from_unix_micros(clock.now() * 1_000_000).unwrap()))
    }
}

pub(crate) fn text(seconds: i64) -> String {
    Timestamp::from_unix_micros(seconds * 1_000_000).unwrap().to_string()
}

pub(crate) fn seconds(time: &str) -> i64 {
    time.parse::<Timestamp>().unwrap().unix_micros() / 1_000_000
}

/// The API, who pushes, and where to.
pub(crate) struct Desk {
    pub(crate) api: Api,
    pub(crate) double: StripeDouble,
    pub(crate) pusher: Pusher,
    pub(crate) clock: Driven,
}

impl Desk {
    /// With the meter and the customer at Stripe, and neither known to the ledger.
    pub(crate) async fn on(api: Api) -> Self {
        let clock = Driven::at(NOW);
        let shared = clock.clone();
        let double = StripeDouble::start_at(move || shared.now()).await.unwrap();
        double.add_meter(METER_ID, METER);
        double.add_customer(CUSTOMER);
        Self::with(api, double, clock)
    }

    pub(crate) fn with(mut api: Api, double: StripeDouble, clock: Driven) -> Self {
        let pusher = another_pusher(&api, &double, &clock, "rk_test_double");
        let metrics = Metrics::new();
        let moment = clock.clone();
        let system = move || SystemTime::UNIX_EPOCH + Duration::from_secs(moment.now().unsigned_abs());
        let verifier = TokenVerifier::new(TokenOptions::new(SECRET), crate::world::clock());
        let billing =
            BillingApi::new(api.billing.clone(), verifier, WallClock::new(system), BillingMetrics::register(&metrics));
        let webhook = Some(WEBHOOK_SECRET.parse().unwrap());
        api.service = billing.pushing(StripeDesk { pusher: pusher.clone(), webhook }).service(Docs::Served);
        Self { api, double, pusher, clock }
    }

    /// Makes the meter and the mapping known, from the start of this hour on.
    pub(crate) async fn map(&self) {
        let meter = json!({"event_name": METER, "stripe_meter_id": METER_ID, "places": 6, "reason": "set-up"});
        let answer = self.put(&format!("meters/{METER}"), &meter).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let hour = Timestamp::from_unix_micros(self.clock.now() * 1_000_000).unwrap().hour();
        let mapping = json!({"stripe_customer_id": CUSTOMER, "from_hour": hour.to_string(), "reason": "set-up"});
        let answer = self.put(&format!("mappings/acme/{METER}"), &mapping).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.api.put(&format!("/billing/stripe/{path}"), &token("any", &["admin"]), body).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let path = format!("/billing/stripe/{path}");
        self.api.call("POST", &path, &token("any", &["admin"]), body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.api.get(&format!("/billing/stripe/{path}"), &token("any", &["billing:read"])).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// The rows of a tenant, as the API shows them.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let (mut rows, mut from) = (Vec::new(), seconds("2026-01-01"));
        while from < self.clock.now() {
            let to = from + 300 * 86_400;
            let mut cursor = String::new();
            loop {
                let range = format!("start_date={}&end_date={}", text(from), text(to));
                let page = self.get(&format!("pushes/acme?{range}&limit=1000{cursor}")).await;
                rows.extend(page["items"].as_array().unwrap().iter().cloned());
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            from = to;
        }
        rows
    }

    /// The only lane.
    pub(crate) async fn lane(&self) -> Value {
        let drift = self.get("drift").await;
        assert_eq!(drift["items"].as_array().unwrap().len(), 1, "{drift}");
        drift["items"][0].clone()
    }

    /// Seals and pushes until nothing is due now.
    pub(crate) async fn settle(&self) {
        self.settle_many(50).await;
    }

    /// The same where so many passes may have something to do.
    pub(crate) async fn settle_many(&self, passes: usize) {
        self.pusher.seal_once().await.unwrap();
        for _ in 0..=passes {
            if self.pusher.pass().await.unwrap() == 0 {
                return;
            }
        }
        panic!("there is always something due: {:#?}", self.rows().await);
    }

    /// Lets so many seconds pass in steps, and pushes after each.
    pub(crate) async fn pass_time(&self, total: i64, step: i64) {
        for _ in 0..total / step {
            self.clock.forward(step);
            self.settle().await;
        }
    }
}

pub(crate) fn another_pusher(api: &Api, double: &StripeDouble, clock: &Driven, key: &str) -> Pusher {
    let stripe = Stripe::new(double.url().parse().unwrap(), Secret::new(key.to_owned())).unwrap();
    let books = Books::new(api.billing.clone(), clock.books());
    Pusher::new(books, stripe, StripeMetrics::register(&Metrics::new()), Pacing::UNLIMITED)
}
