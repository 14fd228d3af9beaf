//! From flags to a running process and back: the only place that knows all rooms.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use model::{Labels, Timestamp};
use node_agent::Agent;
use remote::receive::Receiver;
use scraper::config::TargetGroup;
use scraper::{ScrapeJob, Shutdown};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tsdb::Db;

use crate::cli::{Cli, Kubernetes};
use crate::config::{self, Loaded};
use crate::local::{self, LocalCluster};
use crate::serve::serve;
use crate::terminal::{Greeting, ProgressLine};

/// How long an API server may take to answer when we look whether it is there.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(2);
/// How often the store is looked after.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Samples are kept this long unless a flag says otherwise.
const DEFAULT_RETENTION_MS: i64 = 15 * 24 * 3_600_000;

/// The wall clock in milliseconds since the epoch.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Runs until a signal or `/-/quit`.
pub(crate) fn run(cli: &Cli, flags: BTreeMap<String, String>) -> anyhow::Result<()> {
    let loaded = match &cli.config_file {
        Some(path) => config::load(path)?,
        None => Loaded::default(),
    };
    let addresses = cli.listen_addresses().map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(start(cli, flags, loaded, &addresses));
    // Whatever still runs is a query that nobody waits for.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

async fn start(
    cli: &Cli,
    flags: BTreeMap<String, String>,
    loaded: Loaded,
    addresses: &[SocketAddr],
) -> anyhow::Result<()> {
    let stop = Shutdown::new();
    // Signals count from here on, also while the store is being opened.
    let mut signals = Signals::new()?;
    let mut listeners = Vec::new();
    for address in addresses {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        listeners.push(listener);
    }
    let own_address = listeners[0].local_addr()?;

    let local = LocalMachine::start(stop.clone()).await?;
    let store = Arc::new(OnceLock::new());
    let options = api_options(cli, flags, &loaded);
    let state = api::State::new(options.clone());
    set_config(&state, &loaded);
    let router = api::router(state.clone()).merge(metrics_api::router(local.metrics_state(&store)));
    let servers: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(serve(listener, router.clone(), stop.clone())))
        .collect();

    let db = tokio::select! {
        opened = open_store(cli, &state) => Arc::new(opened?),
        () = signals.stop() => return Ok(()),
    };
    // Both are set once, here.
    let _ = store.set(Arc::clone(&db));
    let receiver =
        cli.enable_remote_write_receiver.then(|| Arc::new(Receiver::new(Arc::clone(&db), random_seeds())));
    let history = attach_history(&db, &state);
    let maintenance = Maintenance::start(Arc::clone(&db), receiver.clone());
    let jobs = Jobs { local, own_address };
    let scraping = scraper::start(jobs.config(&loaded), Arc::clone(&db), stop.child_token())?;
    let scraper = Arc::new(scraping);
    let engine = Arc::clone(&options.engine);
    let rules = Arc::new(rules::start(jobs.rules(&loaded, engine, &db), stop.child_token())?);
    state.attach(api::Running {
        store: Arc::clone(&db),
        scraper: Arc::clone(&scraper),
        rules: Arc::clone(&rules),
        receiver,
    });

    let reload = Arc::new(Reload {
        path: cli.config_file.clone(),
        jobs,
        scraper: Arc::clone(&scraper),
        rules: Arc::clone(&rules),
        alertmanagers: loaded.alertmanagers.clone(),
        state: state.clone(),
    });
    answer_demands(&state, &reload, &stop);
    greet(cli, &loaded, &reload.jobs, cli.kubernetes)?;

    until_stopped(&mut signals, &reload, &stop).await;
    state.set_stopping();
    rules.stop().await;
    scraper.stop().await;
    stop.cancel();
    for server in servers {
        let _ = server.await;
    }
    db.abandon_history();
    let _ = history.join();
    maintenance.stop();
    db.sync().context("syncing the log")?;
    tracing::info!("stopped; every committed sample is on disk");
    Ok(())
}

/// Seeds that nobody outside can know: the standard library's, drawn from the kernel.
fn random_seeds() -> [u64; 2] {
    use std::hash::{BuildHasher as _, RandomState};
    [(); 2].map(|()| RandomState::new().hash_one(0))
}

/// Carries out what signals ask for until one asks to stop, or somebody else has stopped the process.
async fn until_stopped(signals: &mut Signals, reload: &Reload, stop: &Shutdown) {
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break,
                Asked::Reload => {
                    if let Err(error) = reload.run().await {
                        tracing::error!("the configuration in force stays: {}", crate::describe(&error));
                    }
                }
            },
            () = stop.cancelled() => break,
        }
    }
}

fn api_options(cli: &Cli, flags: BTreeMap<String, String>, loaded: &Loaded) -> api::Options {
    let defaults = promql::EngineOptions::default();
    let (grammar, features) = cli.query_features();
    let engine = promql::Engine::new(promql::EngineOptions {
        lookback_ms: cli.lookback.0,
        subquery_step_ms: loaded.evaluation_interval_ms,
        features,
        limits: promql::Limits {
            samples_max: cli.query_samples_max,
            concurrency: cli.query_concurrency,
            timeout: Duration::from_millis(cli.query_timeout.0.unsigned_abs()),
            ..defaults.limits
        },
        ..defaults
    });
    let retention_ms = cli.retention_time.map_or(DEFAULT_RETENTION_MS, |time| time.0);
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
        lifecycle: cli.enable_lifecycle,
        retention: model::duration::format_ms(retention_ms),
    }
}

fn set_config(state: &api::State, loaded: &Loaded) {
    let text = loaded.redacted.clone();
    state.set_config(api::ConfigStatus { text, last_reload_ok: true, loaded_ms: now() });
}

async fn open_store(cli: &Cli, state: &api::State) -> anyhow::Result<Db> {
    let dir = cli.storage_path.clone();
    let retention_ms = match (cli.retention_time, cli.retention_size) {
        (Some(time), _) => Some(time.0).filter(|ms| *ms > 0),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_RETENTION_MS),
    };
    let options = tsdb::Options {
        wal_sync_interval: Duration::from_millis(cli.wal_sync_interval.0.unsigned_abs()),
        retention_ms,
        retention_bytes: cli.retention_size.map(|size| size.0).filter(|bytes| *bytes > 0),
        ..tsdb::Options::default()
    };
    let state = state.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let mut line = ProgressLine::new();
        Db::open_at_once(&dir, options, &mut |progress| show_progress(&state, &mut line, progress))
    });
    opening.await?.with_context(|| format!("cannot open --storage.tsdb.path={}", cli.storage_path.display()))
}

fn show_progress(state: &api::State, line: &mut ProgressLine, progress: tsdb::Progress) {
    if let tsdb::Progress::Wal { segment, first, last } = progress {
        state.set_replay_progress(first, last, segment);
    }
    line.show(progress);
}

/// Brings back the samples that were in no block yet, behind the running server.
fn attach_history(db: &Arc<Db>, state: &api::State) -> std::thread::JoinHandle<()> {
    let (db, state) = (Arc::clone(db), state.clone());
    std::thread::spawn(move || {
        let mut line = ProgressLine::new();
        // The store itself tells what is wrong, and goes on without.
        let _ = db.attach_history(&mut |progress| show_progress(&state, &mut line, progress));
    })
}

/// The machine as a kubelet, served to our own scraper on a loopback port of its own: what a kubelet
/// shows is not for everybody who may query.
struct LocalMachine {
    agent: Agent,
    node_name: String,
    address: SocketAddr,
}

impl LocalMachine {
    async fn start(stop: Shutdown) -> anyhow::Result<Arc<Self>> {
        let node_name =
            std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let node_name = if node_name.is_empty() { "localhost".to_owned() } else { node_name };
        let options = node_agent::Options {
            node_name: node_name.clone(),
            root: PathBuf::from("/"),
            clock: Arc::new(now),
        };
        let agent = Agent::new(options).context("cannot read this machine")?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, agent.router(), stop));
        Ok(Arc::new(Self { agent, node_name, address }))
    }

    fn metrics_state(&self, store: &Arc<OnceLock<Arc<Db>>>) -> metrics_api::State {
        let source = LocalCluster {
            agent: self.agent.clone(),
            node_name: self.node_name.clone(),
            store: Arc::clone(store),
            now,
        };
        metrics_api::State::new(Arc::new(source)).with_core_api()
    }
}

/// What is scraped without a word in the configuration, and with it.
struct Jobs {
    local: Arc<LocalMachine>,
    own_address: SocketAddr,
}

impl Jobs {
    fn config(&self, loaded: &Loaded) -> scraper::Config {
        let mut config = scraper::Config::new(Arc::new(now));
        config.seed.host_name.clone_from(&self.local.node_name);
        config.seed.external_labels = loaded.external_labels.clone();
        config.system_roots_pem = system_roots();
        config.jobs.clone_from(&loaded.jobs);
        let own = [local::kubelet_job(&self.local.node_name, self.local.address), self.own_job()];
        for job in own {
            if config.jobs.iter().any(|other| other.name == job.name) {
                tracing::warn!("job {:?} of the configuration stands for the built-in one", job.name);
            } else {
                config.jobs.push(job);
            }
        }
        config
    }

    fn rules(&self, loaded: &Loaded, engine: Arc<promql::Engine>, db: &Arc<Db>) -> rules::Options {
        rules::Options {
            groups: loaded.rules.clone(),
            evaluation_interval_ms: loaded.evaluation_interval_ms,
            query_offset_ms: loaded.rule_query_offset_ms,
            external_labels: loaded.external_labels.clone(),
            external_url: format!("http://{}", self.own_address),
            alertmanagers: loaded.alertmanagers.clone(),
            ..rules::Options::new(engine, Arc::clone(db), Arc::new(now))
        }
    }

    fn own_job(&self) -> ScrapeJob {
        let mut job = ScrapeJob::new("pyrometer");
        (job.interval_ms, job.timeout_ms) = (15_000, 10_000);
        let mut address = self.own_address;
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        job.targets = vec![TargetGroup { targets: vec![address.to_string()], labels: Labels::empty() }];
        job
    }
}

/// The certificate authorities that this machine trusts, from where distributions keep them.
fn system_roots() -> Vec<u8> {
    const PLACES: [&str; 3] =
        ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let places = given.into_iter().chain(PLACES.map(PathBuf::from));
    places.filter_map(|path| std::fs::read(path).ok()).next().unwrap_or_default()
}

/// How a new configuration comes into force.
struct Reload {
    path: Option<PathBuf>,
    jobs: Jobs,
    scraper: Arc<scraper::Handle>,
    rules: Arc<rules::Handle>,
    /// Those of the start; others need a restart.
    alertmanagers: Vec<rules::Alertmanager>,
    state: api::State,
}

impl Reload {
    async fn run(&self) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let outcome = self.apply(path).await;
        if outcome.is_err() {
            self.state.set_reload_failed();
        }
        outcome
    }

    async fn apply(&self, path: &Path) -> anyhow::Result<()> {
        let loaded = config::load(path)?;
        anyhow::ensure!(
            loaded.alertmanagers == self.alertmanagers,
            "{}: other Alertmanagers come into force with a restart only",
            path.display()
        );
        // Both parts are judged before either is changed.
        let scraping = self.jobs.config(&loaded);
        scraping.validate()?;
        self.rules.reload(loaded.rules.clone()).await?;
        self.scraper.reload(scraping)?;
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

fn greet(cli: &Cli, loaded: &Loaded, jobs: &Jobs, mode: Kubernetes) -> anyhow::Result<()> {
    let mut scrapes = format!("this machine as node {:?} and Pyrometer itself", jobs.local.node_name);
    if let Some(path) = &cli.config_file {
        let targets: usize =
            loaded.jobs.iter().flat_map(|job| &job.targets).map(|group| group.targets.len()).sum();
        scrapes.push_str(&format!(", and {targets} targets of {}", path.display()));
    }
    if let Some(access) = k8s::find(kubernetes_mode(mode), &kubernetes_environment())? {
        let origin = match &access.origin {
            k8s::Origin::ServiceAccount => "its service account".to_owned(),
            k8s::Origin::Kubeconfig { path, context } => format!("context {context:?} of {}", path.display()),
        };
        scrapes.push_str(&format!("; not yet the cluster {} found by {origin}", access.server));
        tokio::spawn(async move {
            let server = &access.server;
            match access.reach(CLUSTER_PATIENCE).await {
                Ok(version) => tracing::warn!(
                    "the cluster at {server} ({version}) answers, but its nodes and pods are not discovered yet: \
                     only this machine is scraped"
                ),
                Err(error) => {
                    tracing::warn!("no cluster is reachable, only this machine is scraped: {error}");
                }
            }
        });
    }
    let greeting = Greeting {
        version: env!("CARGO_PKG_VERSION"),
        scrapes,
        url: format!("http://{}", jobs.own_address),
        data_dir: cli.storage_path.display().to_string(),
    };
    greeting.print();
    Ok(())
}

fn kubernetes_mode(mode: Kubernetes) -> k8s::Mode {
    match mode {
        Kubernetes::Auto => k8s::Mode::Auto,
        Kubernetes::Off => k8s::Mode::Off,
        Kubernetes::InCluster => k8s::Mode::InCluster,
        Kubernetes::Kubeconfig => k8s::Mode::Kubeconfig,
    }
}

fn kubernetes_environment() -> k8s::Environment {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = set("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    k8s::Environment {
        kubeconfig: set("KUBECONFIG").map(PathBuf::from).or(home),
        service: set("KUBERNETES_SERVICE_HOST").zip(set("KUBERNETES_SERVICE_PORT")),
        service_account_dir: PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount"),
    }
}

/// The thread that cuts the head, compacts, and drops what is too old.
struct Maintenance {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Maintenance {
    fn start(db: Arc<Db>, receiver: Option<Arc<Receiver>>) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(MAINTENANCE_INTERVAL) {
                match db.maintain(now()) {
                    Ok(done) if done == tsdb::Maintained::default() => {}
                    Ok(done) => {
                        tracing::info!("maintained the store: {done:?}");
                        // Series may have left the head.
                        receiver.iter().for_each(|receiver| receiver.trim());
                    }
                    Err(error) => tracing::error!("maintaining the store: {error}"),
                }
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// The signals we answer to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Waits for a signal that ends the process.
    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
