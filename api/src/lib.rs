//! The Prometheus HTTP API, this process' own `/metrics`, health endpoints and the web page.
//!
//! This crate is *not* where anything is computed: it reads parameters, calls the store, the engine and
//! the scraper, and writes their answers in Prometheus' JSON. Nothing depends on it.
//!
//! ```
//! # fn serve(running: api::Running, build: api::Build) {
//! let state = api::State::new(api::Options { build, now: || 0, ..api::Options::default() });
//! let router = api::router(state.clone()); // answers 503 until the store is attached
//! state.attach(running);
//! # let _ = router;
//! # }
//! ```
//!
//! The hard decision: the server listens before the store is open. Whatever needs the store goes
//! through [`State::running`], which says 503 until then, so a long replay is visible instead of a
//! refused connection.

mod active_queries;
mod admin;
mod ast;
mod compress;
mod envelope;
mod evaluators;
mod exemplars;
mod federate;
mod health;
mod json;
mod labels;
mod metrics;
mod notifications;
mod openapi;
mod otlp;
mod page;
mod params;
pub mod probes;
mod process;
mod query;
mod query_log;
mod read;
mod reading;
mod requests;
mod rules_status;
mod search;
mod status;
mod targets;
mod write;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use axum::Router;
use axum::routing::{MethodRouter, any, get, post};
use model::regex::AnchoredRegex;
use model::{Labels, Timestamp};
use promql::Engine;
use tsdb::Db;

pub use active_queries::ActiveQueries;
use envelope::{ApiError, ErrorKind};

/// What this binary is.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// Version of Pyrometer.
    pub version: String,
    /// Source revision, if known.
    pub revision: String,
    /// The Rust compiler.
    pub rust_version: String,
}

/// What is fixed at start.
#[derive(Clone)]
pub struct Options {
    /// What this binary is.
    pub build: Build,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// The query engine.
    pub engine: Arc<Engine>,
    /// Which parts of the query language are on.
    pub grammar: promql::ParseOptions,
    /// Command-line flags with their values, for `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
    /// Whether `/-/reload` and `/-/quit` may be used.
    pub lifecycle: bool,
    /// Whether `/api/v1/admin` may be used.
    pub admin: bool,
    /// Origins of pages that may read the API; all if none.
    pub cors_origin: Option<Arc<AnchoredRegex>>,
    /// The port it listens on.
    pub port: u16,
    /// The address under which users know this server; no slash at its end.
    pub external_url: String,
    /// Labels added to what leaves this process.
    pub external_labels: Labels,
    /// The folder that relative paths are relative to.
    pub working_dir: String,
    /// The machine's name.
    pub host_name: String,
    /// Clients that may follow notifications at once.
    pub notification_followers_max: usize,
    /// Limits of remote read.
    pub remote_read: RemoteRead,
    /// Most results of a search, 0 for any number; none if searching is off.
    pub search_limit_max: Option<usize>,
    /// The retention as `/api/v1/status/runtimeinfo` shows it.
    pub retention: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            build: Build::default(),
            now: || 0,
            engine: Arc::new(Engine::new(promql::EngineOptions::default())),
            grammar: promql::ParseOptions::default(),
            flags: BTreeMap::new(),
            lifecycle: false,
            admin: false,
            cors_origin: None,
            port: 0,
            external_url: String::new(),
            external_labels: Labels::empty(),
            working_dir: String::new(),
            host_name: String::new(),
            notification_followers_max: 16,
            remote_read: RemoteRead::default(),
            search_limit_max: None,
            retention: String::new(),
        }
    }
}

/// Limits of remote read.
#[derive(Clone, Debug, Default)]
pub struct RemoteRead {
    /// Most samples of one answer; 0 for no limit.
    pub samples_max: u64,
    /// Most bytes of a frame of a streamed answer, if a single chunk is not larger.
    pub frame_bytes_max: usize,
    /// Requests answered at once; more wait. None for no limit.
    pub slots: Option<Arc<tokio::sync::Semaphore>>,
}

/// What exists once the store is open.
#[derive(Clone)]
pub struct Running {
    /// The store.
    pub store: Arc<Db>,
    /// The scraper.
    pub scraper: Arc<scraper::Handle>,
    /// The rules.
    pub rules: Arc<rules::Handle>,
    /// Takes remote-write requests, if that is enabled.
    pub receiver: Option<Arc<remote::receive::Receiver>>,
    /// Takes OTLP metrics, if that is enabled.
    pub otlp: Option<Arc<remote::otlp::Receiver>>,
    /// How remote write goes.
    pub senders: SenderStats,
    /// The servers that queries are answered from, beside the store.
    pub others: Arc<remote::read::Endpoints>,
    /// The shards that queries are answered from, instead of the store.
    pub cell: Option<Arc<cluster::Cell>>,
}

/// Asks how remote write goes.
pub type SenderStats = Arc<dyn Fn() -> Vec<remote::send::SenderStats> + Send + Sync>;

/// What an operator may ask of the process from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Read the configuration again.
    Reload,
    /// Stop.
    Quit,
}

/// The configuration in force, and how its last reload went.
#[derive(Clone, Debug, Default)]
pub struct ConfigStatus {
    /// The file's text, secrets removed.
    pub text: String,
    /// The section of each job, secrets removed.
    pub jobs: BTreeMap<String, String>,
    /// Whether the last attempt to load one succeeded.
    pub last_reload_ok: bool,
    /// When the one in force was loaded, milliseconds since the epoch.
    pub loaded_ms: Timestamp,
}

/// A figure of a part that this crate does not know, for `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The metric's name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its value now.
    pub value: f64,
}

type Figures = Box<dyn Fn() -> Vec<Figure> + Send + Sync>;
type DemandHandler = Box<dyn Fn(Demand) -> Result<(), String> + Send + Sync>;

struct Inner {
    options: Options,
    started_ms: Timestamp,
    running: OnceLock<Running>,
    stopping: AtomicBool,
    progress: RwLock<(u64, u64, u64)>,
    config: RwLock<ConfigStatus>,
    demands: OnceLock<DemandHandler>,
    figures: RwLock<Vec<Figures>>,
    requests: requests::Requests,
    evaluators: evaluators::Evaluators,
    query_log: query_log::QueryLog,
    active_queries: OnceLock<Arc<ActiveQueries>>,
    /// Slots of clients that follow notifications.
    followers: Arc<tokio::sync::Semaphore>,
}

/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub struct State(Arc<Inner>);

impl State {
    /// A server with nothing attached yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let started_ms = (options.now)();
        let followers = Arc::new(tokio::sync::Semaphore::new(options.notification_followers_max));
        Self(Arc::new(Inner {
            options,
            started_ms,
            running: OnceLock::new(),
            stopping: AtomicBool::new(false),
            progress: RwLock::default(),
            config: RwLock::default(),
            demands: OnceLock::new(),
            figures: RwLock::default(),
            requests: requests::Requests::default(),
            evaluators: evaluators::Evaluators::default(),
            query_log: query_log::QueryLog::default(),
            active_queries: OnceLock::new(),
            followers,
        }))
    }

    /// Attaches the store and the scraper: from now on the server is ready.
    pub fn attach(&self, running: Running) {
        // A second attachment would be a bug of the caller; the first one stays.
        debug_assert!(self.0.running.get().is_none(), "attached twice");
        let _ = self.0.running.set(running);
    }

    /// The query engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.0.options.engine
    }

    /// Says who carries out `/-/reload` and `/-/quit`.
    pub fn on_demand(&self, handler: impl Fn(Demand) -> Result<(), String> + Send + Sync + 'static) {
        let _ = self.0.demands.set(Box::new(handler));
    }

    /// Says which figures `/metrics` shows besides its own and those said before.
    pub fn show_also(&self, figures: impl Fn() -> Vec<Figure> + Send + Sync + 'static) {
        if let Ok(mut all) = self.0.figures.write() {
            all.push(Box::new(figures));
        }
    }

    /// Says how far the replay of the log is: first, last and current segment.
    pub fn set_replay_progress(&self, first: u64, last: u64, current: u64) {
        if let Ok(mut progress) = self.0.progress.write() {
            *progress = (first, last, current);
        }
    }

    /// Logs queries to `path` from now on; to nowhere without one.
    ///
    /// # Errors
    /// The file cannot be opened; the log stays where it was.
    pub fn set_query_log(&self, path: Option<&std::path::Path>) -> std::io::Result<()> {
        self.0.query_log.switch(path)
    }

    /// Notes the queries under way in `queries` from now on.
    pub fn track_queries(&self, queries: ActiveQueries) {
        let _ = self.0.active_queries.set(Arc::new(queries));
    }

    pub(crate) fn query_log(&self) -> &query_log::QueryLog {
        &self.0.query_log
    }

    pub(crate) fn active_queries(&self) -> Option<&Arc<ActiveQueries>> {
        self.0.active_queries.get()
    }

    /// Says which configuration is in force.
    pub fn set_config(&self, config: ConfigStatus) {
        if let Ok(mut slot) = self.0.config.write() {
            *slot = config;
        }
    }

    /// Says that the last attempt to load a configuration failed; the one in force stays.
    pub fn set_reload_failed(&self) {
        if let Ok(mut slot) = self.0.config.write() {
            slot.last_reload_ok = false;
        }
    }

    /// From now on the server is no longer ready.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// The store and the scraper.
    ///
    /// # Errors
    /// The store is not open yet, or not any more.
    pub(crate) fn running(&self) -> Result<&Running, ApiError> {
        let unavailable = |what: &str| ApiError::new(ErrorKind::Unavailable, what.to_owned());
        if self.is_stopping() {
            return Err(unavailable("the server is stopping"));
        }
        self.0.running.get().ok_or_else(|| unavailable("the store is being opened"))
    }

    /// What whoever reads samples must be told: that some are not there yet, or not any more.
    pub(crate) fn history_note(&self) -> Option<String> {
        match self.0.running.get()?.store.history() {
            tsdb::History::Attached => None,
            tsdb::History::Attaching(_) => {
                Some("samples from before the start that are in no block yet are still being read".to_owned())
            }
            tsdb::History::Failed(why) => {
                Some(format!("samples from before the start that are in no block could not be read: {why}"))
            }
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn evaluators(&self) -> &evaluators::Evaluators {
        &self.0.evaluators
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0.options.now)()
    }
}

/// Only `/metrics`.
pub fn metrics_router(state: State) -> Router {
    Router::new().route("/metrics", get(metrics::metrics)).with_state(state)
}

/// What is served below `/api/v1`. `openapi.rs` describes each of them.
fn routes() -> Vec<(&'static str, MethodRouter<State>)> {
    vec![
        ("/query", get(query::instant).post(query::instant)),
        ("/query_range", get(query::range).post(query::range)),
        ("/query_exemplars", get(exemplars::exemplars).post(exemplars::exemplars)),
        ("/format_query", get(query::format).post(query::format)),
        ("/parse_query", get(query::tree).post(query::tree)),
        ("/labels", get(labels::names).post(labels::names)),
        ("/label/{name}/values", get(labels::values)),
        ("/series", get(labels::series).post(labels::series)),
        ("/search/metric_names", get(search::metric_names).post(search::metric_names)),
        ("/search/label_names", get(search::label_names).post(search::label_names)),
        ("/search/label_values", get(search::label_values).post(search::label_values)),
        ("/write", post(write::write)),
        ("/read", post(read::read)),
        ("/otlp/v1/metrics", post(otlp::write)),
        ("/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series)),
        ("/admin/tsdb/clean_tombstones", post(admin::clean_tombstones).put(admin::clean_tombstones)),
        ("/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot)),
        ("/metadata", get(targets::metadata)),
        ("/targets", get(targets::targets)),
        ("/targets/metadata", get(targets::target_metadata)),
        ("/targets/relabel_steps", get(targets::relabel_steps)),
        ("/scrape_pools", get(targets::scrape_pools)),
        ("/scrape_pools/config", get(targets::pool_config)),
        ("/rules", get(rules_status::rules)),
        ("/alerts", get(rules_status::alerts)),
        ("/alertmanagers", get(rules_status::alertmanagers)),
        ("/status/buildinfo", get(status::build_info)),
        ("/status/runtimeinfo", get(status::runtime_info)),
        ("/status/config", get(status::config)),
        ("/status/flags", get(status::flags)),
        ("/status/self_metrics", get(metrics::self_metrics)),
        ("/status/tsdb", get(status::tsdb)),
        ("/status/tsdb/blocks", get(status::blocks)),
        ("/features", get(status::features)),
        ("/notifications", get(notifications::list)),
        ("/notifications/live", get(notifications::live)),
        ("/status/walreplay", get(status::wal_replay)),
        ("/openapi.yaml", get(openapi::document)),
    ]
}

/// All routes.
pub fn router(state: State) -> Router {
    let v1 = routes().into_iter().fold(Router::new(), |v1, (path, handlers)| v1.route(path, handlers));
    let v1 = v1.route("/{*rest}", any(async || axum::http::StatusCode::NOT_FOUND));
    let mut router = Router::new()
        .nest("/api/v1", v1)
        .route("/metrics", get(metrics::metrics))
        .route("/federate", get(federate::federate))
        .route("/-/healthy", get(health::healthy))
        .route("/-/ready", get(health::ready))
        .route("/-/reload", post(health::reload).put(health::reload))
        .route("/-/quit", post(health::quit).put(health::quit))
        .route("/version", get(status::version));
    for path in ui::paths() {
        router = router.route(path, get(page::file));
    }
    for path in ["/graph", "/query"] {
        router = router.route(path, get(page::of_expression));
    }
    router
        .fallback(async || axum::http::StatusCode::NOT_FOUND)
        .layer(axum::middleware::from_fn(page::refuse_heads))
        .layer(axum::middleware::map_response(page::in_words))
        .layer(axum::middleware::from_fn(compress::compress))
        .layer(axum::middleware::from_fn_with_state(state.clone(), page::cors))
        .layer(axum::middleware::from_fn_with_state(state.clone(), requests::count))
        .with_state(state)
}
