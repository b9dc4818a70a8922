//! Decides whether the database answers, found out once for all who ask: at most once per second, however many they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use goldleaves_store::Store;
use tokio::sync::Mutex;

/// The time for which an answer is good.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The asker. Cheap to clone; clones share what was found out.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    store: Store,
    last: Arc<Mutex<Option<Found>>>,
}

#[derive(Debug)]
struct Found {
    at: Instant,
    /// The reason it does not answer.
    missing: Option<String>,
}

impl Pulse {
    pub(crate) fn of(store: Store) -> Self {
        Self { store, last: Arc::default() }
    }

    /// Fails with the reason where the database does not answer.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some(found) = last.as_ref().filter(|found| found.at.elapsed() < GOOD_FOR) {
            return found.missing.clone().map_or(Ok(()), Err);
        }
        let store = self.store.clone();
        // Asked to the end also when whoever caused it has left: others wait for the answer.
        let asking = tokio::spawn(async move {
            let missing = store.ping().await.err().map(|error| error.in_full());
            *last = Some(Found { at: Instant::now(), missing: missing.clone() });
            missing
        });
        match asking.await {
            Ok(missing) => missing.map_or(Ok(()), Err),
            Err(error) => Err(error.to_string()),
        }
    }
}
