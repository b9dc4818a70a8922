//! The embedded last hop: the relay hands its batches straight to the meter of the same process.
//!
//! What is handed over is counted, and each transaction says which of it it holds. The count stands beside the spool's
//! cursor as well: a ledger that has less of it was restored from a backup, or failed over to a standby that was behind.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use goldleaves_domain::{Delivery, PublishError, PublishFuture, Publisher, Timestamp};
use goldleaves_ledger::Incoming;
use goldleaves_runtime::process::chain;

use crate::handed::Count;
use crate::meter::Meter;

/// The ledger of this process stores what it is handed at once. A clock outside the years 1 to 9999 says nothing.
fn now() -> Option<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Timestamp::from_unix_micros(i64::try_from(since.as_micros()).ok()?).ok()
}

impl Publisher for Meter {
    /// `Ok` only after COMMIT.
    fn publish(&self, batch: Vec<Delivery>) -> PublishFuture<'_> {
        Box::pin(async move {
            let (count, now) = (self.handed().get(), now());
            let incoming = batch.iter().enumerate().flat_map(|(index, delivery)| {
                Incoming::of_message(&delivery.payload, count.as_ref().map(|count| count.place(index)))
            });
            let incoming: Vec<Incoming> = incoming.map(|incoming| Incoming { stored: now, ..incoming }).collect();
            let messages = batch.len() as u64;
            match self.record_incoming(incoming).await {
                Ok(_) => {
                    if let Some(count) = count {
                        self.handed().set(Count { messages: count.messages + messages, ..count });
                    }
                    Ok(())
                }
                Err(cause) => Err(PublishError::Unconfirmed { reason: chain(&cause) }),
            }
        })
    }

    /// Returns whether the ledger has as much as was handed over.
    fn verify(&self) -> PublishFuture<'_> {
        Box::pin(async move {
            // It is found by who prices, too, but not while nothing is served.
            if let Err(cause) = self.ledger().check_cards().await {
                tracing::debug!(cause = chain(&cause), "the rate cards are not all there, or can't be read now");
            }
            let Some(count) = self.handed().get() else { return Ok(()) };
            let reached = match self.ledger().progress(&count.course, 1).await {
                Ok(reached) => reached.unwrap_or_default(),
                Err(cause) => {
                    self.metrics().lacks(None);
                    return Err(PublishError::Unconfirmed { reason: chain(&cause) });
                }
            };
            self.metrics().lacks(count.messages.saturating_sub(reached));
            if reached >= count.messages {
                // A crash came between a COMMIT and its receipt. No number that the ledger has is given out again.
                self.handed().set(Count { messages: reached, ..count });
                return Ok(());
            }
            self.metrics().went_back();
            let reason =
                format!("the ledger went back: it has {reached} of the {} messages it recorded", count.messages);
            // Another count, of which no backup from before has anything: in this one a backup that was made before the ledger went
            // back could be further than what is handed over from now on. Until its first receipt the old count stands beside the
            // cursor, so that a crash in between forgets nothing.
            self.handed().set(Count::begin());
            Err(PublishError::Rewound { reason })
        })
    }

    fn receipt(&self) -> Bytes {
        let text = self.handed().get().map(|count| format!("{} {}", count.course.created, count.messages));
        text.map(Bytes::from).unwrap_or_default()
    }

    fn recall(&self, receipt: &[u8]) {
        let count = std::str::from_utf8(receipt).ok().and_then(|text| text.parse().ok());
        self.handed().set(count.unwrap_or_else(Count::begin));
    }
}
