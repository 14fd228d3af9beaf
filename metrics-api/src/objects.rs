//! The API's objects as JSON.

use std::collections::BTreeMap;

use model::Timestamp;
use serde::Serialize;

use crate::quantity;
use crate::usage::{NodeUsage, PodUsage, Usage};
use crate::{NodeInfo, PodInfo};

/// The group and version of everything here.
pub(crate) const GROUP_VERSION: &str = "metrics.k8s.io/v1beta1";

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectMeta {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) creation_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub(crate) continue_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remaining_item_count: Option<usize>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ResourceList {
    cpu: String,
    memory: String,
}

impl ResourceList {
    pub(crate) fn cpu(&self) -> &str {
        &self.cpu
    }

    pub(crate) fn memory(&self) -> &str {
        &self.memory
    }
}

impl From<Usage> for ResourceList {
    fn from(usage: Usage) -> Self {
        Self { cpu: quantity::cpu(usage.cpu_nanocores), memory: quantity::memory(usage.memory_bytes) }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Container {
    name: String,
    usage: ResourceList,
}

impl Container {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn usage(&self) -> &ResourceList {
        &self.usage
    }
}

/// A `NodeMetrics` or a `PodMetrics`; `kind` and `apiVersion` are left out inside lists.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metrics {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    metadata: ObjectMeta,
    timestamp: String,
    window: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ResourceList>,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<Container>>,
    /// The sum over containers, for tables.
    #[serde(skip)]
    total: Usage,
    /// What `metadata.creationTimestamp` says, in milliseconds.
    #[serde(skip)]
    pub(crate) created_ms: Timestamp,
}

impl Metrics {
    pub(crate) fn node(info: &NodeInfo, node: &NodeUsage, created_ms: Timestamp) -> Self {
        let metadata = ObjectMeta {
            name: node.name.clone(),
            creation_timestamp: quantity::time(created_ms),
            labels: info.labels.clone(),
            ..ObjectMeta::default()
        };
        Self::new(metadata, created_ms, node.usage, None)
    }

    pub(crate) fn pod(info: &PodInfo, pod: &PodUsage, created_ms: Timestamp) -> Self {
        let metadata = ObjectMeta {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            creation_timestamp: quantity::time(created_ms),
            labels: info.labels.clone(),
            ..ObjectMeta::default()
        };
        let sum = |of: fn(&Usage) -> u64| pod.containers.iter().map(|container| of(&container.usage)).sum();
        let total = Usage {
            cpu_nanocores: sum(|u| u.cpu_nanocores),
            memory_bytes: sum(|u| u.memory_bytes),
            ..pod.earliest()
        };
        let container = |c: &crate::ContainerUsage| Container { name: c.name.clone(), usage: c.usage.into() };
        Self::new(metadata, created_ms, total, Some(pod.containers.iter().map(container).collect()))
    }

    fn new(
        metadata: ObjectMeta,
        created_ms: Timestamp,
        total: Usage,
        containers: Option<Vec<Container>>,
    ) -> Self {
        Self {
            kind: None,
            api_version: None,
            metadata,
            timestamp: quantity::time(total.timestamp),
            window: quantity::duration(total.window_ms),
            usage: containers.is_none().then(|| total.into()),
            containers,
            total,
            created_ms,
        }
    }

    /// The object on its own, with its kind.
    pub(crate) fn standalone(mut self) -> Self {
        self.kind = Some(self.kind());
        self.api_version = Some(GROUP_VERSION);
        self
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.containers.is_some() { "PodMetrics" } else { "NodeMetrics" }
    }

    pub(crate) fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    pub(crate) fn total(&self) -> Usage {
        self.total
    }

    pub(crate) fn usage(&self) -> Option<&ResourceList> {
        self.usage.as_ref()
    }

    pub(crate) fn containers(&self) -> &[Container] {
        self.containers.as_deref().unwrap_or_default()
    }

    /// Namespace and name: the order of lists, and what a continue token holds.
    pub(crate) fn key(&self) -> (&str, &str) {
        (&self.metadata.namespace, &self.metadata.name)
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    pub(crate) kind: &'static str,
    pub(crate) api_version: &'static str,
    pub(crate) metadata: ListMeta,
    pub(crate) items: Vec<T>,
}

/// Only an object's metadata.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartialObjectMetadata {
    kind: &'static str,
    api_version: &'static str,
    metadata: ObjectMeta,
}

impl From<&Metrics> for PartialObjectMetadata {
    fn from(metrics: &Metrics) -> Self {
        let metadata = metrics.metadata.clone();
        Self { kind: "PartialObjectMetadata", api_version: "meta.k8s.io/v1", metadata }
    }
}

/// What `kubectl get` prints.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMeta,
    column_definitions: [Column; 4],
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Column {
    name: &'static str,
    r#type: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    cells: [String; 4],
    object: PartialObjectMetadata,
}

impl Table {
    /// `api_version` is that of the `as=Table` the client asked for.
    pub(crate) fn new(api_version: &'static str, metadata: ListMeta, items: &[Metrics]) -> Self {
        let column =
            |name, format, description| Column { name, r#type: "string", format, description, priority: 0 };
        let row = |item: &Metrics| Row {
            cells: [
                item.metadata.name.clone(),
                quantity::cpu(item.total.cpu_nanocores),
                quantity::memory(item.total.memory_bytes),
                item.window.clone(),
            ],
            object: item.into(),
        };
        Self {
            kind: "Table",
            api_version,
            metadata,
            column_definitions: [
                column("Name", "name", "Name of the resource"),
                column("cpu", "quantity", ""),
                column("memory", "quantity", ""),
                column("Window", "duration", ""),
            ],
            rows: items.iter().map(row).collect(),
        }
    }
}
