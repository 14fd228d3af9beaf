//! Nodes and namespaces.

use serde::Deserialize;

use super::{Metadata, object};
use crate::meta::{Meta, Pairs, nullable};
use crate::quantity;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Wire")]
pub struct Node {
    /// Its metadata.
    pub meta: Meta,
    /// Where the cloud knows it: `aws:///eu-west-1a/i-0123`.
    pub provider_id: Box<str>,
    /// Its addresses by type, in the order of the object.
    pub addresses: Pairs,
    /// Its conditions: type and `true`, `false`, `unknown`.
    pub conditions: Pairs,
    /// The kubelet's port; 0 if the node does not say.
    pub kubelet_port: u16,
    /// CPU that pods may use, in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory that pods may use, in bytes.
    pub memory_bytes: u64,
    /// What `kubectl get node -o wide` shows: `kernelVersion`, `operatingSystem`, `architecture`, `osImage`.
    pub info: Pairs,
}

object!(Node, "/api/v1", "nodes");

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "providerID")]
    provider_id: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    #[serde(deserialize_with = "nullable")]
    addresses: Vec<Address>,
    #[serde(deserialize_with = "nullable")]
    conditions: Vec<Condition>,
    daemon_endpoints: DaemonEndpoints,
    allocatable: Allocatable,
    node_info: NodeInfo,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(rename = "type")]
    kind: Box<str>,
    address: Box<str>,
}

/// A condition of a pod or node.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: Box<str>,
    pub(crate) status: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DaemonEndpoints {
    kubelet_endpoint: DaemonEndpoint,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DaemonEndpoint {
    #[serde(rename = "Port")]
    port: u16,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Allocatable {
    cpu: String,
    memory: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo {
    kernel_version: Box<str>,
    operating_system: Box<str>,
    architecture: Box<str>,
    os_image: Box<str>,
}

impl From<Wire> for Node {
    fn from(Wire { metadata, spec, status }: Wire) -> Self {
        let info = status.node_info;
        let info = [
            ("kernelVersion", info.kernel_version),
            ("operatingSystem", info.operating_system),
            ("architecture", info.architecture),
            ("osImage", info.os_image),
        ];
        let condition = |it: &Condition| (it.kind.clone(), it.status.to_lowercase());
        Self {
            meta: metadata,
            provider_id: spec.provider_id,
            addresses: status.addresses.iter().map(|it| (&it.kind, &it.address)).collect(),
            conditions: status.conditions.iter().map(condition).collect(),
            kubelet_port: status.daemon_endpoints.kubelet_endpoint.port,
            cpu_millicores: quantity::scaled(&status.allocatable.cpu, 1_000).unwrap_or(0),
            memory_bytes: quantity::scaled(&status.allocatable.memory, 1).unwrap_or(0),
            info: info.into_iter().collect(),
        }
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Metadata")]
pub struct Namespace {
    /// Its metadata.
    pub meta: Meta,
}

object!(Namespace, "/api/v1", "namespaces");

impl From<Metadata> for Namespace {
    fn from(Metadata { metadata }: Metadata) -> Self {
        Self { meta: metadata }
    }
}
