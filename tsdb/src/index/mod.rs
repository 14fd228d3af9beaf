//! A block's index: symbols, series, postings. Drawn in `docs/format.md`, section "Index".

pub(crate) mod reader;
pub(crate) mod writer;

const MAGIC: u32 = 0xBAAA_D700;
const VERSION: u8 = 2;
/// Six offsets of eight bytes and a CRC at the end of the file.
const TOC_BYTES: usize = 6 * 8 + 4;
/// Series begin at multiples of this, and references count in it.
const SERIES_ALIGN: usize = 16;

/// What the index says about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkMeta {
    pub(crate) min: i64,
    pub(crate) max: i64,
    /// Segment number from 0 in the high half, offset in the low half.
    pub(crate) reference: u64,
}
