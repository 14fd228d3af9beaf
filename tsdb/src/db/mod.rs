//! The database: a head, a log, and blocks.

pub(crate) mod appender;
mod cardinality;
pub(crate) mod chunks;
mod compact;
mod copy;
mod cut;
mod delete;
pub(crate) mod history;
mod late;
mod log_only;
pub(crate) mod logs;
mod maintain;
mod merge;
mod open;
mod replay;
pub(crate) mod scrub;
pub(crate) mod snapshot;
mod sync;
pub(crate) mod tail;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use model::{Exemplar, Labels, Matcher, TimeRange, Timestamp};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::block::Block;
use crate::disk::Disk;
use crate::disk::real::Real;
use crate::error::{CommitError, OpenError};
use crate::head::exemplars::Exemplars;
use crate::head::metadata::Metadata;
use crate::head::{Head, SeriesRef};
use crate::options::Options;
use crate::wal::Wal;
use appender::{Appender, Batch};
use logs::Logs;
use snapshot::Snapshot;

pub(crate) const WAL_DIR: &str = "wal";
pub(crate) const LOCK_FILE: &str = "lock";

/// An open data directory. It may be shared between threads by reference or in an `Arc`.
///
/// Dropping it syncs the log and releases the directory, as [`Db::close`] does, but cannot report
/// errors.
pub struct Db {
    pub(crate) inner: Arc<Inner>,
    /// The first segments of this run.
    first: (u64, u64),
    /// Ends the sync thread, if there is one.
    syncer: Option<sync::Syncer>,
    /// The directory is ours while this lives. Snapshots may live longer: they only read.
    _lock: Box<dyn Send + Sync>,
}

/// What the database's parts share.
pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) head: Head,
    /// Taken by every commit for its whole length: the order in the log is the order in memory.
    pub(crate) log: Mutex<Logs>,
    /// Changed only under the commit lock, so that a snapshot sees a block or the head's samples that
    /// went into it, never both and never neither.
    pub(crate) published: RwLock<Published>,
    /// Taken by one step of maintenance at a time.
    pub(crate) maintenance: Mutex<maintain::Pending>,
    pub(crate) counters: Counters,
    pub(crate) exemplars: Exemplars,
    /// Batches whose memory waits for the next appender.
    pub(crate) batches: Mutex<Vec<Batch>>,
    pub(crate) history: history::State,
    /// Told of every commit, under the commit lock.
    pub(crate) committed: Condvar,
    /// Blocks with samples from this time on are not deleted for their age.
    pub(crate) wanted_from: AtomicI64,
    /// Segments from this one on are still to be read by those who follow a log that is all there is.
    pub(crate) log_wanted_from: AtomicU64,
}

/// What new snapshots see besides the head.
#[derive(Clone)]
pub(crate) struct Published {
    /// Ascending by time.
    pub(crate) blocks: Vec<Arc<Block>>,
    /// The head's samples before this are in blocks.
    pub(crate) head_from: Timestamp,
}

/// Counts since opening.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) out_of_order: AtomicU64,
    pub(crate) duplicate: AtomicU64,
    pub(crate) out_of_bounds: AtomicU64,
}

/// What opening is doing right now, for a progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Blocks are being opened.
    Blocks {
        /// Opened so far.
        done: usize,
        /// Found in the directory.
        total: usize,
    },
    /// The log is being replayed.
    Wal {
        /// The segment being read.
        segment: u64,
        /// The first segment to read.
        first: u64,
        /// The last segment to read.
        last: u64,
    },
}

pub use cardinality::Cardinality;
pub use history::History;

/// Figures about a database, all of one moment but not of one instant.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Series in the head.
    pub head_series: u64,
    /// Chunks in the head.
    pub head_chunks: u64,
    /// The oldest sample in the head.
    pub head_min_ts: Option<Timestamp>,
    /// The newest sample in the head.
    pub head_max_ts: Option<Timestamp>,
    /// Samples committed since opening.
    pub samples_appended: u64,
    /// Samples refused as out of order.
    pub samples_out_of_order: u64,
    /// Samples refused as duplicates.
    pub samples_duplicate: u64,
    /// Samples refused as out of bounds.
    pub samples_out_of_bounds: u64,
    /// How often a new series was refused because of [`Options::series_max`].
    pub series_refused: u64,
    /// Samples committed that a crash would lose, since the disk is full: see [`Options::backlog_bytes_max`].
    pub samples_not_durable: u64,
    /// The log's current segment.
    pub wal_segment: u64,
    /// Bytes of the log with its checkpoint.
    pub wal_bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of all blocks.
    pub blocks_bytes: u64,
}

/// What one step of maintenance did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// A block was cut from the head.
    pub head_cut: bool,
    /// Blocks written, by cutting or compacting.
    pub blocks_written: usize,
    /// Blocks deleted, by compaction or retention.
    pub blocks_deleted: usize,
}

impl Db {
    /// Opens or creates a data directory.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with_progress(dir, options, &mut |_| {})
    }

    /// Opens or creates a data directory and tells how far it is.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with_progress(
        dir: &Path,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Real), dir, options, progress)
    }

    /// Opens or creates a data directory on a disk of the caller's choice.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        let db = Self::open_at_once_on(disk, dir, options, progress)?;
        db.attach_history(progress)?;
        Ok(db)
    }

    /// Opens or creates a data directory and returns at once: new samples are taken and shown, and blocks can
    /// be read, while the samples that were in no block yet come back by [`Db::attach_history`]. That is done
    /// here first where the log was written by another program last, as the names of its series must be
    /// known.
    ///
    /// Samples that are not newer than what history has of their series cannot be told from others before that
    /// is known. When it is, they are late if the window allows that ([`Options::out_of_order_window_ms`]), and left out
    /// and counted as out of order otherwise.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_at_once(
        dir: &Path,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        Self::open_at_once_on(Arc::new(Real), dir, options, progress)
    }

    /// [`Db::open_at_once`] on a disk of the caller's choice.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_at_once_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        let open::Opened { inner, lock, first, takes_samples } = open::open(disk, dir, options, progress)?;
        let inner = Arc::new(inner);
        let syncer = sync::Syncer::start(&inner).map_err(|source| OpenError::io(dir, source))?;
        let db = Self { inner, first, syncer, _lock: lock };
        if !takes_samples {
            db.attach_history(progress)?;
        }
        Ok(db)
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// A new batch.
    #[must_use]
    pub fn appender(&self) -> Appender<'_> {
        Appender::new(&self.inner)
    }

    /// A consistent view of everything committed before.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.inner)
    }

    /// One step of cutting, compacting and retaining. The caller owns the thread and the clock (`now` in
    /// milliseconds since the epoch); appends and queries go on meanwhile.
    ///
    /// # Errors
    /// A file cannot be written. What could not be done is tried again by the next step.
    pub fn maintain(&self, now: Timestamp) -> Result<Maintained, CommitError> {
        self.inner.head.catalog.read_recursive().cool(now);
        maintain::step(&self.inner, now)
    }

    /// Cuts the whole head into blocks at once, down to the newest sample. Samples older than that one
    /// are refused from then on.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn cut_head(&self) -> Result<Maintained, CommitError> {
        maintain::cut_all(&self.inner)
    }

    /// From now on blocks that reach beyond `ts` are not deleted for their age, only where the size is limited and there
    /// is no room for them: somebody copies blocks, and has not come further. [`Timestamp::MAX`], as at first: all go.
    pub fn keep_from(&self, ts: Timestamp) {
        self.inner.wanted_from.store(ts, Ordering::Relaxed);
    }

    /// Ends series early, e.g. because their pod is gone: their open chunks are closed and leave the
    /// heap with the next step of maintenance.
    pub fn seal(&self, series: &[SeriesRef]) {
        for &series in series {
            self.inner.head.seal(series);
        }
    }

    /// Makes every commit so far survive a power cut.
    ///
    /// # Errors
    /// The disk is full, and commits wait for space ([`CommitError::is_full`]): those before them are durable.
    /// Or it refused; then nothing more can be committed before a restart.
    pub fn sync(&self) -> Result<(), CommitError> {
        self.inner.sync()
    }

    /// The exemplars in `range` of the series that fulfil all matchers of one of `selectors`.
    #[must_use]
    pub fn exemplars(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> Vec<(Labels, Vec<Exemplar>)> {
        self.inner.exemplars.select(selectors, range)
    }

    /// What is said about the metrics of the head's series that fulfil `matchers`, by series in no order.
    #[must_use]
    pub fn metadata(&self, matchers: &[Matcher]) -> Vec<(Labels, Metadata)> {
        let head = &self.inner.head;
        let catalog = head.catalog.read_recursive();
        let found = if matchers.is_empty() { catalog.all().clone() } else { catalog.select(matchers, None) };
        let known = found.iter().filter_map(|id| Some((id, head.metadata.get(id)?)));
        known.map(|(id, metadata)| (catalog.labels(id), (*metadata).clone())).collect()
    }

    /// Figures about the database.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = &*self.inner;
        let mut head_chunks = 0;
        inner.head.for_each(|series| head_chunks += series.chunk_count() as u64);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (wal_segment, samples_not_durable) = {
            let log = inner.log.lock();
            (log.wal.segment(), log.waiting_samples())
        };
        let published = inner.published.read();
        Stats {
            head_series: inner.head.catalog.read_recursive().len() as u64,
            head_chunks,
            head_min_ts: inner.head.min_ts(),
            head_max_ts: inner.head.max_ts(),
            samples_appended: count(&inner.counters.appended),
            samples_out_of_order: count(&inner.counters.out_of_order),
            samples_duplicate: count(&inner.counters.duplicate),
            samples_out_of_bounds: count(&inner.counters.out_of_bounds),
            series_refused: count(&inner.head.refused),
            samples_not_durable,
            wal_segment,
            wal_bytes: directory_bytes(&*inner.disk, &inner.dir.join(WAL_DIR)),
            blocks: published.blocks.len() as u64,
            blocks_bytes: published.blocks.iter().map(|block| block.bytes).sum(),
        }
    }

    /// The blocks, ascending by time.
    #[must_use]
    pub fn blocks(&self) -> Vec<crate::block::meta::Meta> {
        self.inner.published.read().blocks.iter().map(|block| block.meta.clone()).collect()
    }

    /// The time from which on there may be samples; `None` if there are none. What history has is not counted before
    /// it is there.
    #[must_use]
    pub fn min_ts(&self) -> Option<Timestamp> {
        let published = self.inner.published.read();
        let blocks = published.blocks.iter().map(|block| block.meta.min_time);
        blocks.chain(self.inner.head.min_ts()).min()
    }

    /// Syncs the log and releases the directory.
    ///
    /// # Errors
    /// The log could not be synced.
    pub fn close(mut self) -> Result<(), CommitError> {
        self.syncer = None;
        self.inner.sync()
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.syncer = None;
        if let Err(error) = self.inner.sync() {
            tracing::error!(%error, "the log could not be synced at the end");
        }
    }
}

impl Inner {
    pub(crate) fn sync(&self) -> Result<(), CommitError> {
        let (caught_up, unsynced): (_, Vec<_>) = {
            let mut logs = self.log.lock();
            let caught_up = logs.catch_up();
            for log in logs.all() {
                log.check().map_err(|source| CommitError { path: log.path(), source })?;
            }
            let all = logs.all().enumerate();
            (caught_up, all.filter_map(|(at, log)| Some((at, log.unsynced()?, log.path()))).collect())
        };
        // Commits go on while the disk is busy. Late samples come last: their log needs names that the other has.
        for (at, (file, written), path) in unsynced {
            let synced = file.sync();
            let mut logs = self.log.lock();
            if let Err(source) = synced {
                logs.all().for_each(Wal::poison);
                return Err(CommitError { path, source });
            }
            logs.all().skip(at).take(1).for_each(|log| log.set_synced(written));
        }
        caught_up
    }
}

/// Bytes of all files below a directory.
pub(crate) fn directory_bytes(disk: &dyn Disk, dir: &Path) -> u64 {
    let entries = disk.list(dir).unwrap_or_default();
    entries
        .iter()
        .map(|entry| if entry.is_dir { directory_bytes(disk, &dir.join(&entry.name)) } else { entry.bytes })
        .sum()
}
