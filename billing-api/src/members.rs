//! A body's members, each read by its name, so that what is wrong with one is said with its name.

use std::fmt;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use goldleaves_domain::Timestamp;
use goldleaves_pricing::TimeZone;
use http::StatusCode;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::answer::ApiError;
use crate::contract::Shape;
use crate::query;

/// The longest body of a call, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest reason.
const REASON_CHARS_MAX: usize = 500;
/// The years that periods and amounts may be of: no bill would ever hold what a slip of the pen puts elsewhere.
const YEARS: RangeInclusive<&str> = "2000"..="2100";

/// The members of a body that is a JSON object.
#[derive(Debug)]
pub(crate) struct Members {
    members: Vec<(String, Value)>,
    /// The body as it came.
    pub(crate) text: String,
}

/// An object in which no name stands twice.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format!("{name} is given more than once")));
                    }
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl Members {
    /// Reads a body that may have these members.
    pub(crate) fn read<const N: usize>(
        body: Result<Bytes, BytesRejection>,
        shape: &Shape<N>,
    ) -> Result<Self, ApiError> {
        let known = shape.names();
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let most = format!("the body is longer than {BODY_BYTES_MAX} bytes, the most that is read here");
                ApiError::Body(StatusCode::PAYLOAD_TOO_LARGE, most)
            }
            status => ApiError::Body(status, rejection.body_text()),
        })?;
        let Object(members) = serde_json::from_slice(&body).map_err(|error| {
            ApiError::BodyInvalid(format!("the body must be a JSON object of {}: {error}", known.join(", ")))
        })?;
        let members = Self { members, text: String::from_utf8_lossy(&body).into_owned() };
        members.only(&known)?;
        Ok(members)
    }

    /// Refuses members beyond these.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                Err(ApiError::BodyInvalid(format!("{name:?} is unknown here; known members: {}", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    /// A member; `null` is as good as none.
    fn get(&self, name: &str) -> Option<&Value> {
        self.members.iter().find(|(other, value)| other == name && !value.is_null()).map(|(_, value)| value)
    }

    /// Returns whether a member is present, also as `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(other, _)| other == name)
    }

    /// A member as it came.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }

    /// A text that may be missing.
    pub(crate) fn optional_text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "must be a string")),
        }
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Result<&str, ApiError> {
        self.optional_text(name)?.ok_or_else(|| wrong(name, "is missing"))
    }

    /// A text as what it stands for.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, ApiError> {
        self.text(name)?.parse().map_err(|error| wrong(name, &format!("is wrong: {error}")))
    }

    /// A moment that may be missing; a day is its first moment in the zone.
    pub(crate) fn optional_moment(&self, name: &str, zone: TimeZone) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        match query::moment(zone, name, text) {
            Err(ApiError::Parameter(detail)) => Err(ApiError::BodyInvalid(detail)),
            moment => moment.map(Some),
        }
    }

    /// A moment that a bill is made of, and may be missing: one of a year that somebody can have meant.
    pub(crate) fn optional_billed_moment(&self, name: &str, zone: TimeZone) -> Result<Option<Timestamp>, ApiError> {
        let Some(moment) = self.optional_moment(name, zone)? else { return Ok(None) };
        if YEARS.contains(&moment.to_string().split('-').next().unwrap_or_default()) {
            return Ok(Some(moment));
        }
        Err(wrong(name, &format!("must lie in the years {} to {}: it is {moment}", YEARS.start(), YEARS.end())))
    }

    /// An integer.
    pub(crate) fn integer(&self, name: &str) -> Result<i64, ApiError> {
        match self.get(name) {
            None => Err(wrong(name, "is missing")),
            Some(value) => value.as_i64().ok_or_else(|| wrong(name, "must be an integer")),
        }
    }

    /// The reason that every change has.
    pub(crate) fn reason(&self) -> Result<String, ApiError> {
        let reason = self.text("reason")?;
        let length = reason.chars().take(REASON_CHARS_MAX + 1).count();
        if reason.trim().is_empty() || length > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
            let what =
                format!("must have 1 to {REASON_CHARS_MAX} characters, not blanks alone, and no control characters");
            return Err(wrong("reason", &what));
        }
        Ok(reason.to_owned())
    }
}

/// A member that is wrong, and what is wrong with it.
pub(crate) fn wrong(name: &str, what: &str) -> ApiError {
    ApiError::BodyInvalid(format!("{name} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Kind, member};

    const BODY: Shape<3> = Shape {
        name: "Body",
        members: [member("tenant_id", Kind::TenantId), member("cents", Kind::Integer), member("reason", Kind::Reason)],
    };

    fn read(body: &str) -> Result<Members, ApiError> {
        Members::read(Ok(Bytes::from(body.to_owned())), &BODY)
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, words) in [
            ("", "a JSON object of tenant_id, cents, reason"),
            ("[]", "a JSON object"),
            ("null", "a JSON object"),
            (r#"{"cents":1,"cents":2}"#, "cents is given more than once"),
            (r#"{"cent":1}"#, "\"cent\" is unknown here; known members: tenant_id, cents, reason"),
            (r#"{"cents":1} x"#, "trailing characters"),
        ] {
            let Err(ApiError::BodyInvalid(text)) = read(body) else { panic!("{body}") };
            assert!(text.contains(words), "{body}: {text}");
        }
        let members = read(r#"{"cents":1.5,"tenant_id":7,"reason":"a\u0000"}"#).unwrap();
        for (result, words) in [
            (members.integer("cents").map(drop), "cents must be an integer"),
            (members.text("tenant_id").map(drop), "tenant_id must be a string"),
            (members.reason().map(drop), "reason must have 1 to 500 characters"),
        ] {
            let Err(ApiError::BodyInvalid(text)) = result else { panic!("{words}") };
            assert!(text.contains(words), "{text}");
        }
    }
}
