//! The guard of one billable call: once it is announced it owes exactly one settlement, whatever happens.
//!
//! The settlement is written synchronously, so that dropping the guard (hyper drops what serves a client that left)
//! is enough to write it.

use std::sync::Arc;
use std::time::Instant;

use goldleaves_domain::{EventId, Fingerprint, FingerprintBuilder, Outcome, Units};
use goldleaves_record::{AnnouncedCall, Durability, PreparedCall, Settlement, VoidReason};

use super::usage::Usage;
use crate::call::HandOver;
use crate::core::Core;
use crate::error::GatewayError;
use crate::proxy::AnswerError;
use crate::transport::{UploadFailure, UploadWatch};

/// The status recorded for a client that left before there was one.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The knowledge of a request: the parts that its fingerprint is made from, where anybody wants one.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The head alone: there is no body.
    Head(FingerprintBuilder),
    /// The head and a body that streams by.
    Body(UploadWatch),
}

impl Asked {
    fn is_malformed(&self) -> bool {
        match self {
            Self::Head(_) => false,
            Self::Body(watch) => watch.failure() == Some(UploadFailure::Malformed),
        }
    }

    fn fingerprint(self) -> Option<Fingerprint> {
        match self {
            Self::Head(builder) => Some(builder.finish()),
            Self::Body(watch) => watch.take_fingerprint(),
        }
    }
}

/// When a call began, and what it counts when the upstream says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began {
    pub(crate) arrived: Instant,
    /// `None` = one.
    pub(crate) units: Option<Units>,
}

/// The guard. Not announced yet, owing, or done.
#[derive(Debug)]
pub(crate) struct CallMeter(Box<Metered>);

#[derive(Debug)]
struct Metered {
    core: Arc<Core>,
    arrived: Instant,
    /// The units that it counts when the upstream says nothing.
    units: Units,
    /// `None` = there is no body, and nobody will compare the request with another.
    asked: Option<Asked>,
    stage: MeterStage,
    status: Option<u16>,
    usage: Usage,
    response_bytes: u64,
}

#[derive(Debug)]
enum MeterStage {
    Planned(PreparedCall),
    Owing(AnnouncedCall),
    Done,
}

impl CallMeter {
    /// A call that may be handed over soon.
    pub(crate) fn plan(core: &Arc<Core>, call: PreparedCall, asked: Option<Asked>, began: Began) -> Self {
        Self(Box::new(Metered {
            core: Arc::clone(core),
            arrived: began.arrived,
            units: began.units.unwrap_or(Units::ONE),
            asked,
            stage: MeterStage::Planned(call),
            status: None,
            usage: Usage::default(),
            response_bytes: 0,
        }))
    }

    /// The announced call, until it is settled.
    pub(crate) fn owed(&self) -> Option<&AnnouncedCall> {
        match &self.0.stage {
            MeterStage::Owing(owed) => Some(owed),
            MeterStage::Planned(_) | MeterStage::Done => None,
        }
    }

    /// The event's id, when there will be one.
    pub(crate) fn event_id(&self) -> Option<EventId> {
        self.owed().map(AnnouncedCall::event_id)
    }

    /// The upstream's head came, with a billable status.
    pub(crate) fn head(&mut self, status: u16, usage: Usage) {
        self.0.status = Some(status);
        self.said(usage);
    }

    /// The upstream's trailers came.
    pub(crate) fn said(&mut self, usage: Usage) {
        if usage.is_bad {
            self.0.core.metrics.usage_units_bad();
        }
        self.0.usage = std::mem::take(&mut self.0.usage).overridden_by(usage);
    }

    /// Counts bytes of the body that go to the client now.
    pub(crate) fn handed(&mut self, bytes: u64) {
        self.0.response_bytes += bytes;
    }

    /// The last of the response goes to the client now.
    pub(crate) fn completed(&mut self) {
        self.settle(Outcome::Completed);
    }

    /// The answer broke off.
    pub(crate) fn broke(&mut self, error: &AnswerError) {
        self.settle(match error {
            AnswerError::Broke(_) | AnswerError::Short | AnswerError::Silent => Outcome::UpstreamAborted,
            AnswerError::CallTimeout => Outcome::GatewayStopped,
            AnswerError::Upload(_) => Outcome::ClientAborted,
        });
    }

    /// The call leaves no event.
    pub(crate) fn void(&mut self, reason: VoidReason) {
        if let MeterStage::Owing(owed) = std::mem::replace(&mut self.0.stage, MeterStage::Done) {
            owed.void(reason);
        }
    }

    /// The one settlement.
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        let metered = &mut *self.0;
        let MeterStage::Owing(owed) = std::mem::replace(&mut metered.stage, MeterStage::Done) else { return };
        let usage = std::mem::take(&mut metered.usage);
        owed.publish(Settlement {
            outcome,
            status_code: metered.status.unwrap_or(CLIENT_CLOSED_REQUEST),
            units: usage.units.unwrap_or(metered.units),
            action: usage.action,
            response_bytes: metered.response_bytes,
            processing_micros: u64::try_from(metered.arrived.elapsed().as_micros()).unwrap_or(u64::MAX),
            fingerprint: metered.asked.take().and_then(Asked::fingerprint),
        });
    }
}

impl HandOver for CallMeter {
    fn check(&mut self) -> Result<(), GatewayError> {
        if let MeterStage::Planned(call) = &self.0.stage
            && self.0.core.recorder.check(call).is_err()
        {
            self.0.stage = MeterStage::Done;
            return Err(GatewayError::Unrecorded);
        }
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<(), GatewayError> {
        let metered = &mut *self.0;
        let MeterStage::Planned(call) = std::mem::replace(&mut metered.stage, MeterStage::Done) else {
            return Ok(());
        };
        match metered.core.recorder.intend_soon(call).await {
            Ok(owed) => metered.stage = MeterStage::Owing(owed),
            Err(_) if metered.core.recorder.durability() == Durability::Strict => return Err(GatewayError::Unrecorded),
            Err(_) => {}
        }
        Ok(())
    }

    fn failed(&mut self, error: &GatewayError) {
        match error {
            GatewayError::Upload(UploadFailure::ClientLeft) => self.settle(Outcome::ClientAborted),
            other => self.void(other.void_reason()),
        }
    }
}

/// Dropped before the end: somebody left. What the gateway itself broke off before the upstream's head is not billed:
/// there is no status that could be billable. A panic leaves the call as what it is then, unknown.
impl Drop for CallMeter {
    fn drop(&mut self) {
        if self.owed().is_none() {
            return;
        }
        match (self.0.core.is_stopping(), self.0.status) {
            _ if std::thread::panicking() => {}
            (_, None) if self.0.asked.as_ref().is_some_and(Asked::is_malformed) => self.void(VoidReason::Refused),
            (true, None) => self.void(VoidReason::Stopped),
            (true, Some(_)) => self.settle(Outcome::GatewayStopped),
            (false, _) => self.settle(Outcome::ClientAborted),
        }
    }
}
