//! Long answers, written while their rows are read or made: no more than a few thousand of them are held at once, whatever the form.
//!
//! What it does not do: it knows no form. CSV is in [`crate::csv`], objects with a long list are in [`crate::long`].

use std::convert::Infallible;
use std::future::Future;

use axum::body::{Body, Bytes};
use futures_util::StreamExt as _;
use futures_util::future::ready;
use futures_util::stream;
use goldleaves_billing::{Cursor, Page};

use crate::answer::ApiError;
use crate::cell::Item;
use crate::turns::Again;

/// Rows that are read, or written, at once.
const ROWS_AT_ONCE: u32 = 2_000;

/// The form of an answer around its rows.
pub(crate) struct Frame {
    /// The text before the first row.
    pub(crate) before: String,
    /// Writes a row.
    pub(crate) row: fn(&mut String, &Item),
    /// The text between two rows.
    pub(crate) between: &'static str,
    /// The text behind the last row.
    pub(crate) after: String,
}

/// An answer in the making.
pub(crate) struct Writer {
    frame: Frame,
    has_rows: bool,
}

impl Writer {
    pub(crate) const fn new(frame: Frame) -> Self {
        Self { frame, has_rows: false }
    }

    /// The next piece of the answer.
    fn rows(&mut self, items: impl IntoIterator<Item = Item>) -> String {
        let mut text = std::mem::take(&mut self.frame.before);
        for item in items {
            if self.has_rows {
                text.push_str(self.frame.between);
            }
            self.has_rows = true;
            (self.frame.row)(&mut text, &item);
        }
        text
    }

    fn end(&mut self) -> String {
        std::mem::take(&mut self.frame.after)
    }
}

/// Rows that are known already: each is written when the client takes it.
pub(crate) fn of_items<I>(writer: Writer, items: I) -> Body
where
    I: ExactSizeIterator<Item = Item> + Send + 'static,
{
    let (mut writer, items) = (writer, items);
    if items.len() <= ROWS_AT_ONCE as usize {
        let text = writer.rows(items) + &writer.end();
        return Body::from(text);
    }
    let chunks = stream::unfold(Some((writer, items)), |state| async move {
        let (mut writer, mut items) = state?;
        let mut text = writer.rows(items.by_ref().take(ROWS_AT_ONCE as usize));
        if items.len() > 0 {
            return Some((Ok::<_, Infallible>(Bytes::from(text)), Some((writer, items))));
        }
        text.push_str(&writer.end());
        Some((Ok(Bytes::from(text)), None))
    });
    Body::from_stream(chunks)
}

/// Rows that are read page by page while the client takes them. What is wrong with the first page is said instead of an answer.
pub(crate) async fn of_pages<F, P>(writer: Writer, turns: Again, pages: F) -> Result<Body, ApiError>
where
    F: Fn(Page) -> P + Send + 'static,
    P: Future<Output = Result<(Vec<Item>, Option<Cursor>), ApiError>> + Send,
{
    let mut writer = writer;
    // In the turn that the call has.
    let (items, next) = pages(Page { limit: ROWS_AT_ONCE, cursor: None }).await?;
    let mut begin = writer.rows(items);
    if next.is_none() {
        begin.push_str(&writer.end());
        return Ok(Body::from(begin));
    }
    let rest = stream::try_unfold((next, writer, pages, turns), |(next, mut writer, pages, turns)| async move {
        let Some(cursor) = next else { return Ok(None) };
        // For one page: whoever takes its time to read must not keep others of its tenant waiting.
        let turn = turns.turn().await;
        let read = pages(Page { limit: ROWS_AT_ONCE, cursor: Some(cursor) }).await;
        let (items, next) = read.map_err(|error| {
            // The head has gone out: all that is left is to break off.
            tracing::error!(cause = ?error, "rows of an answer could not be read; the answer is broken off");
            std::io::Error::other("the rows could not be read")
        })?;
        drop(turn);
        let mut text = writer.rows(items);
        if next.is_none() {
            text.push_str(&writer.end());
        }
        Ok::<_, std::io::Error>(Some((Bytes::from(text), (next, writer, pages, turns))))
    });
    Ok(Body::from_stream(stream::once(ready(Ok(Bytes::from(begin)))).chain(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Cell;

    fn row(text: &mut String, item: &Item) {
        text.push_str(&serde_json::to_string(item).unwrap());
    }

    async fn written(count: u32) -> String {
        let (before, after) = ("[".to_owned(), "]".to_owned());
        let writer = Writer::new(Frame { before, row, between: ",", after });
        let items: Vec<Item> = (0..count).map(|n| Item::of(&["n"], [Cell::number(n)])).collect();
        let body = axum::body::to_bytes(of_items(writer, items.into_iter()), usize::MAX).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_row_is_written_once_however_many_there_are() {
        for count in [0, 1, 2, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE] {
            let text = written(count).await;
            let numbers: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
            assert!((0..count).eq(numbers.iter().map(|item| item["n"].as_u64().unwrap() as u32)), "{count}");
        }
    }
}
