//! From hyper's service to tower's: the body in our type, the peer as an extension.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response};
use hyper::body::Incoming;
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use super::Peer;
use crate::WebBody;

/// A tower service as hyper calls it.
#[derive(Debug, Clone)]
pub(super) struct ForHyper<S> {
    pub(super) service: S,
    pub(super) peer: SocketAddr,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ForHyper<S>
where
    S: Service<Request<WebBody>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Oneshot<S, Request<WebBody>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(WebBody::from);
        request.extensions_mut().insert(Peer(self.peer));
        // A clone of its own, polled ready before it is called.
        self.service.clone().oneshot(request)
    }
}
