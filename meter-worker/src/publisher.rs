//! The embedded last hop: the relay hands its batches straight to the meter of the same process.

use goldleaves_domain::{Delivery, PublishError, PublishFuture, Publisher};
use goldleaves_runtime::process::chain;

use crate::Meter;

impl Publisher for Meter {
    /// `Ok` only after COMMIT.
    fn publish(&self, batch: Vec<Delivery>) -> PublishFuture<'_> {
        Box::pin(async move {
            let payloads = batch.into_iter().map(|delivery| delivery.payload).collect();
            match self.record(payloads).await {
                Ok(_) => Ok(()),
                Err(cause) => Err(PublishError::Unconfirmed { reason: chain(&cause) }),
            }
        })
    }
}
