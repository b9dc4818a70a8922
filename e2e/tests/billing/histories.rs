//! Random histories in random orders of arrival: the same bills, and every cent of them billed once.
//!
//! The rules are those of the contract's model: repeats, late events, voids and adjustments, prices of every kind, and
//! periods that are closed while all of this goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream;
use goldleaves_billing::{Author, BillingError, NewCorrection, NewPeriod, Page, RefusalCode, Wanted};
use goldleaves_domain::{Period, TenantId, Timestamp};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

use crate::world::{Api, Event, Kind};

const DAY: i64 = Timestamp::DAY_MICROS;
/// The months that are closed; a last one carries what came after.
const MONTHS: [&str; 6] = ["2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01", "2026-06-01"];

/// The most events of a batch, in each order of arrival: a worker that keeps up takes them one by one.
const AT_ONCE: [usize; 4] = [1, 2, 5, 12];
/// Histories that go on at the same time.
const BESIDE_EACH_OTHER: usize = 4;

/// The things that happen, in whichever order.
#[derive(Debug, Clone)]
enum Act {
    Event(Box<Event>),
    Correct(usize, Option<i64>),
}

/// Histories, and orders of each: some by default, all that the contract asks for in a soak.
fn rounds(few: u64) -> u64 {
    if std::env::var_os("GOLDLEAVES_SOAK").is_some_and(|value| value != "0") { 1_000 } else { few }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bills_do_not_depend_on_the_order_of_arrival_on_sqlite() {
    bills_do_not_depend_on_the_order(Api::on(Kind::Sqlite).await, rounds(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bills_do_not_depend_on_the_order_of_arrival_on_postgresql() {
    bills_do_not_depend_on_the_order(Api::on(Kind::Postgres).await, rounds(8)).await;
}

async fn bills_do_not_depend_on_the_order(api: Api, histories: u64) {
    price(&api).await;
    let (begun, mut done) = (Instant::now(), 0);
    let mut running =
        stream::iter(0..histories).map(|history| of_all_orders(&api, history)).buffer_unordered(BESIDE_EACH_OTHER);
    while running.next().await.is_some() {
        done += 1;
        if done % 50 == 0 {
            eprintln!("{done} histories in {:?}", begun.elapsed());
        }
        // Statements are planned for tables as they were looked at last, and these began empty.
        if done == 2 && !api.is_sqlite() {
            api.execute("ANALYZE").await;
        }
    }
    assert_eq!(done, histories);
}

/// The same history in each order of arrival.
async fn of_all_orders(api: &Api, history: u64) {
    let mut bills = Vec::new();
    for order in 0..4 {
        let tenant = format!("tenant-{history}-{order}");
        bills.push(live(api, &tenant, history, order).await);
    }
    assert!(bills.windows(2).all(|pair| pair[0] == pair[1]), "history {history}: {bills:?}");
}

/// A default card of each kind, one after the other.
async fn price(api: &Api) {
    for (version, (from, pricing)) in (2..).zip([
        (
            "2026-01-20T00:00:00.000000Z",
            r#"{"model":"graduated","tiers":[{"up_to":"5","cents_per_unit":"0"},{"up_to":"20","cents_per_unit":"7.5"},{"up_to":null,"cents_per_unit":"3.3"}]}"#,
        ),
        (
            "2026-02-15T00:00:00.000000Z",
            r#"{"model":"volume","tiers":[{"up_to":"10","cents_per_unit":"8"},{"up_to":null,"cents_per_unit":"3.000001"}]}"#,
        ),
        (
            "2026-03-20T00:00:00.000000Z",
            r#"{"model":"package","package_units":"3","cents_per_package":"17","free_units":"2"}"#,
        ),
    ]) {
        api.execute(&format!(
            "INSERT INTO rate_cards (version, card, rate_micro_cents, effective_from, model, pricing, origin) \
             VALUES ({version}, 'default', 8000000, '{from}', 'tiers', '{pricing}', 'api')"
        ))
        .await;
    }
}

/// Returns what happens to a tenant: the same of every order, but for the tenant's name.
fn history_of(tenant: &str, history: u64, order: u64) -> (Vec<Act>, Vec<Uuid>) {
    let mut random = StdRng::seed_from_u64(history);
    let start: Timestamp = MONTHS[0].parse().unwrap();
    let (mut acts, mut ids, mut of_set) = (Vec::new(), Vec::new(), BTreeMap::new());
    for at in 0..60_u32 {
        let set = random.random_bool(0.5).then(|| random.random_range(0..6_i64));
        let offset = match set {
            Some(set) => set * 18 * DAY + random.random_range(0..DAY * 13 / 10),
            None => random.random_range(0..118 * DAY),
        };
        // Ids rank alike in every order, and differ between tenants.
        let id = Uuid::from_u128(u128::from(at) << 64 | u128::from(history * 4 + order + 1));
        let event = Event {
            id,
            route: ["/a", "/b"][random.random_range(0..2)].to_owned(),
            units: format!("{}.{:06}", random.random_range(0..3), random.random_range(0..1_000_000)),
            outcome: if random.random_bool(0.8) { "completed" } else { "client_aborted" },
            request: set.map(|set| format!("{tenant}-order-{set}")),
            ..Event::at(tenant, &start.plus_micros(offset).unwrap().to_string())
        };
        of_set.entry(set.unwrap_or(100 + i64::from(at))).or_insert_with(Vec::new).push(ids.len());
        ids.push(id);
        acts.push(Act::Event(Box::new(event)));
    }
    // One correction of a set: a second one may be refused, or not, by when it comes.
    let sets: Vec<Vec<usize>> = of_set.into_values().collect();
    for members in sets.iter().filter(|members| members.len() > 1).chain(sets.iter().rev().take(6)) {
        let units = random.random_bool(0.4).then(|| random.random_range(1..2_000_000));
        acts.push(Act::Correct(members[random.random_range(0..members.len())], units));
    }
    acts.shuffle(&mut StdRng::seed_from_u64(history * 4 + order));
    (acts, ids)
}

/// The life of one tenant: what arrived, and what waits.
struct Life<'a> {
    api: &'a Api,
    tenant: TenantId,
    /// Events that were not recorded yet.
    batch: Vec<Event>,
    recorded: BTreeSet<Uuid>,
    /// Corrections of events that are not there yet.
    waiting: Vec<(Uuid, Option<i64>)>,
}

impl Life<'_> {
    /// Corrects an event, if it is there; else when it comes.
    async fn correct(&mut self, event: Uuid, units: Option<i64>) {
        let is_there = self.recorded.contains(&event);
        assert_eq!(correct(self.api, &self.tenant, event, units).await, is_there, "{}: {event}", self.tenant);
        if !is_there {
            self.waiting.push((event, units));
        }
    }

    /// Records what came, and makes the corrections that waited for it.
    async fn record(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.api.record(&self.batch).await;
        self.recorded.extend(self.batch.drain(..).map(|event| event.id));
        for (event, units) in std::mem::take(&mut self.waiting) {
            if self.recorded.contains(&event) {
                self.correct(event, units).await;
            } else {
                self.waiting.push((event, units));
            }
        }
    }

    async fn close(&mut self, month: usize) {
        self.record().await;
        close(self.api, &self.tenant, month).await;
    }
}

/// Lets everything happen, closes periods in between, and returns what each period is due.
async fn live(api: &Api, name: &str, history: u64, order: u64) -> Vec<i128> {
    let (acts, ids) = history_of(name, history, order);
    let mut random = StdRng::seed_from_u64(history * 4 + order + 1_000_000);
    let mut cuts: Vec<usize> = (0..3).map(|_| random.random_range(0..acts.len())).collect();
    cuts.sort_unstable();
    let at_once = AT_ONCE[usize::try_from(order).unwrap()];
    let (batch, recorded, waiting) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut life = Life { api, tenant: name.parse().unwrap(), batch, recorded, waiting };
    let mut closed = 0;
    for (at, act) in acts.iter().enumerate() {
        while closed < cuts.len() && cuts[closed] <= at {
            life.close(closed).await;
            closed += 1;
        }
        match act {
            Act::Event(event) => life.batch.push((**event).clone()),
            Act::Correct(event, units) => life.correct(ids[*event], *units).await,
        }
        if life.batch.len() >= at_once {
            life.record().await;
        }
    }
    for month in closed..MONTHS.len() - 1 {
        life.close(month).await;
    }
    assert!(life.waiting.is_empty(), "{name}: {:?}", life.waiting);
    balanced(api, &life.tenant).await
}

/// Returns what each period is due, once that is what was billed.
async fn balanced(api: &Api, tenant: &TenantId) -> Vec<i128> {
    let mut due = Vec::new();
    for pair in MONTHS.windows(2) {
        let period = Period::new(pair[0].parse().unwrap(), pair[1].parse().unwrap()).unwrap();
        due.push(patiently(async || api.billing.summary(tenant, &period).await).await.unwrap().total_cost_cents.0);
    }
    let page = Page { limit: 100, cursor: None };
    let closed = patiently(async || api.billing.periods(tenant, &page).await).await.unwrap().items;
    assert_eq!(closed.len(), MONTHS.len() - 1);
    assert!(closed.iter().all(|period| period.unbilled_late.0 == 0), "{tenant}: nothing is left to bill");
    let billed: i128 = closed.iter().map(|period| period.total.0).sum();
    assert_eq!(billed, due.iter().sum::<i128>(), "{tenant}: what was billed is what is due: {closed:?} {due:?}");
    due
}

/// Returns whether the event was there to be corrected.
async fn correct(api: &Api, tenant: &TenantId, event_id: Uuid, units: Option<i64>) -> bool {
    let wanted = match units {
        Some(units_micro) => Wanted::Adjust { event_id, units_micro },
        None => Wanted::Void { event_id },
    };
    let new = NewCorrection { id: Uuid::now_v7(), tenant_id: tenant.clone(), wanted, reason: "a test".to_owned() };
    let author = Author::program();
    match patiently(async || api.billing.correct(&new, &author, "").await).await {
        // Its id is new, so that it is this one's doing also where an attempt before it was not answered.
        Ok(_) => true,
        Err(BillingError::Refused(refusal)) if refusal.code == RefusalCode::NoSuchEvent => false,
        Err(error) => panic!("{error}"),
    }
}

async fn close(api: &Api, tenant: &TenantId, month: usize) {
    let new = NewPeriod {
        tenant_id: tenant.clone(),
        number: i64::try_from(month).unwrap() + 1,
        starts_at: (month == 0).then(|| MONTHS[0].parse().unwrap()),
        ends_at: Some(MONTHS[month + 1].parse().unwrap()),
        reason: "the month is over".to_owned(),
    };
    let author = Author::program();
    patiently(async || api.billing.close_period(&new, &author, "").await).await.unwrap();
}

/// Does it again where the database was too slow, as it may be on a machine that does much else.
async fn patiently<T>(mut work: impl AsyncFnMut() -> Result<T, BillingError>) -> Result<T, BillingError> {
    for _ in 0..20 {
        match work().await {
            Err(error) if error.is_transient() => eprintln!("again: {error}"),
            done => return done,
        }
    }
    work().await
}
