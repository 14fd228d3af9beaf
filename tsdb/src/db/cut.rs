//! From the head to a block.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::{TimeRange, Timestamp};
use ulid::Ulid;

use super::Inner;
use crate::block::Block;
use crate::block::meta::Meta;
use crate::block::writer::Writer;
use crate::chunk;
use crate::codec::Malformed;
use crate::disk::Disk;
use crate::error::{IoError, OpenError};
use crate::head::{View, mapped};

impl Inner {
    /// Writes the head's samples from `start` up to before `end` as a block, and lets new snapshots
    /// read it in place of them. Returns whether there was a sample.
    pub(super) fn cut(&self, start: Timestamp, end: Timestamp) -> Result<bool, IoError> {
        {
            // Under the commit lock: from here on no sample before `end` can come in any more.
            let _log = self.log.lock();
            self.head.min_valid.fetch_max(end, Ordering::AcqRel);
        }
        let range = TimeRange::new(start, end - 1);
        let meta = Meta::first_level(new_ulid(&*self.disk, end), start, end);
        let view = View { snapshot: u64::MAX, from: i64::MIN, plain: false };
        let written = self.write_head(&self.dir, meta, view, range)?;
        let block = match written {
            None => None,
            Some(ulid) => Some(self.open_block(ulid)?),
        };
        let _log = self.log.lock();
        let mut published = self.published.write();
        let cut = block.is_some();
        published.blocks.extend(block);
        published.blocks.sort_by_key(|block| (block.meta.min_time, block.meta.max_time, block.meta.ulid));
        published.head_from = published.head_from.max(end);
        Ok(cut)
    }

    /// Writes what `view` sees of the head in `range` in order as a block named in `meta` below `dir`.
    pub(super) fn write_head(
        &self,
        dir: &Path,
        meta: Meta,
        view: View,
        range: TimeRange,
    ) -> Result<Option<Ulid>, IoError> {
        let (ids, symbols) = {
            let catalog = self.head.catalog.read_recursive();
            let to_the_end = || Ok::<_, IoError>(());
            let mut ids = self.head.with_samples(catalog.all(), (view, range), to_the_end)?;
            catalog.sort(&mut ids);
            let mut symbols = BTreeSet::new();
            for &id in &ids {
                for (name, value) in catalog.pairs(id) {
                    for text in [name, value] {
                        if !symbols.contains(text) {
                            symbols.insert(text.to_owned());
                        }
                    }
                }
            }
            (ids, symbols)
        };
        if ids.is_empty() {
            return Ok(None);
        }
        let symbols_in_order = symbols.iter().map(String::as_str);
        let mut writer = Writer::create(&self.disk, dir, meta, symbols_in_order)?;
        drop(symbols);
        let mut chunks = Vec::new();
        for id in ids {
            chunks.clear();
            let invalid = |Malformed(what)| IoError {
                path: self.dir.join(mapped::DIR),
                source: std::io::Error::new(std::io::ErrorKind::InvalidData, what),
            };
            let deleted = self.head.deleted(id, view);
            for visible in self.head.visible(id, view, range).map_err(invalid)? {
                chunks.extend(visible.cut_to(range, deleted.as_ref()).map_err(invalid)?);
            }
            chunk::join(&mut chunks).map_err(invalid)?;
            // Series leave the head only by the thread that is here, so `id` is still the same one.
            let catalog = self.head.catalog.read_recursive();
            writer.series(catalog.pairs(id), &chunks)?;
        }
        writer.finish()
    }

    /// Opens a block that was just written.
    pub(super) fn open_block(&self, ulid: Ulid) -> Result<Arc<Block>, IoError> {
        let dir = self.dir.join(ulid.to_string());
        Block::open(&*self.disk, &dir).map(Arc::new).map_err(|error| match error {
            OpenError::Io { path, source } => IoError { path, source },
            other => IoError { path: dir, source: std::io::Error::other(other.to_string()) },
        })
    }
}

/// A name for a block that ends at `end`. It sorts by that time, as there is no other clock here.
pub(super) fn new_ulid(disk: &dyn Disk, end: Timestamp) -> Ulid {
    let random = u128::from(disk.random()) << 64 | u128::from(disk.random());
    Ulid::from_parts(u64::try_from(end).unwrap_or(0), random)
}
