//! The door itself: an INTENT in, and something that owes its settlement out.

use std::future::Future;
use std::sync::Arc;

use goldleaves_domain::EventId;
use uuid::Uuid;

use super::call::{CallIntent, Durability, Settlement, VoidReason};

/// Records calls in the spool. Cheap to clone; one for the whole gateway.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    durability: Durability,
}

/// The INTENT could not be written. It is counted already: `available` serves on without `X-Usage-Event-ID`,
/// `strict` answers 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the call could not be recorded")]
pub struct Unrecorded;

/// The INTENT is in the kernel, but the disk did not take it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the call's record did not reach the disk")]
pub struct NotDurable;

impl Recorder {
    /// A new event id, a UUIDv7.
    pub fn event_id(&self) -> EventId {
        EventId::new(Uuid::now_v7())
    }

    /// What a call waits for.
    pub fn durability(&self) -> Durability {
        self.shared.durability
    }

    /// Writes the INTENT of a billable call, before the upstream hears of it.
    ///
    /// # Errors
    /// When the spool does not take it; that is counted already.
    pub fn intend(&self, call: CallIntent) -> Result<Owed, Unrecorded> {
        let _ = call;
        Err(Unrecorded)
    }
}

/// Owes the spool exactly one SETTLE for one INTENT.
#[derive(Debug)]
#[must_use = "dropping it unsettled records the call as unknown and counts a bug"]
pub struct Owed {
    event_id: EventId,
}

impl Owed {
    /// The event's id, for `X-Usage-Event-ID`.
    pub fn event_id(&self) -> EventId {
        self.event_id
    }

    /// Resolves when the INTENT is durable; it borrows nothing, so that it can run beside the upstream call.
    pub fn durable(&self) -> impl Future<Output = Result<(), NotDurable>> + Send + use<> {
        std::future::ready(Err(NotDurable))
    }

    /// Settles the call as an event.
    pub fn publish(self, settlement: Settlement) {
        let _ = (self, settlement);
    }

    /// Settles the call as no event.
    pub fn void(self, reason: VoidReason) {
        let _ = (self, reason);
    }
}
