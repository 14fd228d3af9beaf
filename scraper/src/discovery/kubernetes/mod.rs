//! Targets in a Kubernetes cluster. Objects are kept by the stores of `k8s`, which jobs share; groups are made
//! of them when they are asked for.

mod labels;
mod roles;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s::{
    Access, Changed, Client, EndpointSlice, Endpoints, Ingress, Job, Mailbox, Namespace, Node, Object, Pod,
    Query, ReplicaSet, Service, Store,
};

use super::{Source, Subscribers};
use crate::config::{HttpOptions, TargetGroup};
use crate::http::{Roots, transport_with};

/// Targets in a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesDiscovery {
    /// What the targets are.
    pub role: KubernetesRole,
    /// How the API server is reached; `Err` says why it cannot be.
    pub access: Result<Access, String>,
    /// Of these namespaces only; empty for all.
    pub namespaces: Vec<String>,
    /// Of the namespace this process runs in.
    pub own_namespace: bool,
    /// Which objects are wanted.
    pub selectors: Vec<KubernetesSelector>,
    /// What targets carry of other objects.
    pub attach: Attach,
    /// How requests are sent, instead of as `access` says. For a server that is given by its URL.
    pub http: Option<Box<HttpOptions>>,
}

/// `attach_metadata`: of which other objects targets carry something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// Labels and annotations of the node. Pods on nodes that the selectors leave out are no targets then.
    pub node: bool,
    /// Labels and annotations of the namespace.
    pub namespace: bool,
    /// The name of the deployment that a pod's replica set belongs to.
    pub deployment: bool,
    /// The name of a pod's job.
    pub job: bool,
    /// The name of the cron job that a pod's job belongs to.
    pub cronjob: bool,
}

/// What the targets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KubernetesRole {
    /// Kubelets.
    Node,
    /// Ports of containers.
    Pod,
    /// Ports of services.
    Service,
    /// What is behind services, in the older form.
    Endpoints,
    /// What is behind services.
    EndpointSlice,
    /// Paths of ingresses.
    Ingress,
}

/// Which objects of a role are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSelector {
    /// The role.
    pub role: KubernetesRole,
    /// A label selector, empty for all.
    pub labels: String,
    /// A field selector, empty for all.
    pub fields: String,
}

/// Connections to clusters. Jobs that talk to the same one share it.
#[derive(Default)]
pub(crate) struct Clients(tokio::sync::Mutex<Vec<(Way, Client)>>);

/// Where a server is, and how it is reached if not as the place says.
type Way = (Access, Option<Box<HttpOptions>>);

impl Clients {
    async fn client(&self, way: &Way, roots: &Arc<Roots>, user_agent: &str) -> Result<Client, String> {
        let mut clients = self.0.lock().await;
        if let Some((_, client)) = clients.iter().find(|(known, _)| known == way) {
            return Ok(client.clone());
        }
        let client = match way {
            (access, None) => access.connect().await.map_err(|error| error.to_string())?,
            (access, Some(options)) => {
                Client::over(&access.server, transport_with(options, roots, user_agent))?
            }
        };
        clients.push((way.clone(), client.clone()));
        Ok(client)
    }
}

/// Changes are collected for so long before targets change: a roll-out changes many objects at once.
const COLLECT: Duration = Duration::from_millis(500);
/// After that time another attempt is made to connect.
const RETRY: Duration = Duration::from_secs(15);

/// One `kubernetes_sd_configs` entry at work.
pub(crate) struct Cluster {
    options: KubernetesDiscovery,
    subscribers: Arc<Subscribers>,
    stores: OnceLock<Stores>,
}

/// How clusters are reached.
pub(crate) struct Reach {
    pub(crate) clients: Arc<Clients>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) user_agent: String,
}

/// The stores of one kind, one for each namespace or one for all.
pub(crate) struct Kind<T>(Vec<Arc<Store<T>>>);

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Object> Kind<T> {
    pub(crate) fn get(&self, key: &str) -> Option<Arc<T>> {
        self.0.iter().find_map(|store| store.get(key))
    }

    fn keys(&self) -> impl Iterator<Item = Arc<str>> {
        self.0.iter().flat_map(|store| store.keys())
    }

    fn all(&self) -> impl Iterator<Item = Arc<T>> {
        self.0.iter().flat_map(|store| store.all())
    }

    /// A mailbox of changes, if there are stores.
    fn subscribe(&self) -> Arc<Mailbox<Arc<str>>> {
        let mailbox = Mailbox::new();
        for store in &self.0 {
            store.subscribe_to(&mailbox);
        }
        mailbox
    }
}

#[derive(Default)]
pub(crate) struct Stores {
    pub(crate) nodes: Kind<Node>,
    pub(crate) namespaces: Kind<Namespace>,
    pub(crate) pods: Kind<Pod>,
    pub(crate) services: Kind<Service>,
    pub(crate) endpoints: Kind<Endpoints>,
    pub(crate) slices: Kind<EndpointSlice>,
    pub(crate) ingresses: Kind<Ingress>,
    pub(crate) replica_sets: Kind<ReplicaSet>,
    pub(crate) jobs: Kind<Job>,
    pub(crate) attach: Attach,
}

impl Cluster {
    pub(crate) fn new(options: &KubernetesDiscovery, subscribers: Arc<Subscribers>) -> Arc<Self> {
        Arc::new(Self { options: options.clone(), subscribers, stores: OnceLock::new() })
    }

    pub(crate) fn sources(&self) -> Vec<Source> {
        let Some(stores) = self.stores.get() else { return Vec::new() };
        match self.options.role {
            KubernetesRole::Node => stores.nodes.keys().collect(),
            KubernetesRole::Pod => stores.pods.keys().collect(),
            KubernetesRole::Service => stores.services.keys().collect(),
            KubernetesRole::Endpoints => stores.endpoints.keys().collect(),
            KubernetesRole::EndpointSlice => stores.slices.keys().collect(),
            KubernetesRole::Ingress => stores.ingresses.keys().collect(),
        }
    }

    pub(crate) fn tells_of_pods(&self) -> bool {
        self.options.role == KubernetesRole::Pod && self.options.selectors.is_empty()
    }

    pub(crate) fn finds_nodes(&self) -> bool {
        self.options.role == KubernetesRole::Node
    }

    /// The group of an object, by its key.
    pub(crate) fn group(&self, key: &str) -> Option<TargetGroup> {
        let stores = self.stores.get()?;
        let made = match self.options.role {
            KubernetesRole::Node => roles::node(&*stores.nodes.get(key)?),
            KubernetesRole::Pod => roles::pod(&*stores.pods.get(key)?, stores),
            KubernetesRole::Service => roles::service(&*stores.services.get(key)?, stores),
            KubernetesRole::Endpoints => roles::endpoints(&*stores.endpoints.get(key)?, stores),
            KubernetesRole::EndpointSlice => roles::slice(&*stores.slices.get(key)?, stores),
            KubernetesRole::Ingress => roles::ingress(&*stores.ingresses.get(key)?, stores),
        };
        Some(TargetGroup { source: key.to_owned(), ..made })
    }

    pub(crate) async fn run(self: Arc<Self>, reach: Reach) {
        let way = match &self.options.access {
            Ok(access) => (access.clone(), self.options.http.clone()),
            Err(error) => {
                self.subscribers.fail("kubernetes", "", &error);
                return;
            }
        };
        let client = loop {
            match reach.clients.client(&way, &reach.roots, &reach.user_agent).await {
                Ok(client) => break client,
                Err(error) => self.subscribers.fail("kubernetes", "", &error),
            }
            tokio::time::sleep(RETRY).await;
        };
        self.follow(self.stores.get_or_init(|| self.open(&client))).await;
    }

    /// The stores that the role needs.
    fn open(&self, client: &Client) -> Stores {
        use KubernetesRole as Role;
        let role = self.options.role;
        let behind_services = matches!(role, Role::Endpoints | Role::EndpointSlice);
        let attach = self.options.attach;
        let mut stores = Stores { attach, ..Stores::default() };
        if role == Role::Node || attach.node {
            stores.nodes = Kind(vec![client.store(self.query(Role::Node, None))]);
        }
        if attach.namespace && role != Role::Node {
            stores.namespaces = Kind(vec![client.store(Query::default())]);
        }
        if role == Role::Pod || behind_services {
            stores.pods = self.kind(client, Role::Pod);
            if attach.deployment {
                stores.replica_sets = self.unselected(client);
            }
            if attach.cronjob {
                stores.jobs = self.unselected(client);
            }
        }
        if role == Role::Service || behind_services {
            stores.services = self.kind(client, Role::Service);
        }
        match role {
            Role::Endpoints => stores.endpoints = self.kind(client, role),
            Role::EndpointSlice => stores.slices = self.kind(client, role),
            Role::Ingress => stores.ingresses = self.kind(client, role),
            _ => {}
        }
        stores
    }

    fn kind<T: Object>(&self, client: &Client, role: KubernetesRole) -> Kind<T> {
        let namespaces = self.namespaces(client).into_iter();
        Kind(namespaces.map(|namespace| client.store(self.query(role, namespace))).collect())
    }

    /// All objects of a kind that no selector speaks of.
    fn unselected<T: Object>(&self, client: &Client) -> Kind<T> {
        let namespaces = self.namespaces(client).into_iter();
        Kind(namespaces.map(|namespace| client.store(Query { namespace, ..Query::default() })).collect())
    }

    /// The namespaces that are looked at; `None` for all of them.
    fn namespaces(&self, client: &Client) -> Vec<Option<String>> {
        let mut names: Vec<Option<String>> = self.options.namespaces.iter().cloned().map(Some).collect();
        if self.options.own_namespace {
            names.push(Some(client.own_namespace().unwrap_or("default").to_owned()));
        }
        if names.is_empty() {
            names.push(None);
        }
        names.dedup();
        names
    }

    fn query(&self, role: KubernetesRole, namespace: Option<String>) -> Query {
        let selector = self.options.selectors.iter().find(|selector| selector.role == role);
        Query {
            namespace,
            labels: selector.map(|selector| selector.labels.clone()).unwrap_or_default(),
            fields: selector.map(|selector| selector.fields.clone()).unwrap_or_default(),
        }
    }

    /// Tells subscribers which sources change, for ever.
    async fn follow(&self, stores: &Stores) {
        let own = match self.options.role {
            KubernetesRole::Node => stores.nodes.subscribe(),
            KubernetesRole::Pod => stores.pods.subscribe(),
            KubernetesRole::Service => stores.services.subscribe(),
            KubernetesRole::Endpoints => stores.endpoints.subscribe(),
            KubernetesRole::EndpointSlice => stores.slices.subscribe(),
            KubernetesRole::Ingress => stores.ingresses.subscribe(),
        };
        let is_own = |role| self.options.role == role;
        let others = Others {
            pods: (!is_own(KubernetesRole::Pod)).then(|| stores.pods.subscribe()),
            services: (!is_own(KubernetesRole::Service)).then(|| stores.services.subscribe()),
            nodes: (!is_own(KubernetesRole::Node)).then(|| stores.nodes.subscribe()),
            namespaces: Some(stores.namespaces.subscribe()),
            replica_sets: Some(stores.replica_sets.subscribe()),
            jobs: Some(stores.jobs.subscribe()),
        };
        loop {
            let mut sources: BTreeMap<Source, Changed> = BTreeMap::new();
            tokio::select! {
                changes = own.take() => sources.extend(changes),
                mut touched = others.take() => {
                    touched.add_owned(stores);
                    let found = self.affected(stores, &touched);
                    sources.extend(found.into_iter().map(|source| (source, Changed::Put)));
                }
            }
            for (source, changed) in sources {
                self.subscribers.tell(&source, changed);
            }
            tokio::time::sleep(COLLECT).await;
        }
    }

    /// The sources whose groups say something about objects that changed.
    fn affected(&self, stores: &Stores, touched: &Touched) -> HashSet<Source> {
        let is_in = |namespace: &str| touched.namespaces.contains(namespace);
        let on_node = |name: Option<&str>| name.is_some_and(|name| touched.nodes.contains(name));
        let is_there = |namespace: &str, endpoint: &k8s::Endpoint| {
            on_node(endpoint.node_name.as_deref())
                || endpoint.target.as_ref().is_some_and(|target| {
                    let key = roles::reference_key(target, namespace);
                    touched.pods.contains(key.as_str())
                })
        };
        let key = |meta: &k8s::Meta| Source::from(meta.key());
        match self.options.role {
            KubernetesRole::Node => HashSet::new(),
            KubernetesRole::Pod => {
                let all = stores.pods.all();
                let wanted = all.filter(|pod| {
                    is_in(&pod.meta.namespace)
                        || on_node(Some(&pod.node_name))
                        || (!touched.pods.is_empty() && touched.pods.contains(pod.meta.key().as_str()))
                });
                wanted.map(|pod| key(&pod.meta)).collect()
            }
            KubernetesRole::Service => {
                let all = stores.services.all().filter(|service| is_in(&service.meta.namespace));
                all.map(|service| key(&service.meta)).collect()
            }
            KubernetesRole::Ingress => {
                let all = stores.ingresses.all().filter(|ingress| is_in(&ingress.meta.namespace));
                all.map(|ingress| key(&ingress.meta)).collect()
            }
            KubernetesRole::Endpoints => {
                let wanted = stores.endpoints.all().filter(|it| {
                    let namespace = &it.meta.namespace;
                    let mut endpoints = it.subsets.iter().flat_map(|subset| subset.endpoints.iter());
                    is_in(namespace)
                        || touched.services.contains(it.meta.key().as_str())
                        || endpoints.any(|endpoint| is_there(namespace, endpoint))
                });
                wanted.map(|it| key(&it.meta)).collect()
            }
            KubernetesRole::EndpointSlice => {
                let wanted = stores.slices.all().filter(|slice| {
                    let namespace = &slice.meta.namespace;
                    is_in(namespace)
                        || roles::service_key(slice)
                            .is_some_and(|key| touched.services.contains(key.as_str()))
                        || slice.endpoints.iter().any(|endpoint| is_there(namespace, endpoint))
                });
                wanted.map(|slice| key(&slice.meta)).collect()
            }
        }
    }
}

/// Changes of objects that groups also speak of.
struct Others {
    pods: Option<Arc<Mailbox<Arc<str>>>>,
    services: Option<Arc<Mailbox<Arc<str>>>>,
    nodes: Option<Arc<Mailbox<Arc<str>>>>,
    namespaces: Option<Arc<Mailbox<Arc<str>>>>,
    replica_sets: Option<Arc<Mailbox<Arc<str>>>>,
    jobs: Option<Arc<Mailbox<Arc<str>>>>,
}

#[derive(Default)]
struct Touched {
    pods: HashSet<Arc<str>>,
    services: HashSet<Arc<str>>,
    nodes: HashSet<Arc<str>>,
    namespaces: HashSet<Arc<str>>,
    replica_sets: HashSet<Arc<str>>,
    jobs: HashSet<Arc<str>>,
}

impl Touched {
    /// Adds the pods of the replica sets and jobs.
    fn add_owned(&mut self, stores: &Stores) {
        if self.replica_sets.is_empty() && self.jobs.is_empty() {
            return;
        }
        for pod in stores.pods.all() {
            let Some(owner) = &pod.meta.controller else { continue };
            let touched = match &*owner.kind {
                "ReplicaSet" => &self.replica_sets,
                "Job" => &self.jobs,
                _ => continue,
            };
            if touched.contains(format!("{}/{}", pod.meta.namespace, owner.name).as_str()) {
                self.pods.insert(pod.meta.key().into());
            }
        }
    }
}

impl Others {
    /// Waits for changes of one of the kinds.
    async fn take(&self) -> Touched {
        async fn keys(mailbox: Option<&Arc<Mailbox<Arc<str>>>>) -> HashSet<Arc<str>> {
            match mailbox {
                Some(mailbox) => mailbox.take().await.into_keys().collect(),
                None => std::future::pending().await,
            }
        }
        let mut touched = Touched::default();
        tokio::select! {
            pods = keys(self.pods.as_ref()) => touched.pods = pods,
            services = keys(self.services.as_ref()) => touched.services = services,
            nodes = keys(self.nodes.as_ref()) => touched.nodes = nodes,
            namespaces = keys(self.namespaces.as_ref()) => touched.namespaces = namespaces,
            sets = keys(self.replica_sets.as_ref()) => touched.replica_sets = sets,
            jobs = keys(self.jobs.as_ref()) => touched.jobs = jobs,
        }
        touched
    }
}
