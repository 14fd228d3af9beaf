//! Series as encoded chunks, for readers that hand them on instead of looking into them: streamed remote
//! read, and Thanos' StoreAPI.

use model::{Labels, Samples, Selection, SeriesSet as _, StorageError, TimeRange, Timestamp};

use super::snapshot::{Set, Snapshot};
use crate::block::Block;
use crate::chunk::{self, Chunk, Encoder, Encoding, Sample, Value};
use crate::codec::Malformed;
use crate::head::Visible;

/// How the bytes of a [`RawChunk`] are to be read. The numbers are those of Prometheus' blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkEncoding {
    /// Floats.
    Xor = 1,
    /// Native histograms with integer counts.
    Histogram = 2,
    /// Native histograms with float counts.
    FloatHistogram = 3,
}

/// A chunk as it is stored: a `u16` count and a bit stream, see `docs/format.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawChunk<'a> {
    /// The time of its first sample.
    pub min_ts: Timestamp,
    /// The time of its last sample.
    pub max_ts: Timestamp,
    /// How the bytes are to be read.
    pub encoding: ChunkEncoding,
    /// The bytes, without length and checksum.
    pub bytes: &'a [u8],
}

/// Bytes that are no chunk of the encoding they are said to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedChunk(&'static str);

impl RawChunk<'_> {
    /// Appends the samples in `range` to `into`.
    ///
    /// # Errors
    /// The bytes are not what the encoding says.
    pub fn decode(&self, range: TimeRange, into: &mut Samples) -> Result<(), MalformedChunk> {
        let encoding = match self.encoding {
            ChunkEncoding::Xor => Encoding::Xor,
            ChunkEncoding::Histogram => Encoding::Histogram,
            ChunkEncoding::FloatHistogram => Encoding::FloatHistogram,
        };
        let decoded = chunk::decode(encoding, self.bytes, usize::MAX, range, into);
        decoded.map_err(|Malformed(what)| MalformedChunk(what))
    }
}

/// Selected series, whose chunks are read one series at a time.
pub struct ChunkSeriesSet<'a>(Set<'a>);

/// The bytes of a chunk on their way to a reader.
enum Bytes<'a> {
    /// In the mapped file of a block.
    Stored(&'a [u8]),
    /// In the head, as this snapshot sees it.
    Head(Visible),
    /// Encoded for this reader.
    Anew(Box<[u8]>),
}

/// A chunk of one source.
struct Piece<'a> {
    span: TimeRange,
    /// Of two samples of one time that of the least rank counts.
    rank: u32,
    encoding: Encoding,
    bytes: Bytes<'a>,
}

impl Piece<'_> {
    fn anew(rank: u32, chunk: Chunk) -> Self {
        let span = TimeRange::new(chunk.min, chunk.max);
        Self { span, rank, encoding: chunk.encoding, bytes: Bytes::Anew(chunk.data) }
    }

    fn data(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Stored(data) => data,
            Bytes::Head(visible) => visible.data(),
            Bytes::Anew(data) => data,
        }
    }
}

impl Snapshot {
    /// The selected series, in ascending order of labels, with their chunks as they are stored.
    ///
    /// # Errors
    /// An index cannot be read.
    pub fn select_chunks(&self, selection: &Selection<'_>) -> Result<ChunkSeriesSet<'_>, StorageError> {
        self.select_sorted(selection, true).map(ChunkSeriesSet)
    }
}

impl<'a> ChunkSeriesSet<'a> {
    /// The number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The labels of series `index`.
    #[must_use]
    pub fn labels(&self, index: usize) -> Labels {
        self.0.labels(index)
    }

    /// Calls `visit` with each label of series `index`, in ascending order of names.
    pub fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.0.visit_labels(index, visit);
    }

    /// Calls `visit` with the chunks of series `index` that overlap `range`, in order of time and without
    /// overlap. Their samples in `range` are those that [`model::SeriesSet::samples`] gives; chunks that reach
    /// beyond it are not cut, and what they have there need not be all that the store has of that time.
    ///
    /// A chunk is the stored bytes unless samples of it are deleted, not visible to the snapshot, or late ones
    /// lie between them: then it is encoded anew, and so are chunks of encodings that readers from before
    /// Prometheus 3.14 do not know.
    ///
    /// # Errors
    /// A chunk cannot be read.
    pub fn chunks(
        &self,
        index: usize,
        range: TimeRange,
        visit: &mut dyn FnMut(RawChunk<'_>),
    ) -> Result<(), StorageError> {
        let mut pieces = self.pieces(index, range)?;
        // What is left of a chunk where samples are deleted may lie outside.
        pieces.retain(|piece| range.overlaps(piece.span));
        // Nearly always they are in order, as there is one source.
        pieces.sort_by_key(|piece| (piece.span.start, piece.rank));
        let mut start = 0;
        while start < pieces.len() {
            let (mut end, mut max) = (start + 1, pieces[start].span.end);
            while end < pieces.len() && pieces[end].span.start <= max {
                max = max.max(pieces[end].span.end);
                end += 1;
            }
            let group = &mut pieces[start..end];
            start = end;
            let encoding = known_encoding(group[0].encoding);
            if let ([piece], Some(encoding)) = (&*group, encoding) {
                let TimeRange { start: min_ts, end: max_ts } = piece.span;
                visit(RawChunk { min_ts, max_ts, encoding, bytes: piece.data() });
                continue;
            }
            for chunk in self.join(index, group)? {
                let Chunk { min, max, encoding, data } = chunk;
                // What is encoded here is of an encoding that everybody knows.
                let encoding = known_encoding(encoding).filter(|_| range.overlaps(TimeRange::new(min, max)));
                if let Some(encoding) = encoding {
                    visit(RawChunk { min_ts: min, max_ts: max, encoding, bytes: &data });
                }
            }
        }
        Ok(())
    }

    /// The chunks of all sources.
    fn pieces(&self, index: usize, range: TimeRange) -> Result<Vec<Piece<'a>>, StorageError> {
        let snapshot = self.0.snapshot;
        let (mut pieces, mut scratch) = (Vec::new(), Vec::new());
        for (rank, (block, id)) in (0..).zip(self.0.sources(index)) {
            match block {
                Some(block) => block_pieces(block, (id, rank), range, &mut scratch, &mut pieces)?,
                None => head_pieces(snapshot, (id, rank), range, &mut pieces)?,
            }
        }
        Ok(pieces)
    }

    /// Encodes the samples of chunks that overlap, or that not everybody can read.
    fn join(&self, index: usize, group: &mut [Piece<'_>]) -> Result<Vec<Chunk>, StorageError> {
        group.sort_by_key(|piece| (piece.rank, piece.span.start));
        let mut samples: Vec<Sample> = Vec::new();
        for piece in &*group {
            // Those that hand chunks on know no start times.
            let mut take = |sample| samples.push(Sample { start: 0, ..sample });
            chunk::for_each(piece.encoding, piece.data(), usize::MAX, &mut take).map_err(
                |Malformed(what)| StorageError::Corrupt {
                    path: self.0.snapshot.dir().to_owned(),
                    what: format!("{what}; chunks of {} cannot be joined", self.labels(index)),
                },
            )?;
        }
        // As the readers of samples have it: of one time, the first float, or else the first histogram.
        samples.sort_by_key(|sample| (sample.ts, matches!(sample.value, Value::Histogram(_))));
        samples.dedup_by_key(|sample| sample.ts);
        let mut encoder = Encoder::default();
        samples.iter().for_each(|sample| encoder.push(sample));
        Ok(encoder.finish())
    }
}

/// `None`: the chunk is to be encoded anew.
fn known_encoding(encoding: Encoding) -> Option<ChunkEncoding> {
    match encoding {
        Encoding::Xor => Some(ChunkEncoding::Xor),
        Encoding::Histogram => Some(ChunkEncoding::Histogram),
        Encoding::FloatHistogram => Some(ChunkEncoding::FloatHistogram),
        Encoding::Xor2 | Encoding::StartedHistogram | Encoding::StartedFloatHistogram => None,
    }
}

fn block_pieces<'a>(
    block: &'a Block,
    (id, rank): (u32, u32),
    range: TimeRange,
    scratch: &mut Vec<crate::index::ChunkMeta>,
    pieces: &mut Vec<Piece<'a>>,
) -> Result<(), StorageError> {
    block.index.chunks(id, scratch).map_err(|error| block.index_error(error))?;
    let deleted = block.tombstones.0.get(&id);
    for meta in scratch.iter() {
        let span = TimeRange::new(meta.min, meta.max);
        if !range.overlaps(span) {
            continue;
        }
        let (encoding, data) = block.chunk(id, meta)?;
        match deleted.filter(|deleted| deleted.overlaps(span)) {
            None => pieces.push(Piece { span, rank, encoding, bytes: Bytes::Stored(data) }),
            Some(deleted) => {
                let left = chunk::filter(encoding, data, usize::MAX, |ts| !deleted.contains(ts));
                let left = left.map_err(|Malformed(what)| block.chunk_error(id, meta, what))?;
                pieces.extend(left.into_iter().map(|chunk| Piece::anew(rank, chunk)));
            }
        }
    }
    Ok(())
}

fn head_pieces(
    snapshot: &Snapshot,
    (id, rank): (u32, u32),
    range: TimeRange,
    pieces: &mut Vec<Piece<'_>>,
) -> Result<(), StorageError> {
    let (head, view) = (snapshot.head(), snapshot.view());
    let visible = head.visible(id, view, range);
    snapshot.check()?;
    let failed = |error| snapshot.head_error(id, error);
    let deleted = head.deleted(id, view);
    // What is older than the view is in a block.
    let own = TimeRange::new(view.from, Timestamp::MAX);
    for visible in visible.map_err(failed)? {
        if visible.is_whole(own, deleted.as_ref()) {
            let span = TimeRange::new(visible.min, visible.max);
            let encoding = visible.encoding();
            pieces.push(Piece { span, rank, encoding, bytes: Bytes::Head(visible) });
        } else {
            let left = visible.cut_to(own, deleted.as_ref()).map_err(failed)?;
            pieces.extend(left.into_iter().map(|chunk| Piece::anew(rank, chunk)));
        }
    }
    let mut late = Encoder::default();
    head.late.for_each(id, range, view.snapshot, &mut |sample| late.push(sample));
    pieces.extend(late.finish().into_iter().map(|chunk| Piece::anew(u32::MAX, chunk)));
    Ok(())
}
