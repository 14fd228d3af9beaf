//! Pods.

use serde::Deserialize;

use super::object;
use crate::meta::{Meta, Pairs, nullable};

/// A pod. With ten labels and annotations and two containers it takes about 1.5 KB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Wire")]
pub struct Pod {
    /// Its metadata.
    pub meta: Meta,
    /// The node it runs on, empty before it is scheduled.
    pub node_name: Box<str>,
    /// `Running`, ...
    pub phase: Box<str>,
    /// Its address, empty before it has one.
    pub ip: Box<str>,
    /// Its node's address.
    pub host_ip: Box<str>,
    /// `true`, `false`, `unknown`
    pub ready: Box<str>,
    /// Its containers, in the order of the object, those that initialise it last.
    pub containers: Box<[Container]>,
}

object!(Pod, "/api/v1", "pods");

/// Name and labels of a pod, and nothing else: with ten labels it takes about 0.4 KB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "LabelsWire")]
pub struct PodLabels {
    /// Its metadata, without annotations and owner.
    pub meta: Meta,
}

impl crate::client::Object for PodLabels {
    const API: &'static str = "/api/v1";
    const RESOURCE: &'static str = "pods";
    const METADATA_ONLY: bool = true;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }
}

#[derive(Deserialize)]
struct LabelsWire {
    #[serde(default)]
    metadata: LabelsMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LabelsMeta {
    name: Box<str>,
    namespace: Box<str>,
    labels: Pairs,
    resource_version: String,
}

impl From<LabelsWire> for PodLabels {
    fn from(LabelsWire { metadata }: LabelsWire) -> Self {
        let LabelsMeta { name, namespace, labels, resource_version } = metadata;
        Self { meta: Meta { name, namespace, labels, resource_version, ..Meta::default() } }
    }
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: Box<str>,
    /// Its image.
    pub image: Box<str>,
    /// `containerd://...`, empty before it has run.
    pub id: Box<str>,
    /// Whether it runs before the others.
    pub is_init: bool,
    /// Its declared ports.
    pub ports: Box<[ContainerPort]>,
}

/// A declared port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name, often empty.
    pub name: Box<str>,
    /// Its number.
    pub container_port: u16,
    /// `TCP`, ...
    #[serde(default = "tcp")]
    pub protocol: Box<str>,
}

pub(crate) fn tcp() -> Box<str> {
    "TCP".into()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Box<str>,
    #[serde(deserialize_with = "nullable")]
    containers: Vec<SpecContainer>,
    #[serde(deserialize_with = "nullable")]
    init_containers: Vec<SpecContainer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecContainer {
    name: Box<str>,
    image: Box<str>,
    #[serde(deserialize_with = "nullable")]
    ports: Box<[ContainerPort]>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Box<str>,
    #[serde(rename = "podIP")]
    pod_ip: Box<str>,
    #[serde(rename = "hostIP")]
    host_ip: Box<str>,
    #[serde(deserialize_with = "nullable")]
    conditions: Vec<super::node::Condition>,
    #[serde(deserialize_with = "nullable")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    name: Box<str>,
    #[serde(rename = "containerID")]
    container_id: Box<str>,
}

impl From<Wire> for Pod {
    fn from(wire: Wire) -> Self {
        let Wire { metadata, spec, status } = wire;
        let ready = status.conditions.iter().find(|condition| &*condition.kind == "Ready");
        let ready = ready.map(|condition| condition.status.to_lowercase().into()).unwrap_or("unknown".into());
        let of = |containers: Vec<SpecContainer>, statuses: &[ContainerStatus], is_init| {
            let container = |spec: SpecContainer| {
                let status = statuses.iter().find(|status| status.name == spec.name);
                let id = status.map(|status| status.container_id.clone()).unwrap_or_default();
                Container { name: spec.name, image: spec.image, id, is_init, ports: spec.ports }
            };
            containers.into_iter().map(container).collect::<Vec<_>>()
        };
        let mut containers = of(spec.containers, &status.container_statuses, false);
        containers.extend(of(spec.init_containers, &status.init_container_statuses, true));
        Self {
            meta: metadata,
            node_name: spec.node_name,
            phase: status.phase,
            ip: status.pod_ip,
            host_ip: status.host_ip,
            ready,
            containers: containers.into(),
        }
    }
}
