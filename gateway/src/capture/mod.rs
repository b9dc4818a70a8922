//! Metering: announces a billable call before the upstream hears of it, and settles it before its response ends.

mod body;
mod leaving;
mod meter;
mod skipped;
mod usage;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use goldleaves_domain::{FingerprintBuilder, NormalPath, RoutePattern, Units};
use goldleaves_record::{CallIntent, Durability, NotDurable, PreparedCall, VoidReason};
use goldleaves_web::WebBody;
use http::header::USER_AGENT;
use http::{HeaderValue, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::call::{Admitted, BilledCaller, Caller, Captured, Traced};
use crate::core::Core;
use crate::edge::ClientAbort;
use crate::error::{Failure, GatewayError};
use crate::facts::Facts;
use crate::names::{USAGE_EVENT_ID, USAGE_SKIPPED};
use crate::proxy::{AnswerBody, Served, Tunnel};
use crate::transport::UploadWatch;

use body::ResponseBody;
use leaving::Leaving;
pub(crate) use meter::{Asked, Began, CallMeter};
use skipped::Skipped;
pub(crate) use usage::Usage;

/// See [`Capture`].
#[derive(Debug, Clone)]
pub(crate) struct CaptureLayer(pub(crate) Arc<Core>);

/// The layer.
#[derive(Debug, Clone)]
pub(crate) struct Capture<S> {
    core: Arc<Core>,
    inner: S,
}

impl<S> Layer<S> for CaptureLayer {
    type Service = Capture<S>;

    fn layer(&self, inner: S) -> Capture<S> {
        Capture { core: Arc::clone(&self.0), inner }
    }
}

impl<S> Service<Admitted> for Capture<S>
where
    S: Service<Captured<CallMeter>, Response = Served<CallMeter>, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Response<WebBody>;
    type Error = Failure;
    type Future = CaptureFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Admitted) -> Self::Future {
        let unmetered = Skipped::of(&call);
        let captured = self.capture(call);
        // What nobody pays for need not go on.
        let rule = if captured.meter.is_some() { captured.heading.way.client_abort } else { ClientAbort::Cancel };
        let inner = Leaving::new(self.inner.call(captured), rule, &self.core);
        CaptureFuture { core: Arc::clone(&self.core), inner, unmetered, held: None }
    }
}

/// The caller who pays, for which route, and how many units when nobody says.
struct Billing<'a> {
    caller: &'a BilledCaller,
    route: RoutePattern,
    units: Option<Units>,
}

impl<S> Capture<S> {
    fn capture(&self, call: Admitted) -> Captured<CallMeter> {
        match call {
            Admitted::Open { traced, path, heading } => {
                let watch = upload_watch(&traced, || None);
                Captured { traced, path, caller: None, heading, meter: None, watch }
            }
            Admitted::Unbilled { traced, path, heading, caller } => {
                let watch = upload_watch(&traced, || None);
                Captured { traced, path, caller: Some(caller), heading, meter: None, watch }
            }
            Admitted::Billable { traced, path, heading, caller, route } => {
                let (meter, watch) =
                    self.plan(&traced, &path, Billing { caller: &caller, route, units: heading.units });
                let caller = Some(Caller::from(caller));
                Captured { traced, path, caller, heading, meter: Some(meter), watch }
            }
        }
    }

    fn plan(&self, traced: &Traced, path: &NormalPath, billing: Billing<'_>) -> (CallMeter, Option<UploadWatch>) {
        let Billing { caller, route, units } = billing;
        let (request, facts) = (&traced.request, &traced.facts);
        // Only repeats of one chosen id are ever compared: an upload without one need not be hashed.
        let fingerprint = facts
            .client_chose_id
            .then(|| FingerprintBuilder::new(&caller.user, request.method().as_str(), path, request.uri().query()));
        let watch = upload_watch(traced, || fingerprint.clone());
        let asked = watch.clone().map(Asked::Body).or(fingerprint.map(Asked::Head));
        let client_info = self.core.client_info;
        let user_agent = request.headers().get(USER_AGENT).filter(|_| client_info);
        let user_agent = user_agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()));
        let call = PreparedCall::from(CallIntent {
            event_id: self.core.recorder.event_id(),
            tenant_id: caller.tenant.clone(),
            user_id: caller.user.clone(),
            ts: facts.arrived_at,
            traceparent: traced.trace.header(),
            request_id: facts.request_id.clone(),
            client_request_id: client_request_id(facts),
            route,
            method: request.method().as_str(),
            user_agent: user_agent.as_deref(),
            client_ip: facts.peer.to_str().ok().filter(|_| client_info),
        });
        (CallMeter::plan(&self.core, call, asked, Began { arrived: facts.arrived, units }), watch)
    }
}

fn client_request_id(facts: &Facts) -> Option<goldleaves_domain::RequestId> {
    facts.client_chose_id.then(|| facts.request_id.clone())
}

/// Only a request with a body is watched.
fn upload_watch(traced: &Traced, fingerprint: impl FnOnce() -> Option<FingerprintBuilder>) -> Option<UploadWatch> {
    (!traced.request.body().is_end_stream()).then(|| UploadWatch::new(fingerprint()))
}

/// The result of the upstream's side of a call.
type Answered = Result<Served<CallMeter>, Failure>;
type Durable = Pin<Box<dyn Future<Output = Result<(), NotDurable>> + Send>>;

pin_project! {
    /// Waits for the upstream's head and, where calls may not go unrecorded, holds it until the INTENT is durable.
    pub(crate) struct CaptureFuture<F> {
        core: Arc<Core>,
        #[pin]
        inner: Leaving<F>,
        unmetered: Option<Skipped>,
        held: Option<(Headed, Durable)>,
    }
}

impl<F> Future for CaptureFuture<F>
where
    F: Future<Output = Answered>,
{
    type Output = Result<Response<WebBody>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.held.is_none() {
            let headed = Headed::of(ready!(this.inner.poll(cx))?, *this.unmetered, this.core);
            match headed.durable(this.core) {
                None => return Poll::Ready(Ok(headed.hand_over(this.core))),
                Some(durable) => *this.held = Some((headed, durable)),
            }
        }
        let Some((_, durable)) = this.held else { return Poll::Pending };
        let durable = ready!(durable.as_mut().poll(cx));
        let Some((mut headed, _)) = this.held.take() else { return Poll::Pending };
        if durable.is_ok() {
            return Poll::Ready(Ok(headed.hand_over(this.core)));
        }
        if let Some(meter) = &mut headed.meter {
            meter.void(VoidReason::NotDurable);
        }
        Poll::Ready(Err(GatewayError::NotDurable.into()))
    }
}

/// The upstream's head came, and what it says of usage is taken out of it.
struct Headed {
    response: Response<AnswerBody>,
    meter: Option<CallMeter>,
    tunnel: Option<Tunnel>,
}

impl Headed {
    /// A status that is not billable ends the metering.
    fn of(served: Served<CallMeter>, unmetered: Option<Skipped>, core: &Core) -> Self {
        let Served { mut response, meter, tunnel } = served;
        let status = response.status().as_u16();
        let usage = Usage::take(response.headers_mut());
        let was_metered = meter.is_some();
        let meter = meter.and_then(|mut meter| {
            if core.statuses.contains(status) {
                meter.head(status, usage);
                return Some(meter);
            }
            meter.void(VoidReason::StatusNotBillable);
            None
        });
        if let Some(event_id) = meter.as_ref().and_then(CallMeter::event_id)
            && let Ok(value) = HeaderValue::from_str(event_id.as_uuid().as_hyphenated().encode_lower(&mut [0; 36]))
        {
            response.headers_mut().insert(USAGE_EVENT_ID, value);
        } else if core.says_skipped
            && let Some(skipped) = unmetered.or_else(|| Skipped::metered(was_metered.then_some(meter.is_some())))
        {
            response.headers_mut().insert(USAGE_SKIPPED, skipped.value());
        }
        Self { response, meter, tunnel }
    }

    /// Returns what the head has to wait for, if anything.
    fn durable(&self, core: &Core) -> Option<Durable> {
        let strict = core.recorder.durability() == Durability::Strict;
        let owed = self.meter.as_ref().filter(|_| strict).and_then(CallMeter::owed)?;
        Some(Box::pin(owed.durable()))
    }

    /// A response without a body ends with its head, and one whose body is here already with what hyper takes in one go with
    /// the head: both are settled before that is handed over.
    fn hand_over(self, core: &Arc<Core>) -> Response<WebBody> {
        let Self { mut response, mut meter, tunnel } = self;
        if let Some(tunnel) = tunnel {
            dig(core, tunnel, meter);
            return response.map(|_| WebBody::empty());
        }
        let whole = response.body_mut().take_whole();
        if whole.is_none() && !response.body().is_end_stream() {
            return response.map(|answer| WebBody::boxed(ResponseBody::new(answer, meter)));
        }
        if let Some(meter) = &mut meter {
            meter.handed(whole.as_ref().map_or(0, |bytes| bytes.len() as u64));
            meter.completed();
        }
        response.map(|_| whole.map_or_else(WebBody::empty, WebBody::passed))
    }
}

/// A tunnel outlives its request; the gateway's end waits for it as for any other call.
fn dig(core: &Arc<Core>, tunnel: Tunnel, mut meter: Option<CallMeter>) {
    let running = Arc::clone(core);
    core.tunnels.spawn(async move {
        let ended = tunnel.run(&running).await;
        if let Some(meter) = &mut meter {
            meter.handed(ended.bytes_to_client);
            meter.settle(ended.outcome);
        }
    });
}
