//! The ids of events, requests, tenants, users, epochs and sources.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use crate::json::Append;

/// The reason a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not 1 to 128 characters of `[A-Za-z0-9._:-]`.
    #[error("a request id has 1 to {} characters of A-Z a-z 0-9 . _ : -", RequestId::CHARS_MAX)]
    RequestId,
    /// Not 1 to 255 characters without control characters.
    #[error("a tenant or user has 1 to 255 characters and no control characters")]
    Name,
    /// Not a UUID.
    #[error("not a UUID")]
    Uuid,
    /// Not `gateway-<UUID>`.
    #[error("a source is gateway-<UUID>")]
    Source,
}

macro_rules! uuid_identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID as it is.
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID itself.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(out)
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, IdentityError> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdentityError::Uuid)
            }
        }
    };
}

uuid_identity!(
    /// One client request, however often the upstream was retried: a UUIDv7 minted by the gateway. Settles every
    /// transport duplicate.
    EventId
);
uuid_identity!(
    /// One start of one gateway: a UUIDv7. Sequence numbers count within it.
    Epoch
);

/// The `X-Request-ID` of a request: 1 to 128 characters of `[A-Za-z0-9._:-]`. `~` is not among them, so that
/// `id~event_id` never equals an id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The most characters an id may have.
    pub(crate) const CHARS_MAX: usize = 128;

    /// The id a gateway gives where the client sent none.
    pub fn from_uuid(id: Uuid) -> Self {
        let mut text = Uuid::encode_buffer();
        Self((*id.as_hyphenated().encode_lower(&mut text)).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'.' | b'_' | b':' | b'-');
        // Without a way out in between many bytes are compared at once.
        let all_legal = || text.bytes().fold(true, |all, byte| all & legal(byte));
        if (1..=Self::CHARS_MAX).contains(&text.len()) && all_legal() {
            Ok(Self(text.into()))
        } else {
            Err(IdentityError::RequestId)
        }
    }
}

/// The most characters a tenant or a user may have.
const NAME_CHARS_MAX: usize = 255;

/// Returns whether a text is 1 to 255 characters without control characters.
fn is_name(text: &str) -> bool {
    // Nearly all are ASCII, of which all bytes are looked at together.
    if text.is_ascii() {
        let is_shown = text.bytes().fold(true, |shown, byte| shown & (byte >= b' ') & (byte != 0x7f));
        return (1..=NAME_CHARS_MAX).contains(&text.len()) && is_shown;
    }
    text.chars().take(NAME_CHARS_MAX + 1).count() <= NAME_CHARS_MAX && !text.chars().any(char::is_control)
}

macro_rules! name_identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, IdentityError> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(IdentityError::Name) }
            }
        }
    };
}

name_identity!(
    /// The tenant whose usage it is: 1 to 255 characters without control characters, from a verified token only.
    TenantId
);
name_identity!(
    /// The user that called: the token's `sub`, 1 to 255 characters without control characters.
    UserId
);

/// The gateway that an event comes from: `gateway-<UUID kept in the spool>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Uuid);

impl Source {
    /// The gateway whose spool has this id.
    pub const fn new(spool_id: Uuid) -> Self {
        Self(spool_id)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "gateway-{}", self.0.as_hyphenated())
    }
}

impl Append for Source {
    fn append(&self, text: &mut String) {
        text.push_str("gateway-");
        self.0.append(text);
    }
}

impl FromStr for Source {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let id = text.strip_prefix("gateway-").ok_or(IdentityError::Source)?;
        Uuid::try_parse(id).map(Self).map_err(|_| IdentityError::Source)
    }
}

macro_rules! display_as_str {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    )*};
}

display_as_str!(RequestId, TenantId, UserId);
