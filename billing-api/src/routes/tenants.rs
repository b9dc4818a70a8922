//! `GET /billing/tenants`: all tenants by what they used; and `PUT /billing/tenants/{tenant_id}`: a tenant's zone.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use goldleaves_billing::{TenantSort, TenantUsage};

use crate::answer::ApiError;
use crate::ask::{Ask, list_range};
use crate::caller::Right;
use crate::cell::{Cell, Item};
use crate::contract::tenants as contract;
use crate::csv::{self, Form};
use crate::members::Members;
use crate::routes::status_of;
use crate::state::BillingApi;

pub(crate) async fn list(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    ask.caller.check(Right::ReadAll)?;
    let query = ask.query(&contract::LIST)?;
    let form = ask.form(&query)?;
    let sort = query.parsed("sort")?.unwrap_or(TenantSort::Cost);
    let (_, range) = list_range(&api, None, &query).await?;
    let paging = ask.paging(&contract::LIST, None, &query, Some(&range))?;
    match form {
        Form::Json => {
            let page = api.billing().tenants(&range, sort, paging.page()).await?;
            Ok(paging.answer(page.items.iter().map(tenant_item).collect(), page.next.as_ref()))
        }
        Form::Csv => {
            let tenants = api.billing().every_tenant(&range, sort).await?;
            csv::answer(
                "tenants",
                &contract::TENANT_USAGE.names(),
                tenants.into_iter().map(|tenant| tenant_item(&tenant)),
            )
        }
    }
}

fn tenant_item(tenant: &TenantUsage) -> Item {
    Item::new(
        &contract::TENANT_USAGE,
        [
            Cell::text(&tenant.tenant_id),
            Cell::number(tenant.events),
            Cell::number(tenant.units),
            Cell::number(tenant.cost_cents),
        ],
    )
}

pub(crate) async fn put(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_change(Right::Admin)?;
    ask.query_of(&asked, &contract::SET_ZONE)?;
    let members = Members::read(body, &contract::NEW_ZONE)?;
    members.reason()?;
    let zone = members.parsed("time_zone")?;
    let put = api.billing().set_time_zone(&asked.tenant, zone, &ask.author(), &members.text).await?;
    let item = Item::new(&contract::ZONE, [Cell::text(&asked.tenant), Cell::text(put.stored)]);
    Ok(item.answer(status_of(put.is_new)))
}
