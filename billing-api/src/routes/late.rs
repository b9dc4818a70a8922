//! `GET /billing/late/{tenant_id}`: hours that changed after their end, and the period that they belong to.

use axum::extract::State;
use axum::response::Response;
use goldleaves_billing::LateHour;

use crate::answer::ApiError;
use crate::ask::{Ask, list_range};
use crate::cell::{Cell, Item};
use crate::contract::bills as contract;
use crate::state::BillingApi;

pub(crate) async fn list(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let query = ask.query_of(&asked, &contract::LATE)?;
    // Whatever the month, what is not billed yet is what is looked for.
    let has_range = ["start_date", "end_date", "month"].iter().any(|name| query.get(name).is_some());
    let range = if has_range { Some(list_range(&api, Some(&asked.tenant), &query).await?.1) } else { None };
    let paging = ask.paging(&contract::LATE, Some(asked.tenant.as_str()), &query, range.as_ref())?;
    let page = api.billing().late_hours(&asked.tenant, range.as_ref(), paging.page()).await?;
    Ok(paging.answer(page.items.iter().map(late_item).collect(), page.next.as_ref()))
}

fn late_item(late: &LateHour) -> Item {
    Item::new(
        &contract::LATE_HOUR,
        [
            Cell::text(late.hour),
            Cell::number(late.changes),
            Cell::text(late.changed_at),
            Cell::number_or_null(late.period_number),
        ],
    )
}
