//! `GET /billing/usage-events/{tenant_id}`: a tenant's events; and `…/{id}`: one of them, with everything that became of it.

use axum::extract::State;
use axum::response::Response;
use goldleaves_billing::{By, EventFilter, EventItem, EventState, Match, MeterState, Order};
use goldleaves_domain::TenantId;
use http::StatusCode;

use crate::answer::ApiError;
use crate::ask::{Ask, Asked, list_range};
use crate::cell::{Cell, Item};
use crate::contract::events as contract;
use crate::csv::{self, Form};
use crate::query::Query;
use crate::routes::corrections::correction_item;
use crate::state::BillingApi;

/// The list, or where the path goes on, one event.
pub(crate) async fn get(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    match asked.rest.as_slice() {
        [] => list(&api, &ask, &asked).await,
        [id] => one(&api, &ask, &asked, id).await,
        _ => ask.query_of(&asked, &contract::ONE).and(Err(ApiError::NotFound)),
    }
}

async fn list(api: &BillingApi, ask: &Ask, asked: &Asked) -> Result<Response, ApiError> {
    let query = ask.query_of(asked, &contract::LIST)?;
    let form = ask.form(&query)?;
    let (_, range) = list_range(api, Some(&asked.tenant), &query).await?;
    let paging = ask.paging(&contract::LIST, Some(asked.tenant.as_str()), &query, Some(&range))?;
    let text = |name: &str| query.get(name).map(str::to_owned);
    let filter = EventFilter {
        range,
        state: query.parsed("state")?.unwrap_or(EventState::Billed),
        route: text("route"),
        action: text("action"),
        user_id: text("user_id"),
        order: order(&query)?,
    };
    if form == Form::Csv {
        return as_csv(api, ask, asked.tenant.clone(), filter).await;
    }
    let page = api.billing().usage_events(&asked.tenant, &filter, paging.page()).await?;
    Ok(paging.answer(page.items.iter().map(event_item).collect(), page.next.as_ref()))
}

fn order(query: &Query) -> Result<Order, ApiError> {
    match query.get("order") {
        None | Some("asc") => Ok(Order::Ascending),
        Some("desc") => Ok(Order::Descending),
        Some(_) => Err(ApiError::Parameter("order must be asc or desc".to_owned())),
    }
}

async fn as_csv(api: &BillingApi, ask: &Ask, tenant: TenantId, filter: EventFilter) -> Result<Response, ApiError> {
    if api.billing().has_more_usage_events(&tenant, &filter, csv::ROWS_MAX).await? {
        return Err(csv::too_many_rows());
    }
    let billing = api.billing().clone();
    csv::stream("usage-events", &contract::EVENT.names(), ask.again(), move |page| {
        let (billing, tenant, filter) = (billing.clone(), tenant.clone(), filter.clone());
        async move {
            let page = billing.usage_events(&tenant, &filter, &page).await?;
            Ok((page.items.iter().map(event_item).collect(), page.next))
        }
    })
    .await
}

async fn one(api: &BillingApi, ask: &Ask, asked: &Asked, id: &str) -> Result<Response, ApiError> {
    let query = ask.query_of(asked, &contract::ONE)?;
    let by = match query.get("by") {
        None => By::Either,
        Some("event") => By::Event,
        Some("request") => By::Request,
        Some(_) => return Err(ApiError::Parameter("by must be event or request".to_owned())),
    };
    let matches = api.billing().find_event(&asked.tenant, id, by).await?;
    let matches = matches.iter().map(match_item).collect();
    Ok(Item::new(&contract::MATCHES, [Cell::List(matches)]).answer(StatusCode::OK))
}

fn event_item(event: &EventItem) -> Item {
    Item::new(
        &contract::EVENT,
        [
            Cell::text(&event.event_id),
            Cell::text_or_null(event.request_id.as_ref()),
            Cell::text_or_null(event.client_request_id.as_ref()),
            Cell::text(event.ts),
            Cell::text_or_null(event.user_id.as_ref()),
            Cell::text_or_null(event.route.as_ref()),
            Cell::text_or_null(event.action.as_ref()),
            Cell::number(event.units),
            Cell::text_or_null(event.outcome.as_ref()),
            Cell::text(event.state),
            Cell::text_or_null(event.duplicate_of),
            Cell::text_or_null(event.set_aside_reason.as_ref()),
            Cell::number_or_null(event.rate_version),
            Cell::number_or_null(event.cost_cents),
            event.metadata.clone().map_or(Cell::Null, Cell::Json),
            Cell::text_or_null(event.recorded_at),
        ],
    )
}

fn match_item(found: &Match) -> Item {
    let rate = found.card.as_ref().map_or(Cell::Null, |card| {
        let pricing = Cell::Json(card.pricing.to_json().to_string());
        Cell::Object(Item::new(&contract::EVENT_RATE, [pricing, Cell::text(card.effective_from)]))
    });
    let period = found.period.as_ref().map_or(Cell::Null, |period| {
        Cell::Object(Item::new(
            &contract::EVENT_PERIOD,
            [Cell::number(period.number), Cell::text(period.state.as_str()), Cell::text_or_null(period.closed_at)],
        ))
    });
    event_item(&found.item)
        .with("rate", rate)
        .with("period", period)
        .with("corrections", Cell::List(found.corrections.iter().map(correction_item).collect()))
        .with("stripe", Cell::List(found.stripe.iter().map(stripe_item).collect()))
}

fn stripe_item(state: &MeterState) -> Item {
    Item::new(
        &contract::EVENT_STRIPE,
        [
            Cell::text(&state.meter),
            Cell::text(state.hour),
            Cell::text(state.state.as_str()),
            Cell::number_or_null(state.through_revision),
            Cell::text_or_null(state.pushed_at),
            Cell::text_or_null(state.confirmed_at),
        ],
    )
}
