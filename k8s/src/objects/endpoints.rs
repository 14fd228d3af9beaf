//! Endpoints and endpoint slices.

use serde::Deserialize;

use super::object;
use super::pod::tcp;
use crate::meta::{Meta, Pairs, nullable};

/// What an address belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reference {
    /// `Pod`, `Node`.
    pub kind: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
}

/// A port of all addresses of a slice or subset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// Its name, often empty.
    pub name: Option<Box<str>>,
    /// Its number.
    pub port: Option<u16>,
    /// `TCP`, ...
    #[serde(default = "tcp_maybe")]
    pub protocol: Option<Box<str>>,
    /// `http`, ...
    pub app_protocol: Option<Box<str>>,
}

fn tcp_maybe() -> Option<Box<str>> {
    Some(tcp())
}

/// Where a service is reached: one slice of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "SliceWire")]
pub struct EndpointSlice {
    /// Its metadata.
    pub meta: Meta,
    /// `IPv4`, ...
    pub address_type: Box<str>,
    /// Who is there.
    pub endpoints: Box<[Endpoint]>,
    /// Ports of each of them.
    pub ports: Box<[Port]>,
}

object!(EndpointSlice, "/apis/discovery.k8s.io/v1", "endpointslices");

/// Who is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses, all of the same thing.
    pub addresses: Box<[Box<str>]>,
    /// Whether it is ready to be used, if that is known.
    pub ready: Option<bool>,
    /// Whether it answers, if that is known.
    pub serving: Option<bool>,
    /// Whether it is about to end, if that is known.
    pub terminating: Option<bool>,
    /// Its host name, if it has one.
    pub hostname: Option<Box<str>>,
    /// Its node.
    pub node_name: Option<Box<str>>,
    /// Its zone.
    pub zone: Option<Box<str>>,
    /// Its place in older words.
    pub topology: Pairs,
    /// What it is.
    pub target: Option<Box<Reference>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SliceWire {
    metadata: Meta,
    address_type: Box<str>,
    #[serde(deserialize_with = "nullable")]
    endpoints: Vec<EndpointWire>,
    #[serde(deserialize_with = "nullable")]
    ports: Box<[Port]>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EndpointWire {
    #[serde(deserialize_with = "nullable")]
    addresses: Box<[Box<str>]>,
    conditions: Conditions,
    hostname: Option<Box<str>>,
    node_name: Option<Box<str>>,
    zone: Option<Box<str>>,
    deprecated_topology: Pairs,
    target_ref: Option<Box<Reference>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl From<SliceWire> for EndpointSlice {
    fn from(wire: SliceWire) -> Self {
        let endpoint = |it: EndpointWire| Endpoint {
            addresses: it.addresses,
            ready: it.conditions.ready,
            serving: it.conditions.serving,
            terminating: it.conditions.terminating,
            hostname: it.hostname,
            node_name: it.node_name,
            zone: it.zone,
            topology: it.deprecated_topology,
            target: it.target_ref,
        };
        Self {
            meta: wire.metadata,
            address_type: wire.address_type,
            endpoints: wire.endpoints.into_iter().map(endpoint).collect(),
            ports: wire.ports,
        }
    }
}

/// Where a service is reached, in the older form: subsets of addresses with their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "EndpointsWire")]
pub struct Endpoints {
    /// Its metadata.
    pub meta: Meta,
    /// Addresses, ready or not, and the ports of each of them.
    pub subsets: Box<[Subset]>,
}

object!(Endpoints, "/api/v1", "endpoints");

/// Addresses that share their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset {
    /// Those that are ready, then the others.
    pub endpoints: Box<[Endpoint]>,
    /// Ports of each of them.
    pub ports: Box<[Port]>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EndpointsWire {
    metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    subsets: Vec<SubsetWire>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SubsetWire {
    #[serde(deserialize_with = "nullable")]
    addresses: Vec<AddressWire>,
    #[serde(deserialize_with = "nullable")]
    not_ready_addresses: Vec<AddressWire>,
    #[serde(deserialize_with = "nullable")]
    ports: Box<[Port]>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AddressWire {
    ip: Box<str>,
    hostname: Option<Box<str>>,
    node_name: Option<Box<str>>,
    target_ref: Option<Box<Reference>>,
}

impl From<EndpointsWire> for Endpoints {
    fn from(EndpointsWire { metadata, subsets }: EndpointsWire) -> Self {
        let endpoint = |it: AddressWire, ready| Endpoint {
            addresses: [it.ip].into(),
            ready: Some(ready),
            hostname: it.hostname.filter(|name| !name.is_empty()),
            node_name: it.node_name,
            target: it.target_ref,
            ..Endpoint::default()
        };
        let subset = |it: SubsetWire| {
            let ready = it.addresses.into_iter().map(|address| endpoint(address, true));
            let others = it.not_ready_addresses.into_iter().map(|address| endpoint(address, false));
            Subset { endpoints: ready.chain(others).collect(), ports: it.ports }
        };
        Self { meta: metadata, subsets: subsets.into_iter().map(subset).collect() }
    }
}
