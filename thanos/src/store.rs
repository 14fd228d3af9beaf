//! The store behind the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Labels, Timestamp};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tsdb::{Db, History, Snapshot};

use crate::frame;
use crate::names;
use crate::proto::{
    ABORT, InfoResponse, Label, LabelNamesRequest, LabelSet, LabelValuesRequest, SeriesRequest, StoreInfo,
    Texts, TsdbInfo,
};
use crate::series::{Bounds, Query, Sent, Sink};

/// What requests may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Series of one `Series` call; 0: no limit.
    pub series_max: u64,
    /// Samples of one `Series` call; 0: no limit.
    pub samples_max: u64,
    /// `Series` calls at once; more wait.
    pub concurrency: usize,
    /// A client that takes no frame for so long is left.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series_max: 0, samples_max: 0, concurrency: 20, patience: Duration::from_secs(120) }
    }
}

/// Figures since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// `Series` calls.
    pub requests: u64,
    /// Those that ended with an error.
    pub failures: u64,
    /// Series sent.
    pub series: u64,
    /// Chunks sent.
    pub chunks: u64,
    /// Samples in them.
    pub samples: u64,
    /// Bytes sent.
    pub bytes: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    failures: AtomicU64,
    series: AtomicU64,
    chunks: AtomicU64,
    samples: AtomicU64,
    bytes: AtomicU64,
}

/// A database that Thanos can read.
pub struct Store {
    db: Arc<Db>,
    external: RwLock<Labels>,
    limits: Limits,
    turns: Arc<Semaphore>,
    counters: Counters,
}

impl Store {
    /// `external`: labels that every series gets, by which Thanos tells stores apart.
    #[must_use]
    pub fn new(db: Arc<Db>, external: Labels, limits: Limits) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(limits.concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self { db, external: RwLock::new(external), limits, turns, counters: Counters::default() })
    }

    /// The gRPC services, by path.
    pub fn routes(self: &Arc<Self>) -> axum::Router {
        crate::rpc::routes(self)
    }

    /// From now on series get these labels.
    pub fn set_external_labels(&self, labels: Labels) {
        *self.external.write() = labels;
    }

    /// Figures since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            requests: count(&self.counters.requests),
            failures: count(&self.counters.failures),
            series: count(&self.counters.series),
            chunks: count(&self.counters.chunks),
            samples: count(&self.counters.samples),
            bytes: count(&self.counters.bytes),
        }
    }

    fn external(&self) -> Labels {
        self.external.read().clone()
    }

    /// Why an answer cannot be whole.
    fn gap(&self) -> Option<String> {
        match self.db.history() {
            History::Attached => None,
            History::Attaching(_) => {
                Some("what came in before the last restart is still being read back".to_owned())
            }
            History::Failed(why) => {
                Some(format!("samples from before the last restart cannot be read: {why}"))
            }
        }
    }

    /// The warning to send with an answer that is not whole, if that is what the client wants.
    fn warning(&self, (disabled, strategy): (bool, i32)) -> Result<Option<String>, Status> {
        match self.gap() {
            Some(gap) if disabled || strategy == ABORT => Err(Status::unavailable(gap)),
            gap => Ok(gap),
        }
    }

    /// What this server is.
    pub(crate) fn info(&self) -> InfoResponse {
        let labels: Vec<Label> = self
            .external()
            .iter()
            .map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() })
            .collect();
        // While history is not there, nobody knows how far it goes back.
        let min_time = match self.gap() {
            Some(_) => Timestamp::MIN,
            None => self.db.min_ts().unwrap_or(0),
        };
        let max_time = Timestamp::MAX;
        let sets = if labels.is_empty() { Vec::new() } else { vec![LabelSet { labels }] };
        let infos = sets.iter().map(|set| TsdbInfo { labels: Some(set.clone()), min_time, max_time });
        InfoResponse {
            component_type: "sidecar".to_owned(),
            store: Some(StoreInfo {
                min_time,
                max_time,
                supports_sharding: true,
                supports_without_replica_labels: true,
                tsdb_infos: infos.collect(),
            }),
            label_sets: sets,
        }
    }

    /// Checks a request for series.
    pub(crate) fn series(self: &Arc<Self>, request: &SeriesRequest) -> Result<Running, Status> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let strict = (request.partial_response_disabled, request.partial_response_strategy);
        let checked = Query::new(request, &self.external())
            .and_then(|query| Ok(Running { store: Arc::clone(self), query, warning: self.warning(strict)? }));
        checked.inspect_err(|_| {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Waits until one more may run.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    pub(crate) fn patience(&self) -> Duration {
        self.limits.patience
    }

    /// Reads names or values on a thread that may wait for the disk.
    pub(crate) async fn texts(
        self: &Arc<Self>,
        strict: (bool, i32),
        read: impl FnOnce(&Reading) -> Result<Vec<String>, Status> + Send + 'static,
    ) -> Result<Texts, Status> {
        let warnings = self.warning(strict)?.into_iter().collect();
        let store = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let reading = Reading { snapshot: store.db.snapshot(), external: store.external() };
            read(&reading)
        });
        let texts = reading.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Texts { texts, warnings })
    }
}

/// What names and values are read from.
pub(crate) struct Reading {
    snapshot: Snapshot,
    external: Labels,
}

impl Reading {
    pub(crate) fn label_names(&self, request: &LabelNamesRequest) -> Result<Vec<String>, Status> {
        names::label_names(&self.snapshot, request, &self.external)
    }

    pub(crate) fn label_values(&self, request: &LabelValuesRequest) -> Result<Vec<String>, Status> {
        names::label_values(&self.snapshot, request, &self.external)
    }
}

/// A request for series whose turn it is.
pub(crate) struct Running {
    store: Arc<Store>,
    query: Query,
    warning: Option<String>,
}

impl Running {
    /// Sends the answer.
    pub(crate) fn run(&self, sink: &mut dyn Sink) -> Result<(), Status> {
        let (limits, counters) = (&self.store.limits, &self.store.counters);
        let bounds = Bounds { series_max: limits.series_max, samples_max: limits.samples_max };
        let warned = self.warning.iter().try_for_each(|text| sink.send(frame::warning(text)));
        let (Sent { series, chunks, samples, bytes }, done) = match warned {
            Ok(()) => self.query.run(&self.store.db.snapshot(), bounds, sink),
            Err(status) => (Sent::default(), Err(status)),
        };
        let all = [
            (&counters.series, series),
            (&counters.chunks, chunks),
            (&counters.samples, samples),
            (&counters.bytes, bytes),
            (&counters.failures, u64::from(done.is_err())),
        ];
        for (counter, count) in all {
            counter.fetch_add(count, Ordering::Relaxed);
        }
        done
    }
}
