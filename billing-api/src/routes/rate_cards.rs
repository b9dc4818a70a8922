//! `PUT /billing/rate-cards/{id}`, `GET /billing/rate-cards` and `POST /billing/rate-cards/preview`.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use goldleaves_billing::{Difference, NewCard, Preview, StoredCard};
use goldleaves_domain::{Action, RoutePattern, TenantId};
use goldleaves_pricing::{Pricing, Selector, TimeZone};
use http::StatusCode;
use uuid::Uuid;

use crate::answer::ApiError;
use crate::ask::{Ask, zone};
use crate::caller::Right;
use crate::cell::{Cell, Item};
use crate::contract::{TENANT, cards as contract};
use crate::members::{Members, wrong};
use crate::query;
use crate::routes::status_of;
use crate::state::BillingApi;

pub(crate) async fn put(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask.caller.check(Right::Admin)?;
    ask.query(&contract::ADD)?;
    let id = Uuid::try_parse(ask.segment())
        .map_err(|_| ApiError::Parameter("the path must end in a UUID that you choose".to_owned()))?;
    let members = Members::read(body, &contract::NEW_CARD)?;
    let (selector, pricing) = price(&members)?;
    let zone = zone_of(&api, &selector).await?;
    let effective_from = members.optional_moment("effective_from", zone)?;
    let effective_from = effective_from.ok_or_else(|| wrong("effective_from", "is missing"))?;
    let new = NewCard { id, selector, pricing, effective_from, reason: members.reason()? };
    let put = api.billing().add_card(&new, &ask.author(), &members.text).await?;
    Ok(card_item(&put.stored).answer(status_of(put.is_new)))
}

/// The zone of the days that a card is told with: that of its tenant, where it is of one.
async fn zone_of(api: &BillingApi, selector: &Selector) -> Result<TimeZone, ApiError> {
    match selector.tenant_id.as_str() {
        "" => Ok(api.billing().default_zone()),
        name => {
            let tenant = name.parse().map_err(|error| wrong(TENANT, &format!("is wrong: {error}")))?;
            Ok(api.billing().time_zone(&tenant).await?)
        }
    }
}

/// Returns the usage that a body's card prices, and the way it does.
fn price(members: &Members) -> Result<(Selector, Pricing), ApiError> {
    // An empty text would be a price for everybody where one tenant's was meant.
    let part = |name: &str| match members.optional_text(name)? {
        Some("") => Err(wrong(name, "must not be empty: leave it out, or give null, for all of them")),
        text => Ok(text.unwrap_or_default()),
    };
    if !part("tenant_id")?.is_empty() {
        members.parsed::<TenantId>("tenant_id")?;
    }
    if !part("action")?.is_empty() {
        members.parsed::<Action>("action")?;
    }
    let route = match part("route")? {
        "" => String::new(),
        _ => members.parsed::<RoutePattern>("route")?.as_str().to_owned(),
    };
    let selector = Selector { tenant_id: part("tenant_id")?.to_owned(), route, action: part("action")?.to_owned() };
    let value = members.value("pricing").ok_or_else(|| wrong("pricing", "is missing"))?;
    let pricing = Pricing::from_json(value).map_err(|error| ApiError::BodyInvalid(error.to_string()))?;
    if pricing == Pricing::Inherit && selector.is_default() {
        return Err(wrong("pricing", "inherit ends the card of a tenant, a route or an action: name at least one"));
    }
    Ok((selector, pricing))
}

pub(crate) async fn list(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    // Before any other parameter is looked at: of a foreign tenant nothing is told, however its name is written.
    let tenant = if ask.names_tenant() { Some(ask.tenant_to_read()?.tenant) } else { None };
    let query = ask.query(&contract::LIST)?;
    if tenant.is_none() {
        ask.caller.check(Right::ReadAll)?;
    }
    let paging = ask.paging(&contract::LIST, tenant.as_ref().map(TenantId::as_str), &query, None)?;
    let at = match query.get("at") {
        Some(text) => Some(query::moment(zone(&api, tenant.as_ref(), &query).await?, "at", text)?),
        None => None,
    };
    let page = api.billing().cards(tenant.as_ref(), at, paging.page()).await?;
    Ok(paging.answer(page.items.iter().map(card_item).collect(), page.next.as_ref()))
}

pub(crate) async fn preview(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask.caller.check(Right::ReadAll)?;
    ask.query(&contract::PREVIEW_CALL)?;
    let members = Members::read(body, &contract::TRIED_CARD)?;
    let (start, end) = (members.optional_text("start_date")?, members.optional_text("end_date")?);
    let (selector, pricing) = price(&members)?;
    if members.value("reason").is_some() {
        members.reason()?;
    }
    let range = query::range(zone_of(&api, &selector).await?, start, end, api.now()?).map_err(|error| match error {
        ApiError::Parameter(detail) => ApiError::BodyInvalid(detail),
        error => error,
    })?;
    let preview = api.billing().preview(selector, pricing, &range).await?;
    Ok(preview_item(&preview).answer(StatusCode::OK))
}

/// A part of a selector; nothing is any.
fn part(text: &str) -> Cell {
    if text.is_empty() { Cell::Null } else { Cell::text(text) }
}

fn card_item(stored: &StoredCard) -> Item {
    let card = &stored.card;
    Item::new(
        &contract::CARD,
        [
            Cell::number(card.version),
            Cell::text_or_null(card.id),
            part(&card.selector.tenant_id),
            part(&card.selector.route),
            part(&card.selector.action),
            Cell::Json(card.pricing.to_json().to_string()),
            Cell::text(card.effective_from),
            Cell::text(card.origin.as_str()),
            Cell::text_or_null(card.actor.as_ref()),
            Cell::text_or_null(card.reason.as_ref()),
            Cell::text(stored.created_at),
        ],
    )
}

fn difference_item(difference: &Difference) -> Item {
    Item::new(
        &contract::DIFFERENCE,
        [
            Cell::text(&difference.tenant_id),
            Cell::number(difference.units),
            Cell::number(difference.now),
            Cell::number(difference.with),
        ],
    )
}

fn preview_item(preview: &Preview) -> Item {
    Item::new(
        &contract::PREVIEW,
        [
            Cell::List(preview.tenants.iter().map(difference_item).collect()),
            Cell::number(preview.units),
            Cell::number(preview.now),
            Cell::number(preview.with),
        ],
    )
}
