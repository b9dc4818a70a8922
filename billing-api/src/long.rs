//! Objects that hold a long list, as JSON that is written while the list is read.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::cell::Item;
use crate::rows::{Frame, Writer};

/// The form of an answer that is this object, whose member of this name is a list with the rows.
pub(crate) fn around(item: &Item, list: &str) -> Writer {
    let (mut before, mut after) = ("{".to_owned(), String::new());
    for (at, (name, cell)) in item.members().enumerate() {
        let text = if after.is_empty() { &mut before } else { &mut after };
        let comma = if at > 0 { "," } else { "" };
        if name == list {
            *text += &format!("{comma}{}:[", json(&name));
            after.push(']');
        } else {
            *text += &format!("{comma}{}:{}", json(&name), json(cell));
        }
    }
    after.push('}');
    Writer::new(Frame { before, row, between: ",", after })
}

/// An answer that is JSON already.
pub(crate) fn answer(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

fn json(value: &impl Serialize) -> String {
    // Numbers and JSON in answers come from what writes nothing else.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// An object as a row of a list.
fn row(text: &mut String, item: &Item) {
    text.push_str(&json(item));
}
