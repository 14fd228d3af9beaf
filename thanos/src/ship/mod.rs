//! Blocks for an object store, in the layout that Thanos' Store Gateway and Compactor read.
//!
//! ```text
//! <ULID>/chunks/000001 ...   the block's files as they are
//! <ULID>/index
//! <ULID>/meta.json           last: a block without it is one that is still coming, or never will
//! ```
//!
//! `meta.json` is the block's own with a section `thanos`: the external labels, which say whose block it is, and the
//! files with their sizes. Source: Thanos' documentation, "storage", and its `pkg/block` and `pkg/shipper`.

mod bucket;
mod meta;
mod record;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Labels, Timestamp};
use tsdb::BlockMeta;

pub use bucket::{Bucket, BucketError, BucketOptions, Encryption, Keys, Place, S3Options};
use meta::StagedFile;
use record::Record;

/// Below the data directory, where the files of a block are linked while they are sent: so they stay though the store
/// may delete the block meanwhile.
const STAGING_DIR: &str = "thanos/upload";
const META_FILE: &str = "meta.json";

/// Why blocks were not shipped.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The bucket did not take something.
    #[error("{block}: {source}")]
    Bucket {
        /// The block.
        block: String,
        /// Why.
        source: BucketError,
    },
    /// A file of the block cannot be read.
    #[error("{}: {source}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl ShipError {
    fn local(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Local { path, source }
    }
}

/// Figures since the start, as Thanos' own shipper counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShipStats {
    /// Rounds that went through.
    pub syncs: u64,
    /// Rounds that failed.
    pub sync_failures: u64,
    /// Blocks that were sent.
    pub uploads: u64,
    /// Blocks that could not be sent.
    pub upload_failures: u64,
}

/// What one round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipped {
    /// Blocks that were sent.
    pub blocks: Vec<String>,
    /// Blocks of higher levels, which are not sent: their samples are in the bucket, or were never meant to be.
    pub compacted: usize,
}

/// Sends the blocks of one data directory to a bucket.
pub struct Shipper {
    dir: PathBuf,
    bucket: Bucket,
    syncs: AtomicU64,
    sync_failures: AtomicU64,
    uploads: AtomicU64,
    upload_failures: AtomicU64,
}

impl Shipper {
    /// For the data directory `dir`.
    #[must_use]
    pub fn new(dir: &Path, bucket: Bucket) -> Self {
        Self {
            dir: dir.to_owned(),
            bucket,
            syncs: AtomicU64::new(0),
            sync_failures: AtomicU64::new(0),
            uploads: AtomicU64::new(0),
            upload_failures: AtomicU64::new(0),
        }
    }

    /// Figures since the start.
    #[must_use]
    pub fn stats(&self) -> ShipStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ShipStats {
            syncs: count(&self.syncs),
            sync_failures: count(&self.sync_failures),
            uploads: count(&self.uploads),
            upload_failures: count(&self.upload_failures),
        }
    }

    /// Sends those of `blocks` that the bucket does not have, the oldest first, and stops at the first that it does
    /// not take: blocks that come in disorder would overlap what was compacted meanwhile. `labels` are the external
    /// ones, `now` is milliseconds since the epoch. It may be given up at any time, and be done again.
    ///
    /// Gives the time from which on blocks are not in the bucket, too: those must be kept.
    ///
    /// # Errors
    /// The bucket or the disk refused.
    pub async fn sync(
        &self,
        blocks: &[BlockMeta],
        labels: &Labels,
        now: Timestamp,
    ) -> (Result<Shipped, ShipError>, Timestamp) {
        let mut blocks: Vec<&BlockMeta> = blocks.iter().collect();
        blocks.sort_by_key(|block| (block.min_time, block.ulid));
        // What a crash has left would keep the space of blocks that are gone.
        let staging = self.dir.join(STAGING_DIR);
        match std::fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{}: {error}", staging.display());
            }
            _ => {}
        }
        let mut record = Record::read(&self.dir);
        record.retain(&blocks.iter().map(|block| block.ulid.to_string()).collect());
        let outcome = self.round(&blocks, labels, now, &mut record).await;
        let wanted = |block: &&BlockMeta| is_for_shipping(block) && !record.has(&block.ulid.to_string());
        let kept_from = blocks.iter().filter(|block| wanted(block)).map(|block| block.min_time).min();
        // Without it, the bucket is asked again.
        if let Err(error) = record.write() {
            tracing::warn!("{}: {error}", self.dir.join(record::FILE).display());
        }
        let counter = if outcome.is_ok() { &self.syncs } else { &self.sync_failures };
        counter.fetch_add(1, Ordering::Relaxed);
        (outcome, kept_from.unwrap_or(Timestamp::MAX))
    }

    async fn round(
        &self,
        blocks: &[&BlockMeta],
        labels: &Labels,
        now: Timestamp,
        record: &mut Record,
    ) -> Result<Shipped, ShipError> {
        let mut shipped = Shipped::default();
        for block in blocks {
            let name = block.ulid.to_string();
            shipped.compacted += usize::from(block.compaction.level > 1);
            if record.has(&name) || !is_for_shipping(block) {
                continue;
            }
            let failed = |source| ShipError::Bucket { block: name.clone(), source };
            if self.bucket.has(&format!("{name}/{META_FILE}")).await.map_err(failed)? {
                record.insert(name);
                continue;
            }
            if let Err(error) = self.upload(block, labels, now).await {
                self.upload_failures.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
            self.uploads.fetch_add(1, Ordering::Relaxed);
            record.insert(name.clone());
            shipped.blocks.push(name);
        }
        Ok(shipped)
    }

    /// Sends a block: chunks, index, and what makes it one.
    async fn upload(&self, block: &BlockMeta, labels: &Labels, now: Timestamp) -> Result<(), ShipError> {
        let name = block.ulid.to_string();
        let staging = Staging::new(&self.dir, &name)?;
        for file in &staging.files {
            let sent =
                self.bucket.put_file(&format!("{name}/{}", file.path), &staging.dir.join(&file.path)).await;
            sent.map_err(|source| ShipError::Bucket { block: name.clone(), source })?;
        }
        let meta = meta::with_thanos(block, labels, &staging.files, now);
        let sent = self.bucket.put(&format!("{name}/{META_FILE}"), meta.into_bytes()).await;
        sent.map_err(|source| ShipError::Bucket { block: name, source })
    }
}

/// Blocks of the first level that have samples: others are made of these, by whoever compacts the bucket.
fn is_for_shipping(block: &BlockMeta) -> bool {
    block.compaction.level <= 1 && block.stats.num_samples > 0
}

/// The files of a block, linked.
struct Staging {
    dir: PathBuf,
    /// In the order in which they are sent.
    files: Vec<StagedFile>,
}

impl Staging {
    fn new(data: &Path, name: &str) -> Result<Self, ShipError> {
        let (block, dir) = (data.join(name), data.join(STAGING_DIR).join(name));
        let chunks = dir.join("chunks");
        std::fs::create_dir_all(&chunks).map_err(ShipError::local(&chunks))?;
        let mut staging = Self { dir, files: Vec::new() };
        let folder = block.join("chunks");
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(&folder).map_err(ShipError::local(&folder))? {
            let entry = entry.map_err(ShipError::local(&folder))?;
            names.insert(format!("chunks/{}", entry.file_name().to_string_lossy()));
        }
        for path in names.into_iter().chain(["index".to_owned()]) {
            let (from, to) = (block.join(&path), staging.dir.join(&path));
            std::fs::hard_link(&from, &to).map_err(ShipError::local(&from))?;
            let bytes = std::fs::metadata(&to).map_err(ShipError::local(&to))?.len();
            staging.files.push(StagedFile { path, bytes });
        }
        Ok(staging)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!("{}: {error}", self.dir.display());
        }
    }
}
