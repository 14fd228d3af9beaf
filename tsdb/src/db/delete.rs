//! Deleting by matchers and time.

use std::sync::Arc;

use croaring::Bitmap;
use model::{Matcher, Selection, TimeRange};

use super::snapshot::Snapshot;
use super::{Db, Inner, Maintained};
use crate::block::{self, Block};
use crate::disk::write_atomically;
use crate::error::{CommitError, IoError};
use crate::wal::record;

impl Db {
    /// Deletes the samples in `range` of the series that fulfil `matchers`. They are gone for every
    /// later snapshot; their bytes go with the next compaction, or by [`Db::clean_tombstones`].
    ///
    /// # Errors
    /// A file cannot be read or written; part of the samples may be deleted then.
    pub fn delete(&self, matchers: &[Matcher], range: TimeRange) -> Result<(), CommitError> {
        if range.end < range.start {
            return Ok(());
        }
        let inner = &self.inner;
        let maintenance = inner.maintenance.lock();
        maintenance.check(&inner.dir)?;
        inner.delete_from_head(matchers, range)?;
        let blocks = inner.published.read().blocks.clone();
        for block in blocks.iter().filter(|block| block.meta.range().overlaps(range)) {
            inner.delete_from_block(block, matchers, range)?;
        }
        Ok(())
    }

    /// Rewrites every block that has deleted samples without them.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn clean_tombstones(&self) -> Result<Maintained, CommitError> {
        let inner = &self.inner;
        let maintenance = inner.maintenance.lock();
        maintenance.check(&inner.dir)?;
        let mut done = Maintained::default();
        let blocks = inner.published.read().blocks.clone();
        for block in blocks.into_iter().filter(|block| block.tombstones.len() > 0) {
            inner.compact_blocks(&[block], &mut done)?;
        }
        Ok(done)
    }
}

impl Inner {
    fn delete_from_head(&self, matchers: &[Matcher], range: TimeRange) -> Result<(), IoError> {
        let mut late = Bitmap::new();
        if !self.head.late.is_empty() {
            let ids = self.head.catalog.read_recursive().select(matchers, None);
            late.extend(ids.iter().filter(|&id| self.head.late.has(id)));
            self.delete_late(&ids, range)?;
        }
        // Under the commit lock, so that the log has the deletion after all samples it applies to.
        let mut log = self.log.lock();
        let catalog = self.head.catalog.read_recursive();
        let ids = catalog.select(matchers, None);
        let spans = self.head.deletable(&ids, range, &late);
        if spans.is_empty() {
            return Ok(());
        }
        let entries: Vec<_> =
            spans.iter().map(|(_, wal_ref, span)| (*wal_ref, span.start, span.end)).collect();
        let record = record::tombstones(&entries);
        log.catch_up()?;
        let written = log.wal.append(std::iter::once(record.as_slice()));
        written.map_err(|source| CommitError { path: log.wal.path(), source })?;
        log.sync()?;
        let from_snapshot = self.head.snapshots.next();
        for (id, _, span) in spans {
            self.head.delete(id, span, from_snapshot);
        }
        Ok(())
    }

    fn delete_from_block(
        &self,
        block: &Arc<Block>,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<(), IoError> {
        let invalid = |error: model::StorageError| IoError {
            path: block.dir().to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()),
        };
        let ids = Snapshot::block_series(block, &Selection::new(matchers, range)).map_err(invalid)?;
        if ids.is_empty() {
            return Ok(());
        }
        let span = block.meta.range();
        let span = TimeRange::new(span.start.max(range.start), span.end.min(range.end));
        let mut tombstones = block.tombstones.clone();
        for id in ids {
            tombstones.0.entry(id).or_default().add(span);
        }
        let path = block.dir().join(block::TOMBSTONES_FILE);
        write_atomically(&*self.disk, &path, &tombstones.encode()).map_err(IoError::at(&path))?;
        let mut meta = block.meta.clone();
        meta.stats.num_tombstones = tombstones.len();
        let path = block.dir().join(block::META_FILE);
        write_atomically(&*self.disk, &path, &block::meta_json(&meta)).map_err(IoError::at(&path))?;
        let reopened = self.open_block(block.meta.ulid)?;
        let _log = self.log.lock();
        for known in self.published.write().blocks.iter_mut().filter(|known| Arc::ptr_eq(known, block)) {
            *known = Arc::clone(&reopened);
        }
        Ok(())
    }
}
