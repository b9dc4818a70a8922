//! Salvages what can still be told of a payload that could not be read: enough to file it under its event and tenant.
//!
//! Members are taken one by one, so a bad one costs only itself; one that is given twice is not told, and after a
//! syntax error what came before it still is.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::wire::{EVENT_TYPE, SEAL_TYPE, Unreadable, UnreadableReason};
use crate::{RequestId, TenantId, Timestamp};

/// The meaning of a `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TypeKind {
    /// An event of this version.
    Event,
    /// A seal of this version.
    Seal,
    /// Something of ours that this version does not know.
    Newer {
        /// True if it is an event.
        event: bool,
    },
    /// Not ours.
    Foreign,
}

impl TypeKind {
    pub(super) fn of(text: &str) -> Self {
        match text {
            EVENT_TYPE => return Self::Event,
            SEAL_TYPE => return Self::Seal,
            _ => {}
        }
        let parts = text.strip_prefix("goldleaves.").and_then(|rest| rest.rsplit_once(".v"));
        let Some((word, version)) = parts else { return Self::Foreign };
        let number = (1..=9).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_digit());
        let known = matches!(word, "usage" | "seal");
        if word.is_empty() || !number || version.starts_with('0') || (known && version == "1") {
            return Self::Foreign;
        }
        Self::Newer { event: word == "usage" }
    }

    fn may_be_event(self) -> bool {
        matches!(self, Self::Event | Self::Newer { event: true })
    }
}

/// The most characters of a detail.
const DETAIL_CHARS_MAX: usize = 300;

/// Tells what can be told.
pub(super) fn salvage(payload: &[u8], reason: UnreadableReason, detail: String) -> Unreadable {
    let mut found = FoundMembers::default();
    scan(&mut serde_json::Deserializer::from_slice(payload), &mut found);
    if let Some(data) = found.data.once() {
        let mut inner = FoundMembers::default();
        scan(&mut serde_json::Deserializer::from_str(data.get()), &mut inner);
        found.request_id = inner.request_id;
        found.epoch = inner.epoch;
        found.seq = inner.seq;
    }
    let kind = found.kind.text().map(|kind| TypeKind::of(&kind));
    let newer = matches!(kind, Some(TypeKind::Newer { .. })) && reason == UnreadableReason::Malformed;
    let seq = found.seq.once().and_then(|seq| serde_json::from_str::<u64>(seq.get()).ok());
    Unreadable {
        // A newer version may have given any member another shape.
        reason: if newer { UnreadableReason::NewerVersion } else { reason },
        event_id: found.id.parsed().filter(|_| kind.is_none_or(TypeKind::may_be_event)),
        tenant_id: found.subject.parsed().map(|tenant: TenantId| tenant.to_string()),
        request_id: found.request_id.parsed().map(|id: RequestId| id.to_string()),
        epoch: found.epoch.parsed(),
        seq: seq.filter(|seq| *seq > 0 && i64::try_from(*seq).is_ok()),
        ts: found.time.text().filter(|time| time.len() > 10).and_then(|time| time.parse::<Timestamp>().ok()),
        detail: detail.chars().filter(|char| !char.is_control()).take(DETAIL_CHARS_MAX).collect(),
    }
}

/// A member that was looked for.
#[derive(Default)]
enum Member<'a> {
    #[default]
    Absent,
    Once(&'a RawValue),
    Twice,
}

impl<'a> Member<'a> {
    fn put(&mut self, value: &'a RawValue) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Twice => Self::Twice,
        };
    }

    fn once(&self) -> Option<&'a RawValue> {
        if let Self::Once(value) = self { Some(value) } else { None }
    }

    fn text(&self) -> Option<String> {
        serde_json::from_str(self.once()?.get()).ok()
    }

    fn parsed<T: FromStr>(&self) -> Option<T> {
        self.text()?.parse().ok()
    }
}

/// The members looked for, of the envelope and of `data`.
#[derive(Default)]
struct FoundMembers<'a> {
    kind: Member<'a>,
    id: Member<'a>,
    subject: Member<'a>,
    time: Member<'a>,
    data: Member<'a>,
    request_id: Member<'a>,
    epoch: Member<'a>,
    seq: Member<'a>,
}

/// Fills `found` as far as the JSON can be followed.
fn scan<'de, R: serde_json::de::Read<'de>>(json: &mut serde_json::Deserializer<R>, found: &mut FoundMembers<'de>) {
    // An error only ends the search.
    let _ = json.deserialize_map(MemberScan(found));
}

struct MemberScan<'f, 'de>(&'f mut FoundMembers<'de>);

impl<'de> Visitor<'de> for MemberScan<'_, 'de> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            let slot = match name.as_ref() {
                "type" => &mut self.0.kind,
                "id" => &mut self.0.id,
                "subject" => &mut self.0.subject,
                "time" => &mut self.0.time,
                "data" => &mut self.0.data,
                "request_id" => &mut self.0.request_id,
                "epoch" => &mut self.0.epoch,
                "seq" => &mut self.0.seq,
                _ => {
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            slot.put(members.next_value::<&'de RawValue>()?);
        }
        Ok(())
    }
}
