//! Usage events as rows of a list: from the tables of billed events and repeats, and from what was set aside.

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, read};
use sea_orm::QueryResult;
use serde_json::Value;
use uuid::Uuid;

use crate::BillingError;
use crate::event_state::EventState;
use crate::usage::UnitsTotal;

/// One event and what became of it.
#[derive(Debug, Clone)]
pub struct EventItem {
    /// The event's id; of what could not be read, the hash of its bytes.
    pub event_id: String,
    /// The row's label, or the id that the client chose.
    pub request_id: Option<String>,
    /// The id that the client chose.
    pub client_request_id: Option<String>,
    /// When.
    pub ts: Timestamp,
    /// The caller.
    pub user_id: Option<String>,
    /// The matched pattern.
    pub route: Option<String>,
    /// The action.
    pub action: Option<String>,
    /// The units that it counts by itself.
    pub units: UnitsTotal,
    /// The end of the call.
    pub outcome: Option<String>,
    /// The state of the event.
    pub state: EventState,
    /// The billed event that it repeats.
    pub duplicate_of: Option<Uuid>,
    /// The reason it was set aside.
    pub set_aside_reason: Option<String>,
    /// The card that prices it.
    pub rate_version: Option<i64>,
    /// The cents that it would cost by itself.
    pub cost_cents: Option<i64>,
    /// The call's circumstances, as JSON.
    pub metadata: Option<String>,
    /// When it was recorded.
    pub recorded_at: Option<Timestamp>,
}

/// The columns that every source of a list gives, in their order.
pub(crate) fn of_events(dialect: Dialect, alias: &str, voided: &str) -> String {
    let id = dialect.uuid_text(&format!("{alias}.id"));
    format!(
        "{alias}.ts AS ts, {id} AS event_id, {alias}.request_id, {alias}.client_request_id, {alias}.user_id, {alias}.route, \
         {alias}.action, {alias}.units_micro, {alias}.outcome, \
         CASE WHEN {voided} THEN 'void' ELSE 'billed' END AS state, {null} AS duplicate_of, CAST(NULL AS text) AS reason, \
         {alias}.rate_version, {alias}.cost_cents, {alias}.metadata, {payload} AS payload, {alias}.created_at",
        null = null_uuid(dialect),
        payload = null_bytes(dialect),
    )
}

/// Works like [`of_events`], of repeats.
pub(crate) fn of_repeats(dialect: Dialect, alias: &str) -> String {
    let id = dialect.uuid_text(&format!("{alias}.id"));
    format!(
        "{alias}.ts AS ts, {id} AS event_id, {alias}.request_id, {alias}.client_request_id, {alias}.user_id, {alias}.route, \
         {alias}.action, {alias}.units_micro, {alias}.outcome, 'repeat' AS state, {alias}.duplicate_of, \
         CAST(NULL AS text) AS reason, {alias}.rate_version, {alias}.cost_cents, {alias}.metadata, {payload} AS payload, \
         {alias}.created_at",
        payload = null_bytes(dialect),
    )
}

/// Works like [`of_events`], of what was set aside.
pub(crate) fn of_letters(dialect: Dialect, alias: &str) -> String {
    format!(
        "COALESCE({alias}.ts, {alias}.created_at) AS ts, {alias}.id AS event_id, {alias}.request_id, \
         CAST(NULL AS text) AS client_request_id, CAST(NULL AS text) AS user_id, CAST(NULL AS text) AS route, \
         CAST(NULL AS text) AS action, CAST(0 AS bigint) AS units_micro, CAST(NULL AS text) AS outcome, \
         'set_aside' AS state, {null} AS duplicate_of, {alias}.reason AS reason, CAST(NULL AS bigint) AS rate_version, \
         CAST(NULL AS bigint) AS cost_cents, CAST(NULL AS text) AS metadata, {alias}.payload AS payload, \
         {alias}.created_at",
        null = null_uuid(dialect),
    )
}

const fn null_uuid(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "NULL::uuid",
        Dialect::Sqlite => "NULL",
    }
}

const fn null_bytes(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "NULL::bytea",
        Dialect::Sqlite => "NULL",
    }
}

impl EventItem {
    pub(crate) fn read(dialect: Dialect, row: &QueryResult) -> Result<Self, BillingError> {
        let state: String = read(row, "state")?;
        let mut item = Self {
            event_id: read(row, "event_id")?,
            request_id: read(row, "request_id")?,
            client_request_id: read(row, "client_request_id")?,
            ts: dialect.read_time(row, "ts")?,
            user_id: read(row, "user_id")?,
            route: read(row, "route")?,
            action: read(row, "action")?,
            units: UnitsTotal(read::<i64>(row, "units_micro")?.into()),
            outcome: read(row, "outcome")?,
            state: state.parse().map_err(|error| BillingError::unreadable("state", error))?,
            duplicate_of: dialect.read_uuid_or_null(row, "duplicate_of")?,
            set_aside_reason: read(row, "reason")?,
            rate_version: read(row, "rate_version")?,
            cost_cents: read(row, "cost_cents")?,
            metadata: read(row, "metadata")?,
            recorded_at: dialect.read_time(row, "created_at").ok(),
        };
        if item.state == EventState::SetAside
            && let Some(bytes) = read::<Option<Vec<u8>>>(row, "payload")?
        {
            item.say_from_payload(&bytes);
        }
        Ok(item)
    }

    /// A message that was set aside is kept as bytes: what can be read of them is shown.
    fn say_from_payload(&mut self, bytes: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(bytes) else { return };
        let text = |name: &str| message.get("data")?.get(name)?.as_str().map(str::to_owned);
        self.client_request_id = text("client_request_id");
        self.user_id = text("user_id");
        self.route = text("route");
        self.action = text("action");
        self.outcome = text("outcome");
    }
}
