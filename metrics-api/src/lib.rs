//! The Kubernetes metrics APIs, answered from any [`Querier`]: `metrics.k8s.io`, `custom.metrics.k8s.io` and
//! `external.metrics.k8s.io`.
//!
//! This crate is *not* a collector: it scrapes nothing, and where there is a store it keeps no points of its own. Usage
//! is computed at request time from the same series that PromQL reads, so `kubectl top`, the pod
//! autoscaler and a dashboard agree by construction, and values survive a restart. Only a process that does nothing else
//! has [`Newest`] in place of the store.
//!
//! ```
//! # use std::sync::Arc;
//! # struct Nothing;
//! # impl metrics_api::Source for Nothing {
//! #     fn querier(&self) -> Result<Box<dyn model::Querier>, metrics_api::Unavailable> {
//! #         Err(metrics_api::Unavailable::default())
//! #     }
//! #     fn nodes(&self) -> Vec<metrics_api::NodeInfo> { Vec::new() }
//! #     fn pods(&self) -> Vec<metrics_api::PodInfo> { Vec::new() }
//! #     fn now(&self) -> model::Timestamp { 0 }
//! # }
//! let source: Arc<dyn metrics_api::Source> = Arc::new(Nothing);
//! let router = metrics_api::router(metrics_api::State::new(source));
//! # let _ = router;
//! ```
//!
//! The hard decision: discovery, health and errors never touch storage. A dead metrics API group
//! blocks namespace deletion in a whole cluster, so everything that describes the API is a constant,
//! and only a request for metrics can find the store not ready (503 with a `Status`).

mod accept;
pub mod access;
pub mod adapter;
mod core;
mod custom;
mod discovery;
mod errors;
mod external;
mod health;
mod lister;
mod metrics;
mod newest;
mod objects;
mod openapi;
mod pod_list;
mod protobuf;
mod quantity;
mod roster;
mod selector;
mod usage;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State as Shared;
use axum::routing::get;
use futures::future::BoxFuture;
use k8s::ResourceKind;
use model::{Matcher, Querier, Timestamp};

pub use access::{Gatekeeper, PeerCertificates, Reviewer, Trust};
pub use adapter::Adapter;
pub use health::{Check, Health};
use lister::Lister;
pub use newest::{Newest, NewestPage};
use pod_list::LabelTexts;
pub use selector::{LabelSelector, SelectorError};
pub use usage::{ContainerUsage, NodeUsage, PodUsage, Usage, UsageReader};

/// Points older than this are not served: the autoscaler has no age check of its own.
pub const POINT_AGE_MAX_MS: i64 = 120_000;

/// A node as the cluster (or the local machine) describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    /// The node's name.
    pub name: String,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Unique identity, empty if none is known.
    pub uid: String,
    /// When the node came to be, milliseconds since the epoch.
    pub created_ms: Timestamp,
    /// CPU that pods may use, in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory that pods may use, in bytes.
    pub memory_bytes: u64,
    /// Kernel release, operating system and architecture, as `kubectl get node -o wide` shows them.
    pub system: SystemInfo,
}

/// What runs on a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SystemInfo {
    /// Kernel release.
    pub kernel: String,
    /// `linux`.
    pub os: String,
    /// The architecture in Go's words: `amd64`, `arm64`.
    pub arch: String,
    /// The distribution and its version.
    pub os_image: String,
}

/// A pod as the cluster (or the local machine) describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodInfo {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Unique identity, empty if none is known.
    pub uid: String,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// When the pod came to be, milliseconds since the epoch.
    pub created_ms: Timestamp,
    /// The node it runs on.
    pub node: String,
    /// Names of its containers.
    pub containers: Vec<String>,
}

/// A pod as it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct PodView<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod's name.
    pub name: &'a str,
    /// Names and values of its labels.
    pub labels: &'a [(&'a str, &'a str)],
}

/// Why nothing can be said yet, for instance because the log is still being replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Where the answers come from.
pub trait Source: Send + Sync {
    /// A view of the store as of now.
    ///
    /// # Errors
    /// The store is not ready.
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable>;
    /// The newest points, if they are kept instead of a store: usage is computed from them then.
    fn newest(&self) -> Option<&Newest> {
        None
    }
    /// All nodes.
    fn nodes(&self) -> Vec<NodeInfo>;
    /// All running pods.
    fn pods(&self) -> Vec<PodInfo>;
    /// The time of the request.
    fn now(&self) -> Timestamp;

    /// Calls `visit` with every running pod of a namespace, or of all, in any order: name and labels without a copy.
    fn visit_pods(&self, namespace: Option<&str>, visit: &mut dyn FnMut(PodView<'_>)) {
        for pod in self.pods() {
            if namespace.is_none_or(|namespace| namespace == pod.namespace) {
                let labels: Vec<(&str, &str)> =
                    pod.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                visit(PodView { namespace: &pod.namespace, name: &pod.name, labels: &labels });
            }
        }
    }

    /// A number that changes whenever a running pod comes, goes or gets other labels; none where that is not known.
    fn pods_revision(&self) -> Option<u64> {
        None
    }

    /// Whether there is such a running pod.
    fn has_pod(&self, namespace: &str, name: &str) -> bool {
        let mut found = false;
        self.visit_pods(Some(namespace), &mut |pod| found |= pod.name == name);
        found
    }

    /// The names of the objects of a kind that fulfil a selector, given read and as text.
    ///
    /// # Errors
    /// Objects of this kind cannot be listed here, or not now.
    fn names<'a>(
        &'a self,
        kind: &'a ResourceKind,
        namespace: Option<&'a str>,
        selector: &'a LabelSelector,
        text: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, Unavailable>> {
        let _ = text;
        Box::pin(std::future::ready(known_names(self, kind, namespace, selector)))
    }
}

/// The names of those pods, nodes or namespaces that a source knows of.
///
/// # Errors
/// It knows no objects of this kind.
pub fn known_names<S: Source + ?Sized>(
    source: &S,
    kind: &ResourceKind,
    namespace: Option<&str>,
    selector: &LabelSelector,
) -> Result<Vec<String>, Unavailable> {
    let mut names: Vec<String> = match (kind.group.as_str(), kind.resource.as_str()) {
        ("", "pods") => {
            let mut names = Vec::new();
            source.visit_pods(namespace, &mut |pod| {
                if selector.matches_pairs(pod.labels) {
                    names.push(pod.name.to_owned());
                }
            });
            names
        }
        ("", "nodes") => {
            let fits = |node: &NodeInfo| selector.matches(&node.labels);
            source.nodes().into_iter().filter(fits).map(|node| node.name).collect()
        }
        _ => return Err(Unavailable(format!("{} cannot be listed here", kind.qualified()))),
    };
    names.sort_unstable();
    Ok(names)
}

/// What marks the series of kubelets' resource pages.
fn kubelet_pages() -> Vec<Matcher> {
    vec![Matcher::equal("metrics_path", "/metrics/resource")]
}

/// What the handlers share.
#[derive(Clone)]
pub struct State {
    source: Arc<dyn Source>,
    reader: Arc<UsageReader>,
    /// The labels of the pods of the last list of all.
    labels: Arc<Mutex<Option<Arc<LabelTexts>>>>,
    lister: Arc<Lister>,
    adapter: Option<Arc<Adapter>>,
    serves_core: bool,
}

impl State {
    /// Answers from `source`; kubelet series are those with `metrics_path="/metrics/resource"`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            reader: Arc::new(UsageReader::new(kubelet_pages(), POINT_AGE_MAX_MS)),
            labels: Arc::default(),
            lister: Arc::default(),
            adapter: None,
            serves_core: false,
        }
    }

    /// Also answers for custom and external metrics, by the adapter's rules.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Arc<Adapter>) -> Self {
        self.adapter = Some(adapter);
        self
    }

    /// Whether there is a value of some node and of some pod.
    #[must_use]
    pub fn has_values(&self) -> bool {
        let now = self.source.now();
        metrics::node_usage(self, now, None).is_ok_and(|nodes| !nodes.is_empty())
            && metrics::pod_usage(self, now, usage::PodScope::default()).is_ok_and(|pods| pods.len() > 0)
    }

    /// Also serves the sliver of the core API (`/api/v1/nodes`, `/api/v1/pods`) that `kubectl top`
    /// needs when it talks to this process directly, with no API server in between.
    #[must_use]
    pub fn with_core_api(mut self) -> Self {
        self.serves_core = true;
        self
    }
}

/// All routes under `/apis` and `/openapi`, and under `/api` if [`State::with_core_api`] says so.
pub fn router(state: State) -> Router {
    let serves_core = state.serves_core;
    let mut router = Router::new()
        .route("/apis", get(discovery::groups))
        .route("/apis/metrics.k8s.io", get(async || discovery::group(0)))
        .route("/apis/custom.metrics.k8s.io", get(async || discovery::group(1)))
        .route("/apis/external.metrics.k8s.io", get(async || discovery::group(2)))
        .route("/apis/custom.metrics.k8s.io/v1beta1", get(custom_v1beta1))
        .route("/apis/custom.metrics.k8s.io/v1beta2", get(custom_v1beta2))
        .route("/apis/external.metrics.k8s.io/v1beta1", get(discovery::external_resources))
        .route("/apis/custom.metrics.k8s.io/v1beta1/{*path}", get(custom::v1beta1))
        .route("/apis/custom.metrics.k8s.io/v1beta2/{*path}", get(custom::v1beta2))
        .route("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}", get(external::values))
        .route("/apis/metrics.k8s.io/v1beta1", get(discovery::resources))
        .route("/apis/metrics.k8s.io/v1beta1/nodes", get(metrics::list_nodes))
        .route("/apis/metrics.k8s.io/v1beta1/nodes/{name}", get(metrics::get_node))
        .route("/apis/metrics.k8s.io/v1beta1/pods", get(metrics::list_all_pods))
        .route("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods", get(metrics::list_pods))
        .route("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{name}", get(metrics::get_pod))
        .route("/apis/{*rest}", get(errors::unknown_path))
        .route("/openapi/v3", get(openapi::index))
        .route("/openapi/v3/apis/{group}/{version}", get(openapi::group_version))
        .route("/openapi/v2", get(openapi::v2));
    if serves_core {
        router = router.merge(core::router());
    }
    router
        .layer(axum::middleware::from_fn(discovery::unless_known))
        .method_not_allowed_fallback(errors::method_not_allowed)
        .with_state(state)
}

/// The same routes and those of health, for those whom `keeper` lets in.
pub fn secured(state: State, health: &Health, keeper: Arc<Gatekeeper>) -> Router {
    let router = router(state).merge(health.router()).fallback(errors::unknown_path);
    router.layer(axum::middleware::from_fn_with_state(keeper, access::guard))
}

async fn custom_v1beta1(Shared(state): Shared<State>) -> axum::response::Response {
    discovery::custom_resources(state, "v1beta1").await
}

async fn custom_v1beta2(Shared(state): Shared<State>) -> axum::response::Response {
    discovery::custom_resources(state, "v1beta2").await
}
