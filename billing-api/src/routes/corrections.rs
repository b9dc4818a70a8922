//! `PUT /billing/corrections/{id}` and `GET /billing/corrections/{tenant_id}`.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use goldleaves_billing::{Corrected, Correction, NewCorrection, UnitsTotal, Wanted};
use goldleaves_pricing::TimeZone;
use uuid::Uuid;

use crate::answer::ApiError;
use crate::ask::{Ask, list_range};
use crate::caller::Right;
use crate::cell::{Cell, Item};
use crate::contract::corrections as contract;
use crate::csv::{self, Form};
use crate::members::{Members, wrong};
use crate::routes::status_of;
use crate::state::BillingApi;

/// The most cents of one amount, either way: a sum of many of them is still one of 64 bits.
const CENTS_MAX: i64 = 1_000_000_000_000;

pub(crate) async fn put(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask.caller.check(Right::Write)?;
    ask.query(&contract::CORRECT)?;
    let id = Uuid::try_parse(ask.segment())
        .map_err(|_| ApiError::Parameter("the path must end in a UUID that you choose".to_owned()))?;
    let members = Members::read(body, &contract::NEW_CORRECTION)?;
    let tenant_id = members.parsed("tenant_id")?;
    let zone = if members.has("ts") { api.billing().time_zone(&tenant_id).await? } else { TimeZone::UTC };
    let new = NewCorrection { id, tenant_id, wanted: wanted(&members, zone)?, reason: members.reason()? };
    let Corrected { put, late_changes } = api.billing().correct(&new, &ask.author(), &members.text).await?;
    if put.is_new {
        api.metrics().corrected(put.stored.kind.as_str(), late_changes);
    }
    Ok(correction_item(&put.stored).answer(status_of(put.is_new)))
}

/// The change that a body asks for; its days are those of the zone.
fn wanted(members: &Members, zone: TimeZone) -> Result<Wanted, ApiError> {
    match members.text("kind")? {
        "void" => {
            members.only(&["kind", "tenant_id", "event_id", "reason"])?;
            Ok(Wanted::Void { event_id: members.parsed("event_id")? })
        }
        "adjust" => {
            members.only(&["kind", "tenant_id", "event_id", "units", "reason"])?;
            let units_micro = signed_units(members.text("units")?)?;
            Ok(Wanted::Adjust { event_id: members.parsed("event_id")?, units_micro })
        }
        "amount" => {
            members.only(&["kind", "tenant_id", "cents", "ts", "reason"])?;
            let cents = members.integer("cents")?;
            if cents == 0 || !(-CENTS_MAX..=CENTS_MAX).contains(&cents) {
                return Err(wrong("cents", &format!("must be from -{CENTS_MAX} to {CENTS_MAX} and not 0")));
            }
            Ok(Wanted::Amount { cents, ts: members.optional_billed_moment("ts", zone)? })
        }
        _ => Err(wrong("kind", "must be void, adjust or amount")),
    }
}

/// Units with a sign, in millionths.
fn signed_units(text: &str) -> Result<i64, ApiError> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let units: goldleaves_domain::Units =
        digits.parse().map_err(|error| wrong("units", &format!("is wrong: {error}")))?;
    let micro = i64::try_from(units.micro()).map_err(|_| wrong("units", "is too large"))?;
    if micro == 0 { Err(wrong("units", "must not be 0")) } else { Ok(sign * micro) }
}

pub(crate) async fn list(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let query = ask.query_of(&asked, &contract::LIST)?;
    let form = ask.form(&query)?;
    let (_, period) = list_range(&api, Some(&asked.tenant), &query).await?;
    let paging = ask.paging(&contract::LIST, Some(asked.tenant.as_str()), &query, Some(&period))?;
    if form == Form::Csv {
        csv::check_rows(api.billing().count_corrections(&asked.tenant, &period).await?)?;
        let (billing, tenant) = (api.billing().clone(), asked.tenant);
        return csv::stream("corrections", &contract::CORRECTION.names(), ask.again(), move |page| {
            let (billing, tenant) = (billing.clone(), tenant.clone());
            async move {
                let page = billing.corrections(&tenant, &period, &page).await?;
                Ok((page.items.iter().map(correction_item).collect(), page.next))
            }
        })
        .await;
    }
    let page = api.billing().corrections(&asked.tenant, &period, paging.page()).await?;
    Ok(paging.answer(page.items.iter().map(correction_item).collect(), page.next.as_ref()))
}

pub(crate) fn correction_item(correction: &Correction) -> Item {
    let is_of_event = correction.event_id.is_some();
    let of_event = |text: &str| if is_of_event { Cell::text(text) } else { Cell::Null };
    Item::new(
        &contract::CORRECTION,
        [
            Cell::text(correction.id),
            Cell::text(&correction.tenant_id),
            Cell::text(correction.kind.as_str()),
            Cell::text_or_null(correction.event_id),
            Cell::text_or_null(correction.follows),
            Cell::text(correction.ts),
            of_event(&correction.route),
            of_event(&correction.action),
            if is_of_event { Cell::number(correction.rate_version) } else { Cell::Null },
            Cell::number(correction.events),
            Cell::number(UnitsTotal(correction.units_micro.into())),
            Cell::number(correction.cents),
            Cell::text(&correction.actor),
            Cell::text(&correction.reason),
            Cell::text(correction.created_at),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_a_sign() {
        assert_eq!(signed_units("-0.5").unwrap(), -500_000);
        assert_eq!(signed_units("2").unwrap(), 2_000_000);
        for text in ["", "-", "0", "-0.0", "1e3", "--1", "0.0000001", "1000000001"] {
            assert!(matches!(signed_units(text), Err(ApiError::BodyInvalid(_))), "{text}");
        }
    }
}
