//! Follows whether the database is there. Away is waited out, and said; wrong at the start is an error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use goldleaves_runtime::Quiet;
use tokio::time::Instant;

use crate::{Store, StoreError};

/// The interval at which the database is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The least time between two log lines of one outage.
const QUIET: Duration = Duration::from_secs(30);

impl Store {
    /// Keeps `is_ready` saying whether the database answers and has the schema. Ends only with what waiting does not mend:
    /// the schema of a newer program, or a schema, a login, a database or a pooler that is wrong before it was ever right. Later
    /// these are waited out as any outage: somebody may be restoring a backup or changing the password.
    pub async fn watch(&self, steps: &[&'static str], is_ready: &AtomicBool) -> StoreError {
        let mut was_there = false;
        let mut lines = Quiet::new(QUIET);
        loop {
            match self.look(steps, is_ready.load(Ordering::Relaxed)).await {
                Ok(()) => {
                    self.allow_writes();
                    if !is_ready.swap(true, Ordering::Relaxed) {
                        tracing::info!("the database is there");
                    }
                    was_there = true;
                    lines.reset();
                }
                Err(error) if error.is_of_the_setup(was_there) => return error,
                Err(error) => {
                    is_ready.store(false, Ordering::Relaxed);
                    if lines.may_speak(Instant::now().into_std()) {
                        tracing::warn!(cause = error.in_full(), "the database is away; retrying");
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self, steps: &[&'static str], is_ready: bool) -> Result<(), StoreError> {
        if !is_ready {
            self.reach().await?;
        }
        self.check_schema(steps).await
    }
}

impl StoreError {
    fn is_of_the_setup(&self, was_there: bool) -> bool {
        match self {
            Self::SchemaNewer { .. } => true,
            Self::SchemaMissing { .. } | Self::Refused { .. } | Self::Pooled => !was_there,
            _ => false,
        }
    }
}
