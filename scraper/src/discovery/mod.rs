//! Where targets are found.
//!
//! A discoverer knows sources (a file, a pod, an endpoint slice) and can make the [`TargetGroup`] of each at any
//! moment. It tells its subscribers only *which* sources changed; they ask for the groups they want. So a
//! group exists while it is being resolved and not longer, and a pod that five jobs look at is in memory once,
//! as the 1.5 KB that `k8s` keeps of it, instead of five times as 30 labels.

mod consul;
mod dns;
mod feed;
mod file;
mod http;
mod kubernetes;

#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use k8s::{Changed, Mailbox};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::config::{HttpOptions, TargetGroup};
use crate::http::{Client, Roots};
use feed::Feed;

pub use dns::DnsRecord;
pub use kubernetes::{Attach, KubernetesDiscovery, KubernetesRole, KubernetesSelector};

/// One entry of a `*_sd_configs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// `file_sd_configs`
    File(FileDiscovery),
    /// `http_sd_configs`
    Http(Box<HttpDiscovery>),
    /// `dns_sd_configs`
    Dns(DnsDiscovery),
    /// `consul_sd_configs`
    Consul(Box<ConsulDiscovery>),
    /// `kubernetes_sd_configs`
    Kubernetes(Box<KubernetesDiscovery>),
}

/// Targets in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiscovery {
    /// Paths; the last part may hold `*` and `?`.
    pub files: Vec<PathBuf>,
    /// Files are read again after this time even if no change was noticed.
    pub refresh_ms: i64,
}

/// Targets that a server lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpDiscovery {
    /// What is fetched.
    pub url: String,
    /// How often.
    pub refresh_ms: i64,
    /// How the server is reached.
    pub http: HttpOptions,
}

/// Targets with names in the DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsDiscovery {
    /// The names.
    pub names: Vec<String>,
    /// What is asked for.
    pub record: DnsRecord,
    /// The targets' port, where the records have none.
    pub port: u16,
    /// How often.
    pub refresh_ms: i64,
    /// `resolv.conf` and the like: read at each refresh.
    pub resolv_conf: PathBuf,
}

/// Targets registered in Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulDiscovery {
    /// `scheme://host:port`, with a path prefix if there is one.
    pub server: String,
    /// Parameters of all requests: `dc`, `ns`, `partition`, `stale`.
    pub parameters: Vec<(String, String)>,
    /// The services; empty for all.
    pub services: Vec<String>,
    /// Tags that a service must all have.
    pub tags: Vec<String>,
    /// Metadata that a node must have.
    pub node_meta: Vec<(String, String)>,
    /// A filter in Consul's language, over the catalog's services; empty for none.
    pub filter: String,
    /// A filter over the instances' health; empty for none.
    pub health_filter: String,
    /// What stands between tags.
    pub tag_separator: String,
    /// How often is asked at most.
    pub refresh_ms: i64,
    /// How the server is reached.
    pub http: HttpOptions,
}

/// What targets are found in. Unique for its discoverer.
pub(crate) type Source = Arc<str>;

/// The sources of one pool that changed, each with the place of its discoverer among the pool's.
pub(crate) type PoolMailbox = Mailbox<(usize, Source)>;

/// Those who are told of changes, and how often there was trouble.
#[derive(Default)]
pub(crate) struct Subscribers {
    pools: Mutex<Vec<(usize, Weak<PoolMailbox>)>>,
    failures: AtomicU64,
}

impl Subscribers {
    fn tell(&self, source: &Source, changed: Changed) {
        let mut all = self.pools.lock();
        all.retain(|(_, mailbox)| mailbox.strong_count() > 0);
        for (place, mailbox) in all.iter().filter_map(|(place, mailbox)| Some((place, mailbox.upgrade()?))) {
            mailbox.put((*place, Arc::clone(source)), changed);
        }
    }

    /// `whom` could not be asked, or its answer not be used; what was found last goes on.
    fn fail(&self, mechanism: &str, whom: &str, error: &dyn std::fmt::Display) {
        let colon = if whom.is_empty() { "" } else { ": " };
        tracing::error!("{mechanism}_sd: {whom}{colon}{error}");
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// A running discoverer. Dropping it ends it.
pub(crate) struct Discoverer {
    kind: Kind,
    /// The word of the configuration file, without `_sd_configs`; none for targets that are fixed.
    mechanism: Option<&'static str>,
    subscribers: Arc<Subscribers>,
    tasks: Vec<JoinHandle<()>>,
}

enum Kind {
    Feed(Arc<Feed>),
    Kubernetes(Arc<kubernetes::Cluster>),
}

impl Drop for Discoverer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Discoverer {
    /// Targets that do not change.
    pub(crate) fn fixed(groups: &[TargetGroup]) -> Arc<Self> {
        let subscribers = Arc::<Subscribers>::default();
        let feed = Arc::new(Feed::new(Arc::clone(&subscribers)));
        let named =
            |(at, group): (usize, &TargetGroup)| TargetGroup { source: at.to_string(), ..group.clone() };
        feed.replace(groups.iter().enumerate().map(named).collect());
        Arc::new(Self { kind: Kind::Feed(feed), mechanism: None, subscribers, tasks: Vec::new() })
    }

    fn start(discovery: &Discovery, shared: &Shared) -> Self {
        let subscribers = Arc::<Subscribers>::default();
        if let Discovery::Kubernetes(options) = discovery {
            let cluster = kubernetes::Cluster::new(options, Arc::clone(&subscribers));
            let reach = kubernetes::Reach {
                clients: Arc::clone(&shared.clients),
                roots: Arc::clone(&shared.roots),
                user_agent: shared.user_agent.clone(),
            };
            let task = tokio::spawn(Arc::clone(&cluster).run(reach));
            let mechanism = Some("kubernetes");
            return Self { kind: Kind::Kubernetes(cluster), mechanism, subscribers, tasks: vec![task] };
        }
        let feed = Arc::new(Feed::new(Arc::clone(&subscribers)));
        let out = Arc::clone(&feed);
        let client = |options| Client::with_roots(options, &shared.roots, shared.user_agent.clone());
        let (mechanism, task) = match discovery.clone() {
            Discovery::File(options) => ("file", tokio::spawn(file::run(options, out))),
            Discovery::Http(options) => {
                let client = client(&options.http);
                ("http", tokio::spawn(http::run(*options, client, out)))
            }
            Discovery::Dns(options) => ("dns", tokio::spawn(dns::run(options, out))),
            Discovery::Consul(options) => {
                let client = client(&options.http);
                ("consul", tokio::spawn(consul::run(*options, client, out)))
            }
            Discovery::Kubernetes(_) => ("kubernetes", tokio::spawn(async {})),
        };
        Self { kind: Kind::Feed(feed), mechanism: Some(mechanism), subscribers, tasks: vec![task] }
    }

    /// How it looks for targets, and how often that failed; `None` if its targets are fixed.
    pub(crate) fn failures(&self) -> Option<(&'static str, u64)> {
        let failures = self.subscribers.failures.load(Ordering::Relaxed);
        self.mechanism.map(|mechanism| (mechanism, failures))
    }

    /// All sources there are now.
    pub(crate) fn sources(&self) -> Vec<Source> {
        match &self.kind {
            Kind::Feed(feed) => feed.sources(),
            Kind::Kubernetes(cluster) => cluster.sources(),
        }
    }

    /// The targets of a source, as it is now; `None` if it is gone.
    pub(crate) fn group(&self, source: &str) -> Option<Arc<TargetGroup>> {
        match &self.kind {
            Kind::Feed(feed) => feed.group(source),
            Kind::Kubernetes(cluster) => cluster.group(source).map(Arc::new),
        }
    }

    /// Whether a source that is gone stands for something that no longer exists, so that its series end now.
    pub(crate) fn ends_at_once(&self) -> bool {
        matches!(self.kind, Kind::Kubernetes(_))
    }

    /// Whether its sources are the pods of a cluster, all of them: one that is gone is no more then. What a selector
    /// leaves out may have changed only its labels.
    pub(crate) fn tells_of_pods(&self) -> bool {
        matches!(&self.kind, Kind::Kubernetes(cluster) if cluster.tells_of_pods())
    }

    /// Whether it finds nodes, and so pages that speak of their pods.
    pub(crate) fn finds_nodes(&self) -> bool {
        matches!(&self.kind, Kind::Kubernetes(cluster) if cluster.finds_nodes())
    }

    /// Tells `mailbox` of changes from now on; what is there is to be asked for.
    pub(crate) fn subscribe(&self, place: usize, mailbox: &Arc<PoolMailbox>) {
        self.subscribers.pools.lock().push((place, Arc::downgrade(mailbox)));
    }
}

/// What discoverers share.
pub(crate) struct Shared {
    pub(crate) roots: Arc<Roots>,
    pub(crate) user_agent: String,
    clients: Arc<kubernetes::Clients>,
    running: Mutex<Vec<(Discovery, Weak<Discoverer>)>>,
}

impl Shared {
    pub(crate) fn new(roots: Arc<Roots>, user_agent: String) -> Self {
        Self { roots, user_agent, clients: Arc::default(), running: Mutex::default() }
    }

    /// As this, for a changed configuration; connections to clusters stay.
    pub(crate) fn changed(&self, roots: Arc<Roots>, user_agent: String) -> Self {
        if self.roots == roots && self.user_agent == user_agent {
            let running = Mutex::new(std::mem::take(&mut *self.running.lock()));
            return Self { roots, user_agent, clients: Arc::clone(&self.clients), running };
        }
        Self { clients: Arc::clone(&self.clients), ..Self::new(roots, user_agent) }
    }

    /// The discoverer of these options: the one that runs, or a new one.
    pub(crate) fn discoverer(&self, discovery: &Discovery) -> Arc<Discoverer> {
        let mut running = self.running.lock();
        running.retain(|(_, discoverer)| discoverer.strong_count() > 0);
        let known = running.iter().find(|(options, _)| options == discovery);
        if let Some(discoverer) = known.and_then(|(_, discoverer)| discoverer.upgrade()) {
            return discoverer;
        }
        let discoverer = Arc::new(Discoverer::start(discovery, self));
        running.push((discovery.clone(), Arc::downgrade(&discoverer)));
        discoverer
    }
}

/// For fuzzing.
pub(crate) fn read_answer(bytes: &[u8]) {
    let id = bytes.get(..2).map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
    for record in [DnsRecord::A, DnsRecord::Aaaa, DnsRecord::Mx, DnsRecord::Srv] {
        let _ = dns::parse(bytes, id, record);
    }
}

/// A name as it may stand in a label's: everything but letters, digits and `_` becomes `_`.
pub(crate) fn label_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn join_address(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
