//! What is scraped: this machine, this process, the cluster around it, and what the configuration says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::Labels;
use node_agent::Agent;
use scraper::config::TargetGroup;
use scraper::{ScrapeJob, Shutdown};
use tokio::net::TcpListener;
use tsdb::Db;

use crate::cli::{self, Cli};
use crate::config::Loaded;
use crate::in_cluster::{self, KubeletTrust};
use crate::local::{self, LocalCluster};
use crate::place::Place;
use crate::samples::Samples;
use crate::web::{self, serve};
use crate::wire::now;

/// Connections to the machine's own kubelet-like endpoint: our scraper has one.
const LOCAL_CONNECTIONS_MAX: usize = 16;
const LOCAL_READ_TIMEOUT: Duration = Duration::from_secs(300);

/// The machine as a kubelet, served to our own scraper on a loopback port of its own: what a kubelet
/// shows is not for everybody who may query.
pub(crate) struct LocalMachine {
    agent: Agent,
    pub(crate) node_name: String,
    address: SocketAddr,
}

impl LocalMachine {
    pub(crate) async fn start(own_metrics: axum::Router, stop: Shutdown) -> anyhow::Result<Arc<Self>> {
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
        let limits = web::Limits::new(LOCAL_CONNECTIONS_MAX, LOCAL_READ_TIMEOUT);
        tokio::spawn(serve(listener, agent.router().merge(own_metrics), None, limits, stop));
        Ok(Arc::new(Self { agent, node_name, address }))
    }

    pub(crate) fn metrics_state(&self, samples: &Samples) -> metrics_api::State {
        let source = LocalCluster {
            agent: self.agent.clone(),
            node_name: self.node_name.clone(),
            samples: samples.clone(),
            now,
        };
        metrics_api::State::new(Arc::new(source)).with_core_api()
    }
}

/// What is scraped without a word in the configuration, and with it.
pub(crate) struct Jobs {
    pub(crate) local: Arc<LocalMachine>,
    pub(crate) place: Place,
    pub(crate) cluster: Option<k8s::Access>,
    /// Those of the cluster this process runs in, if there are built-in ones.
    pub(crate) of_cluster: Vec<ScrapeJob>,
    pub(crate) kubelet_pins: Option<Arc<scraper::config::Pins>>,
    stores_metadata: bool,
    stores_start_times: bool,
    has_built_in: bool,
    only_resources: bool,
    /// Where samples go instead of the store.
    sink: Option<Arc<dyn scraper::Sink>>,
}

impl Jobs {
    pub(crate) fn new(
        cli: &Cli,
        local: Arc<LocalMachine>,
        place: Place,
        cluster: Option<k8s::Access>,
    ) -> anyhow::Result<Self> {
        let has_built_in = cli.has_built_in_jobs();
        let trust = KubeletTrust { authority: cli.kubelet.authority.clone(), insecure: cli.kubelet.insecure };
        let inside = cluster.as_ref().filter(|access| is_inside(access) && has_built_in);
        let only_resources = cli.mode == cli::Mode::MetricsApiOnly;
        let of_cluster = match (&cluster, inside) {
            (Some(access), _) if only_resources => vec![in_cluster::resource_job(access, &trust)?],
            (_, Some(access)) => in_cluster::jobs(access, &trust)?,
            _ => Vec::new(),
        };
        let kubelet_pins = match &cli.kubelet.pins {
            Some(path) => Some(Arc::new(scraper::config::Pins::open(path).map_err(anyhow::Error::msg)?)),
            None => None,
        };
        let stores_metadata = cli.stores_metadata();
        Ok(Self {
            local,
            place,
            cluster,
            of_cluster,
            kubelet_pins,
            stores_metadata,
            stores_start_times: cli.stores_start_times(),
            has_built_in,
            only_resources,
            sink: None,
        })
    }

    pub(crate) fn with_sink(self, sink: Option<Arc<dyn scraper::Sink>>) -> Self {
        Self { sink, ..self }
    }

    pub(crate) fn config(&self, loaded: &Loaded) -> scraper::Config {
        let mut config = scraper::Config::new(Arc::new(now));
        config.seed.host_name.clone_from(&self.local.node_name);
        config.seed.external_labels = loaded.external_labels.clone();
        config.system_roots_pem = system_roots();
        config.kubelet_pins.clone_from(&self.kubelet_pins);
        config.stores_metadata = self.stores_metadata;
        config.stores_start_times = self.stores_start_times;
        config.sink.clone_from(&self.sink);
        config.jobs.clone_from(&loaded.jobs);
        config.jobs.extend(self.of_cluster.iter().cloned());
        if !self.has_built_in {
            return config;
        }
        let mut own = if self.only_resources { Vec::new() } else { vec![self.own_job()] };
        // In a cluster the nodes' kubelets know more than a look around from inside a pod.
        if self.of_cluster.is_empty() {
            own.push(local::kubelet_job(&self.local.node_name, self.local.address));
        }
        for job in own {
            if config.jobs.iter().any(|other| other.name == job.name) {
                tracing::warn!("job {:?} of the configuration stands for the built-in one", job.name);
            } else {
                config.jobs.push(job);
            }
        }
        config
    }

    pub(crate) fn rules(
        &self,
        loaded: &Loaded,
        cli: &Cli,
        engine: Arc<promql::Engine>,
        db: &Arc<Db>,
    ) -> rules::Options {
        let flags = &cli.rules;
        rules::Options {
            groups: loaded.rules.clone(),
            evaluation_interval_ms: loaded.evaluation_interval_ms,
            query_offset_ms: loaded.rule_query_offset_ms,
            external_labels: loaded.external_labels.clone(),
            external_url: self.place.external_url.clone(),
            grammar: crate::cli::grammar(&cli.features),
            resend_delay_ms: flags.resend_delay.0,
            for_outage_tolerance_ms: flags.outage_tolerance.0,
            for_grace_period_ms: flags.grace_period.0,
            queue: rules::QueueOptions {
                capacity: flags.queue_capacity,
                batch: flags.batch_size,
                drain: flags.drain_on_shutdown,
            },
            beside_max: cli.concurrent_rules(),
            ..rules::Options::new(engine, Arc::clone(db), Arc::new(now))
        }
    }

    fn own_job(&self) -> ScrapeJob {
        let mut job = ScrapeJob::new("pyrometer");
        (job.interval_ms, job.timeout_ms) = (15_000, 10_000);
        let mut address = self.place.address;
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        let mut group = TargetGroup::of_addresses([address.to_string()], Labels::empty());
        if self.place.guarded {
            // We have no password of our own, so we go in by the back door, under the front's name.
            let labels = Labels::from_pairs([("instance", address.to_string())]);
            group = TargetGroup::of_addresses([self.local.address.to_string()], labels);
        } else {
            job.metrics_path = format!("{}/metrics", self.place.prefix);
        }
        job.targets = vec![group];
        job
    }
}

/// The certificate authorities that this machine trusts, from where distributions keep them.
pub(crate) fn system_roots() -> Vec<u8> {
    const PLACES: [&str; 3] =
        ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let places = given.into_iter().chain(PLACES.map(PathBuf::from));
    places.filter_map(|path| std::fs::read(path).ok()).next().unwrap_or_default()
}

/// Whether this process runs in the cluster.
pub(crate) fn is_inside(access: &k8s::Access) -> bool {
    matches!(access.origin, k8s::Origin::ServiceAccount { .. })
}
