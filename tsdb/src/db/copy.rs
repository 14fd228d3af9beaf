//! Copies of the database for backups.

use std::path::Path;

use model::TimeRange;

use super::Db;
use super::cut::new_ulid;
use super::snapshot::Snapshot;
use crate::block::meta::Meta;
use crate::block::{self, Block};
use crate::disk::Disk;
use crate::error::{CommitError, IoError};

impl Db {
    /// Writes all blocks, and with `with_head` everything committed so far as one more block, into `dir`,
    /// which must be on the same file system: blocks are hard-linked. The copy is a data directory.
    ///
    /// # Errors
    /// A file cannot be linked or written; then nothing of the copy stays, if `dir` is new.
    pub fn copy_to(&self, dir: &Path, with_head: bool) -> Result<(), CommitError> {
        let disk = &*self.inner.disk;
        let is_new = disk.list(dir).is_err();
        self.copy(dir, with_head).inspect_err(|_| {
            if is_new {
                // A full disk must not get fuller.
                let _ = disk.remove_dir_all(dir);
            }
        })
    }

    fn copy(&self, dir: &Path, with_head: bool) -> Result<(), CommitError> {
        let inner = &self.inner;
        // No block may vanish while it is linked.
        let maintenance = inner.maintenance.lock();
        maintenance.check(&inner.dir)?;
        inner.disk.create_dir_all(dir).map_err(CommitError::at(dir))?;
        let snapshot = Snapshot::take(inner);
        for block in snapshot.blocks() {
            link_block(&*inner.disk, block, dir)?;
        }
        let view = snapshot.view();
        let end = inner.head.max_ts().map(|max| max.saturating_add(1));
        if let Some(end) = end.filter(|_| with_head) {
            inner.copy_late(dir)?;
            let start = inner.head.min_ts().unwrap_or(end).max(view.from);
            if start < end {
                let meta = Meta::first_level(new_ulid(&*inner.disk, end), start, end);
                inner.write_head(dir, meta, view, TimeRange::new(start, end - 1))?;
            }
        }
        inner.disk.sync_dir(dir).map_err(CommitError::at(dir))
    }
}

fn link_block(disk: &dyn Disk, block: &Block, dir: &Path) -> Result<(), IoError> {
    let to = dir.join(block.meta.ulid.to_string());
    let chunks = to.join(block::CHUNKS_DIR);
    disk.create_dir_all(&chunks).map_err(CommitError::at(&chunks))?;
    let from_chunks = block.dir().join(block::CHUNKS_DIR);
    for entry in disk.list(&from_chunks).map_err(CommitError::at(&from_chunks))? {
        let path = chunks.join(&entry.name);
        disk.hard_link(&from_chunks.join(&entry.name), &path).map_err(CommitError::at(&path))?;
    }
    for name in [block::INDEX_FILE, block::TOMBSTONES_FILE, block::META_FILE] {
        let path = to.join(name);
        disk.hard_link(&block.dir().join(name), &path).map_err(CommitError::at(&path))?;
    }
    for dir in [&chunks, &to] {
        disk.sync_dir(dir).map_err(CommitError::at(dir))?;
    }
    Ok(())
}
