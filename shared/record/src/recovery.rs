//! The work of a start for the runs before it, before anything live is published: calls whose end nobody saw become
//! `unknown` events of the new epoch, durably.

use std::collections::VecDeque;

use goldleaves_domain::Outcome;
use goldleaves_spool::{AppendError, Orphan, Spool, SpoolError};
use tracing::{error, warn};

use super::codec::{self, CodecError};
use super::metrics::RecordMetrics;

/// The reason what an earlier start left could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The spool did not take the settlements.
    #[error("calls of an earlier start could not be settled")]
    Append(#[from] AppendError),
    /// The settlements did not reach the disk.
    #[error("the settlements of an earlier start's calls did not reach the disk")]
    Durable(#[from] SpoolError),
}

/// Settles every orphan as `unknown` and waits until that is durable. What the spool does not take is left in `orphans`.
/// An orphan that a newer program wrote stays open, for that program to settle; one that is no call at all is published as
/// it is, to be set aside with its bytes.
pub(super) async fn settle_orphans(
    spool: &Spool,
    orphans: &mut VecDeque<Orphan>,
    metrics: &RecordMetrics,
) -> Result<(), RecoverError> {
    let mut last = None;
    while let Some(orphan) = orphans.front() {
        let (version, payload) = match codec::decode_call(orphan.version, &orphan.payload) {
            Ok(call) => {
                warn!(
                    request_id = %call.request_id, event_id = %call.event_id, tenant_id = %call.tenant_id,
                    "call from a previous run has no recorded end; recorded as unknown"
                );
                let mut payload = codec::encode_call(&call);
                codec::append_settlement(&mut payload, &codec::unknown_settlement());
                (codec::CALL_VERSION, payload)
            }
            Err(CodecError::NewerVersion(version)) => {
                error!(version, "a newer program left an open call; it stays open for that program");
                orphans.pop_front();
                continue;
            }
            Err(unreadable) => {
                error!(%unreadable, "an open call of a previous run cannot be read; its bytes are set aside");
                (orphan.version, orphan.payload.to_vec())
            }
        };
        last = Some(spool.publish(orphan.intent, version, &payload)?.lsn);
        orphans.pop_front();
        metrics.recovered.inc();
        metrics.captured(Outcome::Unknown);
    }
    match last {
        Some(lsn) => Ok(spool.durable(lsn).await?),
        None => Ok(()),
    }
}
