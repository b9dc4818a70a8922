//! `GET /billing/invoice/{tenant_id}`: the open period's invoice; and `…/{number}`: that of any period.

use axum::extract::State;
use axum::response::Response;
use goldleaves_billing::{Invoice, InvoiceLine, UnitsTotal};
use http::StatusCode;

use crate::answer::ApiError;
use crate::ask::Ask;
use crate::cell::{Cell, Item};
use crate::csv::{self, Form};
use crate::routes::number;
use crate::state::BillingApi;

const INVOICE: [&str; 9] = [
    "tenant_id",
    "number",
    "state",
    "period_start",
    "period_end",
    "time_zone",
    "lines",
    "total_cost_cents",
    "lines_hash",
];
const LINE: [&str; 9] =
    ["kind", "for_number", "route", "action", "rate_version", "pricing", "events", "units", "cost_cents"];

pub(crate) async fn get(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let query = ask.query_of(&asked, &[&["format"]])?;
    let form = ask.form(&query)?;
    let invoice = match asked.rest.first() {
        None => api.billing().open_invoice(&asked.tenant).await?,
        Some(text) => {
            let invoice = api.billing().invoice(&asked.tenant, number(text)?).await?;
            invoice.ok_or(ApiError::NotFound)?
        }
    };
    let lines: Vec<Item> = invoice.lines.iter().map(line_item).collect();
    match form {
        Form::Json => Ok(invoice_item(&invoice, lines).answer(StatusCode::OK)),
        Form::Csv => Ok(csv::answer("invoice", &LINE, &lines)),
    }
}

fn invoice_item(invoice: &Invoice, lines: Vec<Item>) -> Item {
    Item::new(
        &INVOICE,
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
        &LINE,
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
