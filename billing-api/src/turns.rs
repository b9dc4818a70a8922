//! Turns at the database: how many calls of one tenant are under way at once.
//!
//! The pool is shared by all. A tenant whose calls ask for more than its part waits in a line of its own, and where that
//! line is long, is refused; the others never notice. A call takes its turn when its token is known and keeps it until its
//! answer is there; an answer that is read page by page takes one for each page.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_auth::Principal;
use goldleaves_domain::{TenantId, UserId};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::ApiError;

/// One of so many connections is the part of one tenant.
const PART: u32 = 4;
/// The most calls of one tenant that wait.
const WAITING_MAX: usize = 100;
/// The time for which a call waits for its turn: less than a client waits for an answer.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The one who is counted: the token's own tenant whichever tenant is asked for, or the user where the token names none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Tenant(TenantId),
    User(UserId),
}

/// Everybody's turns. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    at_once: usize,
    lines: Arc<Mutex<HashMap<Who, TenantQueue>>>,
}

/// The calls of one tenant. It exists while one of them has a place in it.
#[derive(Debug)]
struct TenantQueue {
    turns: Arc<Semaphore>,
    places: usize,
}

/// A place in a line, given up when it is dropped.
#[derive(Debug)]
struct QueuePlace {
    turns: Turns,
    who: Who,
}

/// A turn, over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    // Given back before the place is, so that a line never ends with a turn taken.
    _permit: OwnedSemaphorePermit,
    place: QueuePlace,
}

/// The tenants that had a turn, for further ones.
#[derive(Debug, Clone)]
pub(crate) struct Again {
    turns: Turns,
    who: Who,
}

impl Turns {
    /// The turns at a pool of so many connections.
    pub(crate) fn at(connections: u32) -> Self {
        let at_once = usize::try_from((connections / PART).max(1)).unwrap_or(1);
        Self { at_once, lines: Arc::default() }
    }

    /// A turn of the caller, waited for a while.
    pub(crate) async fn take(&self, caller: &Principal) -> Result<Turn, ApiError> {
        let who = match &caller.tenant {
            Some(tenant) => Who::Tenant(tenant.clone()),
            None => Who::User(caller.user.clone()),
        };
        let busy = || ApiError::Busy { at_once: self.at_once };
        let (place, turns) = self.place(who, self.at_once + WAITING_MAX).ok_or_else(busy)?;
        let permit = tokio::time::timeout(WAIT_MAX, turns.acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(busy)?;
        Ok(Turn { _permit: permit, place })
    }

    /// A place in a line that has fewer than so many, and what gives turns there.
    fn place(&self, who: Who, places_max: usize) -> Option<(QueuePlace, Arc<Semaphore>)> {
        let mut lines = self.lines.lock();
        let new = || TenantQueue { turns: Arc::new(Semaphore::new(self.at_once)), places: 0 };
        let line = lines.entry(who.clone()).or_insert_with(new);
        if line.places >= places_max {
            return None;
        }
        line.places += 1;
        Some((QueuePlace { turns: self.clone(), who }, Arc::clone(&line.turns)))
    }
}

impl Turn {
    /// Returns what takes further turns of the same caller, once this one is over.
    pub(crate) fn again(&self) -> Again {
        Again { turns: self.place.turns.clone(), who: self.place.who.clone() }
    }
}

impl Again {
    /// A further turn, waited for however long it takes: the answer has begun, and nothing is held meanwhile.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        let (place, turns) = self.turns.place(self.who.clone(), usize::MAX)?;
        let permit = turns.acquire_owned().await.ok()?;
        Some(Turn { _permit: permit, place })
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut lines = self.turns.lines.lock();
        if let Some(line) = lines.get_mut(&self.who) {
            line.places = line.places.saturating_sub(1);
            if line.places == 0 {
                lines.remove(&self.who);
            }
        }
    }
}
