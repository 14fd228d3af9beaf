//! Services.

use serde::Deserialize;

use super::object;
use super::pod::tcp;
use crate::meta::{Meta, nullable};

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Wire")]
pub struct Service {
    /// Its metadata.
    pub meta: Meta,
    /// `ClusterIP`, ...
    pub kind: Box<str>,
    /// Its address, `None` if it has none by intention.
    pub cluster_ip: Box<str>,
    /// The name it stands for, if it is of type `ExternalName`.
    pub external_name: Box<str>,
    /// The address of its load balancer.
    pub load_balancer_ip: Box<str>,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
}

object!(Service, "/api/v1", "services");

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    /// Its name, often empty.
    pub name: Box<str>,
    /// Its number.
    pub port: u16,
    /// `TCP`, ...
    #[serde(default = "tcp")]
    pub protocol: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: Meta,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    kind: Box<str>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Box<str>,
    external_name: Box<str>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Box<str>,
    #[serde(deserialize_with = "nullable")]
    ports: Box<[ServicePort]>,
}

impl From<Wire> for Service {
    fn from(Wire { metadata, spec }: Wire) -> Self {
        let Spec { kind, cluster_ip, external_name, load_balancer_ip, ports } = spec;
        Self { meta: metadata, kind, cluster_ip, external_name, load_balancer_ip, ports }
    }
}
