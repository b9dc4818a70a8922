//! The columns of billed events are the fields of an event, and what the ledger itself adds.

use std::collections::BTreeSet;

use goldleaves_domain::EVENT_FIELDS;

use crate::harness::{Database, on_both};

on_both!(each_field_has_the_column_that_the_list_says);

/// The ledger's own: the guide's spelling of the units, the price, and when the row was written.
const OWN: [&str; 5] = ["units", "cost_cents", "rate_version", "created_at", "updated_at"];

async fn each_field_has_the_column_that_the_list_says(database: Database) {
    let columns = database.columns("usage_events").await;
    let listed: BTreeSet<&str> = EVENT_FIELDS.iter().filter_map(|field| field.column).chain(OWN).collect();
    assert_eq!(columns.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed);
}
