//! From flags to a running process and back: the only place that knows all rooms.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use model::Timestamp;
use remote::receive::{Protocol, Receiver};
use scraper::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tsdb::Db;

use crate::alertmanagers::Alertmanagers;
use crate::cli::{self, Cli, CommandLine, Kubernetes};
use crate::config::{self, Loaded};
use crate::jobs::{Jobs, LocalMachine};
use crate::metrics_apis::MetricsApis;
use crate::outgoing;
use crate::place::Place;
use crate::roles::{Parts, Role, SHARD_WINDOW_MS};
use crate::samples::Samples;
use crate::senders::Senders;
use crate::terminal::{Greeting, ProgressLine};
use crate::thanos::Thanos;
use crate::upkeep::{Asked, Maintenance, Pulse, Signals};
use crate::web::{self, serve};

/// How long an API server may take to answer when we look whether it is there.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(2);
/// Samples are kept this long unless a flag says otherwise.
const DEFAULT_RETENTION_MS: i64 = 15 * 24 * 3_600_000;

/// With `--mode=metrics-api-only`: the span of blocks, how long they are kept, and the size of a segment of the log.
const SHORT_MS: i64 = 300_000;
const SHORT_SEGMENT_BYTES: u64 = 8 << 20;

/// The wall clock in milliseconds since the epoch.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Reads and checks the configuration file for what this process is.
fn load(path: &Path, is_agent: bool, grammar: promql::ParseOptions) -> anyhow::Result<Loaded> {
    let loaded = config::load(path, rules::Dialect { grammar, ..rules::Dialect::default() })?;
    if is_agent {
        loaded.check_agent(path)?;
    }
    Ok(loaded)
}

/// Runs until a signal or `/-/quit`.
pub(crate) fn run(line: CommandLine) -> anyhow::Result<()> {
    let CommandLine { cli, flags, without_effect } = line;
    for (name, why) in without_effect {
        tracing::info!("--{name} has no effect: {why}");
    }
    let loaded = match &cli.config_file {
        Some(path) => load(path, cli.cluster.has(Role::Agent), cli::grammar(&cli.features))?,
        None => Loaded::default(),
    };
    cli.cluster.check(&loaded)?;
    cli.thanos.check(&cli, &loaded)?;
    let addresses = cli.listen_addresses().map_err(anyhow::Error::msg)?;
    let guard = cli.web.web_config_file.as_deref().map(web::Guard::load).transpose()?.map(Arc::new);
    let listening = Listening { addresses, guard };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if cli.keeps_newest_alone() {
        return_pages_at_once();
        // It works a few milliseconds a second, and an allocator keeps something for every thread.
        runtime.worker_threads(1);
    }
    let runtime = runtime.enable_all().build()?;
    let outcome = if cli.cluster.is_router_alone() {
        runtime.block_on(route(&cli, &listening))
    } else {
        runtime.block_on(start(&cli, flags, loaded, &listening))
    };
    // Whatever still runs is a query that nobody waits for.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// Has the allocator give pages back as soon as they are free, not some time later: a quarter less resident memory of a
/// process that holds little. One that answers queries pays for it with a third more CPU of the small ones, whose memory
/// the next would have used.
#[expect(unsafe_code, reason = "the allocator's option can be set in no other way")]
fn return_pages_at_once() {
    /// `mi_option_purge_delay` in `mimalloc.h`, in milliseconds.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: it stores a number among the allocator's options, which it allows at any time, and ignores a number that
    // is no option's. No memory of ours is involved.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
}

/// Where and behind what to serve.
struct Listening {
    addresses: Vec<SocketAddr>,
    guard: Option<Arc<web::Guard>>,
}

impl Listening {
    async fn bind(&self) -> anyhow::Result<Vec<TcpListener>> {
        let mut listeners = Vec::new();
        for address in &self.addresses {
            let listener = TcpListener::bind(address).await;
            listeners.push(listener.with_context(|| format!("cannot listen on {address}"))?);
        }
        Ok(listeners)
    }

    fn serve(
        &self,
        listeners: Vec<TcpListener>,
        router: &axum::Router,
        cli: &Cli,
        stop: &Shutdown,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        let read_timeout = Duration::from_millis(cli.web.read_timeout.0.unsigned_abs());
        let limits = web::Limits::new(cli.web.connections_max, read_timeout);
        let one = |listener| {
            let (guard, limits) = (self.guard.clone(), limits.clone());
            tokio::spawn(serve(listener, router.clone(), guard, limits, stop.clone()))
        };
        listeners.into_iter().map(one).collect()
    }
}

/// A router that is nothing else has no store, no configuration and no samples of its own.
async fn route(cli: &Cli, listening: &Listening) -> anyhow::Result<()> {
    let stop = Shutdown::new();
    let mut signals = Signals::new()?;
    let listeners = listening.bind().await?;
    let address = listeners[0].local_addr()?;
    let place = Place::new(cli, address, listening.guard.as_deref())?;
    let cluster = k8s::find(kubernetes_mode(cli.kubernetes), &config::cluster::environment())?;
    let starting = Parts::start(cli, &place.host_name, cluster.as_ref(), &stop);
    let Some(parts) = unless_stopped(&mut signals, starting).await? else { return Ok(()) };
    let routes = parts.mount(cli, axum::Router::new(), &stop);
    let servers = listening.serve(listeners, &routes, cli, &stop);
    parts.greet(place.url(), cli.cluster.spool_dir.as_ref().unwrap_or(&cli.storage.path));
    signals.stop().await;
    stop.cancel();
    for server in servers {
        let _ = server.await;
    }
    parts.leave().await;
    Ok(())
}

async fn start(
    cli: &Cli,
    flags: BTreeMap<String, String>,
    loaded: Loaded,
    listening: &Listening,
) -> anyhow::Result<()> {
    let stop = Shutdown::new();
    // Signals count from here on, also while the store is being opened.
    let mut signals = Signals::new()?;
    let listeners = listening.bind().await?;

    let store = Arc::new(OnceLock::new());
    let place = Place::new(cli, listeners[0].local_addr()?, listening.guard.as_deref())?;
    let state = api::State::new(api_options(cli, flags, &loaded, &place));
    let local = LocalMachine::start(api::metrics_router(state.clone()), stop.clone()).await?;
    set_query_log(&state, &loaded, cli.config_file.as_deref())?;
    set_config(&state, &loaded);
    let cluster = k8s::find(kubernetes_mode(cli.kubernetes), &config::cluster::environment())?;
    let starting = Parts::start(cli, &place.host_name, cluster.as_ref(), &stop);
    let Some(parts) = unless_stopped(&mut signals, starting).await? else { return Ok(()) };
    let samples = Samples::new(&store, parts.cell(), cli.keeps_newest_alone());
    let apis = MetricsApis::start(cli, Arc::clone(state.engine()), cluster.as_ref(), &samples).await?;
    let router = place.mount(api::router(state.clone())).merge(apis.plain(&local, &samples));
    let mut servers = listening.serve(listeners, &parts.mount(cli, router, &stop), cli, &stop);
    let pulse = Pulse::default();
    servers.extend(apis.listen(&cli.kubernetes_api, &pulse, &stop).await?);

    let opening = open_store(cli, &loaded.storage, &state);
    let Some(db) = unless_stopped(&mut signals, opening).await?.map(Arc::new) else { return Ok(()) };
    track_queries(&state, &cli.storage.path, cli.query.concurrency)?;
    // Both are set once, here.
    let _ = store.set(Arc::clone(&db));
    let receiver = parts.attach(&db, write_receiver(cli, &loaded, &db), state.engine());
    // Rules must not take a store without its history for one without samples.
    let attached = Shutdown::new();
    let history = attach_history(&db, &state, &attached);
    let (thanos, store_api) = Thanos::start(cli, &loaded, &db, (&state, &stop)).await?;
    servers.extend(store_api);
    let senders = start_senders(cli, &loaded, &db)?;
    let maintenance =
        Maintenance::start(Arc::clone(&db), receiver.clone(), Arc::clone(&senders), (&pulse, &state));
    let others = outgoing::others(&loaded)?;
    let jobs = Jobs::new(cli, local, place, cluster)?.with_sink(samples.sink());
    let scraper = Arc::new(scraper::start(jobs.config(&loaded), Arc::clone(&db), stop.child_token())?);
    senders.quote(&scraper);
    let rules = start_rules(&jobs, (cli, &loaded), (&state, &db, &others), attached, &stop)?;
    let alertmanagers = Alertmanagers::new(Arc::clone(&scraper), Arc::clone(&rules), stop.child_token());
    alertmanagers.apply(&loaded.alertmanagers);
    state.attach(api::Running {
        store: Arc::clone(&db),
        scraper: Arc::clone(&scraper),
        rules: Arc::clone(&rules),
        receiver,
        otlp: otlp_receiver(cli, &loaded, &db),
        senders: sender_stats(&senders),
        others: Arc::clone(&others),
        cell: parts.cell(),
    });

    let reload = Arc::new(Reload {
        path: cli.config_file.clone(),
        is_agent: cli.cluster.has(Role::Agent),
        grammar: cli::grammar(&cli.features),
        apis,
        jobs,
        scraper: Arc::clone(&scraper),
        rules: Arc::clone(&rules),
        alertmanagers,
        senders: Arc::clone(&senders),
        others,
        thanos,
        state: state.clone(),
    });
    answer_demands(&state, &reload, &stop);
    greet(cli, &loaded, &reload.jobs);

    let auto_reload = cli.auto_reload().map(|every| (every, loaded.fingerprint));
    until_stopped(&mut signals, &reload, auto_reload, &stop).await;
    let ended = Work { state, scraper, rules, servers, senders, history, maintenance, db }.end(&stop).await;
    parts.leave().await;
    ended
}

/// `attached`: cancelled when the store has its history.
fn start_rules(
    jobs: &Jobs,
    (cli, loaded): (&Cli, &Loaded),
    (state, db, others): (&api::State, &Arc<Db>, &Arc<remote::read::Endpoints>),
    attached: Shutdown,
    stop: &Shutdown,
) -> anyhow::Result<Arc<rules::Handle>> {
    let (store, others) = (Arc::clone(db), Arc::clone(others));
    let beyond: rules::Beyond = Arc::new(move |snapshot, read| {
        if others.is_empty() {
            return Vec::new();
        }
        let merged = others.beside(snapshot, remote::read::covered_from(&store, now()), false);
        read(&merged);
        merged.warnings()
    });
    let options = rules::Options {
        begin: Some(attached),
        observer: Some(Arc::new(state.clone())),
        beyond: Some(beyond),
        ..jobs.rules(loaded, cli, Arc::clone(state.engine()), db)
    };
    Ok(Arc::new(rules::start(options, stop.child_token())?))
}

/// What must be ended in order.
struct Work {
    state: api::State,
    scraper: Arc<scraper::Handle>,
    rules: Arc<rules::Handle>,
    servers: Vec<tokio::task::JoinHandle<()>>,
    senders: Arc<Senders>,
    history: std::thread::JoinHandle<()>,
    maintenance: Maintenance,
    db: Arc<Db>,
}

impl Work {
    async fn end(self, stop: &Shutdown) -> anyhow::Result<()> {
        self.state.set_stopping();
        self.rules.stop().await;
        self.scraper.stop().await;
        stop.cancel();
        for server in self.servers {
            let _ = server.await;
        }
        let senders = self.senders;
        let _ = tokio::task::spawn_blocking(move || senders.stop()).await;
        self.db.abandon_history();
        let _ = self.history.join();
        self.maintenance.stop();
        self.db.sync().context("syncing the log")?;
        tracing::info!("stopped; every committed sample is on disk");
        Ok(())
    }
}

/// What `work` gives, unless a signal to stop comes first.
async fn unless_stopped<T>(
    signals: &mut Signals,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        done = work => done.map(Some),
        () = signals.stop() => Ok(None),
    }
}

fn start_senders(cli: &Cli, loaded: &Loaded, db: &Arc<Db>) -> anyhow::Result<Arc<Senders>> {
    let flush_deadline = Duration::from_millis(cli.storage.flush_deadline.0.unsigned_abs());
    let senders = Senders::new(Arc::clone(db), cli.storage.path.clone(), flush_deadline);
    senders.apply(loaded)?;
    Ok(Arc::new(senders))
}

fn sender_stats(senders: &Arc<Senders>) -> api::SenderStats {
    let senders = Arc::clone(senders);
    Arc::new(move || senders.stats())
}

fn write_receiver(cli: &Cli, loaded: &Loaded, db: &Arc<Db>) -> Option<Arc<Receiver>> {
    let enabled = cli.web.enable_remote_write_receiver || cli.cluster.has(Role::Shard);
    let takes_late = cli.cluster.has(Role::Shard) || loaded.storage.out_of_order_window_ms > 0;
    enabled.then(|| {
        let accepted = cli.web.accepted_messages.iter().filter_map(|name| Protocol::of_message(name));
        let receiver =
            Receiver::new(Arc::clone(db), random_seeds()).by_clock(now).accepting(accepted.collect());
        Arc::new(if takes_late { receiver.taking_late() } else { receiver })
    })
}

fn otlp_receiver(cli: &Cli, loaded: &Loaded, db: &Arc<Db>) -> Option<Arc<remote::otlp::Receiver>> {
    let receiver = || Arc::new(remote::otlp::Receiver::new(Arc::clone(db), loaded.otlp.clone()));
    cli.web.enable_otlp_receiver.then(receiver)
}

/// Seeds that nobody outside can know: the standard library's, drawn from the kernel.
fn random_seeds() -> [u64; 2] {
    use std::hash::{BuildHasher as _, RandomState};
    [(); 2].map(|()| RandomState::new().hash_one(0))
}

/// Carries out what signals ask for until one asks to stop, or somebody else has stopped the process. Looks for
/// changes of files besides, if that is wanted.
async fn until_stopped(
    signals: &mut Signals,
    reload: &Reload,
    auto_reload: Option<(Duration, Option<u64>)>,
    stop: &Shutdown,
) {
    let (every, mut seen) = auto_reload.unzip();
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break,
                Asked::Reload => reload.run_or_log().await,
            },
            () = pause(every) => {
                let now = reload.fingerprint().await;
                // A file that changes while it is looked at is looked at again.
                if Some(now) != seen && now.is_some() && now == reload.fingerprint().await {
                    seen = Some(now);
                    reload.run_or_log().await;
                }
            },
            () = stop.cancelled() => break,
        }
    }
}

/// Sleeps, for ever if no time is given.
async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn api_options(cli: &Cli, flags: BTreeMap<String, String>, loaded: &Loaded, place: &Place) -> api::Options {
    let defaults = promql::EngineOptions::default();
    let crate::tools::Features { grammar, meaning } = cli::query_features(&cli.features);
    let engine = promql::Engine::new(promql::EngineOptions {
        lookback_ms: cli.query.lookback.0,
        subquery_step_ms: loaded.evaluation_interval_ms,
        features: meaning,
        limits: promql::Limits {
            samples_max: cli.query.samples_max,
            bytes_per_query_max: cli.query.bytes_max.0,
            bytes_total_max: cli.query.bytes_total_max.0,
            concurrency: cli.query.concurrency,
            timeout: Duration::from_millis(cli.query.timeout.0.unsigned_abs()),
        },
        ..defaults
    });
    let retention_ms = cli.storage.retention_time.map_or(DEFAULT_RETENTION_MS, |time| time.0);
    api::Options {
        build: api::Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
            rust_version: concat!("rust", env!("CARGO_PKG_RUST_VERSION")).to_owned(),
        },
        now,
        engine: Arc::new(engine),
        grammar,
        flags,
        lifecycle: cli.web.enable_lifecycle,
        admin: cli.web.enable_admin_api,
        cors_origin: place.cors_origin.clone(),
        port: place.address.port(),
        external_url: place.external_url.clone(),
        external_labels: loaded.external_labels.clone(),
        working_dir: std::env::current_dir().unwrap_or_default().display().to_string(),
        host_name: place.host_name.clone(),
        notification_followers_max: cli.web.notification_subscribers_max,
        remote_read: api::RemoteRead {
            samples_max: cli.storage.read_samples_max,
            frame_bytes_max: cli.storage.read_frame_bytes_max,
            slots: (cli.storage.read_concurrency > 0)
                .then(|| Arc::new(Semaphore::new(cli.storage.read_concurrency))),
        },
        search_limit_max: cli.search_limit_max(),
        retention: model::duration::format_ms(retention_ms),
    }
}

fn set_config(state: &api::State, loaded: &Loaded) {
    let config::Shown { text, jobs } = loaded.redacted.clone();
    state.set_config(api::ConfigStatus { text, jobs, last_reload_ok: true, loaded_ms: now() });
}

/// Logs queries where the configuration says, relative to its own place.
fn set_query_log(state: &api::State, loaded: &Loaded, config: Option<&Path>) -> anyhow::Result<()> {
    let folder = config.and_then(Path::parent).unwrap_or(Path::new(""));
    let path = loaded.query_log_file.as_ref().map(|file| folder.join(file));
    state
        .set_query_log(path.as_deref())
        .with_context(|| format!("global.query_log_file: {}", path.unwrap_or_default().display()))
}

/// Notes queries in the data directory while they run, and tells of those that ran when the last run ended.
fn track_queries(state: &api::State, dir: &Path, concurrency: usize) -> anyhow::Result<()> {
    let opened = api::ActiveQueries::open(dir, concurrency);
    let (queries, left) = opened.with_context(|| format!("queries.active in {}", dir.display()))?;
    if let Some(left) = left {
        tracing::warn!("these queries did not finish in the last run: {left}");
    }
    state.track_queries(queries);
    Ok(())
}

async fn open_store(cli: &Cli, file: &config::StorageOptions, state: &api::State) -> anyhow::Result<Db> {
    let dir = cli.storage.path.clone();
    let time = file.retention_ms.or(cli.storage.retention_time.map(|time| time.0));
    let size = file.retention_bytes.or(cli.storage.retention_size.map(|size| size.0));
    let size = size.filter(|bytes| *bytes > 0);
    let retention_ms = match (time, size) {
        (Some(time), _) => Some(time).filter(|ms| *ms > 0),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_RETENTION_MS),
    };
    let defaults = tsdb::Options::default();
    let agent = &cli.agent_storage;
    let log_only = tsdb::LogOnly {
        min_ms: agent.min_time.0,
        max_ms: agent.max_time.0,
        truncate_every_ms: agent.truncate_every.0,
    };
    let options = tsdb::Options {
        log_only: cli.cluster.has(Role::Agent).then_some(log_only),
        wal_compression: match (cli.storage.wal_compression, cli.storage.wal_compression_type) {
            (false, _) => tsdb::Compression::None,
            (true, cli::Compression::Snappy) => tsdb::Compression::Snappy,
            (true, cli::Compression::Zstd) => tsdb::Compression::Zstd,
        },
        wal_sync_interval: Duration::from_millis(cli.storage.wal_sync_interval.0.unsigned_abs()),
        retention_ms,
        retention_bytes: size,
        out_of_order_window_ms: match file.out_of_order_window_ms {
            // What waited for a shard comes late.
            0 if cli.cluster.has(Role::Shard) => SHARD_WINDOW_MS,
            window => window,
        },
        exemplars_max: file.exemplars_max.unwrap_or(defaults.exemplars_max),
        float_chunks: if cli.stores_start_times() { tsdb::FloatChunks::Xor2 } else { file.float_chunks },
        series_max: cli.storage.series_max,
        compact: !cli.thanos.ships(),
        ..defaults
    };
    let options = match cli.mode {
        cli::Mode::Full => options,
        // Two samples of a counter are all that is needed; a restart begins with those of the last minutes.
        cli::Mode::MetricsApiOnly => tsdb::Options {
            block_range_ms: SHORT_MS,
            retention_ms: Some(SHORT_MS),
            exemplars_max: 0,
            wal_segment_bytes_max: SHORT_SEGMENT_BYTES,
            ..options
        },
    };
    let state = state.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let mut line = ProgressLine::new();
        Db::open_at_once(&dir, options, &mut |progress| show_progress(&state, &mut line, progress))
    });
    let flag = if cli.cluster.has(Role::Agent) { "storage.agent.path" } else { "storage.tsdb.path" };
    opening.await?.with_context(|| format!("cannot open --{flag}={}", cli.storage.path.display()))
}

fn show_progress(state: &api::State, line: &mut ProgressLine, progress: tsdb::Progress) {
    if let tsdb::Progress::Wal { segment, first, last } = progress {
        state.set_replay_progress(first, last, segment);
    }
    line.show(progress);
}

/// Brings back the samples that were in no block yet, behind the running server.
fn attach_history(db: &Arc<Db>, state: &api::State, attached: &Shutdown) -> std::thread::JoinHandle<()> {
    let (db, state, attached) = (Arc::clone(db), state.clone(), attached.clone());
    std::thread::spawn(move || {
        let mut line = ProgressLine::new();
        // The store itself tells what is wrong, and goes on without.
        let _ = db.attach_history(&mut |progress| show_progress(&state, &mut line, progress));
        attached.cancel();
    })
}

/// How a new configuration comes into force.
struct Reload {
    path: Option<PathBuf>,
    is_agent: bool,
    grammar: promql::ParseOptions,
    apis: Arc<MetricsApis>,
    jobs: Jobs,
    scraper: Arc<scraper::Handle>,
    rules: Arc<rules::Handle>,
    alertmanagers: Arc<Alertmanagers>,
    senders: Arc<Senders>,
    others: Arc<remote::read::Endpoints>,
    thanos: Arc<Thanos>,
    state: api::State,
}

impl Reload {
    async fn run_or_log(&self) {
        if let Err(error) = self.run().await {
            tracing::error!("the configuration in force stays: {}", crate::describe(&error));
        }
    }

    /// What tells whether the files have changed.
    async fn fingerprint(&self) -> Option<u64> {
        let path = self.path.clone()?;
        tokio::task::spawn_blocking(move || config::fingerprint(&path)).await.ok().flatten()
    }

    async fn run(&self) -> anyhow::Result<()> {
        let apis = Arc::clone(&self.apis);
        tokio::task::spawn_blocking(move || apis.reload()).await??;
        let Some(path) = &self.path else { return Ok(()) };
        let outcome = self.apply(path).await;
        if outcome.is_err() {
            self.state.set_reload_failed();
        }
        outcome
    }

    async fn apply(&self, path: &Path) -> anyhow::Result<()> {
        let loaded = load(path, self.is_agent, self.grammar)?;
        // Both parts are judged before either is changed.
        let scraping = self.jobs.config(&loaded);
        scraping.validate()?;
        let others = outgoing::endpoints(&loaded)?;
        self.thanos.reload(&loaded)?;
        set_query_log(&self.state, &loaded, Some(path))?;
        let (senders, sent) = (Arc::clone(&self.senders), loaded.clone());
        tokio::task::spawn_blocking(move || senders.apply(&sent)).await??;
        self.rules.reload(loaded.rules.clone()).await?;
        self.scraper.reload(scraping)?;
        self.others.apply(others);
        self.alertmanagers.apply(&loaded.alertmanagers);
        set_config(&self.state, &loaded);
        tracing::info!("{} is in force: {} jobs", path.display(), loaded.jobs.len());
        Ok(())
    }
}

fn answer_demands(state: &api::State, reload: &Arc<Reload>, stop: &Shutdown) {
    let (reload, stop) = (Arc::clone(reload), stop.clone());
    state.on_demand(move |demand| match demand {
        // Demands come on blocking threads.
        api::Demand::Reload => tokio::runtime::Handle::current()
            .block_on(reload.run())
            .map_err(|error| format!("failed to reload config: {}", crate::describe(&error))),
        api::Demand::Quit => {
            stop.cancel();
            Ok(())
        }
    });
}

fn greet(cli: &Cli, loaded: &Loaded, jobs: &Jobs) {
    let mut scrapes = if !cli.has_built_in_jobs() {
        String::new()
    } else {
        let alone = cli.mode == cli::Mode::MetricsApiOnly;
        match (jobs.of_cluster.is_empty(), alone) {
            (true, true) => format!("this machine as node {:?}", jobs.local.node_name),
            (true, false) => format!("this machine as node {:?} and Pyrometer itself", jobs.local.node_name),
            (false, true) => "the cluster's kubelets".to_owned(),
            (false, false) => {
                "Pyrometer itself, and the cluster's kubelets, annotated pods and services".to_owned()
            }
        }
    };
    if let Some(path) = &cli.config_file {
        let fixed: usize =
            loaded.jobs.iter().flat_map(|job| &job.targets).map(|group| group.targets.len()).sum();
        let and = if scrapes.is_empty() { "" } else { ", and " };
        scrapes.push_str(&format!("{and}{fixed} targets of {}", path.display()));
        let discoveries: usize = loaded.jobs.iter().map(|job| job.discoveries.len()).sum();
        if discoveries > 0 {
            scrapes.push_str(&format!(" and what its {discoveries} service discoveries find"));
        }
    }
    if scrapes.is_empty() {
        scrapes.push_str("nothing by itself");
    }
    if let Some(access) = jobs.cluster.clone() {
        if let k8s::Origin::Kubeconfig { path, context } = &access.origin {
            let place = format!("context {context:?} of {}", path.display());
            scrapes.push_str(&format!(
                "; not the cluster {} of {place}, whose nodes may be out of reach",
                access.server
            ));
        }
        tokio::spawn(async move {
            match access.reach(CLUSTER_PATIENCE).await {
                Ok(version) => tracing::info!("the cluster at {} ({version}) answers", access.server),
                Err(error) => tracing::warn!("the cluster does not answer yet: {error}"),
            }
        });
    }
    let greeting = Greeting {
        version: env!("CARGO_PKG_VERSION"),
        scrapes,
        url: jobs.place.url(),
        kept: match cli.keeps_newest_alone() {
            true => "the newest points are kept in memory alone".to_owned(),
            false => format!("samples are kept in {}", cli.storage.path.display()),
        },
    };
    greeting.print();
}

fn kubernetes_mode(mode: Kubernetes) -> k8s::Mode {
    match mode {
        Kubernetes::Auto => k8s::Mode::Auto,
        Kubernetes::Off => k8s::Mode::Off,
        Kubernetes::InCluster => k8s::Mode::InCluster,
        Kubernetes::Kubeconfig => k8s::Mode::Kubeconfig,
    }
}
