//! Reading everything once, to know that it can be read.

use std::path::PathBuf;
use std::sync::Arc;

use croaring::Bitmap;

use super::late::WBL_DIR;
use super::{Db, Inner, WAL_DIR, open};
use crate::block::{self, Block};
use crate::chunk;
use crate::codec::Malformed;
use crate::disk::Disk;
use crate::error::{CommitError, IoError, OpenError};
use crate::head::mapped;
use crate::select::LabelIndex as _;
use crate::wal::page::Records;
use crate::wal::{checkpoint, record, segment_path, segments};

/// A file that was read from its first byte to its last, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// The file.
    pub path: PathBuf,
    /// What cannot be read of it, and what is lost with that; empty where everything is well.
    pub damage: Vec<String>,
    /// Whether the block that it belongs to was put into the quarantine directory.
    pub quarantined: bool,
}

impl Db {
    /// Reads all blocks, head chunks and logs, and verifies every checksum. With `quarantine`, blocks that have
    /// damage are put aside, as the start does with blocks that cannot be opened; logs and head chunks are left
    /// to the next start, which repairs them. Appends and queries go on meanwhile.
    ///
    /// # Errors
    /// A file cannot be read because of the disk, or a block cannot be moved.
    pub fn scrub(&self, quarantine: bool) -> Result<Vec<Scrubbed>, CommitError> {
        let inner = &self.inner;
        let maintenance = inner.maintenance.lock();
        maintenance.check(&inner.dir)?;
        let mut report = Vec::new();
        let blocks = inner.published.read().blocks.clone();
        for block in blocks {
            let mut files = scrub_block(&block);
            if quarantine && files.iter().any(|file| !file.damage.is_empty()) {
                inner.put_aside(&block)?;
                files.iter_mut().for_each(|file| file.quarantined = true);
            }
            report.extend(files);
        }
        inner.scrub_head_chunks(&mut report)?;
        inner.scrub_logs(&mut report)?;
        Ok(report)
    }
}

fn scrub_block(block: &Block) -> Vec<Scrubbed> {
    let mut index = Vec::new();
    let mut chunks: std::collections::BTreeMap<PathBuf, Vec<String>> = Default::default();
    let mut all = Bitmap::new();
    match block.index.all() {
        Ok(found) => all = found,
        Err(error) => index.push(block.index_error(error).to_string()),
    }
    for name in block.index.names() {
        let visited = block.index.visit_values(name, "", |_, postings| {
            block.index.postings_at(postings, &mut Bitmap::new())?;
            Ok(true)
        });
        index.extend(visited.err().map(|error| block.index_error(error).to_string()));
    }
    let mut metas = Vec::new();
    for id in all.iter() {
        let readable =
            block.index.visit_labels(id, |_, _| ()).and_then(|()| block.index.chunks(id, &mut metas));
        if let Err(error) = readable {
            index.push(block.index_error(error).to_string());
            continue;
        }
        for meta in &metas {
            let damage = chunks.entry(block.chunk_path(meta)).or_default();
            let read = block.chunk(id, meta).and_then(|(encoding, data)| {
                chunk::for_each(encoding, data, usize::MAX, &mut |_| ())
                    .map_err(|Malformed(what)| block.chunk_error(id, meta, what))
            });
            damage.extend(read.err().map(|error| error.to_string()));
        }
    }
    let file = |path, damage| Scrubbed { path, damage, quarantined: false };
    let own = file(block.dir().join(block::INDEX_FILE), index);
    std::iter::once(own).chain(chunks.into_iter().map(|(path, damage)| file(path, damage))).collect()
}

impl Inner {
    fn put_aside(&self, block: &Arc<Block>) -> Result<(), IoError> {
        {
            let _log = self.log.lock();
            self.published.write().blocks.retain(|other| !Arc::ptr_eq(other, block));
        }
        let found = OpenError::corrupt(block.dir(), "a scrub found damage");
        open::quarantine_block(&*self.disk, &self.dir, block.dir(), &found).map_err(|error| IoError {
            path: block.dir().to_owned(),
            source: std::io::Error::other(error.to_string()),
        })
    }

    fn scrub_head_chunks(&self, report: &mut Vec<Scrubbed>) -> Result<(), IoError> {
        let dir = self.dir.join(mapped::DIR);
        for entry in self.disk.list(&dir).map_err(CommitError::at(&dir))? {
            let path = dir.join(&entry.name);
            let data = self.disk.map(&path).map_err(CommitError::at(&path))?;
            let damage = mapped::scan(&data, 1, &mut |_, _| ()).err().map(|Malformed(what)| {
                format!("{what}; the next start deletes it, and reads its samples from the log")
            });
            report.push(Scrubbed { path, damage: damage.into_iter().collect(), quarantined: false });
        }
        Ok(())
    }

    fn scrub_logs(&self, report: &mut Vec<Scrubbed>) -> Result<(), IoError> {
        let wal_dir = self.dir.join(WAL_DIR);
        let checkpoint = checkpoint::newest(&*self.disk, &wal_dir).map_err(CommitError::at(&wal_dir))?;
        let dirs = checkpoint.map(|(_, dir)| dir).into_iter().chain([wal_dir, self.dir.join(WBL_DIR)]);
        // What is being written has no end yet.
        let written = {
            let mut logs = self.log.lock();
            logs.all().map(|log| log.path()).collect::<Vec<_>>()
        };
        for dir in dirs {
            for (number, _) in segments(&*self.disk, &dir).map_err(CommitError::at(&dir))? {
                let path = segment_path(&dir, number);
                if !written.contains(&path) {
                    report.push(scrub_segment(&*self.disk, path)?);
                }
            }
        }
        Ok(())
    }
}

fn scrub_segment(disk: &dyn Disk, path: PathBuf) -> Result<Scrubbed, IoError> {
    let data = disk.map(&path).map_err(CommitError::at(&path))?;
    let (mut records, mut space, mut damage) = (Records::new(&data), Vec::new(), Vec::new());
    while let Some(next) = records.next() {
        let read = next.and_then(|stored| {
            let data = stored.unpack(&mut space)?;
            record::decode(data).map(drop).map_err(|Malformed(what)| crate::wal::page::Damage {
                offset: stored.start,
                torn: false,
                what,
            })
        });
        if let Err(found) = read {
            damage.push(format!("{} at offset {}; what follows is lost", found.what, found.offset));
            break;
        }
    }
    Ok(Scrubbed { path, damage, quarantined: false })
}
