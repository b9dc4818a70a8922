//! The stream `USAGE` and its consumer `meter`: declared once, checked against what is there, never changed back.
//!
//! Limits (age, bytes, replicas, the duplicate window, pending acks, …) and where the consumer starts belong to
//! operations. What would lose, hide or delete events is incompatible, and named.

mod found;
mod room;

use std::fmt;
use std::time::Duration;

use goldleaves_domain::{Receiver, wire};
use serde_json::{Value, json};

use crate::api::{Api, ApiError, CONSUMER_NOT_FOUND, STREAM_NOT_FOUND};
use crate::connection::Connection;

pub use room::StreamRoom;

pub(crate) use found::{ConsumerFound, RequestMax, StreamFound, StreamState};

/// The stream that holds usage events and seals.
pub const STREAM: &str = "USAGE";
/// The same, as traces name it.
pub const RECEIVER: Receiver = Receiver { system: "nats", destination: STREAM };
/// The durable consumer every meter-worker pulls from.
pub const CONSUMER: &str = "meter";
/// Usage events by tenant, and seals by gateway.
const SUBJECTS: [&str; 2] = [wire::EVENT_SUBJECTS, wire::SEAL_SUBJECTS];

/// More than any event or seal takes. What is larger the gateway hands over in parts.
pub const MESSAGE_BYTES_MAX: u32 = 128 * 1024;
const DUPLICATE_WINDOW: Duration = Duration::from_secs(5 * 60);
/// The time for which a message may be unacknowledged before it is delivered again.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(60);
const ACK_PENDING_MAX: u32 = 50_000;
/// JetStream rejects a second stream of the same name with other settings.
const STREAM_NAME_IN_USE: u64 = 10_058;
/// The same for a consumer.
const CONSUMER_NAME_IN_USE: u64 = 10_148;
/// No room for what is to be reserved: what one server says, and what a cluster says of its peers.
const NO_ROOM: [u64; 2] = [10_047, 10_005];

/// The settings of stream and consumer; everything else of them is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// `STREAM_REPLICAS`.
    pub replicas: u8,
    /// `STREAM_BYTES_MAX`: JetStream reserves it when the stream is made.
    pub bytes_max: u64,
    /// Where JetStream has no room for that, half of it is asked for, and half again, down to this.
    pub bytes_min: u64,
    /// `STREAM_HISTORY_DAYS`: how long a message is kept at the most.
    pub history: Duration,
}

/// Says whether something was made or was already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// Made just now.
    Created,
    /// There before, and compatible.
    Found,
}

/// The result of [`Topology::declare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    /// The stream.
    pub stream: Existence,
    /// The consumer.
    pub consumer: Existence,
}

/// The result of [`Topology::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// The stream is there.
    pub stream: bool,
    /// The consumer is there.
    pub consumer: bool,
}

/// One setting that would lose, hide or delete events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// `stream USAGE` or `consumer meter`.
    pub object: &'static str,
    /// The setting, by the name NATS gives it.
    pub field: &'static str,
    /// The value that it has, as JSON.
    pub found: String,
    /// The value that it must have, as JSON.
    pub wanted: String,
}

/// The reason stream and consumer can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// JetStream can't be asked now. Not a reason to give up.
    #[error("JetStream can't be asked about stream and consumer")]
    Unavailable(#[source] ApiError),
    /// JetStream does not make them: permissions, resources, limits of the account.
    #[error("JetStream does not make the {object}")]
    Refused {
        /// `stream USAGE` or `consumer meter`.
        object: &'static str,
        /// JetStream's own words.
        source: ApiError,
    },
    /// Something of that name is there and is not what Goldleaves can use.
    #[error("{}", describe(mismatches))]
    Incompatible {
        /// Every setting that is wrong.
        mismatches: Vec<Mismatch>,
    },
}

impl TopologyError {
    /// Returns whether waiting may help: it can't when something is wrong rather than away.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Topology {
    /// Makes what is missing and checks what is there. Changes nothing that exists.
    ///
    /// # Errors
    /// JetStream away or refusing, or an incompatible stream or consumer.
    pub async fn declare(&self, connection: &Connection) -> Result<Declared, TopologyError> {
        self.declare_over(&connection.api()).await
    }

    /// Looks without changing anything. What is missing is no error: it may come.
    ///
    /// # Errors
    /// JetStream away, or an incompatible stream or consumer.
    pub async fn check(connection: &Connection) -> Result<Present, TopologyError> {
        let api = connection.api();
        let Some(stream) = find_stream(&api).await? else {
            return Ok(Present { stream: false, consumer: false });
        };
        let mut mismatches = stream.mismatches();
        let consumer = find_consumer(&api).await?;
        mismatches.extend(consumer.iter().flat_map(ConsumerFound::mismatches));
        compatible(mismatches)?;
        Ok(Present { stream: true, consumer: consumer.is_some() })
    }

    /// Makes the consumer again where it is gone, from this sequence on. Changes nothing that exists.
    ///
    /// # Errors
    /// JetStream away or refusing, or an incompatible consumer that somebody else made.
    pub async fn make_consumer(connection: &Connection, from: u64) -> Result<Existence, TopologyError> {
        declare_consumer(&connection.api(), Some(from)).await
    }

    /// Lets so many messages be delivered and not acknowledged, where it is less; changes nothing else of the consumer.
    ///
    /// # Errors
    /// JetStream away or refusing.
    pub async fn raise_ack_pending(connection: &Connection, most: u64) -> Result<(), TopologyError> {
        let api = connection.api();
        let Some(found) =
            find_consumer(&api).await?.filter(|found| found.ack_pending_max().is_some_and(|have| have < most))
        else {
            return Ok(());
        };
        update_consumer(&api, found.with_ack_pending_max(most)).await
    }

    /// Writes a note beside the consumer's acknowledgements, which outlives the ledger as they do. It changes nothing else of it,
    /// and nothing where there is none.
    ///
    /// # Errors
    /// JetStream away or refusing.
    pub async fn note(connection: &Connection, note: &str) -> Result<(), TopologyError> {
        let api = connection.api();
        match find_consumer(&api).await? {
            Some(found) if found.note() != Some(note) => update_consumer(&api, found.with_note(note)).await,
            _ => Ok(()),
        }
    }

    pub(crate) async fn declare_over(&self, api: &Api) -> Result<Declared, TopologyError> {
        let stream = self.declare_stream(api).await?;
        let consumer = declare_consumer(api, None).await?;
        Ok(Declared { stream, consumer })
    }

    async fn declare_stream(&self, api: &Api) -> Result<Existence, TopologyError> {
        if let Some(found) = find_stream(api).await? {
            return compatible(found.mismatches()).map(|()| Existence::Found);
        }
        match self.make_stream(api).await {
            Ok(()) => Ok(Existence::Created),
            // Somebody else made it in between.
            Err(error) if error.code() == Some(STREAM_NAME_IN_USE) => match find_stream(api).await? {
                Some(found) => compatible(found.mismatches()).map(|()| Existence::Found),
                None => Err(TopologyError::Unavailable(error)),
            },
            Err(error) => Err(not_made("stream USAGE", error)),
        }
    }

    /// Makes the stream as large as there is room for.
    async fn make_stream(&self, api: &Api) -> Result<(), ApiError> {
        let mut bytes = self.bytes_max;
        loop {
            match api.ask::<Value>(&format!("STREAM.CREATE.{STREAM}"), &self.stream_declaration(bytes)).await {
                Err(error)
                    if error.code().is_some_and(|code| NO_ROOM.contains(&code)) && bytes / 2 >= self.bytes_min =>
                {
                    bytes /= 2;
                }
                Err(error) => return Err(error),
                Ok(_) => {
                    if bytes < self.bytes_max {
                        let wanted = self.bytes_max;
                        tracing::warn!(bytes, wanted, "JetStream has no room for a stream of the default size");
                    }
                    return Ok(());
                }
            }
        }
    }

    fn stream_declaration(&self, bytes_max: u64) -> Value {
        json!({
            "name": STREAM,
            "description": "Goldleaves: usage events and seals on their way to the ledger",
            "subjects": SUBJECTS,
            "retention": "limits",
            "storage": "file",
            // A full stream refuses, and the gateways' spools wait; the default would delete what nobody billed yet.
            "discard": "new",
            "deny_delete": true,
            // Workers purge what the ledger has when history fills the stream; no other login of a program may.
            "deny_purge": false,
            "max_age": nanos(self.history),
            "max_bytes": bytes_max,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": MESSAGE_BYTES_MAX,
            "max_consumers": -1,
            "duplicate_window": nanos(DUPLICATE_WINDOW),
            "num_replicas": self.replicas,
        })
    }
}

async fn update_consumer(api: &Api, config: Value) -> Result<(), TopologyError> {
    let request = json!({ "stream_name": STREAM, "action": "update", "config": config });
    let asked = api.ask::<Value>(&format!("CONSUMER.CREATE.{STREAM}.{CONSUMER}"), &request).await;
    asked.map(drop).map_err(|error| not_made("change of the consumer meter", error))
}

async fn declare_consumer(api: &Api, from: Option<u64>) -> Result<Existence, TopologyError> {
    if let Some(found) = find_consumer(api).await? {
        return compatible(found.mismatches()).map(|()| Existence::Found);
    }
    let request = json!({ "stream_name": STREAM, "action": "create", "config": consumer_declaration(from) });
    match api.ask::<Value>(&format!("CONSUMER.CREATE.{STREAM}.{CONSUMER}"), &request).await {
        Ok(_) => Ok(Existence::Created),
        Err(error) if error.code() == Some(CONSUMER_NAME_IN_USE) => match find_consumer(api).await? {
            Some(found) => compatible(found.mismatches()).map(|()| Existence::Found),
            None => Err(TopologyError::Unavailable(error)),
        },
        Err(error) => Err(not_made("consumer meter", error)),
    }
}

/// `from`: the first sequence it delivers; `None`: all there is.
fn consumer_declaration(from: Option<u64>) -> Value {
    let mut declaration = json!({
        "durable_name": CONSUMER,
        "name": CONSUMER,
        "description": "Goldleaves: meter-workers pull from here and acknowledge after the commit",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_policy": "explicit",
        "ack_wait": nanos(ACK_WAIT),
        // Any other number skips events without a word.
        "max_deliver": -1,
        "max_ack_pending": ACK_PENDING_MAX,
    });
    if let (Some(from), Some(fields)) = (from.filter(|from| *from > 1), declaration.as_object_mut()) {
        fields.insert("deliver_policy".to_owned(), json!("by_start_sequence"));
        fields.insert("opt_start_seq".to_owned(), json!(from));
    }
    declaration
}

/// `None`: JetStream says that there is none.
pub(crate) async fn find_stream(api: &Api) -> Result<Option<StreamFound>, TopologyError> {
    match api.ask(&format!("STREAM.INFO.{STREAM}"), &Value::Null).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == Some(STREAM_NOT_FOUND) => Ok(None),
        Err(error) => Err(TopologyError::Unavailable(error)),
    }
}

/// `None`: JetStream says that there is none, be it for want of the stream.
pub(crate) async fn find_consumer(api: &Api) -> Result<Option<ConsumerFound>, TopologyError> {
    match api.ask(&format!("CONSUMER.INFO.{STREAM}.{CONSUMER}"), &Value::Null).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.code(), Some(STREAM_NOT_FOUND | CONSUMER_NOT_FOUND)) => Ok(None),
        Err(error) => Err(TopologyError::Unavailable(error)),
    }
}

fn compatible(mismatches: Vec<Mismatch>) -> Result<(), TopologyError> {
    if mismatches.is_empty() { Ok(()) } else { Err(TopologyError::Incompatible { mismatches }) }
}

fn not_made(object: &'static str, error: ApiError) -> TopologyError {
    match error {
        ApiError::Refused { .. } => TopologyError::Refused { object, source: error },
        ApiError::Unavailable { .. } | ApiError::Unreadable(_) => TopologyError::Unavailable(error),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn describe(mismatches: &[Mismatch]) -> String {
    mismatches.iter().map(Mismatch::to_string).collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {} is {}, must be {}", self.object, self.field, self.found, self.wanted)
    }
}
