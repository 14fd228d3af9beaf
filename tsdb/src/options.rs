//! How a database behaves.

use std::time::Duration;

use crate::chunk::Encoding;
use crate::wal::page::Compression;

/// How new chunks of floats are encoded. Chunks that exist are read whatever they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatChunks {
    /// As every Prometheus reads it. Start times of samples are forgotten, those of histograms, too.
    #[default]
    Xor,
    /// As Prometheus reads it from 3.14 on. Start times are kept. An open chunk takes more memory.
    Xor2,
}

/// What a database keeps of its log where that is all it has, see [`Options::log_only`]. In milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOnly {
    /// A segment stays at least this long after it was ended, also if nobody needs it any more.
    pub min_ms: i64,
    /// A segment goes this long after it was ended, also if somebody has not read it: see [`crate::Db::keep_log_from`].
    pub max_ms: i64,
    /// A segment is ended at the latest after this time, and what is older than it can go soon after.
    pub truncate_every_ms: i64,
}

impl Default for LogOnly {
    /// As long as an agent of Prometheus keeps its log.
    fn default() -> Self {
        Self { min_ms: 5 * 60_000, max_ms: 4 * 3_600_000, truncate_every_ms: 2 * 3_600_000 }
    }
}

/// How a database behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database is a log that [`crate::Db::tail`] reads, and nothing else: for whoever sends samples on and
    /// answers no queries. The directory is that of an agent of Prometheus.
    ///
    /// Of a series there are its labels and the time and bits of its newest sample: with 12 labels, 24 bytes of row, 48 of
    /// symbols, 12 of lookup, 30 of strings and 104 of series, 218 in all, while a head with three hours of samples takes
    /// some 460. There are no postings, no chunks, no blocks and no log of late samples; what the directory has of them
    /// is left alone. A sample that comes late within [`Options::out_of_order_window_ms`] goes to the log with the
    /// others. Selecting fails with [`model::StorageError::Unavailable`], names and values of labels are none. A staleness
    /// marker stays a float also for a series of histograms, as nobody knows here what those look like.
    ///
    /// [`crate::Db::maintain`] shortens the log: segments go as this says, with the series that have had no sample since.
    /// Retention, compaction, the length of blocks and [`Options::float_chunks`] mean nothing but for start times.
    pub log_only: Option<LogOnly>,
    /// The log is synced at most this long after a commit. Zero: every commit syncs before it returns.
    /// [`Duration::MAX`]: only [`crate::Db::sync`], the end of a segment, and closing do.
    pub wal_sync_interval: Duration,
    /// The span of a block of level 1, in milliseconds.
    pub block_range_ms: i64,
    /// Blocks are joined to longer ones, and overlapping ones merged. To be `false` where another program does that with
    /// copies of them.
    pub compact: bool,
    /// Blocks this much older than the newest one are deleted. `None`: never.
    pub retention_ms: Option<i64>,
    /// The oldest blocks are deleted while everything in the directory exceeds this. `None`: never.
    pub retention_bytes: Option<u64>,
    /// New series beyond this number are refused. `None`: no limit.
    pub series_max: Option<u64>,
    /// Samples this much older than the newest of the head are accepted out of order.
    pub out_of_order_window_ms: i64,
    /// The newest exemplars, this many, are kept. 0: none.
    pub exemplars_max: usize,
    /// How records of the log are packed.
    pub wal_compression: Compression,
    /// While the disk is full, commits are kept in memory until their records have this many bytes; then they are
    /// refused. They are visible, but a crash loses them. 0: commits are refused at once.
    pub backlog_bytes_max: usize,
    /// How new chunks of floats are encoded, and with that, whether start times are kept.
    pub float_chunks: FloatChunks,
    /// A segment of the log is ended before it exceeds this; at most 128 MiB.
    pub wal_segment_bytes_max: u64,
}

impl Options {
    /// Whether start times are kept.
    pub(crate) fn keeps_starts(&self) -> bool {
        self.float_chunks == FloatChunks::Xor2
    }

    /// How much older than the newest of the head a sample may be that goes to the log of late samples.
    pub(crate) fn late_window_ms(&self) -> i64 {
        if self.log_only.is_some() { 0 } else { self.out_of_order_window_ms }
    }

    pub(crate) fn float_encoding(&self) -> Option<Encoding> {
        Some(if self.keeps_starts() { Encoding::Xor2 } else { Encoding::Xor })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_only: None,
            wal_sync_interval: Duration::from_secs(1),
            block_range_ms: 7_200_000,
            compact: true,
            retention_ms: Some(15 * 86_400_000),
            retention_bytes: None,
            series_max: None,
            out_of_order_window_ms: 0,
            exemplars_max: 100_000,
            wal_compression: Compression::Snappy,
            backlog_bytes_max: 64 * 1024 * 1024,
            float_chunks: FloatChunks::Xor,
            wal_segment_bytes_max: 128 * 1024 * 1024,
        }
    }
}
