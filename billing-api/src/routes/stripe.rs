//! Everything under `/billing/stripe` but the webhook: which usage is pushed, to which customer, and how far it has
//! come.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use goldleaves_billing::UnitsTotal;
use goldleaves_billing::stripe::rules::RowState;
use goldleaves_billing::stripe::{
    LaneKey, LaneReport, Mapping, NewMapping, NewMeter, PushFilter, PushRow, StoredMeter,
};
use goldleaves_domain::{RoutePattern, Timestamp};
use goldleaves_pricing::TimeZone;
use http::StatusCode;
use uuid::Uuid;

use crate::answer::ApiError;
use crate::ask::{Ask, Asked, list_range};
use crate::caller::Right;
use crate::cell::{self, Cell, Item};
use crate::contract::stripe as contract;
use crate::csv::{self, Form};
use crate::members::{Members, wrong};
use crate::routes::status_of;
use crate::state::BillingApi;

/// The longest name of a meter or an event.
pub(super) const NAME_BYTES_MAX: usize = 100;
/// The longest id of Stripe's.
const ID_BYTES_MAX: usize = 255;

pub(crate) async fn put_meter(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask.caller.check(Right::Admin)?;
    ask.query(&contract::SET_METER)?;
    let meter = name(ask.segment(), NAME_BYTES_MAX)
        .ok_or_else(|| ApiError::Parameter("the path must end in a meter's name of 1 to 100 characters".to_owned()))?;
    let members = Members::read(body, &contract::NEW_METER)?;
    members.reason()?;
    let route = match members.optional_text("route")?.unwrap_or_default() {
        "" => String::new(),
        _ => members.parsed::<RoutePattern>("route")?.as_str().to_owned(),
    };
    let places = match members.integer("places")? {
        0 => 0,
        6 => 6,
        _ => return Err(wrong("places", "must be 0 (whole units) or 6 (millionths)")),
    };
    let mut new = NewMeter {
        meter,
        event_name: text(&members, "event_name", NAME_BYTES_MAX)?,
        stripe_meter_id: text(&members, "stripe_meter_id", ID_BYTES_MAX)?,
        route,
        places,
        is_checked: false,
    };
    new.is_checked = is_fit(&api, &new).await?;
    let put = api.books().put_meter(&new, &ask.author(), &members.text).await?;
    Ok(meter_item(&put.stored).answer(status_of(put.is_new)))
}

/// Returns whether Stripe says that a meter fits; `false` where it can't be asked.
async fn is_fit(api: &BillingApi, new: &NewMeter) -> Result<bool, ApiError> {
    let Some(desk) = api.stripe() else { return Ok(false) };
    match desk.pusher.read_meter(&new.stripe_meter_id, &new.event_name).await? {
        None => Ok(false),
        Some(None) => Ok(true),
        Some(Some(unfit)) => Err(ApiError::MeterUnfit(format!("{}: {unfit}", new.stripe_meter_id))),
    }
}

pub(crate) async fn meters(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    ask.caller.check(Right::ReadAll)?;
    ask.query(&contract::METERS)?;
    let meters = api.books().meters().await?;
    Ok(cell::page(meters.iter().map(meter_item).collect(), None::<String>).answer(StatusCode::OK))
}

pub(crate) async fn put_mapping(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_change(Right::Admin)?;
    ask.query_of(&asked, &contract::SET_MAPPING)?;
    let meter = meter_of(&asked)?;
    let members = Members::read(body, &contract::NEW_MAPPING)?;
    members.reason()?;
    if !members.has("stripe_customer_id") {
        return Err(wrong("stripe_customer_id", "is missing: a customer of Stripe, or null for nobody"));
    }
    let stripe_customer_id = match members.optional_text("stripe_customer_id")? {
        Some(_) => Some(text(&members, "stripe_customer_id", ID_BYTES_MAX)?),
        None => None,
    };
    let from_hour = members.optional_moment("from_hour", TimeZone::UTC)?.map(whole_hour).transpose()?;
    let new = NewMapping { tenant_id: asked.tenant, meter, from_hour, stripe_customer_id };
    let put = api.books().map(&new, &ask.author(), &members.text).await?;
    if let Some(desk) = api.stripe() {
        desk.pusher.wake();
    }
    Ok(mapping_item(&put.stored).answer(status_of(put.is_new)))
}

pub(crate) async fn mappings(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    ask.caller.check(Right::ReadAll)?;
    let asked = ask.tenant_to_read()?;
    ask.query_of(&asked, &contract::MAPPINGS)?;
    let mappings = api.books().mappings(&asked.tenant).await?;
    Ok(cell::page(mappings.iter().map(mapping_item).collect(), None::<String>).answer(StatusCode::OK))
}

pub(crate) async fn pushes(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    ask.caller.check(Right::ReadAll)?;
    let asked = ask.tenant_to_read()?;
    let query = ask.query_of(&asked, &contract::PUSHES)?;
    let is_for_stripe = match query.get("format") {
        Some("stripe-csv") => true,
        None | Some("json" | "csv") => false,
        Some(_) => return Err(ApiError::Parameter("format must be json, csv or stripe-csv".to_owned())),
    };
    let form = if is_for_stripe { Form::Csv } else { ask.form(&query)? };
    let (_, range) = list_range(&api, Some(&asked.tenant), &query).await?;
    let paging = ask.paging(&contract::PUSHES, Some(asked.tenant.as_str()), &query, Some(&range))?;
    let meter = query.get("meter").map(str::to_owned);
    let filter = PushFilter { from: range.start(), to: range.end(), meter };
    let (books, tenant) = (api.books(), asked.tenant);
    if form == Form::Json {
        let page = books.pushes(&tenant, &filter, paging.page()).await?;
        return Ok(paging.answer(page.items.iter().map(push_item).collect(), page.next.as_ref()));
    }
    csv::check_rows(books.count_pushes(&tenant, &filter).await?)?;
    let columns = contract::PUSH.names();
    let (name, columns, item): (_, _, fn(&PushRow) -> Option<Item>) = if is_for_stripe {
        ("stripe-meter-events", contract::STRIPE_CSV.as_slice(), stripe_item)
    } else {
        ("pushes", columns.as_slice(), |row| Some(push_item(row)))
    };
    csv::stream(name, columns, ask.again(), move |page| {
        let (books, tenant, filter) = (books.clone(), tenant.clone(), filter.clone());
        async move {
            let page = books.pushes(&tenant, &filter, &page).await?;
            Ok((page.items.iter().filter_map(item).collect(), page.next))
        }
    })
    .await
}

pub(crate) async fn retry(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask.caller.check(Right::Admin)?;
    ask.query(&contract::RETRY)?;
    let id = Uuid::try_parse(ask.segment())
        .map_err(|_| ApiError::Parameter("the path must name a row by its id".to_owned()))?;
    let members = Members::read(body, &contract::RETRIED)?;
    members.reason()?;
    let row = api.books().retry(id, &ask.author(), &members.text).await?;
    if let Some(desk) = api.stripe() {
        desk.pusher.wake();
    }
    Ok(push_item(&row).answer(StatusCode::ACCEPTED))
}

pub(crate) async fn drift(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    ask.caller.check(Right::ReadAll)?;
    let query = ask.query(&contract::DRIFT)?;
    let paging = ask.paging(&contract::DRIFT, None, &query, None)?;
    let page = api.books().drift(paging.page()).await?;
    Ok(paging.answer(page.items.iter().map(lane_item).collect(), page.next.as_ref()))
}

pub(crate) async fn adopt(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask.caller.check(Right::Admin)?;
    ask.query(&contract::ADOPT)?;
    let members = Members::read(body, &contract::ADOPTING)?;
    members.reason()?;
    let lane = LaneKey {
        stripe_customer_id: text(&members, "stripe_customer_id", ID_BYTES_MAX)?,
        event_name: text(&members, "event_name", NAME_BYTES_MAX)?,
    };
    let Some(desk) = api.stripe() else {
        return Err(ApiError::NotPushing);
    };
    let adopted = desk.pusher.adopt(&lane, &ask.author(), &members.text).await?;
    let item = Item::new(
        &contract::ADOPTED,
        [
            Cell::text(&lane.stripe_customer_id),
            Cell::text(&lane.event_name),
            Cell::number(adopted.adopted),
            Cell::number(adopted.corrected),
            Cell::number(adopted.left),
        ],
    );
    Ok(item.answer(StatusCode::OK))
}

fn meter_of(asked: &Asked) -> Result<String, ApiError> {
    match asked.rest.as_slice() {
        [meter] => Ok(meter.clone()),
        _ => Err(ApiError::Parameter("the path must end in a meter's name".to_owned())),
    }
}

fn whole_hour(moment: Timestamp) -> Result<Timestamp, ApiError> {
    if moment.hour() == moment { Ok(moment) } else { Err(wrong("from_hour", "must be a whole hour of UTC")) }
}

fn name(text: &str, bytes_max: usize) -> Option<String> {
    let is_name = !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned())
}

pub(super) fn text(members: &Members, member: &str, bytes_max: usize) -> Result<String, ApiError> {
    let what = || wrong(member, &format!("must have 1 to {bytes_max} characters and no control characters"));
    name(members.text(member)?, bytes_max).ok_or_else(what)
}

fn meter_item(meter: &StoredMeter) -> Item {
    let route = if meter.route.is_empty() { Cell::Null } else { Cell::text(&meter.route) };
    Item::new(
        &contract::METER,
        [
            Cell::text(&meter.meter),
            Cell::text(&meter.event_name),
            Cell::text(&meter.stripe_meter_id),
            route,
            Cell::number(meter.places),
            Cell::text_or_null(meter.checked_at),
            Cell::text_or_null(meter.unfit.as_ref()),
        ],
    )
}

fn mapping_item(mapping: &Mapping) -> Item {
    Item::new(
        &contract::MAPPING,
        [
            Cell::text(&mapping.tenant_id),
            Cell::text(&mapping.meter),
            Cell::text(mapping.from_hour),
            Cell::text_or_null(mapping.stripe_customer_id.as_ref()),
            Cell::text(&mapping.actor),
            Cell::text(mapping.created_at),
        ],
    )
}

fn push_item(row: &PushRow) -> Item {
    let progress = &row.progress;
    Item::new(
        &contract::PUSH,
        [
            Cell::text(row.id),
            Cell::text(&row.tenant_id),
            Cell::text(&row.meter),
            Cell::text(row.hour),
            Cell::number(row.revision),
            Cell::number(UnitsTotal(row.units_micro)),
            Cell::number_or_null(row.value),
            Cell::text(progress.state.shown()),
            Cell::text(&row.origin),
            Cell::text_or_null(row.identifier.as_ref()),
            Cell::text_or_null(row.event_timestamp),
            Cell::number(progress.attempts),
            Cell::text_or_null(progress.first_attempt_at),
            Cell::text_or_null(progress.next_attempt_at),
            Cell::text_or_null(progress.pushed_at),
            Cell::text_or_null(progress.confirmed_at),
            Cell::text_or_null(progress.last_error.as_ref()),
        ],
    )
}

/// A row as the dashboard of Stripe takes it. What Stripe has already, and what may be there, is not among them.
fn stripe_item(row: &PushRow) -> Option<Item> {
    if row.progress.state != RowState::Pending || row.value == Some(0) {
        return None;
    }
    let lane = row.lane.as_ref()?;
    let timestamp = row.event_timestamp?.unix_micros() / 1_000_000;
    Some(Item::of(
        &contract::STRIPE_CSV,
        [
            Cell::text(row.identifier.as_ref()?),
            Cell::number(timestamp),
            Cell::text(&lane.event_name),
            Cell::text(&lane.stripe_customer_id),
            Cell::number(row.value?),
        ],
    ))
}

fn lane_item(lane: &LaneReport) -> Item {
    Item::new(
        &contract::LANE,
        [
            Cell::text(&lane.lane.stripe_customer_id),
            Cell::text(&lane.lane.event_name),
            Cell::number(lane.ledger),
            Cell::number(lane.unsealed),
            Cell::number(lane.pending),
            Cell::number(lane.held),
            Cell::number(lane.failed),
            Cell::number(lane.pushed),
            Cell::number_or_null(lane.stripe),
            Cell::number_or_null(lane.drift),
            Cell::text_or_null(lane.blocked.as_ref()),
            Cell::text_or_null(lane.read_back_at),
        ],
    )
}
