//! `GET /billing/invoice/{tenant_id}`: the open period's invoice; and `…/{number}`: that of any period.

use axum::extract::State;
use axum::response::Response;
use goldleaves_billing::{Invoice, InvoiceLine, UnitsTotal};
use goldleaves_domain::TenantId;
use http::StatusCode;

use crate::answer::ApiError;
use crate::ask::Ask;
use crate::cell::{Cell, Item};
use crate::contract::bills as contract;
use crate::csv::{self, Form};
use crate::routes::number;
use crate::state::BillingApi;

pub(crate) async fn get(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let operation = if asked.rest.is_empty() { &contract::OPEN_INVOICE } else { &contract::ONE_INVOICE };
    let query = ask.query_of(&asked, operation)?;
    let form = ask.form(&query)?;
    let number = asked.rest.first().map(|text| number(text)).transpose()?;
    if let (Form::Csv, Some(number)) = (form, number)
        && let Some(lines) = api.billing().count_lines(&asked.tenant, number).await?
    {
        csv::check_rows(lines)?;
        return closed_as_csv(&api, (&ask, asked.tenant.clone()), number).await;
    }
    let invoice = match number {
        None => api.billing().open_invoice(&asked.tenant).await?,
        Some(number) => api.billing().invoice(&asked.tenant, number).await?.ok_or(ApiError::NotFound)?,
    };
    match form {
        Form::Json => Ok(invoice_item(&invoice, invoice.lines.iter().map(line_item).collect()).answer(StatusCode::OK)),
        Form::Csv => {
            csv::answer(("invoice", &contract::LINE.names()), invoice.lines.into_iter().map(|line| line_item(&line)))
        }
    }
}

/// The frozen lines, read as the client takes them.
async fn closed_as_csv(api: &BillingApi, (ask, tenant): (&Ask, TenantId), number: i64) -> Result<Response, ApiError> {
    let billing = api.billing().clone();
    csv::stream(("invoice", &contract::LINE.names()), ask.again(), move |page| {
        let (billing, tenant) = (billing.clone(), tenant.clone());
        async move {
            let page = billing.lines_of(&tenant, number, &page).await?;
            Ok((page.items.iter().map(line_item).collect(), page.next))
        }
    })
    .await
}

fn invoice_item(invoice: &Invoice, lines: Vec<Item>) -> Item {
    Item::new(
        &contract::INVOICE,
        [
            Cell::text(&invoice.tenant_id),
            Cell::number(invoice.number),
            Cell::text(invoice.state.as_str()),
            Cell::text(invoice.period.start()),
            Cell::text(invoice.period.end()),
            Cell::text(&invoice.time_zone),
            Cell::List(lines),
            Cell::number(invoice.total),
            Cell::text(&invoice.lines_hash),
        ],
    )
}

fn line_item(line: &InvoiceLine) -> Item {
    // An amount is of no route.
    let has_card = line.rate_version != 0;
    let named = |text: &str| if has_card { Cell::text(text) } else { Cell::Null };
    Item::new(
        &contract::LINE,
        [
            Cell::text(line.kind.as_str()),
            Cell::number(line.for_number),
            named(&line.route),
            named(&line.action),
            if has_card { Cell::number(line.rate_version) } else { Cell::Null },
            line.pricing.as_ref().map_or(Cell::Null, |pricing| Cell::Json(pricing.to_json().to_string())),
            Cell::number(line.events),
            Cell::number(UnitsTotal(line.units_micro)),
            Cell::number(line.cents),
        ],
    )
}
