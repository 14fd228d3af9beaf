//! Hands alerts to Alertmanagers: one queue and one task for each.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::{Labels, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::query::count;

/// A batch is offered this often.
const ATTEMPTS_MAX: u32 = 3;
/// The pause after the first failure; it doubles.
const PAUSE: Duration = Duration::from_secs(1);

/// How alerts wait for an Alertmanager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// At most this many wait; beyond, the oldest go.
    pub capacity: usize,
    /// At most this many in one request.
    pub batch: usize,
    /// Whether those that wait are delivered before the end.
    pub drain: bool,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { capacity: 10_000, batch: 256, drain: true }
    }
}

/// Changes the labels of an alert on its way out, or keeps it back.
pub type Relabel = Arc<dyn Fn(&Labels) -> Option<Labels> + Send + Sync>;

/// Posts a JSON body to a URL in a time of its own. The error says why it was not taken.
pub type Post = Arc<dyn Fn(String, Bytes) -> Posting + Send + Sync>;

/// A request under way.
pub type Posting = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// How alerts get to the Alertmanagers of one section of the configuration.
pub struct Delivery {
    /// Carries a batch.
    pub post: Post,
    /// Applied to each alert before it waits.
    pub relabel: Option<Relabel>,
}

/// Where alerts go. Those of one delivery with one URL are one.
#[derive(Clone)]
pub struct Alertmanager {
    /// What alerts are posted to, path and all.
    pub url: String,
    /// How they get there.
    pub delivery: Arc<Delivery>,
}

impl Alertmanager {
    fn is(&self, other: &Self) -> bool {
        self.url == other.url && Arc::ptr_eq(&self.delivery, &other.delivery)
    }
}

/// An Alertmanager, now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertmanagerStats {
    /// The address that alerts are posted to.
    pub url: String,
    /// Alerts it took.
    pub sent: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Alerts that were given up: too many waited, or all attempts failed.
    pub dropped: u64,
    /// Alerts that wait.
    pub queue_length: u64,
    /// At most this many alerts wait.
    pub queue_capacity: u64,
}

/// What Alertmanager is told of an alert.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alert {
    pub(crate) labels: Labels,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) starts_at: Timestamp,
    pub(crate) ends_at: Timestamp,
    pub(crate) generator_url: String,
}

/// An alert in the form of Alertmanager's API.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
}

impl<'a> From<&'a Alert> for Posted<'a> {
    fn from(alert: &'a Alert) -> Self {
        Self {
            labels: alert.labels.iter().collect(),
            annotations: &alert.annotations,
            starts_at: time(alert.starts_at),
            ends_at: time(alert.ends_at),
            generator_url: &alert.generator_url,
        }
    }
}

fn time(ms: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}

/// The alerts that wait for one Alertmanager.
struct Queue {
    to: Alertmanager,
    options: QueueOptions,
    waiting: Mutex<VecDeque<Arc<Alert>>>,
    wake: Notify,
    sent: AtomicU64,
    errors: AtomicU64,
    dropped: AtomicU64,
}

impl Queue {
    fn push(&self, alerts: &[Arc<Alert>]) {
        let mut waiting = self.waiting.lock();
        match &self.to.delivery.relabel {
            None => waiting.extend(alerts.iter().cloned()),
            Some(relabel) => waiting.extend(alerts.iter().filter_map(|alert| {
                let labels = relabel(&alert.labels)?;
                Some(Arc::new(Alert { labels, ..(**alert).clone() }))
            })),
        }
        let excess = waiting.len().saturating_sub(self.options.capacity);
        waiting.drain(..excess);
        drop(waiting);
        count(&self.dropped, excess as u64);
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<Arc<Alert>> {
        let mut waiting = self.waiting.lock();
        let size = waiting.len().min(self.options.batch.max(1));
        waiting.drain(..size).collect()
    }

    fn stats(&self) -> AlertmanagerStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AlertmanagerStats {
            url: self.to.url.clone(),
            sent: load(&self.sent),
            errors: load(&self.errors),
            dropped: load(&self.dropped),
            queue_length: self.waiting.lock().len() as u64,
            queue_capacity: self.options.capacity as u64,
        }
    }
}

/// All Alertmanagers.
pub(crate) struct Notifier {
    running: Mutex<Vec<Running>>,
    dropped: Mutex<Vec<String>>,
    options: QueueOptions,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An Alertmanager with the task that serves it.
struct Running {
    queue: Arc<Queue>,
    stop: CancellationToken,
}

impl Notifier {
    /// One that tells nobody yet.
    pub(crate) fn new(options: QueueOptions) -> Self {
        Self {
            running: Mutex::default(),
            dropped: Mutex::default(),
            options,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// These from now on; what waits for one that stays goes on waiting, and what waits for those that are
    /// gone is delivered as far as it is taken. `dropped` are only shown.
    pub(crate) fn replace(&self, alertmanagers: Vec<Alertmanager>, dropped: Vec<String>) {
        *self.dropped.lock() = dropped;
        let mut running = self.running.lock();
        let mut before = std::mem::take(&mut *running);
        for to in alertmanagers {
            if running.iter().any(|known| known.queue.to.is(&to)) {
                continue;
            }
            let known = before.iter().position(|known| known.queue.to.is(&to));
            running.push(match known {
                Some(at) => before.swap_remove(at),
                None => self.start(to),
            });
        }
        before.iter().for_each(|gone| gone.stop.cancel());
    }

    fn start(&self, to: Alertmanager) -> Running {
        let queue = Arc::new(Queue {
            to,
            options: self.options,
            waiting: Mutex::default(),
            wake: Notify::new(),
            sent: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let stop = self.stop.child_token();
        self.tasks.spawn(Task { queue: Arc::clone(&queue), stop: stop.clone() }.run());
        Running { queue, stop }
    }

    /// Puts alerts into all queues.
    pub(crate) fn send(&self, alerts: &[Arc<Alert>]) {
        if !alerts.is_empty() {
            self.running.lock().iter().for_each(|running| running.queue.push(alerts));
        }
    }

    pub(crate) fn stats(&self) -> Vec<AlertmanagerStats> {
        self.running.lock().iter().map(|running| running.queue.stats()).collect()
    }

    /// The URLs of those that relabelling dropped.
    pub(crate) fn dropped(&self) -> Vec<String> {
        self.dropped.lock().clone()
    }

    /// Delivers what waits, as far as it is taken, and ends.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The task of one Alertmanager.
struct Task {
    queue: Arc<Queue>,
    stop: CancellationToken,
}

impl Task {
    async fn run(self) {
        loop {
            if self.stop.is_cancelled() && !self.queue.options.drain {
                let rest = std::mem::take(&mut *self.queue.waiting.lock());
                count(&self.queue.dropped, rest.len() as u64);
                return;
            }
            let batch = self.queue.take();
            if batch.is_empty() {
                if self.stop.is_cancelled() {
                    return;
                }
                tokio::select! {
                    () = self.queue.wake.notified() => {}
                    () = self.stop.cancelled() => {}
                }
            } else if self.deliver(&batch).await {
                count(&self.queue.sent, batch.len() as u64);
            } else {
                count(&self.queue.dropped, batch.len() as u64);
                if self.stop.is_cancelled() {
                    // Nobody takes them, and nobody waits for ever.
                    let rest = std::mem::take(&mut *self.queue.waiting.lock());
                    count(&self.queue.dropped, rest.len() as u64);
                    return;
                }
            }
        }
    }

    /// Whether the batch was taken.
    async fn deliver(&self, batch: &[Arc<Alert>]) -> bool {
        let posted: Vec<Posted<'_>> = batch.iter().map(|alert| Posted::from(&**alert)).collect();
        let Ok(body) = serde_json::to_vec(&posted).map(Bytes::from) else { return false };
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS_MAX {
            let to = &self.queue.to;
            let Err(error) = (to.delivery.post)(to.url.clone(), body.clone()).await else { return true };
            count(&self.queue.errors, 1);
            tracing::warn!(url = %to.url, alerts = batch.len(), attempt, %error, "alerts were not taken");
            if attempt == ATTEMPTS_MAX || self.stop.is_cancelled() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
            pause *= 2;
        }
        false
    }
}
