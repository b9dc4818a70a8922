//! From a record of the spool to a message: the wire's JSON is built here, off the request path.

use bytes::Bytes;
use goldleaves_domain::{Delivery, Epoch, Seal, Source, UsageEvent, wire};
use goldleaves_spool::{Record, RecordKind};

use super::codec::{self, CodecError, Place};

/// What one record says.
#[derive(Debug)]
pub(super) enum Read {
    /// A usage event.
    Event(Box<UsageEvent>),
    /// A seal.
    Seal(Box<Seal>),
    /// Bytes that this program cannot read.
    Unreadable(CodecError),
}

/// Reads one record of the spool.
pub(super) fn read(record: &Record, source: Source) -> Read {
    let read = match record.kind {
        RecordKind::Publish { seq } => {
            let place = Place { source, epoch: Epoch::new(record.epoch), seq };
            codec::decode_event(record.version, &record.payload, place).map(|event| Read::Event(Box::new(event)))
        }
        RecordKind::Note => {
            codec::decode_seal(record.version, &record.payload, source).map(|seal| Read::Seal(Box::new(seal)))
        }
    };
    read.unwrap_or_else(Read::Unreadable)
}

/// The message for one record.
pub(super) fn message(record: &Record, read: &Read, source: Source) -> Delivery {
    match read {
        Read::Event(event) => Delivery::of_event(event),
        Read::Seal(seal) => Delivery::of_seal(seal),
        Read::Unreadable(cause) => unreadable(record, cause, source),
    }
}

/// Bytes that this program cannot read travel whole, as a CloudEvent of a type that no ledger books: so they are set
/// aside where people look (and, when they are newer, where a newer worker does), neither lost nor in the way.
fn unreadable(record: &Record, cause: &CodecError, source: Source) -> Delivery {
    let (kind, seq) = match record.kind {
        RecordKind::Publish { seq } => ("publish", Some(seq)),
        RecordKind::Note => ("note", None),
    };
    let what = match cause {
        CodecError::NewerVersion(version) => format!("goldleaves.spool.v{version}"),
        _ => "goldleaves.spool.damaged".to_owned(),
    };
    let id = format!("{}-{}", record.epoch.as_hyphenated(), record.lsn);
    let bytes: String = record.payload.iter().map(|byte| format!("{byte:02x}")).collect();
    let event = serde_json::json!({
        "specversion": "1.0",
        "id": id,
        "type": what,
        "source": source.to_string(),
        "datacontenttype": "application/json",
        "data": { "kind": kind, "version": record.version, "epoch": record.epoch, "seq": seq, "bytes": bytes },
    });
    let payload = Bytes::from(event.to_string());
    Delivery { subject: wire::seal_subject(&source), message_id: id, payload, traceparent: None }
}
