//! Samples in, durable, out: a time-series store whose directory is a Prometheus data directory.
//!
//! This crate is *not* a query engine and not a server: it knows no PromQL, no HTTP, no configuration
//! file and no clock. Whoever owns the [`Db`] calls [`Db::maintain`] from a thread of its own.
//!
//! ```
//! use model::{Labels, Matcher, Querier, Samples, Selection, TimeRange};
//!
//! let dir = tempfile::tempdir()?;
//! let db = tsdb::Db::open(dir.path(), tsdb::Options::default())?;
//! let mut batch = db.appender();
//! let up = batch.series(&Labels::from_pairs([("__name__", "up"), ("job", "node")]))?;
//! batch.append(up, 1_000, 1.0)?;
//! batch.commit()?; // from here on the sample survives `kill -9`
//! let (snapshot, mut samples) = (db.snapshot(), Samples::default());
//! let matchers = [Matcher::equal("__name__", "up")];
//! let series = snapshot.select(&Selection::new(&matchers, TimeRange::ALL))?;
//! series.samples(0, TimeRange::ALL, &mut samples)?;
//! assert_eq!((samples.ts, samples.values), (vec![1_000], vec![1.0]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a commit promises when it returns: its samples are seen by every later snapshot, as a whole, and survive
//! `kill -9`; after [`Options::wal_sync_interval`] they survive a power cut. While the disk is full they are seen, but
//! nothing survives before there is space: then they are written, in order, before anything else. Until then
//! [`Stats::samples_not_durable`] counts them, and when [`Options::backlog_bytes_max`] is reached, commits are refused.
//! After a failed sync everything is refused until a restart, since nobody knows what the disk has lost.
//!
//! The hard decision is how a snapshot stays what it is while appends go on. Nothing is versioned per
//! sample: a series counts its samples, and the first append after a snapshot notes the count (in
//! the head), so that the snapshot can leave out what came later. Commits run one at a time under one
//! lock, which also makes the order in the log the order in memory. That costs readers nothing, writers
//! one comparison a sample, and a series four bytes.

mod block;
mod chunk;
mod codec;
mod db;
pub mod disk;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod index;
mod options;
#[doc(hidden)]
pub mod probes;
mod samples;
mod select;
mod wal;

pub use block::meta::Meta as BlockMeta;
pub use db::appender::Appender;
pub use db::chunks::{ChunkEncoding, ChunkSeriesSet, MalformedChunk, RawChunk};
pub use db::scrub::Scrubbed;
pub use db::snapshot::Snapshot;
pub use db::tail::{Logged, Position, Tail};
pub use db::{Cardinality, Db, History, Maintained, Progress, Stats};
pub use error::{AppendError, CommitError, OpenError};
pub use head::SeriesRef;
pub use head::metadata::{Metadata, MetricKind};
pub use model::Exemplar;
pub use options::{FloatChunks, LogOnly, Options};
pub use wal::page::Compression;
