//! Health checks: a GET now and then, over a connection of its own, one for each address and process, never metered.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Upstream;
use super::address::Address;
use super::outage::Reason;
use crate::edge::Health;
use crate::proxy::Speaks;

impl Upstream {
    /// Asks one address how it is; what it said so many times in a row is taken for the truth.
    pub(super) async fn ask(self: Arc<Self>, address: Arc<Address>, health: Health) {
        let asked = tokio::time::timeout(health.timeout, is_well(&address, &health, self.speaks())).await;
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
            tracing::warn!(upstream = self.name(), address = %address.target(), "its health check fails; calls go elsewhere");
        }
    }
}

/// The answer, whoever is first to see that the connection has ended with it.
async fn answer_over<T>(answer: impl Future<Output = T>, connection: impl Future) -> T {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = answer.as_mut() => answer,
        _ = connection => answer.await,
    }
}

async fn is_well(address: &Address, health: &Health, speaks: Speaks) -> bool {
    let Ok(wire) = address.dial.connect(speaks, health.timeout).await else { return false };
    let scheme = if address.origin.is_https() { "https" } else { "http" };
    let Ok(authority) = address.origin.authority().to_str() else { return false };
    let mut request = Request::new(Empty::<Bytes>::new());
    let target = match speaks {
        Speaks::One => health.path.parse(),
        Speaks::Two => format!("{scheme}://{authority}{}", health.path).parse(),
    };
    let Ok(target) = target else { return false };
    *request.uri_mut() = target;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("goldleaves-health"));
    if speaks == Speaks::One {
        headers.insert(HOST, address.origin.authority().clone());
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let answer = match speaks {
        Speaks::One => {
            let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(wire)).await else { return false };
            answer_over(sender.send_request(request), connection).await
        }
        Speaks::Two => {
            let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(wire)).await;
            let Ok((mut sender, connection)) = shaken else { return false };
            answer_over(sender.send_request(request), connection).await
        }
    };
    answer.is_ok_and(|answer| health.statuses.contains(answer.status().as_u16()))
}
