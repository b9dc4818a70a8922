//! The effect of changed verdicts on corrections: the difference, as rows that follow.
//!
//! A void is of an event and its repeats, whoever is billed of them. Where a late event changes that, the rule of
//! `goldleaves_domain::Corrections` says what is to be added. Nothing here makes a correction that nobody asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use goldleaves_domain::{BilledRow, CorrectionPlace, Corrections, Difference, EventId, Verdict};
use goldleaves_store::{Params, Rows, Transaction, read};
use uuid::Uuid;

use crate::LedgerError;
use crate::batch::EventRow;
use crate::record::totals::Totals;

/// A set of events, as it was judged with those that came.
pub(super) struct Judged<'a> {
    /// The verdict on every event of the set that a verdict can change.
    pub(super) verdicts: Vec<(EventId, Verdict)>,
    /// Where the rows that were there count, and what.
    pub(super) known: HashMap<EventId, (CorrectionPlace, i64)>,
    /// The events that came.
    pub(super) newcomers: Vec<&'a EventRow<'a>>,
}

/// The corrections that name events of a set.
#[derive(Default)]
struct NamingCorrections {
    corrections: Corrections,
    tenant_id: String,
    /// The correction that rows follow.
    first: Option<Uuid>,
}

/// Adds the rows that follow from these verdicts. `versions` are the rate versions of the rows that went in.
pub(super) async fn write(
    transaction: &Transaction,
    judged: &[Judged<'_>],
    versions: &HashMap<Uuid, i64>,
    totals: &mut Totals,
) -> Result<(), LedgerError> {
    // Nobody can have named an event before it was there.
    let ids: BTreeSet<Uuid> = judged.iter().flat_map(|set| set.known.keys().map(|id| *id.as_uuid())).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let sets: HashMap<EventId, usize> =
        judged.iter().enumerate().flat_map(|(at, set)| set.known.keys().map(move |id| (*id, at))).collect();
    let named = read_named(transaction, &ids, &sets).await?;
    for (at, named) in named {
        let Some(set) = judged.get(at) else { continue };
        for change in named.corrections.changes(&set.billed(versions)) {
            insert(transaction, &named, &change).await?;
            totals.changed(&named.tenant_id, change.place.ts.hour());
        }
    }
    Ok(())
}

impl Judged<'_> {
    /// The rows that are billed now, each with its repeats.
    fn billed(&self, versions: &HashMap<Uuid, i64>) -> Vec<BilledRow> {
        let mut repeats: BTreeMap<EventId, Vec<EventId>> = BTreeMap::new();
        for (id, verdict) in &self.verdicts {
            if let Verdict::RepeatOf(of) = verdict {
                repeats.entry(*of).or_default().push(*id);
            }
        }
        let billed = self.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Billed);
        billed
            .filter_map(|(id, _)| {
                let (place, units_micro) = self.row(*id, versions)?;
                Some(BilledRow { event_id: *id, place, units_micro, repeats: repeats.remove(id).unwrap_or_default() })
            })
            .collect()
    }

    fn row(&self, id: EventId, versions: &HashMap<Uuid, i64>) -> Option<(CorrectionPlace, i64)> {
        if let Some(known) = self.known.get(&id) {
            return Some(known.clone());
        }
        let row = self.newcomers.iter().find(|row| row.event.event_id == id)?;
        let place = CorrectionPlace {
            ts: row.event.ts,
            route: row.event.route.as_str().to_owned(),
            action: row.event.action.as_str().to_owned(),
            rate_version: *versions.get(id.as_uuid())?,
        };
        Some((place, row.units_micro()))
    }
}

async fn read_named(
    transaction: &Transaction,
    ids: &BTreeSet<Uuid>,
    sets: &HashMap<EventId, usize>,
) -> Result<BTreeMap<usize, NamingCorrections>, LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let ids = Rows::new(dialect).column("wanted", ids.iter().copied()).query(&mut params);
    let sql = format!(
        "SELECT c.id, c.tenant_id, c.kind, c.event_id, c.ts, c.route, c.action, c.rate_version, c.events, c.units_micro \
         FROM ({ids}) AS i JOIN usage_corrections AS c ON c.event_id = i.wanted ORDER BY c.created_at, c.id"
    );
    let mut named: BTreeMap<usize, NamingCorrections> = BTreeMap::new();
    for row in transaction.query(&sql, params).await? {
        let event_id = EventId::new(dialect.read_uuid(&row, "event_id")?);
        let Some(at) = sets.get(&event_id) else { continue };
        let set = named.entry(*at).or_default();
        let (kind, units_micro): (String, i64) = (read(&row, "kind")?, read(&row, "units_micro")?);
        match kind.as_str() {
            "void" => set.corrections.void(event_id),
            "adjust" => set.corrections.adjust(event_id, units_micro),
            _ => {}
        }
        if kind != "follow" && set.first.is_none() {
            set.first = Some(dialect.read_uuid(&row, "id")?);
        }
        set.tenant_id = read(&row, "tenant_id")?;
        let place = CorrectionPlace {
            ts: dialect.read_time(&row, "ts")?,
            route: read(&row, "route")?,
            action: read(&row, "action")?,
            rate_version: read(&row, "rate_version")?,
        };
        set.corrections.wrote(&Difference {
            event_id,
            place,
            events: read(&row, "events")?,
            units_micro: units_micro.into(),
        });
    }
    Ok(named)
}

async fn insert(transaction: &Transaction, named: &NamingCorrections, change: &Difference) -> Result<(), LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let follows = match named.first {
        Some(first) => params.bind(dialect.uuid(first)),
        None => "NULL".to_owned(),
    };
    let values = [
        params.bind(dialect.uuid(Uuid::now_v7())),
        params.bind(named.tenant_id.as_str()),
        "'follow'".to_owned(),
        params.bind(dialect.uuid(*change.event_id.as_uuid())),
        follows,
        params.bind(dialect.time(change.place.ts)),
        params.bind(change.place.route.as_str()),
        params.bind(change.place.action.as_str()),
        params.bind(change.place.rate_version),
        params.bind(change.events),
        params.bind(i64::try_from(change.units_micro).unwrap_or_default()),
        "0, 'goldleaves', 'a late event changed what is billed'".to_owned(),
        dialect.now().to_owned(),
    ];
    let sql = format!(
        "INSERT INTO usage_corrections (id, tenant_id, kind, event_id, follows, ts, route, action, rate_version, events, \
             units_micro, cents, actor, reason, created_at) VALUES ({})",
        values.join(", ")
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}
