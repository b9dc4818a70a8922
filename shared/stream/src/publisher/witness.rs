//! Finds out whether the stream still is what it was and holds what it confirmed.
//!
//! Three things show a loss: the stream was made at another time, its last sequence is lower than the newest one it
//! confirmed, or at that sequence lies another message. The last one shows it even after others have published past it.
//! The newest confirmation is kept by whoever hands over ([`Witness::receipt`]), together with its cursor, so that a loss
//! shows over a restart too.
//!
//! The last two are only a suspicion at first: a replica that has just become leader may still be reading its log. They
//! count once every look for some seconds has said the same, and meanwhile nothing is published.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use goldleaves_domain::PublishError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::PublisherOptions;
use crate::api::{Api, ApiError, MESSAGE_NOT_FOUND};
use crate::connection::Connection;
use crate::topology::{STREAM, StreamFound, Topology, TopologyError, find_stream};

/// The least time between two log lines about a stream that stays unusable.
const QUIET: Duration = Duration::from_secs(300);

/// A message the stream confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Anchor {
    sequence: u64,
    message_id: String,
}

impl Anchor {
    /// Replaces `newest` when `sequence` is higher.
    pub(super) fn keep_newest(newest: &mut Option<Self>, sequence: u64, message_id: &str) {
        match newest {
            Some(anchor) if anchor.sequence >= sequence => {}
            Some(anchor) => {
                anchor.sequence = sequence;
                anchor.message_id.clear();
                anchor.message_id.push_str(message_id);
            }
            None => *newest = Some(Self { sequence, message_id: message_id.to_owned() }),
        }
    }
}

/// Remembers what was confirmed, and compares.
#[derive(Debug)]
pub(super) struct Witness {
    topology: Topology,
    missing_grace: Duration,
    loss_grace: Duration,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// When the stream was made, in JetStream's words.
    created: Option<String>,
    newest: Option<Anchor>,
    /// The newest one when a lower sequence was confirmed after it: it is compared even when the sequences have caught up.
    doubted: Option<Anchor>,
    missing_since: Option<Instant>,
    suspect_since: Option<Instant>,
    rewinds: u64,
    /// The fault that makes the stream unusable, and when it was logged.
    unusable: Option<(String, Instant)>,
    /// The most bytes of a message, headers included, as the stream said last.
    message_bytes_max: Option<u64>,
}

/// The receipt that is kept over a restart.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptReceipt {
    created: String,
    newest: Anchor,
}

impl Witness {
    pub(super) fn new(topology: Topology, options: &PublisherOptions) -> Self {
        let PublisherOptions { missing_grace, loss_grace, .. } = *options;
        Self { topology, missing_grace, loss_grace, memory: Mutex::default() }
    }

    /// Returns what was confirmed last, to be given to [`Self::recall`] after a restart; empty when nothing was.
    pub(super) fn receipt(&self) -> Bytes {
        let memory = self.memory();
        let (Some(created), Some(newest)) = (&memory.created, &memory.newest) else { return Bytes::new() };
        let receipt = KeptReceipt { created: created.clone(), newest: newest.clone() };
        serde_json::to_vec(&receipt).map(Bytes::from).unwrap_or_default()
    }

    /// Takes what an earlier process kept. What can't be read only means that a loss in between shows nowhere here.
    pub(super) fn recall(&self, receipt: &[u8]) {
        match serde_json::from_slice::<KeptReceipt>(receipt) {
            Ok(KeptReceipt { created, newest }) => {
                let mut memory = self.memory();
                memory.created.get_or_insert(created);
                memory.newest.get_or_insert(newest);
            }
            Err(_) if receipt.is_empty() => {}
            Err(error) => {
                tracing::warn!(%error, "what the stream confirmed last can't be read, the comparison starts anew")
            }
        }
    }

    pub(super) fn rewinds(&self) -> u64 {
        self.memory().rewinds
    }

    /// The most bytes of a message, headers included; `None`: the stream sets no limit.
    pub(super) fn message_bytes_max(&self) -> Option<u64> {
        self.memory().message_bytes_max
    }

    /// Returns whether the last look found less than was confirmed.
    pub(super) fn is_suspicious(&self) -> bool {
        self.memory().suspect_since.is_some()
    }

    pub(super) fn confirmed(&self, anchor: Anchor) {
        let mut memory = self.memory();
        // A repeat has the sequence of its first sending; but so does a message in a stream that went back.
        if memory.newest.as_ref().is_some_and(|newest| newest.sequence >= anchor.sequence) {
            let newest = memory.newest.clone();
            memory.doubted = memory.doubted.take().or(newest);
        } else {
            memory.newest = Some(anchor);
        }
    }

    /// Looks at the stream. `Ok`: it is there, compatible, and holds what it confirmed.
    pub(super) async fn look(&self, connection: &Connection) -> Result<(), PublishError> {
        let api = connection.api();
        match find_stream(&api).await {
            Ok(Some(stream)) => {
                self.memory().missing_since = None;
                self.compare(&api, stream).await
            }
            Ok(None) => self.missing(&api).await,
            Err(error) => {
                self.memory().missing_since = None;
                Err(unconfirmed(&error))
            }
        }
    }

    async fn compare(&self, api: &Api, stream: StreamFound) -> Result<(), PublishError> {
        let mismatches = stream.mismatches();
        if !mismatches.is_empty() {
            let error = TopologyError::Incompatible { mismatches };
            self.memory().say_unusable(&error);
            return Err(unconfirmed(&error));
        }
        {
            let mut memory = self.memory();
            memory.say_usable();
            memory.message_bytes_max = stream.message_bytes_max();
        }
        let (created, anchors) = self.memory().to_compare();
        if let Some(created) = created.filter(|created| *created != stream.created) {
            let reason = format!("the stream was made at {}, not at {created}", stream.created);
            return Err(self.rewound(Some(stream.created), reason));
        }
        for anchor in &anchors {
            if stream.state.last_seq < anchor.sequence {
                let reason = format!("it ends at {}, before {}", stream.state.last_seq, anchor.sequence);
                return Err(self.suspect(stream.created, reason));
            }
            if anchor.sequence >= stream.state.first_seq && !holds(api, anchor).await? {
                let reason = format!("at {} lies another message", anchor.sequence);
                return Err(self.suspect(stream.created, reason));
            }
        }
        self.compared(stream.created, &anchors);
        Ok(())
    }

    /// Gone for good only when JetStream says so for long enough: an election or a restart looks the same for a moment.
    async fn missing(&self, api: &Api) -> Result<(), PublishError> {
        let since = *self.memory().missing_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.missing_grace {
            return Err(PublishError::Unconfirmed { reason: format!("there is no stream {STREAM}") });
        }
        self.topology.declare_over(api).await.map_err(|error| unconfirmed(&error))?;
        tracing::warn!("the stream {STREAM} was gone and has been made again");
        Err(self.rewound(None, "it was gone and has been made again".to_owned()))
    }

    fn suspect(&self, created: String, reason: String) -> PublishError {
        let known = self.memory().suspect_since;
        if known.is_none() {
            tracing::warn!(reason, "the stream seems to have lost messages, looking again before anything is sent");
        }
        let since = *self.memory().suspect_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.loss_grace {
            return PublishError::Unconfirmed { reason: format!("the stream seems to have lost messages: {reason}") };
        }
        self.rewound(Some(created), reason)
    }

    fn rewound(&self, created: Option<String>, reason: String) -> PublishError {
        let mut memory = self.memory();
        *memory = Memory { created, rewinds: memory.rewinds + 1, ..Memory::default() };
        PublishError::Rewound { reason }
    }

    fn compared(&self, created: String, anchors: &[Anchor]) {
        let mut memory = self.memory();
        memory.doubted = memory.doubted.take().filter(|doubted| !anchors.contains(doubted));
        memory.created = Some(created);
        memory.suspect_since = None;
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing under this lock panics; and whatever it holds is only ever compared.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// At once, and then seldom: nothing but somebody's hand changes it.
    fn say_unusable(&mut self, error: &TopologyError) {
        let why = error.to_string();
        let is_known = self.unusable.as_ref().is_some_and(|(known, said)| *known == why && said.elapsed() < QUIET);
        if !is_known {
            tracing::error!(
                why,
                "the stream {STREAM} can't be used as it is, nothing is published until it is changed"
            );
            self.unusable = Some((why, Instant::now()));
        }
    }

    fn say_usable(&mut self) {
        if self.unusable.take().is_some() {
            tracing::info!("the stream {STREAM} can be used again");
        }
    }

    fn to_compare(&self) -> (Option<String>, Vec<Anchor>) {
        let anchors = self.doubted.iter().chain(&self.newest).cloned().collect();
        (self.created.clone(), anchors)
    }
}

#[derive(Deserialize)]
struct FoundMessage {
    message: StoredMessage,
}

#[derive(Deserialize)]
struct StoredMessage {
    #[serde(default)]
    hdrs: String,
}

/// Returns whether the message at the anchor's sequence is the anchor's.
async fn holds(api: &Api, anchor: &Anchor) -> Result<bool, PublishError> {
    let stored = api.ask::<FoundMessage>(&format!("STREAM.MSG.GET.{STREAM}"), &json!({ "seq": anchor.sequence })).await;
    match stored {
        Ok(FoundMessage { message }) => {
            let headers = STANDARD.decode(message.hdrs).unwrap_or_default();
            let wanted = format!("Nats-Msg-Id: {}", anchor.message_id);
            Ok(String::from_utf8_lossy(&headers).lines().any(|line| line.trim_end() == wanted))
        }
        // It may have aged out since the stream was asked.
        Err(error) if error.code() == Some(MESSAGE_NOT_FOUND) => {
            let stream = find_stream(api).await.map_err(|error| unconfirmed(&error))?;
            Ok(stream.is_some_and(|stream| stream.state.first_seq > anchor.sequence))
        }
        Err(error) => Err(unconfirmed(&TopologyError::Unavailable(error))),
    }
}

fn unconfirmed(error: &TopologyError) -> PublishError {
    let source = match error {
        TopologyError::Unavailable(source) | TopologyError::Refused { source, .. } => describe(source),
        TopologyError::Incompatible { .. } => String::new(),
    };
    PublishError::Unconfirmed { reason: format!("{error}{source}") }
}

fn describe(error: &ApiError) -> String {
    format!(": {error}")
}
