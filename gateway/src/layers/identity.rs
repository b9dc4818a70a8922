//! Replaces what the client said of itself with what the gateway knows, and makes the normalised path the target.

use std::task::{Context, Poll};

use goldleaves_domain::NormalPath;
use http::header::{HOST, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Uri};
use tower::{Layer, Service};

use crate::call::{Caller, Captured, Outbound};
use crate::edge::Heading;
use crate::facts::Facts;
use crate::identity;
use crate::names::{
    FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PREFIX, FORWARDED_PROTO, ORGANIZATION_ID, REQUEST_ID, TENANT_ID,
    TRACEPARENT, USER_ID,
};
use crate::via::Via;

/// See [`Identity`].
#[derive(Debug, Clone)]
pub(crate) struct IdentityLayer(pub(crate) Via);

/// The layer.
#[derive(Debug, Clone)]
pub(crate) struct Identity<S> {
    via: Via,
    inner: S,
}

impl<S> Layer<S> for IdentityLayer {
    type Service = Identity<S>;

    fn layer(&self, inner: S) -> Identity<S> {
        Identity { via: self.0.clone(), inner }
    }
}

impl<M, S: Service<Outbound<M>>> Service<Captured<M>> for Identity<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Captured<M>) -> Self::Future {
        let Captured { traced, path, caller, heading, meter, watch } = call;
        let (mut request, facts, place) = (traced.request, traced.facts, traced.place);
        let (traceparent, span) = traced.trace.toward_upstream(request.method());
        let version = request.version();
        let headers = request.headers_mut();
        let stripped = identity::strip(headers);
        if stripped > 0 {
            tracing::debug!(request_id = %facts.request_id, stripped, "a client's own identity headers were dropped");
        }
        say(headers, &facts, caller.as_ref());
        headers.insert(TRACEPARENT, traceparent);
        self.via.pass(headers, version);
        if meter.is_some() {
            // So that the upstream may say in trailers what the call was worth.
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let Heading { way, target, units: _ } = heading;
        match target {
            None => set_target(&mut request, &path),
            Some(target) => {
                request.headers_mut().insert(FORWARDED_PREFIX, target.cut.clone());
                set_target(&mut request, &target.path);
            }
        }
        let expires = caller.and_then(|caller| caller.expires);
        self.inner.call(Outbound { request, facts, way, expires, meter, watch, span, place })
    }
}

/// Sets the headers that are kept whatever the client's `Connection` names: those of
/// [`SAID_BY_THE_GATEWAY`](crate::headers::SAID_BY_THE_GATEWAY).
fn say(headers: &mut HeaderMap, facts: &Facts, caller: Option<&Caller>) {
    headers.insert(REQUEST_ID, facts.request_id_header.clone());
    if let Some(caller) = caller {
        // As visible ASCII, so that no server reads another name than the one that is billed.
        headers.insert(USER_ID, caller.told.user.clone());
        if let Some(tenant) = &caller.told.tenant {
            headers.insert(TENANT_ID, tenant.clone());
            headers.insert(ORGANIZATION_ID, tenant.clone());
        }
    }
    headers.insert(FORWARDED_FOR, facts.peer.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(FORWARDED_HOST, host);
    }
}

fn set_target<B>(request: &mut Request<B>, path: &NormalPath) {
    let uri = request.uri();
    // An absolute form may have a query behind its host and no path: the path is "/" then, and must be written.
    let has_path = uri.path_and_query().is_some_and(|target| !target.as_str().starts_with('?'));
    if has_path && uri.path() == path.as_str() {
        if uri.authority().is_some() {
            // Absolute form and :authority end here: the upstream gets a path, and the host in Host.
            let target = uri.path_and_query().cloned();
            *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
        }
        return;
    }
    let text = match uri.query() {
        Some(query) => format!("{}?{query}", path.as_str()),
        None => path.as_str().to_owned(),
    };
    // Both halves were parsed as a URI's before. The default is "/": never what the client wrote.
    *request.uri_mut() = PathAndQuery::try_from(text).map(Uri::from).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use goldleaves_domain::{RequestId, Timestamp};

    use super::*;
    use crate::call::Told;
    use crate::headers::SAID_BY_THE_GATEWAY;

    #[test]
    fn the_target_begins_with_the_path() {
        for (written, path, sent) in [
            ("http://h?x=1", "/", "/?x=1"),
            ("http://h", "/", "/"),
            ("http://h/a?x=1", "/a", "/a?x=1"),
            ("/a?x=1", "/a", "/a?x=1"),
            ("/%61?x=1", "/a", "/a?x=1"),
        ] {
            let mut request = Request::new(());
            *request.uri_mut() = written.parse().unwrap();
            set_target(&mut request, &NormalPath::normalise(path).unwrap());
            assert_eq!(request.uri().to_string(), sent, "{written}");
        }
    }

    #[test]
    fn whatever_is_said_is_kept_on_its_way_to_the_upstream() {
        let value = HeaderValue::from_static;
        let facts = Facts {
            peer: value("192.0.2.1"),
            arrived: Instant::now(),
            arrived_at: Timestamp::from_unix_micros(0).unwrap(),
            request_id: "r-1".parse::<RequestId>().unwrap(),
            request_id_header: value("r-1"),
            client_chose_id: true,
        };
        let told = Told { user: value("ann"), tenant: Some(value("acme")) };
        let caller = Caller { tenant: None, told, expires: None };
        let mut headers = HeaderMap::from_iter([(HOST, value("example.com"))]);
        say(&mut headers, &facts, Some(&caller));
        headers.remove(HOST);
        assert_eq!(headers.len(), 7);
        for name in headers.keys() {
            assert!(SAID_BY_THE_GATEWAY.contains(name), "{name} would go where a client's Connection names it");
        }
    }
}
