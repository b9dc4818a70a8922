//! A double of Stripe's meters with state: meter events under idempotency keys and identifiers, summaries that lag, meters,
//! events of webhooks; with a clock and faults that tests drive.
//!
//! It follows what Stripe documents and what was measured of it. What it does not do: customers, prices and invoices exist in
//! name alone, and nothing is ever forgotten but keys and identifiers older than a day.

mod door;
mod garbling;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};

use crate::upstream::{Answer, Received};

pub use door::Door;
pub use garbling::Garbling;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// The faults that happen, and how often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The share of calls that go wrong.
    pub share: f64,
    /// The shortest that an event takes to be in the summaries, in seconds.
    pub lag_min: i64,
    /// The longest.
    pub lag_max: i64,
    /// The share of events that Stripe takes and drops.
    pub dropped: f64,
    /// Nothing is answered: `Some(true)` after the event was taken, `Some(false)` before.
    pub outage: Option<bool>,
    /// The share of summaries that say what they should not.
    pub garbled: f64,
}

/// A customer and an event name.
type Lane = (String, String);

/// A meter event that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted {
    lane: Lane,
    /// Seconds since 1970.
    timestamp: i64,
    value: i128,
    /// From when on summaries have it.
    visible_at: i64,
}

/// The running double. It ends with the value.
#[derive(Debug)]
pub struct StripeDouble {
    door: Door,
    state: Arc<Mutex<State>>,
}

struct State {
    clock: Box<dyn Fn() -> i64 + Send>,
    keys: BTreeMap<String, bool>,
    meters: BTreeMap<String, Value>,
    customers: BTreeSet<String>,
    /// The events of each lane by their time.
    events: HashMap<Lane, BTreeMap<i64, Vec<Counted>>>,
    count: usize,
    core_events: BTreeMap<String, Value>,
    /// Answers under idempotency keys.
    replays: HashMap<String, (i64, u16, String)>,
    identifiers: HashMap<String, i64>,
    /// When each identifier came first, and its value.
    seen: HashMap<String, (i64, String)>,
    last_visible: HashMap<String, i64>,
    faults: Faults,
    /// The way every summary is garbled.
    garbling: Option<Garbling>,
    /// The events that are answered with a 500 that is replayed under its key, and not taken.
    failing: u32,
    random: u64,
    violations: Vec<String>,
    calls: BTreeMap<&'static str, u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("State").field("events", &self.count).finish_non_exhaustive()
    }
}

/// The fate of a call.
enum Fate {
    Answered(u16, Value),
    /// With success, but with this instead of JSON, or of the JSON that it should be.
    Garbled(String),
    /// The connection breaks before an answer.
    Cut,
}

impl StripeDouble {
    /// One with the machine's clock, the key `rk_test_double` and no meter.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start() -> Result<Self> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        Self::start_at(now).await
    }

    /// One whose clock a test drives, in seconds since 1970.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start_at(clock: impl Fn() -> i64 + Send + 'static) -> Result<Self> {
        let state = State {
            clock: Box::new(clock),
            keys: BTreeMap::from([("rk_test_double".to_owned(), false)]),
            meters: BTreeMap::new(),
            customers: BTreeSet::new(),
            events: HashMap::new(),
            count: 0,
            core_events: BTreeMap::new(),
            replays: HashMap::new(),
            identifiers: HashMap::new(),
            seen: HashMap::new(),
            last_visible: HashMap::new(),
            faults: Faults::default(),
            garbling: None,
            failing: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            violations: Vec::new(),
            calls: BTreeMap::new(),
        };
        let state = Arc::new(Mutex::new(state));
        Ok(Self { door: Door::of(&state).await?, state })
    }

    /// Another address of the same Stripe, so that one client's calls can be told from another's.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn another_door(&self) -> Result<Door> {
        Door::of(&self.state).await
    }

    /// Returns the value for `STRIPE_API_BASE`.
    pub fn url(&self) -> String {
        self.door.url()
    }

    /// Takes this key as well; `is_live` says of which mode it is.
    pub fn add_key(&self, key: &str, is_live: bool) {
        lock(&self.state).keys.insert(key.to_owned(), is_live);
    }

    /// Refuses a key.
    pub fn revoke_key(&self, key: &str) {
        lock(&self.state).keys.remove(key);
    }

    /// Has a meter that sums.
    pub fn add_meter(&self, id: &str, event_name: &str) {
        let meter = json!({
            "id": id, "object": "billing.meter", "created": 1_700_000_000, "updated": 1_700_000_000,
            "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "default_aggregation": {"formula": "sum"}, "display_name": event_name, "event_name": event_name,
            "event_time_window": null, "livemode": false, "status": "active",
            "status_transitions": {"deactivated_at": null}, "value_settings": {"event_payload_key": "value"},
        });
        lock(&self.state).meters.insert(id.to_owned(), meter);
    }

    /// Changes a member of a meter, named by a JSON pointer.
    pub fn set_meter(&self, id: &str, pointer: &str, value: Value) {
        if let Some(member) = lock(&self.state).meters.get_mut(id).and_then(|meter| meter.pointer_mut(pointer)) {
            *member = value;
        }
    }

    /// Has a customer.
    pub fn add_customer(&self, id: &str) {
        lock(&self.state).customers.insert(id.to_owned());
    }

    /// Has the customer no more.
    pub fn delete_customer(&self, id: &str) {
        lock(&self.state).customers.remove(id);
    }

    /// Usage that somebody else pushed.
    pub fn push_foreign(&self, customer: &str, event_name: &str, timestamp: i64, value: i128) {
        let mut state = lock(&self.state);
        let visible_at = (state.clock)();
        let lane = (customer.to_owned(), event_name.to_owned());
        state.keep(Counted { lane, timestamp, value, visible_at });
    }

    /// Makes these faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.state).faults = faults;
    }

    /// Garbles every summary from now on; or none, but for the faults that are set.
    pub fn garble(&self, garbling: Option<Garbling>) {
        lock(&self.state).garbling = garbling;
    }

    /// Answers the next events with a 500, which is replayed under their keys.
    pub fn fail_next_sends(&self, count: u32) {
        lock(&self.state).failing = count;
    }

    /// Other faults for another seed.
    pub fn seed(&self, seed: u64) {
        lock(&self.state).random ^= seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    }

    /// Returns the sum that a customer has under a name, whether summaries show it yet or not.
    pub fn total(&self, customer: &str, event_name: &str) -> i128 {
        let state = lock(&self.state);
        let events = state.events.get(&(customer.to_owned(), event_name.to_owned()));
        events.into_iter().flat_map(BTreeMap::values).flatten().map(|event| event.value).sum()
    }

    /// Returns what no client may do but one did: an identifier with two values, or one that came again after 23 hours.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.state).violations.clone()
    }

    /// Returns how often a call was made: `send`, `meter`, `summaries` or `event`.
    pub fn calls(&self, call: &str) -> u64 {
        lock(&self.state).calls.get(call).copied().unwrap_or_default()
    }

    /// Waits until everything was worked off that clients sent which are gone by now.
    ///
    /// # Errors
    /// A client is still there after `limit`.
    pub async fn drained(&self, limit: Duration) -> Result<()> {
        self.door.drained(limit).await
    }

    /// An event as it is sent to a webhook. Its data can be read by its id.
    pub fn core_event(&self, kind: &str, related: &str, data: Value) -> String {
        let mut state = lock(&self.state);
        let id = format!("evt_test_{}", state.core_events.len());
        let thin = json!({
            "id": id, "object": "v2.core.event", "type": kind, "livemode": false, "created": "2026-11-30T00:00:00Z",
            "related_object": {"id": related, "type": "billing.meter", "url": format!("/v1/billing/meters/{related}")},
        });
        let mut whole = thin.clone();
        if let Some(members) = whole.as_object_mut() {
            members.insert("data".to_owned(), data);
        }
        state.core_events.insert(id, whole);
        thin.to_string()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(status: u16, code: &str, message: &str) -> Fate {
    let kind = if status == 401 { "authentication_error" } else { "invalid_request_error" };
    let code = if code.is_empty() { Value::Null } else { code.into() };
    Fate::Answered(status, json!({"error": {"type": kind, "code": code, "message": message}}))
}

impl State {
    fn answer(&mut self, received: &Received) -> Answer {
        match self.fate(received) {
            Fate::Cut => Answer::raw(Vec::new()),
            Fate::Garbled(body) => Answer::ok(body).header("Content-Type", "text/html"),
            Fate::Answered(status, body) => {
                let answer = Answer::ok(body.to_string())
                    .status(status)
                    .header("Content-Type", "application/json")
                    .header("Request-Id", "req_double")
                    .header("Stripe-Version", "2026-10-28.endive");
                match status {
                    // Of a call that came too early Stripe does not say it.
                    429 => answer,
                    409 | 500.. => answer.header("Stripe-Should-Retry", "true"),
                    _ => answer.header("Stripe-Should-Retry", "false"),
                }
            }
        }
    }

    fn fate(&mut self, received: &Received) -> Fate {
        let key = received.head.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let Some(is_live) = key.and_then(|key| self.keys.get(key)).copied() else {
            return error(401, "", "Invalid API Key provided");
        };
        let (path, query) = received.target().split_once('?').unwrap_or((received.target(), ""));
        let query = form(query.as_bytes());
        match (received.method(), path.split('/').skip(1).collect::<Vec<_>>().as_slice()) {
            ("POST", ["v1", "billing", "meter_events"]) => self.send(received, is_live),
            ("GET", ["v1", "billing", "meters", id]) => self.meter(id, is_live),
            ("GET", ["v1", "billing", "meters", id, "event_summaries"]) => self.summaries(id, &query),
            ("GET", ["v2", "core", "events", id]) => self.core(id),
            _ => error(404, "", "Unrecognized request URL"),
        }
    }

    fn core(&mut self, id: &str) -> Fate {
        *self.calls.entry("event").or_default() += 1;
        match self.core_events.get(id) {
            Some(event) => Fate::Answered(200, event.clone()),
            None => error(404, "resource_missing", "No such event"),
        }
    }

    fn meter(&mut self, id: &str, is_live: bool) -> Fate {
        *self.calls.entry("meter").or_default() += 1;
        match self.meters.get(id) {
            Some(meter) if meter.get("livemode") == Some(&Value::Bool(is_live)) => Fate::Answered(200, meter.clone()),
            _ => error(404, "resource_missing", &format!("No such billing meter: '{id}'")),
        }
    }

    /// A number in [0, 1), by xorshift.
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn send(&mut self, received: &Received, is_live: bool) -> Fate {
        *self.calls.entry("send").or_default() += 1;
        let now = (self.clock)();
        let fields = form(&received.body.bytes);
        self.watch(&fields, now);
        match self.faults.outage {
            Some(false) => return Fate::Cut,
            Some(true) => {
                self.process(received, &fields, is_live, now);
                return Fate::Cut;
            }
            None => {}
        }
        let share = self.faults.share;
        let dice = self.chance();
        // Of the faults a fifth each: cut before, cut after, 429, 409, and 500 before or after.
        match dice / share.max(f64::MIN_POSITIVE) {
            part if part < 0.2 => Fate::Cut,
            part if part < 0.4 => {
                self.process(received, &fields, is_live, now);
                Fate::Cut
            }
            part if part < 0.6 => error(429, "rate_limit", "Too many requests"),
            part if part < 0.8 => error(409, "lock_timeout", "Another request is in progress"),
            _ => self.process(received, &fields, is_live, now),
        }
    }

    /// Writes down what no client may do.
    fn watch(&mut self, fields: &BTreeMap<String, String>, now: i64) {
        let (Some(identifier), Some(value)) = (fields.get("identifier"), fields.get("payload[value]")) else { return };
        let first = self.seen.entry(identifier.clone()).or_insert_with(|| (now, value.clone()));
        if first.1 != *value {
            self.violations.push(format!("{identifier} came with {} and {value}", first.1));
        }
        if now - first.0 > 23 * HOUR + 60 {
            self.violations.push(format!("{identifier} came again after {} s", now - first.0));
        }
    }

    /// A call under its idempotency key: the first answer is kept for a day, an error of the server too.
    fn process(&mut self, received: &Received, fields: &BTreeMap<String, String>, is_live: bool, now: i64) -> Fate {
        let key = received.head.header("idempotency-key").map(str::to_owned);
        if let Some((at, status, body)) = key.as_ref().and_then(|key| self.replays.get(key))
            && now - at < DAY
        {
            return Fate::Answered(*status, serde_json::from_str(body).unwrap_or_default());
        }
        let fate = self.take(fields, is_live, now);
        if let (Some(key), Fate::Answered(status, body)) = (key, &fate) {
            self.replays.insert(key, (now, *status, body.to_string()));
        }
        fate
    }

    fn take(&mut self, fields: &BTreeMap<String, String>, is_live: bool, now: i64) -> Fate {
        let event = match self.checked(fields, now) {
            Ok(event) => event,
            Err(refused) => return refused,
        };
        let identifier = fields.get("identifier").cloned().unwrap_or_else(|| format!("auto-{}", self.count));
        if self.identifiers.get(&identifier).is_some_and(|at| now - at < DAY) {
            return error(400, "", &format!("An event already exists with identifier {identifier}."));
        }
        if self.failing > 0 {
            self.failing -= 1;
            return error(500, "api_error", "An unknown error occurred");
        }
        // The rest of the faults: 500 before and after.
        let share = self.faults.share / 10.0;
        if self.chance() < share {
            return error(500, "api_error", "An unknown error occurred");
        }
        self.identifiers.insert(identifier.clone(), now);
        let answer = json!({
            "object": "billing.meter_event", "created": now, "event_name": event.lane.1, "identifier": identifier,
            "livemode": is_live, "timestamp": event.timestamp,
            "payload": {"stripe_customer_id": event.lane.0, "value": event.value.to_string()},
        });
        if self.chance() >= self.faults.dropped {
            self.count(event, now);
        }
        if self.chance() < share {
            return error(500, "api_error", "An unknown error occurred");
        }
        Fate::Answered(200, answer)
    }

    /// Summaries take events in the order in which they came.
    fn count(&mut self, mut event: Counted, now: i64) {
        let Faults { lag_min, lag_max, .. } = self.faults;
        let lag = lag_min + (self.chance().powi(3) * (lag_max - lag_min) as f64) as i64;
        let last = self.last_visible.entry(event.lane.0.clone()).or_default();
        event.visible_at = (*last).max(now + lag);
        *last = event.visible_at;
        self.keep(event);
    }

    fn keep(&mut self, event: Counted) {
        self.count += 1;
        self.events.entry(event.lane.clone()).or_default().entry(event.timestamp).or_default().push(event);
    }

    fn checked(&self, fields: &BTreeMap<String, String>, now: i64) -> Result<Counted, Fate> {
        let field = |name: &str| {
            fields.get(name).cloned().ok_or_else(|| error(400, "parameter_missing", &format!("Missing {name}")))
        };
        let (event_name, value) = (field("event_name")?, field("payload[value]")?);
        let customer = field("payload[stripe_customer_id]")?;
        let digits = value.strip_prefix('-').unwrap_or(&value);
        if digits.is_empty() || digits.len() > 15 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error(400, "", "payload[value] must be a whole number of at most 15 digits"));
        }
        if fields.get("identifier").is_some_and(|identifier| identifier.len() > 100) {
            return Err(error(400, "", "identifier is too long"));
        }
        let timestamp = match fields.get("timestamp") {
            Some(text) => text.parse().map_err(|_| error(400, "", "Invalid timestamp"))?,
            None => now,
        };
        if timestamp < now - 35 * DAY || timestamp > now + 300 {
            return Err(error(400, "timestamp_out_of_range", "timestamp is too old or of the future"));
        }
        let is_named = |meter: &&Value| meter.get("event_name") == Some(&Value::String(event_name.clone()));
        let is_active = |meter: &Value| meter.get("status") == Some(&Value::String("active".to_owned()));
        if !self.meters.values().find(is_named).is_some_and(is_active) {
            return Err(error(400, "", &format!("No active meter found for event name {event_name}")));
        }
        if !self.customers.contains(&customer) {
            return Err(error(400, "resource_missing", &format!("No such customer: '{customer}'")));
        }
        let value = value.parse().map_err(|_| error(400, "", "Invalid value"))?;
        Ok(Counted { lane: (customer, event_name), timestamp, value, visible_at: now })
    }

    fn summaries(&mut self, id: &str, query: &BTreeMap<String, String>) -> Fate {
        *self.calls.entry("summaries").or_default() += 1;
        let share = self.faults.share;
        if self.faults.outage.is_some() || self.chance() < share / 2.0 {
            return Fate::Cut;
        }
        if self.chance() < share / 2.0 {
            return error(429, "rate_limit", "Too many requests");
        }
        let now = (self.clock)();
        let Some(name) = self.meters.get(id).and_then(|meter| meter.get("event_name")).and_then(Value::as_str) else {
            return error(404, "resource_missing", &format!("No such billing meter: '{id}'"));
        };
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<i64>().ok());
        let (Some(start), Some(end)) = (number("start_time"), number("end_time")) else {
            return error(400, "parameter_missing", "start_time and end_time are needed");
        };
        let step = if query.get("value_grouping_window").is_some_and(|window| window == "hour") { HOUR } else { 60 };
        if start % step != 0 || end % step != 0 || start >= end {
            return error(400, "", "start_time and end_time must be aligned");
        }
        let customer = query.get("customer").cloned().unwrap_or_default();
        let mut sums: BTreeMap<i64, i128> = BTreeMap::new();
        let events = self.events.get(&(customer, name.to_owned()));
        let in_window = events.into_iter().flat_map(|events| events.range(start..end)).flat_map(|(_, events)| events);
        for event in in_window.filter(|event| event.visible_at <= now) {
            let at = if step == HOUR { event.timestamp - event.timestamp % HOUR } else { start };
            *sums.entry(at).or_default() += event.value;
        }
        if step != HOUR {
            sums.entry(start).or_default();
        }
        let all: Vec<Value> = sums.into_iter().rev().map(|(at, value)| summary(id, at, step, end, value)).collect();
        let page = page(&all, query);
        match self.garbling_now() {
            Some(garbling) => Fate::Garbled(garbling.garble(page)),
            None => Fate::Answered(200, page),
        }
    }

    fn garbling_now(&mut self) -> Option<Garbling> {
        if self.faults.garbled > 0.0 && self.chance() < self.faults.garbled {
            let which = (self.chance() * Garbling::ALL.len() as f64) as usize;
            return Garbling::ALL.get(which).copied();
        }
        self.garbling
    }
}

fn summary(meter: &str, at: i64, step: i64, end: i64, value: i128) -> Value {
    let end = if step == HOUR { at + HOUR } else { end };
    json!({
        "id": format!("mtrusg_test_{at}"), "object": "billing.meter_event_summary", "aggregated_value": value as f64,
        "start_time": at, "end_time": end, "livemode": false, "meter": meter,
    })
}

fn page(all: &[Value], query: &BTreeMap<String, String>) -> Value {
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10);
    let after = query.get("starting_after");
    let is_last = |item: &Value| item.get("id").and_then(Value::as_str) == after.map(String::as_str);
    let from = after.and_then(|_| all.iter().position(is_last)).map_or(0, |at| at + 1);
    let rest = all.get(from..).unwrap_or_default();
    let data = rest.get(..limit).unwrap_or(rest);
    json!({"object": "list", "data": data, "has_more": rest.len() > data.len(), "url": "/v1/billing/meters"})
}

/// The fields of a form or a query.
fn form(bytes: &[u8]) -> BTreeMap<String, String> {
    form_urlencoded::parse(bytes).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}
