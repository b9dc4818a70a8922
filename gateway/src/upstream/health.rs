//! Health checks: a GET now and then, over a connection of its own, one for each address and process, never metered.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use goldleaves_domain::BillableStatuses;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Upstream;
use super::address::Address;
use super::outage::Reason;
use crate::transport::Speaks;

/// The question whether an address is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) path: String,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) fail: u32,
    pub(crate) pass: u32,
    pub(crate) statuses: BillableStatuses,
}

impl Upstream {
    /// Asks one address how it is; what it said so many times in a row is taken for the truth.
    pub(super) async fn ask(self: Arc<Self>, address: Arc<Address>, health: Health) {
        let asked = tokio::time::timeout(health.timeout, probe(&address, &health, self.speaks())).await;
        let asked = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let is_well = asked.is_ok();
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
            let (upstream, address, why) = (self.name(), address.target(), asked.err());
            tracing::warn!(upstream, %address, why, "an upstream's health check fails; calls go elsewhere");
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

/// Asks once; the error says what is wrong.
async fn probe(address: &Address, health: &Health, speaks: Speaks) -> Result<(), String> {
    let wire = address.dial.connect(speaks, health.timeout).await.map_err(|error| error.why())?;
    let request = question(address, health, speaks).ok_or("the path of the check can't be asked for")?;
    let broke = |error: hyper::Error| format!("the connection broke: {error}");
    let answer = match speaks {
        Speaks::One => {
            let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await.map_err(broke)?;
            answer_over(sender.send_request(request), connection).await
        }
        Speaks::Two => {
            let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(wire)).await;
            let (mut sender, connection) = shaken.map_err(broke)?;
            answer_over(sender.send_request(request), connection).await
        }
    };
    let status = answer.map_err(broke)?.status();
    if health.statuses.contains(status.as_u16()) { Ok(()) } else { Err(format!("the answer is {status}")) }
}

fn question(address: &Address, health: &Health, speaks: Speaks) -> Option<Request<Empty<Bytes>>> {
    let authority = address.origin.authority();
    let mut request = Request::new(Empty::new());
    let scheme = if address.origin.is_https() { "https" } else { "http" };
    let target = match speaks {
        Speaks::One => health.path.clone(),
        Speaks::Two => format!("{scheme}://{}{}", authority.to_str().ok()?, health.path),
    };
    *request.uri_mut() = target.parse().ok()?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("goldleaves-health"));
    if speaks == Speaks::One {
        headers.insert(HOST, authority.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use goldleaves_domain::BillableStatuses;
    use goldleaves_testkit::secure::{Authority, Validity};
    use goldleaves_testkit::upstream::{Answer, Upstream as Server};

    use super::*;
    use crate::transport::{Dial, Security, Tls, TlsFiles};

    async fn asked(trusted: &Authority, server: &Server, path: &str) -> Result<(), String> {
        let origin: crate::transport::Origin =
            format!("https://127.0.0.1:{}", server.address().port()).parse().unwrap();
        let tls = Arc::new(Tls::read(TlsFiles { ca: Some(trusted.file()), ..TlsFiles::default() }).unwrap());
        let (target, security) = (origin.target().unwrap(), Security::of(&origin, Some(&tls)));
        let dial = Dial { target, security, timeout: Duration::from_secs(30) };
        let address = Address::new(dial, Arc::new(origin), Arc::default(), Box::default());
        let health = Health {
            path: path.to_owned(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            fail: 1,
            pass: 1,
            statuses: BillableStatuses::parse("2xx").unwrap(),
        };
        probe(&address, &health, Speaks::One).await
    }

    #[tokio::test]
    async fn a_probe_says_what_is_wrong() {
        let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
        let start = async |name, validity| {
            let identity = authority.sign(name, &["127.0.0.1"], validity).unwrap();
            let tls = Authority::server(&identity, &[], None).unwrap();
            let answer = |received: &goldleaves_testkit::upstream::Received| match received.target() {
                "/well" => Answer::ok(""),
                _ => Answer::ok("no").status(503),
            };
            Server::start_secure(tls, answer).await.unwrap()
        };
        let (good, expired) = (start("good", Validity::Good).await, start("old", Validity::Expired).await);
        assert_eq!(asked(&authority, &good, "/well").await, Ok(()));
        for (asked, why) in [
            (asked(&authority, &good, "/ill").await, "the answer is 503"),
            (asked(&other, &good, "/well").await, "UnknownIssuer"),
            (asked(&authority, &expired, "/well").await, "certificate expired"),
        ] {
            let said = asked.unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
