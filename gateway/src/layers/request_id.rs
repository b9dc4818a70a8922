//! Gives the call its id, and every response the header.

use std::convert::Infallible;
use std::time::Instant;

use goldleaves_web::Identified as RequestIdentity;
use http::HeaderValue;

use super::{After, Answer, Inward, Step};
use crate::call::{Arrived, Identified};
use crate::facts::Facts;
use crate::names::REQUEST_ID;

/// The outermost layer.
#[derive(Debug)]
pub(crate) struct RequestIds;

pub(crate) struct SetRequestId(HeaderValue);

impl Step<Arrived> for RequestIds {
    type Out = Identified;
    type After = SetRequestId;
    type Error = Infallible;

    fn inward(&self, call: Arrived) -> Inward<Identified, SetRequestId, Infallible> {
        let Arrived { request, peer } = call;
        let identity = RequestIdentity::of(request.headers());
        let request_id_header = identity.header_value();
        let facts = Box::new(Facts {
            peer,
            arrived: Instant::now(),
            arrived_at: goldleaves_record::now(),
            request_id: identity.id,
            request_id_header: request_id_header.clone(),
            client_chose_id: identity.from_client,
        });
        Inward::On(Identified { request, facts }, SetRequestId(request_id_header))
    }
}

impl<E> After<E> for SetRequestId {
    fn outward(self, mut answer: Answer<E>) -> Answer<E> {
        if let Ok(response) = &mut answer {
            response.headers_mut().insert(REQUEST_ID, self.0);
        }
        answer
    }
}
