//! Making larger blocks of smaller ones.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use model::{Labels, StorageError};

use super::cut::new_ulid;
use super::merge::merge;
use super::{Inner, Maintained};
use crate::block::Block;
use crate::block::meta::{Meta, Parent};
use crate::block::writer::Writer;
use crate::chunk::{self, Chunk, Encoder, Sample};
use crate::codec::Malformed;
use crate::disk::Disk;
use crate::error::IoError;
use crate::index::ChunkMeta;
use crate::select::LabelIndex as _;

/// Blocks are not made longer than this: 31 days.
const RANGE_MS_MAX: i64 = 31 * 86_400_000;
/// Each level's range is this many times that of the level below.
const RANGE_STEP: i64 = 3;

/// The lengths of blocks, ascending, from one cut of the head to a tenth of the retention.
pub(super) fn ranges(block_range_ms: i64, retention_ms: Option<i64>) -> Vec<i64> {
    let max = retention_ms.map_or(RANGE_MS_MAX, |retention| (retention / 10).min(RANGE_MS_MAX));
    let longer = std::iter::successors(Some(block_range_ms), |range| range.checked_mul(RANGE_STEP));
    longer.take_while(|&range| range <= max.max(block_range_ms)).collect()
}

/// Chooses blocks to be compacted into one; empty if there is nothing to do. `blocks` ascend by time.
///
/// First blocks that overlap. Then, leaving the newest block alone, all blocks within one aligned range
/// of a level if they fill it or the newest block lies behind it. Then a single block of which more
/// than a twentieth is deleted.
pub(super) fn plan(blocks: &[Meta], ranges: &[i64]) -> Vec<usize> {
    let overlapping = overlapping(blocks);
    if !overlapping.is_empty() {
        return overlapping;
    }
    let Some((newest, older)) = blocks.split_last() else { return Vec::new() };
    for &range in ranges.iter().skip(1) {
        let mut start = 0;
        while start < older.len() {
            let from = older[start].min_time.div_euclid(range) * range;
            let inside = |block: &&Meta| from <= block.min_time && block.max_time <= from + range;
            let count = older[start..].iter().take_while(inside).count();
            let group = start..start + count.max(1);
            start = group.end;
            if count < 2 || older[group.clone()].iter().any(|block| block.compaction.failed) {
                continue;
            }
            let (first, last) = (&older[group.start], &older[group.end - 1]);
            let full = last.max_time - first.min_time == range;
            if full || last.max_time <= newest.min_time.div_euclid(range) * range {
                return group.collect();
            }
        }
    }
    let much_deleted = |block: &Meta| block.stats.num_tombstones * 20 > block.stats.num_series + 1;
    (0..older.len()).filter(|&at| much_deleted(&older[at])).take(1).collect()
}

/// The first blocks that overlap, with all that they overlap.
fn overlapping(blocks: &[Meta]) -> Vec<usize> {
    let mut start = 0;
    while start < blocks.len() {
        let (mut end, mut max) = (start + 1, blocks[start].max_time);
        while end < blocks.len() && blocks[end].min_time < max {
            max = max.max(blocks[end].max_time);
            end += 1;
        }
        if end - start > 1 {
            return (start..end).collect();
        }
        start = end;
    }
    Vec::new()
}

impl Inner {
    /// Compacts until there is nothing left to compact.
    pub(super) fn compact(&self, done: &mut Maintained) -> Result<(), IoError> {
        let ranges = ranges(self.options.block_range_ms, self.options.retention_ms);
        loop {
            let blocks = self.published.read().blocks.clone();
            let metas: Vec<Meta> = blocks.iter().map(|block| block.meta.clone()).collect();
            let chosen: Vec<_> =
                plan(&metas, &ranges).into_iter().map(|at| Arc::clone(&blocks[at])).collect();
            if chosen.is_empty() {
                return Ok(());
            }
            if !self.compact_blocks(&chosen, done)? {
                return Ok(());
            }
        }
    }

    /// Replaces blocks by one that has their samples without the deleted ones. False if they stay, since
    /// nothing would be left to tell the next start how far the head has been cut: the log still has their
    /// samples, and those would be back.
    pub(super) fn compact_blocks(
        &self,
        parents: &[Arc<Block>],
        done: &mut Maintained,
    ) -> Result<bool, IoError> {
        let written = self.write_compacted(&self.dir, parents)?;
        if written.is_none() && self.have_the_edge(parents) {
            return Ok(false);
        }
        let block = match written {
            Some(ulid) => {
                done.blocks_written += 1;
                Some(self.open_block(ulid)?)
            }
            None => None,
        };
        {
            let _log = self.log.lock();
            let mut published = self.published.write();
            published.blocks.retain(|block| !parents.iter().any(|parent| Arc::ptr_eq(parent, block)));
            published.blocks.extend(block);
            published.blocks.sort_by_key(|block| (block.meta.min_time, block.meta.max_time, block.meta.ulid));
        }
        for parent in parents {
            self.delete_block_dir(parent.dir())?;
            done.blocks_deleted += 1;
        }
        Ok(true)
    }

    /// Whether no other block reaches as far as `parents` do in order.
    fn have_the_edge(&self, parents: &[Arc<Block>]) -> bool {
        let published = self.published.read();
        let in_order = published.blocks.iter().filter(|block| !block.meta.is_out_of_order());
        let newest = in_order.max_by_key(|block| block.meta.max_time);
        newest.is_some_and(|newest| parents.iter().any(|parent| Arc::ptr_eq(parent, newest)))
    }

    fn write_compacted(&self, dir: &Path, parents: &[Arc<Block>]) -> Result<Option<ulid::Ulid>, IoError> {
        let invalid = |error: StorageError| match error {
            StorageError::Io { path, source } => IoError { path, source },
            other => IoError {
                path: dir.to_owned(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidData, other.to_string()),
            },
        };
        let mut symbols = BTreeSet::new();
        let mut sources = Vec::new();
        for (number, block) in (0..).zip(parents) {
            let index_error = |error| invalid(block.index_error(error));
            for symbol in block.index.symbols() {
                let symbol = symbol.map_err(index_error)?;
                if !symbols.contains(symbol) {
                    symbols.insert(symbol.to_owned());
                }
            }
            sources.push((number, block.index.all().map_err(index_error)?.to_vec()));
        }
        let block_of = |source: u32| &parents[source as usize];
        let merged = merge(sources, |source, id| block_of(source).labels(id)).map_err(invalid)?;
        let in_order = symbols.iter().map(String::as_str);
        let mut writer = Writer::create(&self.disk, dir, compacted_meta(&*self.disk, parents), in_order)?;
        drop(symbols);
        for index in 0..merged.len() {
            let entries = merged.entries(index);
            let labels: Labels = block_of(entries[0].0).labels(entries[0].1).map_err(invalid)?;
            let chunks = series_chunks(entries, block_of).map_err(invalid)?;
            let pairs: Vec<_> = labels.iter().collect();
            writer.series(pairs.into_iter(), &chunks)?;
        }
        writer.finish()
    }
}

/// What the block made of `parents` is.
fn compacted_meta(disk: &dyn Disk, parents: &[Arc<Block>]) -> Meta {
    let metas = parents.iter().map(|block| &block.meta);
    let min = metas.clone().map(|meta| meta.min_time).min().unwrap_or(0);
    let max = metas.clone().map(|meta| meta.max_time).max().unwrap_or(0);
    let mut meta = Meta::first_level(new_ulid(disk, max), min, max);
    let compaction = &mut meta.compaction;
    compaction.level = metas.clone().map(|meta| meta.compaction.level).max().unwrap_or(0) + 1;
    let sources: BTreeSet<_> = metas.clone().flat_map(|meta| meta.compaction.sources.clone()).collect();
    compaction.sources = sources.into_iter().collect();
    let parent = |meta: &Meta| Parent { ulid: meta.ulid, min_time: meta.min_time, max_time: meta.max_time };
    compaction.parents = metas.clone().map(parent).collect();
    if metas.clone().all(Meta::is_out_of_order) {
        compaction.hints =
            parents.first().map(|block| block.meta.compaction.hints.clone()).unwrap_or_default();
    }
    meta
}

/// The chunks of one series in several blocks, as the compacted block has them: the same bytes where
/// nothing is deleted and nothing overlaps.
fn series_chunks<'a>(
    entries: &[(u32, u32)],
    block_of: impl Fn(u32) -> &'a Arc<Block>,
) -> Result<Vec<Chunk>, StorageError> {
    let mut all: Vec<(ChunkMeta, u32, u32)> = Vec::new();
    let (mut scratch, mut deleted) = (Vec::new(), false);
    for &(source, id) in entries {
        let block = block_of(source);
        block.index.chunks(id, &mut scratch).map_err(|error| block.index_error(error))?;
        all.extend(scratch.iter().map(|chunk| (*chunk, source, id)));
        deleted |= block.tombstones.0.contains_key(&id);
    }
    all.sort_by_key(|(chunk, ..)| (chunk.min, chunk.max));
    let overlap = all.windows(2).any(|pair| pair[1].0.min <= pair[0].0.max);
    if !overlap && !deleted {
        let chunks = all.iter().map(|(meta, source, id)| {
            let (encoding, data) = block_of(*source).chunk(*id, meta)?;
            Ok(Chunk { min: meta.min, max: meta.max, encoding, data: data.into() })
        });
        return chunks.collect();
    }
    // Of two samples of one time the one that came in order stays, then that of the first block, as
    // readers have it.
    all.sort_by_key(|(_, source, _)| (block_of(*source).meta.is_out_of_order(), *source));
    let (mut samples, mut encodings) = (Vec::<Sample>::new(), Vec::new());
    for (meta, source, id) in &all {
        let block = block_of(*source);
        let deleted = block.tombstones.0.get(id);
        let (encoding, data) = block.chunk(*id, meta)?;
        encodings.push(encoding);
        let visited = chunk::for_each(encoding, data, usize::MAX, &mut |sample| {
            if !deleted.is_some_and(|deleted| deleted.contains(sample.ts)) {
                samples.push(sample);
            }
        });
        visited.map_err(|Malformed(what)| block.chunk_error(*id, meta, what))?;
    }
    samples.sort_by_key(|sample| sample.ts);
    samples.dedup_by_key(|sample| sample.ts);
    let mut encoder = Encoder::like(encodings);
    samples.iter().for_each(|sample| encoder.push(sample));
    Ok(encoder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn blocks(spans: &[(i64, i64)]) -> Vec<Meta> {
        let meta = |&(min, max): &(i64, i64)| {
            Meta::first_level(new_ulid(&crate::disk::memory::Memory::new(), max), min * HOUR, max * HOUR)
        };
        spans.iter().map(meta).collect()
    }

    fn planned(spans: &[(i64, i64)]) -> Vec<usize> {
        plan(&blocks(spans), &[2 * HOUR, 6 * HOUR, 18 * HOUR])
    }

    #[test]
    fn ranges_end_at_a_tenth_of_the_retention() {
        assert_eq!(ranges(2 * HOUR, Some(15 * 24 * HOUR)), [2 * HOUR, 6 * HOUR, 18 * HOUR]);
        assert_eq!(ranges(2 * HOUR, Some(HOUR)), [2 * HOUR]);
        assert_eq!(ranges(2 * HOUR, None).len(), 6);
    }

    #[test]
    fn plans() {
        assert_eq!(planned(&[]), [0; 0]);
        assert_eq!(planned(&[(0, 2), (2, 4), (4, 6)]), [0; 0], "the newest block is left alone");
        assert_eq!(planned(&[(0, 2), (2, 4), (4, 6), (6, 8)]), [0, 1, 2]);
        assert_eq!(planned(&[(2, 4), (4, 6), (6, 8)]), [0, 1], "an incomplete range that is over");
        assert_eq!(planned(&[(0, 2), (4, 6), (6, 8)]), [0, 1]);
        assert_eq!(planned(&[(0, 6), (6, 12), (12, 18), (18, 20)]), [0, 1, 2]);
        assert_eq!(planned(&[(0, 6), (6, 8), (7, 9), (8, 10), (10, 12)]), [1, 2, 3]);
        let mut some_deleted = blocks(&[(0, 2), (2, 4)]);
        some_deleted[0].stats.num_series = 100;
        some_deleted[0].stats.num_tombstones = 6;
        assert_eq!(plan(&some_deleted, &[2 * HOUR]), [0]);
    }
}
