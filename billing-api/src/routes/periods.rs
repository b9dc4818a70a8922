//! `PUT /billing/periods/{tenant_id}/{number}` and `GET /billing/periods/{tenant_id}`.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use goldleaves_billing::{ClosedPeriod, NewPeriod};

use crate::answer::ApiError;
use crate::ask::Ask;
use crate::caller::Right;
use crate::cell::{Cell, Item};
use crate::contract::bills as contract;
use crate::members::Members;
use crate::routes::{number, status_of};
use crate::state::BillingApi;

pub(crate) async fn put(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_change(Right::Write)?;
    ask.query_of(&asked, &contract::CLOSE)?;
    let [text] = asked.rest.as_slice() else {
        return Err(ApiError::Parameter("the path must end in the period's number".to_owned()));
    };
    let number = number(text)?;
    let members = Members::read(body, &contract::NEW_PERIOD)?;
    let reason = members.reason()?;
    let zone = api.billing().time_zone(&asked.tenant).await?;
    let new = NewPeriod {
        tenant_id: asked.tenant,
        number,
        starts_at: members.optional_billed_moment("starts_at", zone)?,
        ends_at: members.optional_moment("ends_at", zone)?,
        reason,
    };
    let put = api.billing().close_period(&new, &ask.author(), &members.text).await?;
    if put.is_new {
        api.metrics().closed(1);
    }
    Ok(period_item(&put.stored).answer(status_of(put.is_new)))
}

pub(crate) async fn list(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let query = ask.query_of(&asked, &contract::PERIODS)?;
    let paging = ask.paging(&contract::PERIODS, Some(asked.tenant.as_str()), &query, None)?;
    let page = api.billing().periods(&asked.tenant, paging.page()).await?;
    Ok(paging.answer(page.items.iter().map(period_item).collect(), page.next.as_ref()))
}

fn period_item(period: &ClosedPeriod) -> Item {
    Item::new(
        &contract::PERIOD,
        [
            Cell::number(period.number),
            Cell::text(period.period.start()),
            Cell::text(period.period.end()),
            Cell::text(period.closed_at),
            Cell::text(&period.actor),
            Cell::number(period.total),
            Cell::text(&period.lines_hash),
            Cell::number(period.unbilled_late),
        ],
    )
}
