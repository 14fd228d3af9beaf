//! A shard as a router sees it: where it is, whether it answers, and what waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::TimeRange;
use parking_lot::RwLock;
use reqwest::StatusCode;
use tokio::sync::{Notify, Semaphore};

use super::fence::{EPOCH_HEADER, ROUTER_HEADER, SEQ_HEADER};
use super::spool::{Record, Spool};
use crate::receive::Written;

/// Requests that may be under way to one shard; what comes beyond goes to the spool.
const UNDER_WAY_MAX: usize = 64;

/// The path below a shard's address at which it takes what routers send.
pub const SHARD_WRITE_PATH: &str = "/api/v1/shard/write";

/// What goes to a shard.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) seq: u64,
    pub(super) epoch: u64,
    pub(super) counts: Written,
    /// Compressed.
    pub(super) body: Bytes,
}

impl From<&Record> for Batch {
    fn from(record: &Record) -> Self {
        let counts = Written { samples: record.samples, ..Written::default() };
        Self { seq: record.seq, epoch: record.epoch, counts, body: record.body.clone() }
    }
}

/// How sending ended.
#[derive(Debug)]
pub(super) enum Sent {
    /// The shard has it in its log.
    Taken(Written),
    /// It has the good samples in its log, and will never take the others.
    Partial(Written, String),
    /// It knows a newer map.
    Stale,
    /// It may take it later.
    Failed(String),
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) samples: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) spooled: AtomicU64,
    pub(super) drained: AtomicU64,
    pub(super) lost: AtomicU64,
}

pub(super) struct Target {
    pub(super) name: String,
    /// None once it has left the map: what waits for it goes to those who own it now.
    pub(super) url: RwLock<Option<Arc<str>>>,
    pub(super) spool: Arc<Spool>,
    /// Whether the last attempt failed: then requests go to the spool at once.
    away: AtomicBool,
    places: Semaphore,
    /// Something came into the spool, or the router ends.
    pub(super) wake: Notify,
    pub(super) counters: Counters,
}

impl Target {
    pub(super) fn new(name: String, url: Option<&str>, spool: Spool) -> Self {
        Self {
            name,
            url: RwLock::new(url.map(Arc::from)),
            spool: Arc::new(spool),
            away: AtomicBool::new(false),
            places: Semaphore::new(UNDER_WAY_MAX),
            wake: Notify::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Notes whether the shard answers; tells of a change.
    pub(super) fn set_away(&self, away: bool, why: &str) {
        if self.away.swap(away, Ordering::AcqRel) == away {
            return;
        }
        if away {
            tracing::warn!(shard = self.name, "the shard does not take samples, they wait on disk: {why}");
        } else {
            tracing::info!(shard = self.name, "the shard takes samples again");
        }
    }

    /// Sends a batch, unless the shard is known not to answer or has enough to do.
    pub(super) async fn send(&self, batch: &Batch, router: &str, how: (&reqwest::Client, Duration)) -> Sent {
        if self.is_away() {
            return Sent::Failed("it did not answer".to_owned());
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Sent::Failed(format!("{UNDER_WAY_MAX} requests are under way"));
        };
        let sent = self.post(batch, router, how).await;
        if let Sent::Failed(why) = &sent {
            self.set_away(true, why);
        }
        sent
    }

    /// Sends a batch, whatever is known of the shard.
    pub(super) async fn post(&self, batch: &Batch, router: &str, how: (&reqwest::Client, Duration)) -> Sent {
        let Some(url) = self.url.read().clone() else {
            return Sent::Failed("it is not in the slot map".to_owned());
        };
        let (client, timeout) = how;
        let request = client
            .post(format!("{url}{SHARD_WRITE_PATH}"))
            .timeout(timeout)
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .header(ROUTER_HEADER, router)
            .header(EPOCH_HEADER, batch.epoch)
            .header(SEQ_HEADER, batch.seq)
            .body(batch.body.clone());
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                return Sent::Failed(crate::send::with_causes(&error.without_url()));
            }
        };
        let (status, written) = (answer.status(), Written::of_headers(answer.headers()));
        let counters = &self.counters;
        if status.is_success() || status == StatusCode::BAD_REQUEST {
            counters.requests.fetch_add(1, Ordering::Relaxed);
            counters.bytes.fetch_add(batch.body.len() as u64, Ordering::Relaxed);
            counters.samples.fetch_add(written.unwrap_or_default().all(), Ordering::Relaxed);
        }
        if status.is_success() {
            return Sent::Taken(written.unwrap_or(batch.counts));
        }
        if status == StatusCode::CONFLICT {
            return Sent::Stale;
        }
        let text = answer.text().await.unwrap_or_default();
        let why = text.lines().next().unwrap_or_default().to_owned();
        match written {
            Some(written) if status == StatusCode::BAD_REQUEST => {
                let refused = batch.counts.all().saturating_sub(written.all());
                counters.refused.fetch_add(refused, Ordering::Relaxed);
                Sent::Partial(written, why)
            }
            // Whatever else it says, another try may find it better configured.
            _ => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                Sent::Failed(format!("{status}: {why}"))
            }
        }
    }
}

/// The times of the samples of a compressed request. Blocks for as long as it takes to read it.
pub(super) fn range_of(body: &[u8]) -> TimeRange {
    let mut message = Vec::new();
    let compression = crate::receive::Compression::Snappy;
    let decompressed = compression.decompress_into(body, super::MESSAGE_BYTES_MAX, &mut message);
    let times = decompressed.ok().and_then(|length| crate::receive::times_of(&message[..length]).ok());
    // What cannot be read may be of any time.
    times.flatten().unwrap_or(TimeRange::ALL)
}
