//! Answers through the gateway held against the same answers from the application itself.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use goldleaves_testkit::client::Response;

/// Headers the gateway adds, or that belong to one connection or one moment.
const OWN: [&str; 7] =
    ["x-request-id", "x-usage-event-id", "x-usage-skipped", "date", "connection", "keep-alive", "via"];

/// Fails unless status line, headers, framing, body and trailers are the same, the gateway's own headers aside.
///
/// # Errors
/// They differ; the error says where.
pub fn same(direct: &Response, through: &Response) -> Result<()> {
    ensure!(direct.head.start == through.head.start, "{:?} became {:?}", direct.head.start, through.head.start);
    let (expected, found) = (headers(direct), headers(through));
    ensure!(expected == found, "headers\n{expected:?}\nbecame\n{found:?}");
    ensure!(direct.framing == through.framing, "{:?} became {:?}", direct.framing, through.framing);
    ensure!(direct.body.bytes == through.body.bytes, "the body differs: {}", difference(direct, through));
    ensure!(direct.body.trailers == through.body.trailers, "the trailers differ");
    Ok(())
}

/// All values by name in lower case, in their order.
fn headers(response: &Response) -> BTreeMap<String, Vec<&str>> {
    let mut all: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, value) in &response.head.headers {
        let name = name.to_ascii_lowercase();
        if !OWN.contains(&name.as_str()) {
            all.entry(name).or_default().push(value);
        }
    }
    all
}

fn difference(direct: &Response, through: &Response) -> String {
    let (expected, found) = (&direct.body.bytes, &through.body.bytes);
    let at = expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
    format!("{} bytes against {}, different from byte {at} on", expected.len(), found.len())
}
