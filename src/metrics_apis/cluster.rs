//! The cluster around this process, as the metrics APIs see it: nodes and running pods from the API server, usage from
//! the samples.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s::{Client, Node, PodLabels, Query, ResourceKind, Store};
use metrics_api::{LabelSelector, Newest, NodeInfo, PodInfo, PodView, Source, SystemInfo, Unavailable};
use model::{Querier, Timestamp};

use crate::samples::Samples;

/// The cluster.
pub(crate) struct Cluster {
    client: Client,
    nodes: Arc<Store<Node>>,
    pods: Arc<Store<PodLabels>>,
    samples: Samples,
}

impl Cluster {
    /// Begins to follow the cluster's nodes and running pods.
    pub(crate) fn follow(client: Client, samples: Samples) -> Arc<Self> {
        let running = Query { fields: "status.phase=Running".to_owned(), ..Query::default() };
        let (nodes, pods) = (client.store(Query::default()), client.store(running));
        Arc::new(Self { client, nodes, pods, samples })
    }

    /// Whether all nodes are known.
    pub(crate) fn knows_nodes(&self) -> bool {
        self.nodes.is_synced()
    }

    /// Whether all pods are known.
    pub(crate) fn knows_pods(&self) -> bool {
        self.pods.is_synced()
    }
}

fn node(node: &Node) -> NodeInfo {
    let info = |name: &str| node.info.get(name).unwrap_or_default().to_owned();
    NodeInfo {
        name: node.meta.name.to_string(),
        labels: node.meta.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        uid: node.meta.uid.to_string(),
        created_ms: node.meta.created_ms,
        cpu_millicores: node.cpu_millicores,
        memory_bytes: node.memory_bytes,
        system: SystemInfo {
            kernel: info("kernelVersion"),
            os: info("operatingSystem"),
            arch: info("architecture"),
            os_image: info("osImage"),
        },
    }
}

fn pod(pod: &PodLabels) -> PodInfo {
    PodInfo {
        namespace: pod.meta.namespace.to_string(),
        name: pod.meta.name.to_string(),
        labels: pod.meta.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        ..PodInfo::default()
    }
}

impl Source for Cluster {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        self.samples.querier()
    }

    fn newest(&self) -> Option<&Newest> {
        self.samples.newest()
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        self.nodes.all().iter().map(|it| node(it)).collect()
    }

    fn pods(&self) -> Vec<PodInfo> {
        self.pods.all().iter().map(|it| pod(it)).collect()
    }

    fn now(&self) -> Timestamp {
        crate::wire::now()
    }

    fn visit_pods(&self, namespace: Option<&str>, visit: &mut dyn FnMut(PodView<'_>)) {
        for pod in self.pods.all() {
            let meta = &pod.meta;
            if namespace.is_none_or(|namespace| namespace == &*meta.namespace) {
                let labels: Vec<(&str, &str)> = meta.labels.iter().collect();
                visit(PodView { namespace: &meta.namespace, name: &meta.name, labels: &labels });
            }
        }
    }

    fn pods_revision(&self) -> Option<u64> {
        Some(self.pods.revision())
    }

    fn has_pod(&self, namespace: &str, name: &str) -> bool {
        self.pods.get(&format!("{namespace}/{name}")).is_some()
    }

    fn names<'a>(
        &'a self,
        kind: &'a ResourceKind,
        namespace: Option<&'a str>,
        selector: &'a LabelSelector,
        text: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, Unavailable>> {
        if kind.group.is_empty() && matches!(kind.resource.as_str(), "pods" | "nodes") {
            return Box::pin(std::future::ready(metrics_api::known_names(self, kind, namespace, selector)));
        }
        Box::pin(async move {
            let listed = self.client.object_names(kind, namespace, text).await;
            listed.map_err(|error| Unavailable(format!("{} cannot be listed: {error}", kind.qualified())))
        })
    }
}
