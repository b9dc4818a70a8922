//! The tables of input and their columns, as lines hold them.

use goldleaves_store::Dialect;

/// The way a column is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Uuid,
    Time,
    Integer,
    Wide,
    Flag,
}

pub(super) use Kind::{Flag, Integer, Text, Time, Uuid as Id, Wide};

/// A table: its name, its key, and its columns.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Its order, and what names a row.
    pub(super) key: &'static [&'static str],
    pub(super) columns: &'static [(&'static str, Kind)],
}

/// Every table of input, in the order in which they are written: what others name comes first.
pub(super) const TABLES: [Table; 11] = [
    Table {
        name: "rate_cards",
        key: &["version"],
        columns: &[
            ("version", Integer),
            ("card", Text),
            ("rate_micro_cents", Integer),
            ("effective_from", Time),
            ("created_at", Time),
            ("id", Id),
            ("tenant_id", Text),
            ("route", Text),
            ("action", Text),
            ("model", Text),
            ("pricing", Text),
            ("origin", Text),
            ("actor", Text),
            ("reason", Text),
        ],
    },
    Table {
        name: "billing_tenants",
        key: &["tenant_id"],
        columns: &[("tenant_id", Text), ("time_zone", Text), ("updated_at", Time)],
    },
    Table {
        name: "usage_limits",
        key: &["tenant_id", "period", "version"],
        columns: &[
            ("tenant_id", Text),
            ("period", Text),
            ("version", Integer),
            ("soft_micro", Integer),
            ("hard_micro", Integer),
            ("soft_cents", Integer),
            ("hard_cents", Integer),
            ("actor", Text),
            ("reason", Text),
            ("created_at", Time),
        ],
    },
    Table { name: "stripe_state", key: &["id"], columns: &[("id", Integer), ("generation", Id), ("livemode", Flag)] },
    Table {
        name: "stripe_meters",
        key: &["meter"],
        columns: &[
            ("meter", Text),
            ("event_name", Text),
            ("stripe_meter_id", Text),
            ("route", Text),
            ("places", Integer),
            ("checked_at", Time),
            ("unfit", Text),
        ],
    },
    Table {
        name: "stripe_mappings",
        key: &["tenant_id", "meter", "from_hour"],
        columns: &[
            ("tenant_id", Text),
            ("meter", Text),
            ("from_hour", Time),
            ("stripe_customer_id", Text),
            ("actor", Text),
            ("created_at", Time),
        ],
    },
    Table {
        name: "stripe_pushes",
        key: &["tenant_id", "meter", "hour", "revision"],
        columns: &[
            ("id", Id),
            ("tenant_id", Text),
            ("meter", Text),
            ("hour", Time),
            ("revision", Integer),
            ("units_micro", Wide),
            ("state", Text),
            ("stripe_customer_id", Text),
            ("event_name", Text),
            ("value", Text),
            ("event_timestamp", Time),
            ("identifier", Text),
            ("frozen_at", Time),
            ("attempts", Integer),
            ("first_attempt_at", Time),
            ("last_attempt_at", Time),
            ("next_attempt_at", Time),
            ("pushed_at", Time),
            ("confirmed_at", Time),
            ("last_error", Text),
            ("created_at", Time),
            ("updated_at", Time),
            ("key_suffix", Integer),
            ("read_back_at", Time),
            ("absent_since", Time),
            ("origin", Text),
        ],
    },
    Table {
        name: "billing_periods",
        key: &["tenant_id", "number"],
        columns: &[
            ("tenant_id", Text),
            ("number", Integer),
            ("starts_at", Time),
            ("ends_at", Time),
            ("time_zone", Text),
            ("tzdb", Text),
            ("total_cents", Wide),
            ("lines_hash", Text),
            ("actor", Text),
            ("reason", Text),
            ("closed_at", Time),
        ],
    },
    Table {
        name: "billing_lines",
        key: &["tenant_id", "number", "line"],
        columns: &[
            ("tenant_id", Text),
            ("number", Integer),
            ("line", Integer),
            ("for_number", Integer),
            ("kind", Text),
            ("route", Text),
            ("action", Text),
            ("rate_version", Integer),
            ("events", Integer),
            ("units_micro", Wide),
            ("cents", Wide),
        ],
    },
    Table {
        name: "usage_corrections",
        key: &["id"],
        columns: &[
            ("id", Id),
            ("tenant_id", Text),
            ("kind", Text),
            ("event_id", Id),
            ("follows", Id),
            ("ts", Time),
            ("route", Text),
            ("action", Text),
            ("rate_version", Integer),
            ("events", Integer),
            ("units_micro", Integer),
            ("cents", Integer),
            ("actor", Text),
            ("reason", Text),
            ("created_at", Time),
        ],
    },
    Table {
        name: "billing_audit",
        key: &["id"],
        columns: &[
            ("id", Id),
            ("at", Time),
            ("actor", Text),
            ("roles", Text),
            ("request_id", Text),
            ("action", Text),
            ("tenant_id", Text),
            ("body", Text),
        ],
    },
];

impl Table {
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }

    /// Every column as text, of the table under the name `t`.
    pub(super) fn cells(&self, dialect: Dialect) -> String {
        let cell = |(name, kind): &(&str, Kind)| match (kind, dialect) {
            (Time, Dialect::Postgres) => {
                format!("to_char(t.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS {name}")
            }
            _ => format!("CAST(t.{name} AS text) AS {name}"),
        };
        self.columns.iter().map(cell).collect::<Vec<_>>().join(", ")
    }

    /// The columns of the key in their order.
    pub(super) fn keys(&self) -> String {
        self.key.iter().map(|name| format!("t.{name}")).collect::<Vec<_>>().join(", ")
    }

    /// Returns whether a column tells how far a row has come since it was made, or when: it may differ from what a file says.
    pub(super) fn moves(&self, column: &str) -> bool {
        const TIMES: [&str; 3] = ["created_at", "updated_at", "checked_at"];
        const MADE: [&str; 7] = ["id", "tenant_id", "meter", "hour", "revision", "units_micro", "origin"];
        TIMES.contains(&column)
            || match self.name {
                "stripe_pushes" => !MADE.contains(&column),
                "stripe_meters" => column == "unfit",
                _ => false,
            }
    }
}
