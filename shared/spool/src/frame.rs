//! One record on disk. Knows the bytes of a frame and nothing of files or of what a payload means.

use uuid::Uuid;

/// Bytes before the payload.
pub(crate) const HEAD: usize = 40;
/// Largest payload of any record.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Frames start at multiples of this, which is where the search for the next good frame looks.
pub(crate) const ALIGN: u64 = 8;

/// The kinds of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Intent,
    Publish,
    Void,
    Note,
    /// A copy of an INTENT that was open when its segment began; `link` is the original.
    Carried,
    /// First frame of a segment: how epoch and counters stood.
    Start,
    /// An earlier epoch that nobody has closed yet.
    EpochOpen,
    /// An epoch whose last seal is written.
    EpochClosed,
    /// Where the intents lie that were open when its segment began.
    OpenIds,
    /// A kind of a newer version: kept, never interpreted.
    Other,
}

impl FrameKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Intent => 1,
            Self::Publish => 2,
            Self::Void => 3,
            Self::Note => 4,
            Self::Carried => 5,
            Self::Start => 6,
            Self::EpochOpen => 7,
            Self::EpochClosed => 8,
            Self::OpenIds => 9,
            Self::Other => 0xff,
        }
    }

    fn of(code: u8) -> Self {
        match code {
            1 => Self::Intent,
            2 => Self::Publish,
            3 => Self::Void,
            4 => Self::Note,
            5 => Self::Carried,
            6 => Self::Start,
            7 => Self::EpochOpen,
            8 => Self::EpochClosed,
            9 => Self::OpenIds,
            _ => Self::Other,
        }
    }

    /// The reader hands these out; all others only matter to recovery.
    pub(crate) fn is_relayed(self) -> bool {
        matches!(self, Self::Publish | Self::Note)
    }
}

/// The fields of a frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) lsn: u64,
    pub(crate) kind: FrameKind,
    pub(crate) version: u8,
    pub(crate) unix_secs: u32,
    /// The INTENT that is settled or carried, else 0.
    pub(crate) link: u64,
    /// The number of a PUBLISH, else 0.
    pub(crate) seq: u64,
    pub(crate) payload_bytes: u32,
}

impl FrameHead {
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_bytes as usize)
    }

    pub(crate) fn end(&self) -> u64 {
        self.lsn + self.frame_bytes()
    }

    /// The head's bytes; `payload_crc` is the CRC32C of the payload alone, which can be had outside of any lock.
    pub(crate) fn encode(&self, payload_crc: u32) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let fields: [&[u8]; 6] = [
            &self.payload_bytes.to_le_bytes(),
            &self.lsn.to_le_bytes(),
            &[self.kind.code(), self.version, 0, 0],
            &self.unix_secs.to_le_bytes(),
            &self.link.to_le_bytes(),
            &self.seq.to_le_bytes(),
        ];
        let mut rest = bytes.get_mut(4..).unwrap_or_default();
        for field in fields {
            let Some((place, behind)) = rest.split_at_mut_checked(field.len()) else { break };
            place.copy_from_slice(field);
            rest = behind;
        }
        let crc = crc32c::crc32c_append(payload_crc, bytes.get(4..).unwrap_or_default());
        if let Some(place) = bytes.first_chunk_mut() {
            *place = crc.to_le_bytes();
        }
        bytes
    }

    /// The frame at the start of `bytes`, if there is a whole good one that was written for exactly this LSN.
    pub(crate) fn decode(bytes: &[u8], lsn: u64) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        if u64_at(head, 8)? != lsn {
            return None;
        }
        let payload_bytes = u32_at(head, 4)?;
        if payload_bytes as usize > PAYLOAD_BYTES_MAX {
            return None;
        }
        let payload = bytes.get(HEAD..HEAD + payload_bytes as usize)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(payload), head.get(4..)?);
        (crc == u32_at(head, 0)?).then_some(())?;
        Some(Self {
            lsn,
            kind: FrameKind::of(*head.get(16)?),
            version: *head.get(17)?,
            unix_secs: u32_at(head, 20)?,
            link: u64_at(head, 24)?,
            seq: u64_at(head, 32)?,
            payload_bytes,
        })
    }
}

/// Bytes a frame with such a payload takes, padding included.
pub(crate) fn frame_bytes(payload_bytes: usize) -> u64 {
    ((HEAD + payload_bytes) as u64).next_multiple_of(ALIGN)
}

/// Payload of [`FrameKind::Start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) epoch: Uuid,
    pub(crate) last_seq: u64,
    /// The number of relayed records the whole log held before this segment.
    pub(crate) relayed: u64,
    /// The number of CARRIED, OPEN IDS and EPOCH frames that follow at once.
    pub(crate) carried: u32,
    /// True if anything of this epoch was recorded before.
    pub(crate) used: bool,
}

impl Start {
    pub(crate) const BYTES: usize = 37;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(self.epoch.as_bytes());
        bytes.extend_from_slice(&self.last_seq.to_le_bytes());
        bytes.extend_from_slice(&self.relayed.to_le_bytes());
        bytes.extend_from_slice(&self.carried.to_le_bytes());
        bytes.push(u8::from(self.used));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            epoch: uuid_at(bytes, 0)?,
            last_seq: u64_at(bytes, 16)?,
            relayed: u64_at(bytes, 24)?,
            carried: u32_at(bytes, 32)?,
            used: *bytes.get(36)? != 0,
        })
    }
}

/// Payload of [`FrameKind::EpochOpen`] and [`FrameKind::EpochClosed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochMark {
    pub(crate) epoch: Uuid,
    pub(crate) last_seq: u64,
}

impl EpochMark {
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.epoch.as_bytes().to_vec();
        bytes.extend_from_slice(&self.last_seq.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { epoch: uuid_at(bytes, 0)?, last_seq: u64_at(bytes, 16)? })
    }
}

/// An entry of the payload of [`FrameKind::OpenIds`]: an open intent, and the frame that holds its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenId {
    pub(crate) lsn: u64,
    pub(crate) home: u64,
}

impl OpenId {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.lsn.to_le_bytes());
        into.extend_from_slice(&self.home.to_le_bytes());
    }

    /// All entries of a payload.
    pub(crate) fn decode(payload: &[u8]) -> impl Iterator<Item = Self> {
        let entries = payload.chunks_exact(Self::BYTES);
        entries.filter_map(|entry| Some(Self { lsn: u64_at(entry, 0)?, home: u64_at(entry, 8)? }))
    }
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

pub(crate) fn uuid_at(bytes: &[u8], offset: usize) -> Option<Uuid> {
    Some(Uuid::from_bytes(bytes.get(offset..offset + 16)?.try_into().ok()?))
}
