//! Kubelets and an application whose pods, load and health tests change while they are scraped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// How a kubelet answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// With a status that is no success.
    Failing(u16),
    /// After this time.
    Slow(Duration),
    /// With this text.
    Saying(String),
}

/// A counter whose rate changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter {
    total: f64,
    rate: f64,
    since_ms: i64,
}

impl Counter {
    pub(crate) fn new(rate: f64) -> Self {
        Self { total: 0.0, rate, since_ms: now_ms() }
    }

    fn at(&self, ms: i64) -> f64 {
        self.total + self.rate * ((ms - self.since_ms) as f64 / 1000.0).max(0.0)
    }

    fn set_rate(&mut self, rate: f64) {
        let now = now_ms();
        *self = Self { total: self.at(now), rate, since_ms: now };
    }
}

/// A pod of an application.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) started_ms: i64,
    /// Seconds of CPU of each container.
    pub(crate) cpu: BTreeMap<&'static str, Counter>,
    /// Requests served.
    pub(crate) requests: Counter,
    /// Whether the kubelet tells of it.
    pub(crate) shown: bool,
}

impl Pod {
    pub(crate) fn new(cpu: &[(&'static str, f64)], requests: f64) -> Self {
        let cpu = cpu.iter().map(|(name, cores)| (*name, Counter::new(*cores))).collect();
        Self { started_ms: now_ms(), cpu, requests: Counter::new(requests), shown: true }
    }

    pub(crate) fn set_load(&mut self, cores: f64, requests: f64) {
        self.cpu.get_mut("main").unwrap().set_rate(cores);
        self.requests.set_rate(requests);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) moods: BTreeMap<String, Mood>,
    /// By node and name.
    pub(crate) pods: BTreeMap<(String, String), Pod>,
    /// Messages that wait, by queue.
    pub(crate) queues: BTreeMap<String, f64>,
    /// The header of each node's last request that says how long the scraper waits.
    pub(crate) patience: BTreeMap<String, String>,
}

/// What serves all of them; ends with its runtime.
#[derive(Clone)]
pub(crate) struct Kubelets {
    pub(crate) address: String,
    contents: Arc<Mutex<Contents>>,
}

impl Kubelets {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let contents = Arc::<Mutex<Contents>>::default();
        let router = axum::Router::new()
            .route("/{node}/metrics/resource", get(resource))
            .route("/application/metrics", get(application))
            .with_state(Arc::clone(&contents));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, contents }
    }

    pub(crate) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_mood(&self, node: &str, mood: Mood) {
        self.contents().moods.insert(node.to_owned(), mood);
    }

    /// A configuration that scrapes these nodes and the application every second.
    pub(crate) fn config(&self, nodes: &[&str], timeout: &str) -> String {
        let nodes: String = nodes
            .iter()
            .map(|node| {
                format!(
                    "  - targets: ['{}']\n    labels: {{node: {node}, __metrics_path__: /{node}/metrics/resource, \
                     metrics_path: /metrics/resource}}\n",
                    self.address
                )
            })
            .collect();
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: {timeout}}}\nscrape_configs:\n- job_name: kubelets\n  \
             honor_labels: true\n  static_configs:\n{nodes}- job_name: application\n  honor_labels: true\n  \
             metrics_path: /application/metrics\n  static_configs: [{{targets: ['{}']}}]\n",
            self.address
        )
    }
}

async fn resource(
    State(contents): State<Arc<Mutex<Contents>>>,
    Path(node): Path<String>,
    headers: HeaderMap,
) -> Response {
    let mood = {
        let mut contents = contents.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = headers.get("x-prometheus-scrape-timeout-seconds");
        let patience = patience.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        contents.patience.insert(node.clone(), patience);
        contents.moods.get(&node).cloned().unwrap_or_default()
    };
    match mood {
        Mood::Well => {}
        Mood::Failing(code) => return StatusCode::from_u16(code).unwrap().into_response(),
        Mood::Slow(time) => tokio::time::sleep(time).await,
        Mood::Saying(text) => return text.into_response(),
    }
    page(&contents.lock().unwrap_or_else(PoisonError::into_inner), &node).into_response()
}

/// Samples of whole steps a quarter of a second apart, as if the kubelet had taken them a little before.
fn page(contents: &Contents, node: &str) -> String {
    let ms = now_ms() / 250 * 250 - 250;
    let mut out = format!(
        "node_cpu_usage_seconds_total {} {ms}\nnode_memory_working_set_bytes 4000001000 {ms}\n",
        (ms - 1_700_000_000_000) as f64 / 500.0
    );
    let own = contents.pods.iter().filter(|((on, _), pod)| on == node && pod.shown);
    for ((_, name), pod) in own.filter(|(_, pod)| pod.started_ms <= ms) {
        for (container, cpu) in &pod.cpu {
            let labels = format!("container=\"{container}\",namespace=\"default\",pod=\"{name}\"");
            out.push_str(&format!("container_cpu_usage_seconds_total{{{labels}}} {} {ms}\n", cpu.at(ms)));
            out.push_str(&format!("container_memory_working_set_bytes{{{labels}}} 67108864 {ms}\n"));
            let started = pod.started_ms as f64 / 1000.0;
            out.push_str(&format!("container_start_time_seconds{{{labels}}} {started}\n"));
        }
    }
    out
}

async fn application(State(contents): State<Arc<Mutex<Contents>>>) -> String {
    let contents = contents.lock().unwrap_or_else(PoisonError::into_inner);
    let ms = now_ms();
    let mut out = String::new();
    for ((_, name), pod) in contents.pods.iter().filter(|(_, pod)| pod.shown) {
        let total = pod.requests.at(ms);
        out.push_str(&format!(
            "http_requests_total{{namespace=\"default\",pod=\"{name}\",service=\"web\"}} {total} {ms}\n"
        ));
    }
    for (queue, waiting) in &contents.queues {
        out.push_str(&format!("queue_messages{{namespace=\"default\",queue=\"{queue}\"}} {waiting}\n"));
    }
    out
}
