//! Blocks: immutable directories of a span of time.

pub(crate) mod chunks;
pub(crate) mod meta;
pub(crate) mod tombstones;
pub(crate) mod writer;

use std::path::{Path, PathBuf};

use model::{Labels, Samples, StorageError, TimeRange};

use crate::chunk;
use crate::codec::Malformed;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::index::ChunkMeta;
use crate::index::reader::Reader as IndexReader;
use meta::Meta;
use tombstones::Tombstones;

pub(crate) const CHUNKS_DIR: &str = "chunks";
pub(crate) const INDEX_FILE: &str = "index";
pub(crate) const META_FILE: &str = "meta.json";
pub(crate) const TOMBSTONES_FILE: &str = "tombstones";
/// Ends the name of a block that is being written.
pub(crate) const TMP_SUFFIX: &str = ".tmp-for-creation";
/// Ends the name of a block that is being deleted.
pub(crate) const DELETION_SUFFIX: &str = ".tmp-for-deletion";

/// The text of `meta.json`, as Prometheus lays it out.
pub(crate) fn meta_json(meta: &Meta) -> Vec<u8> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // A Meta has only text keys and finite numbers; writing it to memory cannot fail.
    let _ = serde::Serialize::serialize(meta, &mut serializer);
    out
}

/// An open block.
pub(crate) struct Block {
    pub(crate) meta: Meta,
    dir: PathBuf,
    pub(crate) index: IndexReader,
    chunks: chunks::Reader,
    pub(crate) tombstones: Tombstones,
    /// Bytes of all its files.
    pub(crate) bytes: u64,
}

impl Block {
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, OpenError> {
        let meta = read_meta(disk, dir)?;
        let index_path = dir.join(INDEX_FILE);
        let map = disk.map(&index_path).map_err(|source| OpenError::io(&index_path, source))?;
        let mut bytes = map.len() as u64;
        let index =
            IndexReader::open(map).map_err(|Malformed(what)| OpenError::corrupt(&index_path, what))?;
        let chunks_dir = dir.join(CHUNKS_DIR);
        let chunks = chunks::Reader::open(disk, &chunks_dir).map_err(|(path, source)| {
            if source.kind() == std::io::ErrorKind::InvalidData {
                OpenError::corrupt(&path, &source.to_string())
            } else {
                OpenError::io(&path, source)
            }
        })?;
        bytes += disk.list(&chunks_dir).map_or(0, |list| list.iter().map(|entry| entry.bytes).sum());
        let tombstones_path = dir.join(TOMBSTONES_FILE);
        let tombstones = match disk.read(&tombstones_path) {
            Ok(data) => Tombstones::decode(&data)
                .map_err(|Malformed(what)| OpenError::corrupt(&tombstones_path, what))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Tombstones::default(),
            Err(error) => return Err(OpenError::io(&tombstones_path, error)),
        };
        Ok(Self { meta, dir: dir.to_owned(), index, chunks, tombstones, bytes })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn index_error(&self, Malformed(what): Malformed) -> StorageError {
        let what = format!("{what}; series of {} are lost", self.span());
        StorageError::Corrupt { path: self.dir.join(INDEX_FILE), what }
    }

    fn span(&self) -> String {
        format!("the time from {} to {} ms", self.meta.min_time, self.meta.max_time)
    }

    /// Appends the samples of series `id` in `range` that are not deleted to `into`, in order of time.
    pub(crate) fn samples(
        &self,
        id: u32,
        range: TimeRange,
        scratch: &mut Vec<ChunkMeta>,
        into: &mut Samples,
    ) -> Result<(), StorageError> {
        self.index.chunks(id, scratch).map_err(|error| self.index_error(error))?;
        let from = (into.ts.len(), into.histogram_ts.len());
        for chunk in scratch.iter() {
            if range.overlaps(TimeRange::new(chunk.min, chunk.max)) {
                let range = chunk::within(range, chunk.min, chunk.max);
                let decoded = self
                    .chunks
                    .chunk(chunk.reference)
                    .and_then(|(encoding, data)| chunk::decode(encoding, data, usize::MAX, range, into));
                decoded.map_err(|Malformed(what)| self.chunk_error(id, chunk, what))?;
            }
        }
        if let Some(deleted) = self.tombstones.0.get(&id) {
            crate::samples::retain_from(into, from, |ts| !deleted.contains(ts));
        }
        Ok(())
    }

    /// The labels of series `id`.
    pub(crate) fn labels(&self, id: u32) -> Result<Labels, StorageError> {
        let mut pairs = Vec::new();
        let visited = self.index.visit_labels(id, |name, value| pairs.push((name, value)));
        visited.map_err(|error| self.index_error(error))?;
        Ok(Labels::from_sorted(pairs))
    }

    /// The bytes of one chunk.
    pub(crate) fn chunk(&self, id: u32, chunk: &ChunkMeta) -> Result<(chunk::Encoding, &[u8]), StorageError> {
        self.chunks.chunk(chunk.reference).map_err(|Malformed(what)| self.chunk_error(id, chunk, what))
    }

    /// The file that a chunk is in.
    pub(crate) fn chunk_path(&self, chunk: &ChunkMeta) -> PathBuf {
        self.chunks.path_of(chunk.reference)
    }

    pub(crate) fn chunk_error(&self, id: u32, chunk: &ChunkMeta, what: &str) -> StorageError {
        let labels = self.labels(id).unwrap_or_default();
        let what = format!("{what}; lost: {labels} from {} to {} ms", chunk.min, chunk.max);
        StorageError::Corrupt { path: self.chunks.path_of(chunk.reference), what }
    }

    /// Whether series `id` has a chunk in `range`.
    pub(crate) fn overlaps(
        &self,
        id: u32,
        range: TimeRange,
        scratch: &mut Vec<ChunkMeta>,
    ) -> Result<bool, StorageError> {
        self.index.chunks(id, scratch).map_err(|error| self.index_error(error))?;
        let deleted = self.tombstones.0.get(&id);
        Ok(scratch
            .iter()
            .map(|chunk| TimeRange::new(chunk.min, chunk.max))
            .any(|chunk| range.overlaps(chunk) && !deleted.is_some_and(|deleted| deleted.covers(chunk))))
    }
}

/// Reads the `meta.json` of a block.
pub(crate) fn read_meta(disk: &dyn Disk, dir: &Path) -> Result<Meta, OpenError> {
    let path = dir.join(META_FILE);
    let data = disk.read(&path).map_err(|source| OpenError::io(&path, source))?;
    let meta: Meta =
        serde_json::from_slice(&data).map_err(|error| OpenError::corrupt(&path, &error.to_string()))?;
    if meta.version != 1 {
        return Err(OpenError::corrupt(&path, "version is not 1"));
    }
    Ok(meta)
}
