//! Remote write in, remote write out to the shards that own each series.
//!
//! A request is split by slots ([`crate::slots`]) and sent to every shard that each slot is written to. It
//! is acknowledged when every part of it is in the log of its shard, or in this router's spool for that
//! shard ([`Spool`]): with a replication of two, two copies of each sample exist then. A shard that does not
//! answer in time is sent nothing more until it has taken the oldest record of its spool; nothing ever
//! goes to another shard in its place, because new series cost a shard a hundred times what known ones
//! do, and shards that fall one after the other are worse than one that is missing.
//!
//! What waits on disk is known by its times ([`Router::backlog`]), so that queries tell a shard that has
//! everything from one that has not. Fresh samples and those that waited reach a shard side by side, so
//! it needs an out-of-order window as long as it may be away.
//!
//! A router keeps nothing but its spool: there may be many, behind any balancer.

mod drain;
mod fence;
mod pairs;
mod split;
mod spool;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tsdb::disk::Disk;

pub use fence::{Admission, EPOCH_HEADER, Fence, Origin, ROUTER_HEADER, SEQ_HEADER};
pub use spool::{
    RECORD_BYTES_MAX, Record, SEGMENT_BYTES, Spool, SpoolError, SpoolStats, decode, decode_segment, encode,
};
pub use target::SHARD_WRITE_PATH;

use crate::receive::{Compression, Encoding, Protocol, ReceiveError, Written};
use crate::slots::{MapError, SlotMap};
use pairs::Pairs;
use target::{Batch, Sent, Target};

/// A decompressed request may have this many bytes.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Requests that are split and sent at once; more wait.
const REQUESTS_MAX: usize = 64;

/// A buffer that has grown beyond this is not kept for the next request.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// The pause after a shard has failed; it doubles up to the other.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What waits is made durable this often.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Reads the slot map anew.
pub type ReadMap = Arc<dyn Fn() -> Result<SlotMap, MapError> + Send + Sync>;

/// What a router is built from.
#[derive(Clone)]
pub struct Options {
    /// Its name, in requests to shards.
    pub name: String,
    /// Where what waits for shards is kept.
    pub spool_dir: PathBuf,
    /// How many bytes may wait for one shard.
    pub spool_bytes_max: u64,
    /// A shard that takes longer is away.
    pub timeout: Duration,
    /// Whether one writer of each pair is listened to; see `cluster` and `__replica__`.
    pub pairs: bool,
    /// Speaks to the shards.
    pub client: reqwest::Client,
    /// Where the spool is kept.
    pub disk: Arc<dyn Disk>,
    /// Where the map comes from.
    pub read_map: ReadMap,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// Why a request was not, or not wholly, taken.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// As a store would say.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// Nobody can keep it now: 503, and the sender is to try again.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a router did not start, or does not take a map.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The map is not valid.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// The map in force and the shards in its order.
struct Routing {
    map: Arc<SlotMap>,
    since: Timestamp,
    targets: Vec<Arc<Target>>,
}

struct Inner {
    options: Options,
    routing: RwLock<Arc<Routing>>,
    /// By name, those that have left the map included.
    targets: Mutex<BTreeMap<String, Arc<Target>>>,
    pairs: Pairs,
    seq: AtomicU64,
    places: Semaphore,
    buffers: Mutex<Vec<Vec<u8>>>,
    requests: AtomicU64,
    samples: AtomicU64,
    duplicates: AtomicU64,
    unavailable: AtomicU64,
}

/// Sends each series to its owners. Dropping it ends the sending of what waits; it is sent after the next start.
pub struct Router(Arc<Inner>);

/// What waits for one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// The shard.
    pub shard: String,
    /// The oldest sample, milliseconds since the epoch.
    pub oldest: Timestamp,
    /// The newest sample.
    pub newest: Timestamp,
}

/// What a router tells queriers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlogs {
    /// Its map.
    pub epoch: u64,
    /// Since when it goes by that map, milliseconds since the epoch.
    #[serde(default)]
    pub since: Timestamp,
    /// The shards for which samples wait.
    pub shards: Vec<Backlog>,
}

/// How sending to one shard goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetStats {
    /// The shard.
    pub shard: String,
    /// Whether it takes samples.
    pub up: bool,
    /// Requests that it took.
    pub requests: u64,
    /// Samples of all kinds that it took.
    pub samples: u64,
    /// Bytes of these requests.
    pub bytes: u64,
    /// Samples that it refused for good.
    pub refused: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Samples that went to the spool.
    pub spooled: u64,
    /// Samples that came out of it.
    pub drained: u64,
    /// Samples in the spool that the disk did not give back.
    pub lost: u64,
    /// What waits.
    pub spool: SpoolStats,
}

/// How routing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterStats {
    /// The map in force.
    pub epoch: u64,
    /// Requests that came.
    pub requests: u64,
    /// Samples of all kinds in them.
    pub samples: u64,
    /// Samples of writers that are not listened to.
    pub duplicates: u64,
    /// Requests that nobody could keep.
    pub unavailable: u64,
    /// By shard.
    pub targets: Vec<TargetStats>,
}

/// What became of a part.
enum Fate {
    Held(Written),
    Refused(Written, String),
    Stale,
    Lost(String),
}

impl Router {
    /// Starts a router by the map that `read_map` gives. To be called on a tokio runtime.
    ///
    /// # Errors
    /// The map or the spool cannot be read.
    pub fn start(options: Options) -> Result<Self, RouterError> {
        let map = Arc::new((options.read_map)()?);
        // Numbers of requests rise across restarts.
        let seq = (options.now)().max(0).unsigned_abs() << 20;
        let routing = RwLock::new(Arc::new(Routing { map: Arc::clone(&map), since: 0, targets: Vec::new() }));
        let router = Self(Arc::new(Inner {
            routing,
            targets: Mutex::default(),
            pairs: Pairs::default(),
            seq: AtomicU64::new(seq),
            places: Semaphore::new(REQUESTS_MAX),
            buffers: Mutex::default(),
            requests: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
            options,
        }));
        router.0.adopt(map)?;
        router.0.open_orphans()?;
        Ok(router)
    }

    /// Reads the map again; gives its epoch.
    ///
    /// # Errors
    /// It cannot be read; the one in force stays.
    pub fn reload(&self) -> Result<u64, RouterError> {
        self.0.reload()
    }

    /// The map in force.
    #[must_use]
    pub fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.0.routing.read().map)
    }

    /// Sends the series of a request to their owners.
    ///
    /// # Errors
    /// See [`RouteError`]. Whatever was taken stays; sending the request again does no harm.
    pub async fn route(&self, encoding: Encoding, body: Bytes) -> Result<Written, RouteError> {
        let inner = &self.0;
        let _place = inner.places.acquire().await;
        inner.requests.fetch_add(1, Ordering::Relaxed);
        for _ in 0..2 {
            let routing = Arc::clone(&inner.routing.read());
            let epoch = routing.map.epoch();
            if let Some(outcome) = inner.route_by(routing, encoding, body.clone()).await? {
                return outcome;
            }
            let inner = Arc::clone(inner);
            let reloaded = tokio::task::spawn_blocking(move || inner.reload()).await;
            if !matches!(reloaded, Ok(Ok(now)) if now > epoch) {
                break;
            }
        }
        inner.unavailable.fetch_add(1, Ordering::Relaxed);
        Err(RouteError::Unavailable("a shard knows a newer slot map than this router can read".to_owned()))
    }

    /// For which shards samples wait, and of which times. What was acknowledged before the call is in its
    /// shard or in here.
    #[must_use]
    pub fn backlog(&self) -> Backlogs {
        let targets = self.0.targets.lock();
        let shards = targets.values().filter_map(|target| {
            let range = target.spool.range()?;
            Some(Backlog { shard: target.name.clone(), oldest: range.start, newest: range.end })
        });
        let routing = self.0.routing.read();
        Backlogs { epoch: routing.map.epoch(), since: routing.since, shards: shards.collect() }
    }

    /// How routing goes.
    #[must_use]
    pub fn stats(&self) -> RouterStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let targets = self.0.targets.lock();
        let target = |target: &Arc<Target>| {
            let counters = &target.counters;
            TargetStats {
                shard: target.name.clone(),
                up: !target.is_away(),
                requests: load(&counters.requests),
                samples: load(&counters.samples),
                bytes: load(&counters.bytes),
                refused: load(&counters.refused),
                failed: load(&counters.failed),
                spooled: load(&counters.spooled),
                drained: load(&counters.drained),
                lost: load(&counters.lost),
                spool: target.spool.stats(),
            }
        };
        RouterStats {
            epoch: self.map().epoch(),
            requests: load(&self.0.requests),
            samples: load(&self.0.samples),
            duplicates: load(&self.0.duplicates),
            unavailable: load(&self.0.unavailable),
            targets: targets.values().map(target).collect(),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.0.targets.lock().values().for_each(|target| target.wake.notify_one());
    }
}

impl Inner {
    fn reload(self: &Arc<Self>) -> Result<u64, RouterError> {
        let map = Arc::new((self.options.read_map)()?);
        let known = self.routing.read().map.epoch();
        if map.epoch() > known {
            tracing::info!(epoch = map.epoch(), "a new slot map is in force");
            self.adopt(Arc::clone(&map))?;
        }
        Ok(map.epoch().max(known))
    }

    /// Puts a map in force, unless a newer one is.
    fn adopt(self: &Arc<Self>, map: Arc<SlotMap>) -> Result<(), RouterError> {
        let mut targets = self.targets.lock();
        let mut in_order = Vec::with_capacity(map.shards().len());
        for place in map.shards() {
            let target = match targets.get(&place.name) {
                Some(target) => Arc::clone(target),
                None => self.open_target(&mut targets, &place.name)?,
            };
            in_order.push(target);
        }
        let mut routing = self.routing.write();
        if map.epoch() < routing.map.epoch() {
            return Ok(());
        }
        for target in targets.values() {
            let place = map.shards().iter().find(|place| place.name == target.name);
            *target.url.write() = place.map(|place| place.url.as_str().into());
            target.wake.notify_one();
        }
        *routing = Arc::new(Routing { map, since: (self.options.now)(), targets: in_order });
        Ok(())
    }

    /// What waits for shards that were in the map when this router last ran.
    fn open_orphans(self: &Arc<Self>) -> Result<(), RouterError> {
        let dir = &self.options.spool_dir;
        let failed = |source| SpoolError::Io { path: dir.clone(), source };
        self.options.disk.create_dir_all(dir).map_err(failed)?;
        let mut targets = self.targets.lock();
        for entry in self.options.disk.list(dir).map_err(failed)? {
            if entry.is_dir && !targets.contains_key(&entry.name) {
                self.open_target(&mut targets, &entry.name)?;
            }
        }
        Ok(())
    }

    fn open_target(
        self: &Arc<Self>,
        targets: &mut BTreeMap<String, Arc<Target>>,
        name: &str,
    ) -> Result<Arc<Target>, SpoolError> {
        let dir = self.options.spool_dir.join(name);
        let disk = Arc::clone(&self.options.disk);
        let (spool, last, damage) = Spool::open(disk, &dir, self.options.spool_bytes_max)?;
        for what in damage {
            tracing::warn!(shard = name, "the spool is damaged: {what}");
        }
        self.seq.fetch_max(last, Ordering::Relaxed);
        let target = Arc::new(Target::new(name.to_owned(), None, spool));
        targets.insert(name.to_owned(), Arc::clone(&target));
        tokio::spawn(drain::run(Arc::downgrade(self), Arc::clone(&target)));
        Ok(target)
    }

    /// None if a shard knows a newer map.
    async fn route_by(
        self: &Arc<Self>,
        routing: Arc<Routing>,
        encoding: Encoding,
        body: Bytes,
    ) -> Result<Option<Result<Written, RouteError>>, RouteError> {
        let (inner, by) = (Arc::clone(self), Arc::clone(&routing));
        let split = tokio::task::spawn_blocking(move || inner.split(&by, encoding, &body, true)).await;
        let split = split.map_err(|error| RouteError::Unavailable(error.to_string()))??;
        self.samples.fetch_add(split.total.all(), Ordering::Relaxed);
        self.duplicates.fetch_add(split.duplicates.all(), Ordering::Relaxed);
        let sent = split.batches.iter().map(|(shard, batch)| self.place(&routing.targets[*shard], batch));
        let fates = futures::future::join_all(sent).await;
        let mut lost = None;
        let (mut asked, mut written, mut first) = (Written::default(), Written::default(), split.fault);
        for (fate, (_, batch)) in fates.into_iter().zip(&split.batches) {
            asked += batch.counts;
            match fate {
                Fate::Held(counts) => written += counts,
                Fate::Refused(counts, why) => {
                    written += counts;
                    first = first.or(Some(why));
                }
                Fate::Stale => return Ok(None),
                Fate::Lost(why) => lost = lost.or(Some(why)),
            }
        }
        if let Some(why) = lost {
            self.unavailable.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(Err(RouteError::Unavailable(why))));
        }
        let written = told(split.total, (asked, written), routing.map.replication());
        Ok(Some(match first {
            None => Ok(written),
            Some(first) => {
                let refused = split.total.all().saturating_sub(written.all()).max(1);
                Err(ReceiveError::Partial { refused, first, written }.into())
            }
        }))
    }

    /// Decompresses, splits and compresses a request.
    fn split(
        &self,
        routing: &Routing,
        encoding: Encoding,
        body: &[u8],
        listens: bool,
    ) -> Result<Batches, ReceiveError> {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let decompressed = encoding.compression.decompress_into(body, MESSAGE_BYTES_MAX, &mut buffer);
        let now = (self.options.now)();
        let elect = |cluster: &str, replica: &str| self.pairs.elect(cluster, replica, now);
        let elect: Option<split::Elect<'_>> = (listens && self.options.pairs).then_some(&elect);
        let split =
            decompressed.and_then(|length| split::split(encoding, &buffer[..length], &routing.map, elect));
        if buffer.len() <= BUFFER_BYTES_KEPT {
            self.buffers.lock().push(buffer);
        }
        let split = split?;
        let mut encoder = snap::raw::Encoder::new();
        let mut batches = Vec::new();
        for (shard, part) in
            split.parts.into_iter().enumerate().filter(|(_, part)| !part.message.0.is_empty())
        {
            let body = encoder.compress_vec(&part.message.0);
            let body = body.map_err(|error| ReceiveError::Malformed(format!("compressing: {error}")))?.into();
            let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
            batches.push((shard, Batch { seq, epoch: routing.map.epoch(), counts: part.counts, body }));
        }
        Ok(Batches { batches, total: split.total, duplicates: split.duplicates, fault: split.fault })
    }

    /// Gives a batch to its shard, or keeps it.
    async fn place(&self, target: &Arc<Target>, batch: &Batch) -> Fate {
        let how = (&self.options.client, self.options.timeout);
        match target.send(batch, &self.options.name, how).await {
            Sent::Taken(written) => Fate::Held(written),
            Sent::Partial(written, why) => Fate::Refused(written, why),
            Sent::Stale => Fate::Stale,
            Sent::Failed(_) => self.keep(target, batch).await,
        }
    }

    async fn keep(&self, target: &Arc<Target>, batch: &Batch) -> Fate {
        let (spool, batch) = (Arc::clone(&target.spool), batch.clone());
        let counts = batch.counts;
        let kept = tokio::task::spawn_blocking(move || {
            let range = target::range_of(&batch.body);
            let samples = batch.counts.all();
            spool.append(&Record { seq: batch.seq, epoch: batch.epoch, range, samples, body: batch.body })
        });
        match kept.await {
            Ok(Ok(())) => {
                target.counters.spooled.fetch_add(counts.all(), Ordering::Relaxed);
                target.wake.notify_one();
                Fate::Held(counts)
            }
            Ok(Err(error)) => {
                // Nothing waits, so nothing tells when the shard is back: the next request is to try.
                target.wake.notify_one();
                Fate::Lost(format!("shard {} is away and its samples cannot be kept: {error}", target.name))
            }
            Err(error) => Fate::Lost(error.to_string()),
        }
    }

    /// Gives a record that was routed by an older map to those who own its series now, besides the shard it
    /// waited for; false if that has to be tried again.
    async fn reroute(self: &Arc<Self>, target: &Target, record: &Record) -> bool {
        let routing = Arc::clone(&self.routing.read());
        let (inner, by, body) = (Arc::clone(self), Arc::clone(&routing), record.body.clone());
        let encoding = Encoding { protocol: Protocol::V1, compression: Compression::Snappy };
        let split = tokio::task::spawn_blocking(move || inner.split(&by, encoding, &body, false)).await;
        let Ok(Ok(split)) = split else { return true }; // it was whole when it was kept
        for (shard, batch) in &split.batches {
            let owner = &routing.targets[*shard];
            if owner.name != target.name
                && matches!(self.place(owner, batch).await, Fate::Stale | Fate::Lost(_))
            {
                return false;
            }
        }
        true
    }
}

/// The parts of a request.
struct Batches {
    batches: Vec<(usize, Batch)>,
    total: Written,
    duplicates: Written,
    fault: Option<String>,
}

/// How many samples of a request count as written, where `asked` copies of samples were to be written and
/// `written` were. Of what was refused all copies were, as a rule.
fn told(total: Written, (asked, written): (Written, Written), copies: usize) -> Written {
    let copies = u64::try_from(copies).unwrap_or(1).max(1);
    let told = |total: u64, asked: u64, written: u64| {
        total.saturating_sub(asked.saturating_sub(written).div_ceil(copies))
    };
    Written {
        samples: told(total.samples, asked.samples, written.samples),
        histograms: told(total.histograms, asked.histograms, written.histograms),
        exemplars: told(total.exemplars, asked.exemplars, written.exemplars),
    }
}
