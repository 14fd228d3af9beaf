//! The agreed public face. Bodies arrive with the store.
#![allow(missing_docs, clippy::unimplemented, unused_variables)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{
    HistogramValue, Labels, Matcher, Querier, Selection, SeriesSet, StorageError, TimeRange, Timestamp,
};

/// A series of the head. Stable while the series is in the head; 0 is never one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u64);

#[derive(Clone, Debug)]
pub struct Options {
    pub wal_sync_interval: Duration,
    pub block_range_ms: i64,
    pub retention_ms: Option<i64>,
    pub retention_bytes: Option<u64>,
    pub series_max: Option<u64>,
    pub out_of_order_window_ms: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wal_sync_interval: Duration::from_secs(1),
            block_range_ms: 7_200_000,
            retention_ms: Some(15 * 86_400_000),
            retention_bytes: None,
            series_max: None,
            out_of_order_window_ms: 0,
        }
    }
}

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: locked by another process", .0.display())]
    Locked(PathBuf),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
}

/// Why one sample was refused; the rest of the batch is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("out of bounds")]
    OutOfBounds,
    #[error("out of order sample")]
    OutOfOrder,
    #[error("duplicate sample for timestamp")]
    Duplicate,
    #[error("too old sample")]
    TooOld,
    #[error("unknown series reference")]
    UnknownSeries,
    #[error("series limit reached")]
    SeriesLimit,
    #[error("invalid histogram")]
    InvalidHistogram,
}

/// Why a batch could not be made durable. None of it is visible then.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct CommitError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// What opening is doing right now, for a progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Blocks { done: usize, total: usize },
    Wal { segment: u64, first: u64, last: u64 },
}

pub struct Db(());

/// A batch of samples of one moment, typically one scrape: all or nothing in the log, seen as a whole by readers.
/// Dropping it without `commit` forgets the samples.
pub struct Appender<'a>(&'a Db);

/// A consistent view: head and blocks as of one commit.
pub struct Snapshot(());

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub head_series: u64,
    pub head_chunks: u64,
    pub head_min_ts: Option<Timestamp>,
    pub head_max_ts: Option<Timestamp>,
    pub samples_appended: u64,
    pub samples_out_of_order: u64,
    pub samples_duplicate: u64,
    pub samples_out_of_bounds: u64,
    pub wal_segment: u64,
    pub wal_bytes: u64,
    pub blocks: u64,
    pub blocks_bytes: u64,
}

/// What one step of maintenance did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    pub head_cut: bool,
    pub blocks_written: usize,
    pub blocks_deleted: usize,
}

impl Db {
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with_progress(dir, options, &mut |_| {})
    }
    pub fn open_with_progress(
        dir: &Path,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        unimplemented!()
    }
    pub fn appender(&self) -> Appender<'_> {
        Appender(self)
    }
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
    /// One step of cutting, compacting and retaining. The caller owns the thread and the clock.
    pub fn maintain(&self, now: Timestamp) -> Result<Maintained, CommitError> {
        unimplemented!()
    }
    /// Ends series early, e.g. because their pod is gone: their open chunks are closed and leave the heap.
    pub fn seal(&self, series: &[SeriesRef]) {
        unimplemented!()
    }
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }
    /// Syncs the log and releases the directory.
    pub fn close(self) -> Result<(), CommitError> {
        unimplemented!()
    }
}

impl Appender<'_> {
    /// The reference of the series with these labels; creates it if it is new.
    pub fn series(&mut self, labels: &Labels) -> Result<SeriesRef, AppendError> {
        unimplemented!()
    }
    pub fn append(&mut self, series: SeriesRef, ts: Timestamp, value: f64) -> Result<(), AppendError> {
        unimplemented!()
    }
    pub fn append_histogram(
        &mut self,
        series: SeriesRef,
        ts: Timestamp,
        value: &HistogramValue,
    ) -> Result<(), AppendError> {
        unimplemented!()
    }
    /// Makes the batch durable against `kill -9` and visible. Returns the number of samples.
    pub fn commit(self) -> Result<usize, CommitError> {
        unimplemented!()
    }
}

impl Querier for Snapshot {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        unimplemented!()
    }
    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        unimplemented!()
    }
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        unimplemented!()
    }
}
