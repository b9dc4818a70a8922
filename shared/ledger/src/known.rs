//! How much of a batch the ledger has, without recording any of it.

use std::collections::HashSet;

use goldleaves_domain::wire::Message;
use goldleaves_store::{Params, Rows, read};
use uuid::Uuid;

use crate::batch::content_id;
use crate::{Incoming, Ledger, LedgerError};

impl Ledger {
    /// Returns the number of these messages that are billed, repeats or set aside already. Seals are not counted: the
    /// ledger keeps what they say, not them.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn count_known(&self, incoming: &[Incoming]) -> Result<u64, LedgerError> {
        let ids: Vec<String> = incoming.iter().filter_map(ledger_id).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        let dialect = self.dialect();
        let mut params = Params::default();
        let events = ids.iter().filter_map(|id| Uuid::try_parse(id).ok());
        let rows = Rows::new(dialect);
        let events = rows.column("id", events.chain([Uuid::nil()])).query(&mut params);
        let letters = Rows::new(dialect).column("id", ids.iter().map(String::as_str)).query(&mut params);
        let sql = format!(
            "WITH e AS MATERIALIZED ({events}), l AS MATERIALIZED ({letters}) \
             SELECT {of_event} AS id FROM e JOIN usage_events AS t ON t.id = e.id \
             UNION ALL SELECT {of_event} FROM e JOIN usage_duplicates AS t ON t.id = e.id \
             UNION ALL SELECT t.id FROM l JOIN usage_dead_letters AS t ON t.id = l.id",
            of_event = dialect.uuid_text("t.id"),
        );
        let rows = self.read(&sql, params).await?;
        let known: HashSet<String> = rows.iter().map(|row| read(row, "id")).collect::<Result<_, _>>()?;
        Ok(ids.iter().filter(|id| known.contains(*id)).count() as u64)
    }
}

/// Under which id the ledger has a message, if it has it; a seal has none.
fn ledger_id(incoming: &Incoming) -> Option<String> {
    match &incoming.parsed {
        Ok(Message::Event(event)) => Some(event.event_id.to_string()),
        Ok(Message::Seal(_)) => None,
        Err(unreadable) => Some(unreadable.event_id.map_or_else(|| content_id(&incoming.payload), |id| id.to_string())),
    }
}
