//! A shard: requests of some series, one after the other, until each is taken or refused for good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::sync::mpsc;
use tsdb::Position;

use super::batch::Batch;
use super::{Counters, Destination};

/// Requests that are not done, by number, each with the place in the log before it.
pub(super) type Open = Arc<Mutex<BTreeMap<u64, Position>>>;

pub(super) struct Shard {
    pub(super) destination: Arc<Destination>,
    pub(super) counters: Arc<Counters>,
    pub(super) open: Open,
}

/// How an attempt ended.
enum Attempt {
    Taken,
    /// Sending it again makes no sense.
    Refused(String),
    /// It may be taken later, and not before this time if the receiver said so.
    Failed(String, Option<Duration>),
}

impl Shard {
    pub(super) async fn run(self, mut queue: mpsc::Receiver<(u64, Batch)>) {
        while let Some((number, batch)) = queue.recv().await {
            let began = Instant::now();
            self.deliver(&batch).await;
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.counters.busy.fetch_add(took, Ordering::Relaxed);
            self.counters.pending.fetch_sub(batch.len(), Ordering::Relaxed);
            self.open.lock().remove(&number);
        }
    }

    async fn deliver(&self, batch: &Batch) {
        let counters = &self.counters;
        let body = Bytes::from(batch.body());
        let mut pause = self.destination.queue.backoff_min;
        for attempt in 0u32.. {
            match self.post(body.clone(), attempt).await {
                Attempt::Taken => {
                    counters.failing.store(false, Ordering::Relaxed);
                    counters.samples.fetch_add(batch.samples, Ordering::Relaxed);
                    counters.histograms.fetch_add(batch.histograms, Ordering::Relaxed);
                    counters.exemplars.fetch_add(batch.exemplars, Ordering::Relaxed);
                    counters.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                    counters.newest_sent.fetch_max(batch.newest, Ordering::Relaxed);
                    return;
                }
                Attempt::Refused(why) => {
                    tracing::error!(
                        destination = %self.destination.name, samples = batch.len(),
                        "remote write: refused for good: {why}"
                    );
                    counters.failed.fetch_add(batch.len(), Ordering::Relaxed);
                    return;
                }
                Attempt::Failed(why, wait) => {
                    counters.failing.store(true, Ordering::Relaxed);
                    counters.retried.fetch_add(batch.len(), Ordering::Relaxed);
                    // An outage is told at its beginning, and then ever less often.
                    if attempt == 0 || attempt.is_power_of_two() {
                        tracing::warn!(destination = %self.destination.name, attempt, "remote write: {why}");
                    }
                    tokio::time::sleep(wait.unwrap_or(pause)).await;
                    pause = (pause * 2).min(self.destination.queue.backoff_max);
                }
            }
        }
    }

    async fn post(&self, body: Bytes, attempt: u32) -> Attempt {
        let destination = &self.destination;
        let headers = match (destination.headers)() {
            Ok(headers) => headers,
            Err(error) => return Attempt::Failed(error, None),
        };
        let mut request = destination
            .client
            .post(&destination.url)
            .timeout(destination.timeout)
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .header("User-Agent", concat!("Pyrometer/", env!("CARGO_PKG_VERSION")))
            .headers(headers);
        if attempt > 0 {
            request = request.header("Retry-Attempt", attempt);
        }
        let answer = match request.body(body).send().await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Failed(with_causes(&error.without_url()), None),
        };
        let status = answer.status();
        if status.is_success() {
            return Attempt::Taken;
        }
        let wait = retry_after(answer.headers());
        let text = answer.text().await.unwrap_or_default();
        let why = format!("{status}: {}", text.lines().next().unwrap_or_default());
        let passes = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS && destination.queue.retry_on_429;
        if passes { Attempt::Failed(why, wait) } else { Attempt::Refused(why) }
    }
}

/// An error with what lies behind it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// `Retry-After` in seconds. A date is not read; the usual pause holds then.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
