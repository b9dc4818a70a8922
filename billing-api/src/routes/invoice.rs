//! `GET /billing/invoice/{tenant_id}`: the open period's invoice; and `…/{number}`: that of any period.

use axum::extract::State;
use axum::response::Response;
use goldleaves_billing::{Invoice, InvoiceLine, UnitsTotal};
use goldleaves_domain::TenantId;

use crate::answer::ApiError;
use crate::ask::Ask;
use crate::cell::{Cell, Item};
use crate::contract::bills as contract;
use crate::csv::{self, Form};
use crate::long;
use crate::routes::number;
use crate::rows;
use crate::state::BillingApi;

pub(crate) async fn get(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let operation = if asked.rest.is_empty() { &contract::OPEN_INVOICE } else { &contract::ONE_INVOICE };
    let query = ask.query_of(&asked, operation)?;
    let form = ask.form(&query)?;
    let number = asked.rest.first().map(|text| number(text)).transpose()?;
    if let Some(number) = number
        && let Some(invoice) = api.billing().closed_invoice(&asked.tenant, number).await?
    {
        return closed(&api, &ask, asked.tenant.clone(), form, &invoice).await;
    }
    let mut invoice = api.billing().open_invoice(&asked.tenant).await?;
    if let Some(number) = number
        && number != invoice.number
    {
        return Err(ApiError::NoPeriod { number, open: invoice.number });
    }
    csv::check_rows(i64::try_from(invoice.lines.len()).unwrap_or(i64::MAX))?;
    let lines = std::mem::take(&mut invoice.lines).into_iter().map(|line| line_item(&line));
    match form {
        Form::Json => Ok(long::answer(rows::of_items(long::around(&invoice_item(&invoice), "lines"), lines))),
        Form::Csv => csv::answer("invoice", &contract::LINE.names(), lines),
    }
}

/// A closed period's invoice; its lines are read as the client takes them.
async fn closed(
    api: &BillingApi,
    ask: &Ask,
    tenant: TenantId,
    form: Form,
    invoice: &Invoice,
) -> Result<Response, ApiError> {
    let (billing, number) = (api.billing().clone(), invoice.number);
    if form == Form::Csv {
        csv::check_rows(billing.count_lines(&tenant, number).await?)?;
    }
    let pages = move |page| {
        let (billing, tenant) = (billing.clone(), tenant.clone());
        async move {
            let page = billing.lines_of(&tenant, number, &page).await?;
            Ok((page.items.iter().map(line_item).collect(), page.next))
        }
    };
    match form {
        Form::Csv => csv::stream("invoice", &contract::LINE.names(), ask.again(), pages).await,
        Form::Json => {
            let body = rows::of_pages(long::around(&invoice_item(invoice), "lines"), ask.again(), pages).await?;
            Ok(long::answer(body))
        }
    }
}

/// An invoice without its lines, which are written one by one.
fn invoice_item(invoice: &Invoice) -> Item {
    Item::new(
        &contract::INVOICE,
        [
            Cell::text(&invoice.tenant_id),
            Cell::number(invoice.number),
            Cell::text(invoice.state.as_str()),
            Cell::text(invoice.period.start()),
            Cell::text(invoice.period.end()),
            Cell::text(&invoice.time_zone),
            Cell::List(Vec::new()),
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
