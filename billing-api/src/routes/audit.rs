//! `GET /billing/audit`: who changed what.

use axum::extract::State;
use axum::response::Response;
use goldleaves_billing::AuditRow;

use crate::answer::ApiError;
use crate::ask::{Ask, list_range};
use crate::caller::Right;
use crate::cell::{Cell, Item};
use crate::contract::{TENANT, audit as contract};
use crate::state::BillingApi;

pub(crate) async fn list(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    ask.caller.check(Right::Admin)?;
    let query = ask.query(&contract::LIST)?;
    let (_, range) = list_range(&api, None, &query).await?;
    let tenant = query.get(TENANT);
    let paging = ask.paging(&contract::LIST, tenant, &query, Some(&range))?;
    let page = api.billing().audit(&range, tenant, paging.page()).await?;
    Ok(paging.answer(page.items.iter().map(audit_item).collect(), page.next.as_ref()))
}

fn audit_item(row: &AuditRow) -> Item {
    let tenant = Some(&row.tenant_id).filter(|tenant| !tenant.is_empty());
    Item::new(
        &contract::AUDIT_ROW,
        [
            Cell::text(row.id),
            Cell::text(row.at),
            Cell::text(&row.actor),
            Cell::text(&row.roles),
            Cell::text(&row.request_id),
            Cell::text(&row.action),
            Cell::text_or_null(tenant),
            Cell::text(&row.body),
        ],
    )
}
