//! Requests to JetStream's own API, each with an inbox of its own: a request that is never answered leaves nothing behind.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Request, RequestErrorKind};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest time one answer may take.
const ANSWER_SECS: u64 = 3;

/// No stream of that name.
pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
/// No consumer of that name.
pub(crate) const CONSUMER_NOT_FOUND: u64 = 10_014;
/// No message at that sequence.
pub(crate) const MESSAGE_NOT_FOUND: u64 = 10_037;

/// The reason JetStream's API gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answered, or not now: disconnected, hung, electing a leader, starting.
    #[error("JetStream is not available: {reason}")]
    Unavailable {
        /// The reason, as far as it is known.
        reason: String,
    },
    /// JetStream answered no.
    #[error("JetStream refuses: {description} ({code})")]
    Refused {
        /// JetStream's own error code, such as 10059.
        code: u64,
        /// JetStream's own words.
        description: String,
    },
    /// An answer that is none.
    #[error("JetStream's answer can't be read")]
    Unreadable(#[source] serde_json::Error),
}

impl ApiError {
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    /// JetStream's error code, when it refused.
    pub const fn code(&self) -> Option<u64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unavailable { .. } | Self::Unreadable(_) => None,
        }
    }
}

/// JetStream's API over one client.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Asks `$JS.API.<subject>`.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, subject: &str, body: &Value) -> Result<T, ApiError> {
        if self.client.connection_state() != State::Connected {
            return Err(ApiError::unavailable("not connected"));
        }
        let payload = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::new().payload(payload).inbox(self.client.new_inbox()).timeout(None);
        let answer = tokio::time::timeout(
            Duration::from_secs(ANSWER_SECS),
            self.client.send_request(format!("$JS.API.{subject}"), request),
        );
        match answer.await {
            Ok(Ok(message)) => read(&message.payload),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                Err(ApiError::unavailable("nobody answers for JetStream (no responders)"))
            }
            Ok(Err(error)) => Err(ApiError::unavailable(error.kind().to_string())),
            Err(_) => Err(ApiError::unavailable("no answer in time")),
        }
    }
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ApiError> {
    let answer: Value = serde_json::from_slice(payload).map_err(ApiError::Unreadable)?;
    match answer.get("error") {
        Some(error) => Err(refusal(error)),
        None => serde_json::from_value(answer).map_err(ApiError::Unreadable),
    }
}

/// 503 means that the cluster can't say: a leader is being elected, or JetStream is still starting.
fn refusal(error: &Value) -> ApiError {
    let number = |field: &str| error.get(field).and_then(Value::as_u64).unwrap_or_default();
    let description = error.get("description").and_then(Value::as_str).unwrap_or("no description").to_owned();
    match number("code") {
        503 => ApiError::Unavailable { reason: format!("{description} ({})", number("err_code")) },
        _ => ApiError::Refused { code: number("err_code"), description },
    }
}
