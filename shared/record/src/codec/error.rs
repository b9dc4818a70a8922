//! The faults of bytes in the spool, below everything that reads them.

/// The reason bytes of the spool are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// Written by a newer program.
    #[error("version {0} is newer than this program")]
    NewerVersion(u8),
    /// The bytes end too early.
    #[error("the bytes end within {0}")]
    Truncated(&'static str),
    /// More bytes than the format has.
    #[error("{0} bytes follow the end")]
    TooLong(usize),
    /// A value that its type does not hold.
    #[error("{0} holds a value that is not one")]
    Invalid(&'static str),
}

pub(super) fn check_version(version: u8, newest: u8) -> Result<(), CodecError> {
    match version {
        0 => Err(CodecError::Invalid("version")),
        version if version > newest => Err(CodecError::NewerVersion(version)),
        _ => Ok(()),
    }
}
