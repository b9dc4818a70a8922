//! Health checks: a GET now and then, over a connection of its own, one for each address and process, never metered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::Upstream;
use super::address::Address;
use super::outage::Reason;
use crate::edge::Health;
use crate::proxy::connect;

impl Upstream {
    /// Asks one address how it is; what it said so many times in a row is taken for the truth.
    pub(super) async fn ask(self: Arc<Self>, address: Arc<Address>, health: Health) {
        let asked = tokio::time::timeout(health.timeout, is_well(&address, &health)).await;
        let is_well = asked.unwrap_or(false);
        let (yes, no) = (&address.standing.passes, &address.standing.fails);
        let (counted, other) = if is_well { (yes, no) } else { (no, yes) };
        other.store(0, Ordering::Relaxed);
        let times = counted.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let needed = if is_well { health.pass } else { health.fail };
        if times < needed {
            return;
        }
        if address.standing.outage.healthy(self.clock.now(), is_well) {
            self.metrics.ejected(Reason::Health);
            tracing::warn!(upstream = self.name(), address = %address.target, "its health check fails; calls go elsewhere");
        }
    }
}

async fn is_well(address: &Address, health: &Health) -> bool {
    let Ok(stream) = connect(&address.target, health.timeout).await else { return false };
    let Ok((mut sender, connection)) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await else {
        return false;
    };
    let mut request = Request::new(Empty::new());
    let Ok(uri) = health.path.parse() else { return false };
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(HOST, address.origin.authority().clone());
    headers.insert(USER_AGENT, HeaderValue::from_static("goldleaves-health"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let answered = async { sender.send_request(request).await };
    let answer = tokio::select! {
        answer = answered => answer,
        _ = connection => return false,
    };
    answer.is_ok_and(|answer| health.statuses.contains(answer.status().as_u16()))
}
