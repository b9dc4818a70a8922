//! The events that belong together: a billed one and its repeats.

use std::collections::BTreeSet;

use goldleaves_store::Params;
use uuid::Uuid;

use crate::BillingError;
use crate::items::EventItem;
use crate::source::Source;

/// Ids of repeats of a billed event, or of what a repeat repeats.
pub(crate) async fn related(source: Source<'_>, item: &EventItem) -> Result<BTreeSet<Uuid>, BillingError> {
    let Ok(id) = Uuid::try_parse(&item.event_id) else { return Ok(BTreeSet::new()) };
    let dialect = source.dialect();
    let first = item.duplicate_of.unwrap_or(id);
    let mut ids = BTreeSet::from([id, first]);
    // Only rows with a client's id have repeats, and they are found by it.
    let Some(request) = &item.client_request_id else { return Ok(ids) };
    let mut params = Params::default();
    let (first, request) = (params.bind(dialect.uuid(first)), params.bind(request.as_str()));
    let sql = format!(
        "SELECT id FROM usage_duplicates WHERE duplicate_of = {first} AND client_request_id = {request} \
         AND tenant_id = (SELECT tenant_id FROM usage_events WHERE id = {first})"
    );
    for row in source.query(&sql, params).await? {
        ids.insert(dialect.read_uuid(&row, "id")?);
    }
    Ok(ids)
}
