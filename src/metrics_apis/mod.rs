//! The Kubernetes metrics APIs of this process: where their objects come from, by which rules, and behind which door.

mod certificate;
mod cluster;
pub(crate) mod installer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s::{Access, Client, ConfigMap};
use metrics_api::{Adapter, Gatekeeper, Health, Source, State, Trust};
use scraper::Shutdown;
use tokio::net::TcpListener;

use crate::cli::{Cli, KubernetesApi};
use crate::jobs::{LocalMachine, is_inside};
use crate::samples::Samples;
use crate::tools::adapter_rules;
use crate::upkeep::Pulse;
use crate::web;
pub(crate) use certificate::Certificate;
use certificate::Origin;
use cluster::Cluster;

/// Where the secure listener is in a cluster unless a flag says otherwise.
const ADDRESS: &str = "0.0.0.0:8443";
/// Connections to the secure listener: one API server keeps a few.
const CONNECTIONS_MAX: usize = 512;
/// A client that is slower than this is let go.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Kinds of objects are looked up anew after this time.
const KINDS_AGE_MAX: Duration = Duration::from_secs(300);
/// Without values this long after the start, the process is ready all the same: an API that answers "no metrics" is
/// better for a cluster than one that does not answer.
const VALUES_PATIENCE: Duration = Duration::from_secs(60);
/// Where the API server says whom to trust.
const TRUST: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
/// Groups that we serve ourselves.
const OWN_GROUPS: [&str; 3] = ["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"];

/// The metrics APIs, with the file of their rules.
pub(crate) struct MetricsApis {
    adapter: Arc<Adapter>,
    rules: Option<PathBuf>,
    cluster: Option<Arc<Cluster>>,
    client: Option<Client>,
    /// Whether this process runs in the cluster, and not only beside it.
    inside: bool,
}

impl MetricsApis {
    /// Reads the rules, and begins to follow the cluster if there is one to serve.
    pub(crate) async fn start(
        cli: &Cli,
        engine: Arc<promql::Engine>,
        access: Option<&Access>,
        samples: &Samples,
    ) -> anyhow::Result<Arc<Self>> {
        let flags = &cli.kubernetes_api;
        let inside = access.is_some_and(is_inside);
        let serves = inside || flags.secure_listen.as_ref().is_some_and(|address| !address.is_empty());
        let client = match access.filter(|_| serves) {
            Some(access) => Some(access.connect().await?),
            None => None,
        };
        let cluster = client.clone().map(|client| Cluster::follow(client, samples.clone()));
        let adapter = Arc::new(Adapter::new(engine));
        let this = Self { adapter, rules: flags.adapter_rules.clone(), cluster, client, inside };
        this.reload()?;
        Ok(Arc::new(this))
    }

    /// Reads the rules again; those before stay in force if they cannot be used.
    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        if let Some(path) = self.rules.as_deref() {
            self.adapter.set_rules(adapter_rules::load(path)?);
        }
        Ok(())
    }

    /// What the plain listener serves: the cluster if this process runs in one, else this machine.
    pub(crate) fn plain(&self, local: &LocalMachine, samples: &Samples) -> axum::Router {
        let state = match self.cluster.clone().filter(|_| self.inside) {
            Some(cluster) => State::new(cluster).with_core_api(),
            None => local.metrics_state(samples),
        };
        metrics_api::router(state.with_adapter(Arc::clone(&self.adapter)))
    }

    /// Opens the secure listener, if one is wanted.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        flags: &KubernetesApi,
        pulse: &Pulse,
        stop: &Shutdown,
    ) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
        let given = flags.secure_listen.as_deref();
        let Some(address) = given.or(self.inside.then_some(ADDRESS)).filter(|address| !address.is_empty())
        else {
            return Ok(None);
        };
        let (Some(cluster), Some(client)) = (self.cluster.clone(), self.client.clone()) else {
            anyhow::bail!(
                "--kubernetes-api.listen-address={address} needs a cluster, whose API server says who may ask: see --kubernetes"
            );
        };
        let address = resolve(address)?;
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        tracing::info!("the Kubernetes metrics APIs are served on https://{}", listener.local_addr()?);
        let certificate = Arc::new(Certificate::new(origin(flags, &client)?)?);
        let keeper = Arc::new(Gatekeeper::new(Arc::new(client.clone()), crate::wire::now));
        tokio::spawn(follow_trust(client.clone(), Arc::clone(&keeper), stop.clone()));
        tokio::spawn(follow_kinds(client, Arc::clone(&self.adapter), stop.clone()));
        let source: Arc<dyn Source> = Arc::<Cluster>::clone(&cluster);
        let state = State::new(source).with_adapter(Arc::clone(&self.adapter));
        let mut health = health(&cluster, &keeper, &state, stop);
        health.live.push(("store-upkeep", upkeep(pulse, stop)));
        let router = metrics_api::secured(state, &health, keeper);
        let limits = web::Limits::new(CONNECTIONS_MAX, READ_TIMEOUT);
        Ok(Some(tokio::spawn(web::serve_delegated(listener, router, certificate, limits, stop.clone()))))
    }
}

fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    use std::net::ToSocketAddrs as _;
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let resolved =
        full.to_socket_addrs().with_context(|| format!("--kubernetes-api.listen-address={text}"))?.next();
    resolved.with_context(|| format!("--kubernetes-api.listen-address={text}: no address"))
}

fn origin(flags: &KubernetesApi, client: &Client) -> anyhow::Result<Origin> {
    match (&flags.tls_certificate, &flags.tls_key) {
        (Some(certificate), Some(key)) => Ok(Origin::Files(certificate.clone(), key.clone())),
        (None, None) => {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let mut names = vec![host.trim().to_owned(), "localhost".to_owned(), "pyrometer".to_owned()];
            if let Some(namespace) = client.own_namespace() {
                names.extend(["", ".svc"].map(|end| format!("pyrometer.{namespace}{end}")));
            }
            names.extend(["127.0.0.1", "::1"].map(str::to_owned));
            names.retain(|name| !name.is_empty());
            Ok(Origin::Own(names))
        }
        _ => anyhow::bail!(
            "--kubernetes-api.tls-cert-file and --kubernetes-api.tls-private-key-file go together"
        ),
    }
}

/// Keeps the gatekeeper's certificate authorities those of the API server.
async fn follow_trust(client: Client, keeper: Arc<Gatekeeper>, stop: Shutdown) {
    let map = client.watch_config_map(TRUST.0, TRUST.1);
    let changes = map.subscribe();
    let key = format!("{}/{}", TRUST.0, TRUST.1);
    loop {
        tokio::select! {
            _ = changes.take() => {}
            () = stop.cancelled() => return,
        }
        let found: Option<Arc<ConfigMap>> = map.get(&key);
        if found.is_none() && !map.is_synced() {
            continue;
        }
        let empty = BTreeMap::new();
        match Trust::read(found.as_ref().map_or(&empty, |map| &map.data)) {
            Ok(trust) => keeper.set_trust(trust),
            Err(what) => tracing::error!("config map {key}: {what}; what was there before stays in force"),
        }
    }
}

/// Keeps the kinds of objects that rules know those of the cluster.
async fn follow_kinds(client: Client, adapter: Arc<Adapter>, stop: Shutdown) {
    let mut pause = Duration::from_secs(1);
    loop {
        match client.resource_kinds(&OWN_GROUPS).await {
            Ok(kinds) if !kinds.is_empty() => {
                adapter.set_kinds(kinds);
                pause = KINDS_AGE_MAX;
            }
            Ok(_) => pause = KINDS_AGE_MAX,
            Err(error) => {
                tracing::debug!("kinds of objects: {error}");
                pause = (pause * 2).min(KINDS_AGE_MAX);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The store's upkeep must go on until the process ends. Without it nothing is written to blocks or dropped, ever again.
fn upkeep(pulse: &Pulse, stop: &Shutdown) -> metrics_api::Check {
    let (pulse, stop) = (pulse.clone(), stop.clone());
    Arc::new(move || match pulse.has_ended() && !stop.is_cancelled() {
        true => Err("the thread that looks after the store has ended".to_owned()),
        false => Ok(()),
    })
}

fn health(cluster: &Arc<Cluster>, keeper: &Arc<Gatekeeper>, state: &State, stop: &Shutdown) -> Health {
    let started = Instant::now();
    let (nodes, pods, keeper) = (Arc::clone(cluster), Arc::clone(cluster), Arc::clone(keeper));
    let (state, stop) = (state.clone(), stop.clone());
    let seen = OnceLock::new();
    let must = |holds: bool, why: &str| if holds { Ok(()) } else { Err(why.to_owned()) };
    Health {
        live: Vec::new(),
        ready: vec![
            (
                "metric-storage-ready",
                Arc::new(move || {
                    if seen.get().is_some() || started.elapsed() >= VALUES_PATIENCE {
                        return Ok(());
                    }
                    let has_values = tokio::task::block_in_place(|| state.has_values());
                    if has_values {
                        let _ = seen.set(());
                    }
                    must(has_values, "no values of nodes and pods yet")
                }),
            ),
            ("metric-informer-sync", Arc::new(move || must(nodes.knows_nodes(), "nodes are not listed yet"))),
            ("metadata-informer-sync", Arc::new(move || must(pods.knows_pods(), "pods are not listed yet"))),
            (
                "authentication-sync",
                Arc::new(move || must(keeper.has_trust(), "nobody has said yet whom to trust")),
            ),
            ("shutdown", Arc::new(move || must(!stop.is_cancelled(), "the process is ending"))),
        ],
    }
}
