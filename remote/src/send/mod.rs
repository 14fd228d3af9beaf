//! Remote write 1.0 and 2.0, out: everything that is committed is sent on.
//!
//! A thread follows the log ([`tsdb::Db::tail`]), encodes samples into requests as it reads, and hands
//! full ones to as many tasks as are needed to keep up (shards; a series always goes to the same one, so
//! its samples keep their order). A place in the log is *done* when every request with samples before it
//! was taken or refused for good; that place is kept in a file, so a restart repeats at most what was
//! under way. Memory is bounded: a shard holds one request that is filled, a few that wait, one that is
//! being sent; when all are full the thread stops reading, and the log waits on disk.
//!
//! Arithmetic: a sample costs its labels (about 300 bytes, encoded once a series and copied), 20 bytes
//! of its own, and snappy over both: 0.2 to 0.3 us (`cargo bench -p remote --bench send`). A known series costs its
//! encoded labels, 32 bytes and 20 of a table.
//!
//! Metadata is a part of each series in 2.0, as far as the log has it; in 1.0 it is told now and then ([`MetadataOptions`]).
//!
//! Source: the remote-write 1.0 and 2.0 specifications; queue parameters are those of Prometheus' `queue_config`.

mod batch;
mod cursor;
mod metadata;
mod post;
mod reader;
mod series;

#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod talk_tests;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::HeaderMap;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use model::{Labels, Timestamp};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tsdb::{CommitError, Db, Position};

pub use batch::request;
pub use metadata::{FamilyMetadata, MetadataOptions, MetadataSource};
pub use post::carry_by;
pub(crate) use post::{add_headers, text_of, with_causes};

use crate::receive::Protocol;

/// Changes the labels of a series on its way out, or keeps it back.
pub type Relabel = Arc<dyn Fn(&Labels) -> Option<Labels> + Send + Sync>;

/// An answer under way.
pub type Answering = BoxFuture<'static, Result<Response<UnsyncBoxBody<Bytes, std::io::Error>>, String>>;

/// Carries a request to where it belongs: speaks TLS, proxies and the rest as configured, and adds credentials.
pub type Transport = Arc<dyn Fn(Request<Bytes>) -> Answering + Send + Sync>;

/// Where to send, and how.
#[derive(Clone)]
pub struct Destination {
    /// What it is called in metrics; unique among destinations.
    pub name: String,
    /// The receiver's URL.
    pub url: String,
    /// Which message it is sent. Nothing else is tried if that is refused.
    pub protocol: Protocol,
    /// What carries requests.
    pub transport: Transport,
    /// Headers beside those of the protocol.
    pub headers: HeaderMap,
    /// A request that takes longer has failed.
    pub timeout: Duration,
    /// Labels added to series that lack them.
    pub external_labels: Labels,
    /// Applied after that.
    pub relabel: Option<Relabel>,
    /// Whether exemplars are sent.
    pub exemplars: bool,
    /// Whether native histograms are sent.
    pub histograms: bool,
    /// What metrics mean, for receivers of 1.0.
    pub metadata: Option<MetadataOptions>,
    /// Sizes and times.
    pub queue: QueueOptions,
    /// Where the place that is done is kept.
    pub cursor_path: PathBuf,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// `queue_config`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Samples that may wait in a shard.
    pub capacity: usize,
    /// Fewest shards.
    pub shards_min: usize,
    /// Most shards.
    pub shards_max: usize,
    /// Most samples of a request.
    pub samples_per_request: usize,
    /// A request that is not full is sent after this time.
    pub deadline: Duration,
    /// The first pause after a failure; it doubles.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// Whether 429 is a failure that may pass.
    pub retry_on_429: bool,
    /// Samples older than this are not sent.
    pub age_max: Option<Duration>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            shards_min: 1,
            shards_max: 50,
            samples_per_request: 2_000,
            deadline: Duration::from_secs(5),
            backoff_min: Duration::from_millis(30),
            backoff_max: Duration::from_secs(5),
            retry_on_429: false,
            age_max: None,
        }
    }
}

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    samples: AtomicU64,
    histograms: AtomicU64,
    exemplars: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    retried: AtomicU64,
    metadata: AtomicU64,
    metadata_failed: AtomicU64,
    metadata_retried: AtomicU64,
    pending: AtomicU64,
    bytes: AtomicU64,
    shards: AtomicU64,
    newest_read: AtomicI64,
    newest_sent: AtomicI64,
    /// Nanoseconds that shards spent sending, and whether the last attempt failed.
    busy: AtomicU64,
    failing: AtomicBool,
    done: Mutex<Position>,
}

/// Asks the reading thread to end.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    /// How long it may send what it has read.
    patience: Mutex<Duration>,
}

impl Stop {
    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// How sending goes, now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// The destination.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// Floats that were taken.
    pub samples: u64,
    /// Histograms that were taken.
    pub histograms: u64,
    /// Exemplars that were taken.
    pub exemplars: u64,
    /// Samples that were refused for good.
    pub failed: u64,
    /// Samples that were not sent: too old, of series that relabelling drops, or lost with the log.
    pub dropped: u64,
    /// Samples in requests that were sent again.
    pub retried: u64,
    /// Families whose metadata was taken.
    pub metadata: u64,
    /// Families whose metadata was refused for good.
    pub metadata_failed: u64,
    /// Families whose metadata was sent again.
    pub metadata_retried: u64,
    /// Samples in requests that are filled, wait or are being sent.
    pub pending: u64,
    /// Bytes of requests that were taken, compressed.
    pub bytes: u64,
    /// Shards now.
    pub shards: u64,
    /// The newest sample read from the log.
    pub newest_read: Timestamp,
    /// The newest sample taken.
    pub newest_sent: Timestamp,
    /// The place in the log before which everything was taken or refused for good.
    pub done: Position,
    /// Sizes and times.
    pub queue: QueueOptions,
}

/// Sends what is appended to the store to another process. Dropping it ends the sending at once; what is
/// under way is sent again after the next start.
pub struct Sender {
    name: String,
    url: String,
    queue: QueueOptions,
    counters: Arc<Counters>,
    stop: Arc<Stop>,
    thread: Option<std::thread::JoinHandle<()>>,
    metadata: Option<AbortHandle>,
}

impl Sender {
    /// Starts sending what `db` commits, from where an earlier run was done, or from now on. To be called
    /// on a tokio runtime, whose tasks do the sending.
    ///
    /// # Errors
    /// The log or the file with the place in it cannot be read.
    pub fn start(db: &Arc<Db>, destination: Destination) -> Result<Self, CommitError> {
        let mut cursor = cursor::Cursor::open(&destination.cursor_path)?;
        let tail = db.tail(cursor.position())?;
        // From here on nothing may be missed, also if the process ends before the first second is over.
        cursor.keep(tail.position(), true);
        let queue = destination.queue;
        let (counters, stop) = (Arc::new(Counters::default()), Arc::new(Stop::default()));
        *counters.done.lock() = tail.position();
        let (name, url) = (destination.name.clone(), destination.url.clone());
        let destination = Arc::new(destination);
        let runtime = tokio::runtime::Handle::current();
        let metadata = destination.metadata.clone().filter(|_| destination.protocol == Protocol::V1);
        let metadata = metadata.map(|options| {
            let shard = post::Shard {
                destination: Arc::clone(&destination),
                counters: Arc::clone(&counters),
                open: post::Open::default(),
            };
            runtime.spawn(metadata::run(shard, options)).abort_handle()
        });
        let reader = reader::Reader::new(destination, Arc::clone(&counters), cursor);
        let stopped = Arc::clone(&stop);
        let store = Arc::clone(db);
        let thread = std::thread::spawn(move || reader.run(&store, tail, &runtime, &stopped));
        Ok(Self { name, url, queue, counters, stop, thread: Some(thread), metadata })
    }

    /// How sending goes.
    #[must_use]
    pub fn stats(&self) -> SenderStats {
        let counters = &self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SenderStats {
            name: self.name.clone(),
            url: self.url.clone(),
            samples: load(&counters.samples),
            histograms: load(&counters.histograms),
            exemplars: load(&counters.exemplars),
            failed: load(&counters.failed),
            dropped: load(&counters.dropped),
            retried: load(&counters.retried),
            metadata: load(&counters.metadata),
            metadata_failed: load(&counters.metadata_failed),
            metadata_retried: load(&counters.metadata_retried),
            pending: load(&counters.pending),
            bytes: load(&counters.bytes),
            shards: load(&counters.shards),
            newest_read: counters.newest_read.load(Ordering::Relaxed),
            newest_sent: counters.newest_sent.load(Ordering::Relaxed),
            done: *counters.done.lock(),
            queue: self.queue,
        }
    }

    /// Sends what has been read, as far as it is taken within `patience`, and ends. Blocks.
    pub fn stop(mut self, patience: Duration) {
        *self.stop.patience.lock() = patience;
        self.stop.asked.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(metadata) = &self.metadata {
            metadata.abort();
        }
        self.stop.asked.store(true, Ordering::Release);
    }
}
