//! Hands alerts to Alertmanagers: one queue and one task for each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
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
const TIMEOUT: Duration = Duration::from_secs(10);

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

/// Where alerts go.
#[derive(Clone)]
pub struct Alertmanager {
    /// Scheme `http`, host, port, and perhaps a path in front of `/api/v2/alerts`.
    pub url: String,
    /// A request that takes longer has failed.
    pub timeout: Duration,
    /// Applied to each alert before it waits.
    pub relabel: Option<Relabel>,
}

impl Alertmanager {
    /// One at `url`, with Prometheus' timeout, that gets alerts as they are.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), timeout: TIMEOUT, relabel: None }
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
    uri: Uri,
    timeout: Duration,
    relabel: Option<Relabel>,
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
        match &self.relabel {
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
            url: self.uri.to_string(),
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
    options: QueueOptions,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An Alertmanager with the task that serves it.
struct Running {
    queue: Arc<Queue>,
    stop: CancellationToken,
}

impl Notifier {
    /// Starts a task for each Alertmanager. The error is an address that cannot be used, and why.
    pub(crate) fn start(
        alertmanagers: &[Alertmanager],
        options: QueueOptions,
    ) -> Result<Self, (String, String)> {
        let this = Self {
            running: Mutex::default(),
            options,
            client: Client::builder(TokioExecutor::new()).build_http(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        this.replace(alertmanagers)?;
        Ok(this)
    }

    /// Others from now on. What waits for those that are gone is delivered as far as it is taken.
    pub(crate) fn replace(&self, alertmanagers: &[Alertmanager]) -> Result<(), (String, String)> {
        let mut fresh = Vec::new();
        for alertmanager in alertmanagers {
            let uri = address(&alertmanager.url).map_err(|what| (alertmanager.url.clone(), what))?;
            fresh.push(Arc::new(Queue {
                uri,
                timeout: alertmanager.timeout,
                relabel: alertmanager.relabel.clone(),
                options: self.options,
                waiting: Mutex::default(),
                wake: Notify::new(),
                sent: AtomicU64::new(0),
                errors: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
            }));
        }
        let start = |queue: Arc<Queue>| {
            let stop = self.stop.child_token();
            let post = Post { queue: Arc::clone(&queue), client: self.client.clone(), stop: stop.clone() };
            self.tasks.spawn(post.run());
            Running { queue, stop }
        };
        let before = std::mem::replace(&mut *self.running.lock(), fresh.into_iter().map(start).collect());
        before.iter().for_each(|running| running.stop.cancel());
        Ok(())
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

/// The address of the API below that of an Alertmanager.
fn address(url: &str) -> Result<Uri, String> {
    let uri: Uri = format!("{}/api/v2/alerts", url.trim_end_matches('/'))
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(_)) => Ok(uri),
        _ => Err("only http://host:port/path is supported".to_owned()),
    }
}

/// The task of one Alertmanager.
struct Post {
    queue: Arc<Queue>,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: CancellationToken,
}

impl Post {
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
            let Err(error) = self.post(body.clone()).await else { return true };
            count(&self.queue.errors, 1);
            tracing::warn!(url = %self.queue.uri, alerts = batch.len(), attempt, %error, "alerts were not taken");
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

    async fn post(&self, body: Bytes) -> Result<(), String> {
        let request = Request::post(self.queue.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("Pyrometer/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        match tokio::time::timeout(self.queue.timeout, self.client.request(request)).await {
            Err(_) => Err("no answer in time".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("bad response status {}", answer.status())),
        }
    }
}
