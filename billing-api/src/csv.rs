//! Answers as CSV: RFC 4180, streamed, and safe to open in a spreadsheet.

use std::fmt::Write as _;
use std::future::Future;

use axum::body::Body;
use axum::response::Response;
use goldleaves_billing::{Cursor, Page};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};

use crate::answer::ApiError;
use crate::cell::{Cell, Item};
use crate::rows::{self, Frame, Writer};
use crate::turns::Again;

/// The most rows of an answer.
pub(crate) const ROWS_MAX: u32 = 1_000_000;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Csv,
}

/// The form that the query asks for, else the one that `Accept` prefers; of two that it likes as well, JSON.
pub(crate) fn form(format: Option<&str>, accept: &[String]) -> Result<Form, ApiError> {
    match format {
        Some("csv") => return Ok(Form::Csv),
        Some("json") => return Ok(Form::Json),
        Some(_) => return Err(ApiError::Parameter("format must be json or csv".to_owned())),
        None => {}
    }
    let ranges: Vec<MediaRange<'_>> =
        accept.iter().flat_map(|value| value.split(',')).filter_map(MediaRange::read).collect();
    if ranges.is_empty() {
        return Ok(Form::Json);
    }
    let (json, csv) = (quality(&ranges, "application", "json"), quality(&ranges, "text", "csv"));
    match (json, csv) {
        (0, 0) => Err(ApiError::NotAcceptable),
        (json, csv) if csv > json => Ok(Form::Csv),
        _ => Ok(Form::Json),
    }
}

/// A media range of `Accept`.
struct MediaRange<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths.
    quality: u32,
}

impl<'a> MediaRange<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(1.0, |text| text.parse::<f32>().unwrap_or(1.0)).clamp(0.0, 1.0);
        Some(Self { kind, subtype, quality: (quality * 1000.0) as u32 })
    }

    /// Returns how closely it names a type, `None` when it does not.
    fn closeness(&self, kind: &str, subtype: &str) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (own, "*") if own.eq_ignore_ascii_case(kind) => Some(1),
            (own, other) if own.eq_ignore_ascii_case(kind) && other.eq_ignore_ascii_case(subtype) => Some(2),
            _ => None,
        }
    }
}

fn quality(ranges: &[MediaRange<'_>], kind: &str, subtype: &str) -> u32 {
    let closest = ranges.iter().filter_map(|range| Some((range.closeness(kind, subtype)?, range.quality))).max();
    closest.map_or(0, |(_, quality)| quality)
}

/// Refuses more rows than an answer holds.
pub(crate) fn check_rows(rows: i64) -> Result<(), ApiError> {
    if rows <= i64::from(ROWS_MAX) {
        return Ok(());
    }
    Err(too_many_rows())
}

/// Says that there are more rows than an answer holds.
pub(crate) fn too_many_rows() -> ApiError {
    let detail = format!("there are more than the {ROWS_MAX} rows of an answer; ask for a shorter range");
    let code = goldleaves_billing::RefusalCode::TooManyRows;
    ApiError::Billing(goldleaves_billing::Refusal::new(code, detail).into())
}

/// Rows that are known already, as an answer.
pub(crate) fn answer<I>(name: &str, columns: &[&str], items: I) -> Result<Response, ApiError>
where
    I: ExactSizeIterator<Item = Item> + Send + 'static,
{
    check_rows(i64::try_from(items.len()).unwrap_or(i64::MAX))?;
    Ok(respond(name, rows::of_items(form_of(columns), items)))
}

/// Rows that are read page by page while the client takes them, as an answer. What is wrong with the first page is said
/// instead of an answer.
pub(crate) async fn stream<F, P>(name: &str, columns: &[&str], turns: Again, pages: F) -> Result<Response, ApiError>
where
    F: Fn(Page) -> P + Send + 'static,
    P: Future<Output = Result<(Vec<Item>, Option<Cursor>), ApiError>> + Send,
{
    Ok(respond(name, rows::of_pages(form_of(columns), turns, pages).await?))
}

fn form_of(columns: &[&str]) -> Writer {
    Writer::new(Frame { before: header(columns), row, between: "", after: String::new() })
}

fn respond(name: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}.csv\""));
    headers.insert(CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment")));
    response
}

fn header(columns: &[&str]) -> String {
    let mut text = columns.join(",");
    text.push_str("\r\n");
    text
}

fn row(text: &mut String, item: &Item) {
    for (at, cell) in item.cells().iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        match cell {
            Cell::Null => {}
            Cell::Number(number) => text.push_str(number),
            Cell::Text(value) => quoted(text, value),
            Cell::Json(value) => quoted(text, value),
            nested => quoted(text, &serde_json::to_string(nested).unwrap_or_default()),
        }
    }
    text.push_str("\r\n");
}

/// A text as a cell. What a spreadsheet would take for a formula gets an apostrophe before it.
fn quoted(text: &mut String, value: &str) {
    let guard = if value.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if value.contains(['"', ',', '\r', '\n']) {
        // Writing to a text never fails.
        let _ = write!(text, "\"{guard}{}\"", value.replace('"', "\"\""));
    } else {
        text.push_str(guard);
        text.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &[&str]) -> Option<Form> {
        let accept: Vec<String> = accept.iter().map(|&value| value.to_owned()).collect();
        form(None, &accept).ok()
    }

    #[test]
    fn accept_is_weighed_and_json_wins_a_tie() {
        assert_eq!(wanted(&[]), Some(Form::Json));
        assert_eq!(wanted(&["*/*"]), Some(Form::Json));
        assert_eq!(wanted(&["text/csv"]), Some(Form::Csv));
        assert_eq!(wanted(&["text/*"]), Some(Form::Csv));
        assert_eq!(wanted(&["text/csv, application/json"]), Some(Form::Json));
        assert_eq!(wanted(&["application/json;q=0.5, text/csv;q=0.9"]), Some(Form::Csv));
        assert_eq!(wanted(&["application/json;q=0.5", "text/csv; q=0.4"]), Some(Form::Json));
        assert_eq!(wanted(&["*/*;q=0.1, text/csv"]), Some(Form::Csv));
        assert_eq!(wanted(&["text/csv;q=0"]), None);
        assert_eq!(wanted(&["text/html"]), None);
        assert_eq!(form(Some("csv"), &["text/html".to_owned()]).unwrap(), Form::Csv);
        assert!(matches!(form(Some("xml"), &[]), Err(ApiError::Parameter(_))));
    }

    #[test]
    fn cells_are_quoted_and_no_formula() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let item = Item::of(
            &names,
            [
                Cell::text("=HYPERLINK(\"http://x\",1)"),
                Cell::text("-1"),
                Cell::number("-1"),
                Cell::Null,
                Cell::text("two\r\nlines, \"quoted\""),
                Cell::text("@sum"),
            ],
        );
        let mut text = header(&names);
        row(&mut text, &item);
        assert_eq!(
            text,
            "a,b,c,d,e,f\r\n\"'=HYPERLINK(\"\"http://x\"\",1)\",'-1,-1,,\"two\r\nlines, \"\"quoted\"\"\",'@sum\r\n"
        );
    }
}
