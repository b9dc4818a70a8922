//! From a record of the spool to a message: the wire's JSON is built here, off the request path.

use bytes::Bytes;
use goldleaves_domain::{Delivery, Epoch, Seal, Source, UsageEvent, hex_text, wire};
use goldleaves_spool::{Record, RecordKind};

use super::codec::{self, CodecError, SettlePlace};

/// The content of one record.
#[derive(Debug)]
pub(super) enum ReadRecord {
    /// A usage event.
    Event(Box<UsageEvent>),
    /// A seal.
    Seal(Box<Seal>),
    /// Bytes that this program cannot read.
    Unreadable(CodecError),
}

/// Reads one record of the spool.
pub(super) fn read(record: &Record, source: Source) -> ReadRecord {
    let read = match record.kind {
        RecordKind::Publish { seq } => {
            let place = SettlePlace { source, epoch: Epoch::new(record.epoch), seq };
            codec::decode_event(record.version, &record.payload, place).map(|event| ReadRecord::Event(Box::new(event)))
        }
        RecordKind::Note => {
            codec::decode_seal(record.version, &record.payload, source).map(|seal| ReadRecord::Seal(Box::new(seal)))
        }
    };
    read.unwrap_or_else(ReadRecord::Unreadable)
}

/// The message for one record.
pub(super) fn message(record: &Record, read: &ReadRecord, source: Source) -> Delivery {
    match read {
        ReadRecord::Event(event) => Delivery::of_event(event),
        ReadRecord::Seal(seal) => Delivery::of_seal(seal),
        ReadRecord::Unreadable(cause) => unreadable(record, cause, source),
    }
}

/// The bytes of a part beside those that it carries.
const PART_ENVELOPE_BYTES: usize = 1_024;
/// Smaller parts than this are of no use.
const PART_BYTES_MIN: usize = 64;

/// A message that the receiver does not take for its size, in parts that it does: no ledger books them, so they are set aside
/// with all of its bytes. The first one has the place of the event, so that nothing is missing in the proof.
pub(super) fn parts(record: &Record, whole: &Delivery, source: Source, bytes_max: usize) -> Option<Vec<Delivery>> {
    // A byte is two digits.
    let size = bytes_max.saturating_sub(PART_ENVELOPE_BYTES) / 2;
    if size < PART_BYTES_MIN {
        return None;
    }
    let count = whole.payload.len().div_ceil(size);
    let part = |(number, bytes): (usize, &[u8])| {
        let id = format!("{}-part-{}-of-{count}", whole.message_id, number + 1);
        let mut data = serde_json::json!({
            "message_id": whole.message_id, "part": number + 1, "parts": count, "bytes": hex_text(bytes),
        });
        if let (RecordKind::Publish { seq }, 0, Some(data)) = (record.kind, number, data.as_object_mut()) {
            data.insert("epoch".to_owned(), record.epoch.to_string().into());
            data.insert("seq".to_owned(), seq.into());
        }
        foreign(Foreign { what: "goldleaves.spool.part".to_owned(), id, source, data })
    };
    Some(whole.payload.chunks(size).enumerate().map(part).collect())
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
    let data = serde_json::json!({
        "kind": kind, "version": record.version, "epoch": record.epoch, "seq": seq, "bytes": hex_text(&record.payload),
    });
    foreign(Foreign { what, id, source, data })
}

/// A CloudEvent of a type that no ledger books.
struct Foreign {
    what: String,
    id: String,
    source: Source,
    data: serde_json::Value,
}

fn foreign(Foreign { what, id, source, data }: Foreign) -> Delivery {
    let event = serde_json::json!({
        "specversion": "1.0",
        "id": id,
        "type": what,
        "source": source.to_string(),
        "datacontenttype": "application/json",
        "data": data,
    });
    let payload = Bytes::from(event.to_string());
    Delivery { subject: wire::seal_subject(&source), message_id: id, payload, traceparent: None }
}
