//! A seal as a note in the spool, and a block of it, which the checkpoint holds too.

use goldleaves_domain::{Epoch, Seal, SealBlock, SetHash, Source, Timestamp};
use uuid::Uuid;

use super::bytes::Cut;
use super::error::{CodecError, check_version};

/// The version of a seal that this program writes.
pub(crate) const SEAL_VERSION: u8 = 1;

/// The bytes of a seal. Its source is the spool's id and not repeated in it.
pub(crate) fn encode_seal(seal: &Seal) -> Vec<u8> {
    let mut out = Vec::with_capacity(73 + seal.blocks.len() * 44);
    out.extend_from_slice(seal.id.as_bytes());
    out.extend_from_slice(&seal.ts.unix_micros().to_le_bytes());
    out.extend_from_slice(seal.epoch.as_uuid().as_bytes());
    out.extend_from_slice(&seal.last_seq.to_le_bytes());
    out.extend_from_slice(&seal.count.to_le_bytes());
    out.extend_from_slice(&seal.unrecorded.to_le_bytes());
    out.push(seal.closed.into());
    put_blocks(&mut out, &seal.blocks);
    out
}

/// Reads a seal.
///
/// # Errors
/// Newer versions and bytes that are no seal.
pub(crate) fn decode_seal(version: u8, payload: &[u8], source: Source) -> Result<Seal, CodecError> {
    check_version(version, SEAL_VERSION)?;
    let mut cut = Cut::new(payload);
    let id = Uuid::from_bytes(cut.array("id")?);
    let ts = Timestamp::from_unix_micros(i64::from_le_bytes(cut.array("ts")?));
    let ts = ts.map_err(|_| CodecError::Invalid("ts"))?;
    let epoch = Epoch::new(Uuid::from_bytes(cut.array("epoch")?));
    let (last_seq, count) = (cut.u64("last_seq")?, cut.u64("count")?);
    let unrecorded = cut.u64("unrecorded")?;
    let closed = take_flag(&mut cut, "closed")?;
    let blocks = take_blocks(&mut cut)?;
    cut.finish()?;
    Ok(Seal { id, source, ts, epoch, last_seq, count, unrecorded, closed, blocks })
}

pub(crate) fn take_flag(cut: &mut Cut<'_>, field: &'static str) -> Result<bool, CodecError> {
    match cut.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Invalid(field)),
    }
}

/// Appends the number of blocks and the blocks.
pub(crate) fn put_blocks(out: &mut Vec<u8>, blocks: &[SealBlock]) {
    let count = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for block in blocks {
        out.extend_from_slice(&block.block.to_le_bytes());
        out.extend_from_slice(&block.count.to_le_bytes());
        out.extend_from_slice(block.hash.as_bytes());
    }
}

/// Cuts what [`put_blocks`] appended.
pub(crate) fn take_blocks(cut: &mut Cut<'_>) -> Result<Vec<SealBlock>, CodecError> {
    let count = cut.u32("blocks")?;
    let mut blocks = Vec::new();
    for _ in 0..count {
        let (block, count) = (cut.u64("block")?, cut.u32("block count")?);
        blocks.push(SealBlock { block, count, hash: SetHash::from_bytes(cut.array("block hash")?) });
    }
    Ok(blocks)
}
