//! Chunks of the head as readers see them.

use model::{Samples, TimeRange, Timestamp};

use super::mapped::MappedChunk;
use crate::block::tombstones::Intervals;
use crate::chunk::{self, Chunk, Encoding};
use crate::codec::Malformed;

/// The bytes of a chunk of the head.
#[derive(Clone)]
pub(super) enum ChunkBytes {
    Memory(Encoding, Vec<u8>),
    Mapped(MappedChunk),
}

impl ChunkBytes {
    pub(super) fn data(&self) -> &[u8] {
        match self {
            Self::Memory(_, data) => data,
            Self::Mapped(chunk) => chunk.data(),
        }
    }

    pub(super) fn encoding(&self) -> Encoding {
        match self {
            Self::Memory(encoding, _) => *encoding,
            Self::Mapped(chunk) => chunk.encoding,
        }
    }
}

/// A chunk as a reader may see it: its first `limit` samples.
#[derive(Clone)]
pub(crate) struct Visible {
    pub(crate) min: Timestamp,
    pub(crate) max: Timestamp,
    pub(super) bytes: ChunkBytes,
    pub(super) limit: usize,
}

impl Visible {
    pub(crate) fn decode(&self, range: TimeRange, into: &mut Samples) -> Result<(), Malformed> {
        let range = chunk::within(range, self.min, self.max);
        chunk::decode(self.bytes.encoding(), self.bytes.data(), self.limit, range, into)
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.bytes.data()
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.bytes.encoding()
    }

    /// Whether the bytes have all of the samples in `range` that are not deleted, and no others.
    pub(crate) fn is_whole(&self, range: TimeRange, deleted: Option<&Intervals>) -> bool {
        let span = TimeRange::new(self.min, self.max);
        self.limit == usize::from(chunk::count(self.encoding(), self.data()))
            && range.contains(self.min)
            && range.contains(self.max)
            && !deleted.is_some_and(|deleted| deleted.overlaps(span))
    }

    /// The samples in `range` that are not deleted as chunks of their own; the same bytes where that is
    /// all of them.
    pub(crate) fn cut_to(
        &self,
        range: TimeRange,
        deleted: Option<&Intervals>,
    ) -> Result<Vec<Chunk>, Malformed> {
        let (data, encoding) = (self.bytes.data(), self.bytes.encoding());
        if self.is_whole(range, deleted) {
            return Ok(vec![Chunk { min: self.min, max: self.max, encoding, data: data.into() }]);
        }
        let keep = |ts| range.contains(ts) && !deleted.is_some_and(|deleted| deleted.contains(ts));
        chunk::filter(encoding, data, self.limit, keep)
    }
}
