//! The targets of one object, by role, as Prometheus names them.

use std::sync::Arc;

use k8s::{Endpoint, EndpointSlice, Endpoints, Ingress, Node, Pod, Port, Reference, Service};
use model::Labels;

use super::super::join_address;
use super::Stores;
use super::labels::Builder;
use crate::config::TargetGroup;

/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Addresses of nodes, the best first.
const NODE_ADDRESSES: [&str; 6] =
    ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];

fn group(targets: Vec<Labels>, labels: &Builder) -> TargetGroup {
    TargetGroup { source: String::new(), targets, labels: labels.build() }
}

pub(super) fn node(node: &Node) -> TargetGroup {
    let mut labels = Builder::default();
    labels.meta("node", &node.meta).set("node_provider_id", &node.provider_id);
    for (kind, status) in node.conditions.iter() {
        labels.set(&format!("node_condition_{}", super::super::label_name(kind)), status);
    }
    let Some(address) = NODE_ADDRESSES.iter().find_map(|kind| node.addresses.get(kind)) else {
        return group(Vec::new(), &labels);
    };
    let mut target = Builder::default();
    target.address(&join_address(address, node.kubelet_port)).instance(&node.meta.name);
    for (kind, address) in node.addresses.iter() {
        // The first of each type counts.
        if node.addresses.get(kind) == Some(address) {
            target.set(&format!("node_address_{}", super::super::label_name(kind)), address);
        }
    }
    group(vec![target.build()], &labels)
}

/// Labels of the namespace and of the node, if they are wanted.
fn attach(labels: &mut Builder, stores: &Stores, namespace: &str, node: Option<&str>) {
    if let Some(namespace) = stores.namespaces.get(namespace) {
        labels.pairs("namespace", &namespace.meta);
    }
    if let Some(node) = node.and_then(|name| stores.nodes.get(name)) {
        labels.meta("node", &node.meta);
    }
}

pub(super) fn pod(pod: &Pod, stores: &Stores) -> TargetGroup {
    let mut labels = Builder::default();
    labels.set("namespace", &pod.meta.namespace).pod(pod, stores);
    attach(&mut labels, stores, &pod.meta.namespace, Some(&pod.node_name));
    // Without an address it cannot be scraped yet; on a node that is not wanted, or not yet known, it is not.
    let is_elsewhere = stores.attach.node && stores.nodes.get(&pod.node_name).is_none();
    if pod.ip.is_empty() || is_elsewhere {
        return group(Vec::new(), &labels);
    }
    let mut targets = Vec::new();
    for container in &pod.containers {
        for port in &container.ports {
            let mut target = Builder::default();
            target.address(&join_address(&pod.ip, port.container_port)).container(container, Some(port));
            targets.push(target.build());
        }
        if container.ports.is_empty() {
            let mut target = Builder::default();
            target.address(&pod.ip).container(container, None);
            targets.push(target.build());
        }
    }
    group(targets, &labels)
}

pub(super) fn service(service: &Service, stores: &Stores) -> TargetGroup {
    let (name, namespace) = (&service.meta.name, &service.meta.namespace);
    let mut labels = Builder::default();
    labels.set("namespace", namespace).meta("service", &service.meta);
    attach(&mut labels, stores, namespace, None);
    let target = |port: &k8s::ServicePort| {
        let mut target = Builder::default();
        target
            .address(&format!("{name}.{namespace}.svc:{}", port.port))
            .set("service_port_name", &port.name)
            .set("service_port_number", &port.port.to_string())
            .set("service_port_protocol", &port.protocol)
            .set("service_type", &service.kind);
        if &*service.kind == "ExternalName" {
            target.set("service_external_name", &service.external_name);
        } else {
            target.set("service_cluster_ip", &service.cluster_ip);
        }
        if &*service.kind == "LoadBalancer" {
            target.set("service_loadbalancer_ip", &service.load_balancer_ip);
        }
        target.build()
    };
    group(service.ports.iter().map(target).collect(), &labels)
}

pub(super) fn ingress(ingress: &Ingress, stores: &Stores) -> TargetGroup {
    let mut labels = Builder::default();
    labels.set("namespace", &ingress.meta.namespace).meta("ingress", &ingress.meta);
    labels.set("ingress_class_name", &ingress.class_name);
    attach(&mut labels, stores, &ingress.meta.namespace, None);
    let mut targets = Vec::new();
    for rule in &ingress.rules {
        let is_tls = ingress.tls_hosts.iter().any(|pattern| is_host_of(pattern, &rule.host));
        for path in &rule.paths {
            let mut target = Builder::default();
            target
                .address(&rule.host)
                .set("ingress_scheme", if is_tls { "https" } else { "http" })
                .set("ingress_host", &rule.host)
                .set("ingress_path", path);
            targets.push(target.build());
        }
    }
    group(targets, &labels)
}

/// Whether a host is meant by a pattern whose first part may be `*`.
fn is_host_of(pattern: &str, host: &str) -> bool {
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(rest), Some((first, domain))) => !first.is_empty() && rest == domain,
        (Some(_), None) => false,
        (None, _) => pattern == host,
    }
}

/// The key of what an address belongs to.
pub(super) fn reference_key(target: &Reference, namespace: &str) -> String {
    let namespace = if target.namespace.is_empty() { namespace } else { &target.namespace };
    format!("{namespace}/{}", target.name)
}

/// The key of the service that a slice belongs to.
pub(super) fn service_key(slice: &EndpointSlice) -> Option<String> {
    Some(format!("{}/{}", slice.meta.namespace, slice.meta.labels.get(SERVICE_NAME)?))
}

/// What stands behind a service: pods that were met, with the ports that were listed.
struct Behind<'a> {
    stores: &'a Stores,
    namespace: &'a str,
    targets: Vec<Labels>,
    pods: Vec<(Arc<Pod>, Vec<u16>)>,
}

impl<'a> Behind<'a> {
    fn new(stores: &'a Stores, namespace: &'a str) -> Self {
        Self { stores, namespace, targets: Vec::new(), pods: Vec::new() }
    }

    /// Adds one address and port; `role` says what its labels are called.
    fn add(
        &mut self,
        role: &str,
        (endpoint, address, port): (&Endpoint, &str, Option<&Port>),
        mut target: Builder,
    ) {
        let number = port.and_then(|port| port.port);
        match number {
            Some(number) => target.address(&join_address(address, number)),
            None => target.address(address),
        };
        let mut node = endpoint.node_name.as_deref();
        if let Some(reference) = &endpoint.target {
            target.set(&format!("{role}_address_target_kind"), &reference.kind);
            target.set(&format!("{role}_address_target_name"), &reference.name);
            if &*reference.kind == "Node" {
                node = node.or(Some(&reference.name));
            }
        }
        if let Some(node) = node.and_then(|name| self.stores.nodes.get(name)) {
            target.meta("node", &node.meta);
        }
        let reference = endpoint.target.as_ref().filter(|reference| &*reference.kind == "Pod");
        let pod = reference.and_then(|it| self.stores.pods.get(&reference_key(it, self.namespace)));
        if let Some(pod) = pod {
            target.pod(&pod, self.stores);
            let found = pod.containers.iter().find_map(|container| {
                let fits = |it: &&k8s::ContainerPort| Some(it.container_port) == number;
                Some((container, container.ports.iter().find(fits)?))
            });
            if let Some((container, container_port)) = found {
                target.container(container, Some(container_port));
            }
            match self
                .pods
                .iter_mut()
                .find(|(known, _)| known.meta.uid == pod.meta.uid && known.meta.name == pod.meta.name)
            {
                Some((_, ports)) => ports.extend(number),
                None => self.pods.push((pod, number.into_iter().collect())),
            }
        }
        self.targets.push(target.build());
    }

    /// The targets, with those ports of the pods that were not listed.
    fn finish(mut self) -> Vec<Labels> {
        for (pod, listed) in std::mem::take(&mut self.pods) {
            let is_listed = |port: &k8s::ContainerPort| listed.contains(&port.container_port);
            for container in &pod.containers {
                for port in container.ports.iter().filter(|port| !is_listed(port)) {
                    let mut target = Builder::default();
                    target.address(&join_address(&pod.ip, port.container_port)).pod(&pod, self.stores);
                    target.container(container, Some(port));
                    if let Some(node) = self.stores.nodes.get(&pod.node_name) {
                        target.meta("node", &node.meta);
                    }
                    self.targets.push(target.build());
                }
            }
        }
        self.targets
    }
}

pub(super) fn endpoints(endpoints: &Endpoints, stores: &Stores) -> TargetGroup {
    let namespace = &*endpoints.meta.namespace;
    let mut labels = Builder::default();
    labels.set("namespace", namespace).meta("endpoints", &endpoints.meta);
    if let Some(service) = stores.services.get(&endpoints.meta.key()) {
        labels.meta("service", &service.meta);
    }
    attach(&mut labels, stores, namespace, None);
    let mut behind = Behind::new(stores, namespace);
    for subset in &endpoints.subsets {
        for port in &subset.ports {
            for endpoint in &subset.endpoints {
                let mut target = Builder::default();
                target
                    .set("endpoint_port_name", port.name.as_deref().unwrap_or_default())
                    .set("endpoint_port_protocol", port.protocol.as_deref().unwrap_or_default())
                    .flag("endpoint_ready", endpoint.ready)
                    .set("endpoint_node_name", endpoint.node_name.as_deref().unwrap_or_default())
                    .set("endpoint_hostname", endpoint.hostname.as_deref().unwrap_or_default());
                let address = endpoint.addresses.first().map_or("", |address| address);
                behind.add("endpoint", (endpoint, address, Some(port)), target);
            }
        }
    }
    group(behind.finish(), &labels)
}

pub(super) fn slice(slice: &EndpointSlice, stores: &Stores) -> TargetGroup {
    let namespace = &*slice.meta.namespace;
    let mut labels = Builder::default();
    labels.set("namespace", namespace).meta("endpointslice", &slice.meta);
    labels.set("endpointslice_address_type", &slice.address_type);
    if let Some(service) = service_key(slice).and_then(|key| stores.services.get(&key)) {
        labels.meta("service", &service.meta);
    }
    attach(&mut labels, stores, namespace, None);
    let mut behind = Behind::new(stores, namespace);
    for endpoint in &slice.endpoints {
        for port in &slice.ports {
            for address in &endpoint.addresses {
                let target = slice_target(endpoint, port);
                behind.add("endpointslice", (endpoint, address, Some(port)), target);
            }
        }
    }
    group(behind.finish(), &labels)
}

fn slice_target(endpoint: &Endpoint, port: &Port) -> Builder {
    let mut target = Builder::default();
    if let Some(number) = port.port {
        target.set("endpointslice_port", &number.to_string());
    }
    for (name, value) in [
        ("endpointslice_port_name", &port.name),
        ("endpointslice_port_protocol", &port.protocol),
        ("endpointslice_port_app_protocol", &port.app_protocol),
        ("endpointslice_endpoint_hostname", &endpoint.hostname),
        ("endpointslice_endpoint_node_name", &endpoint.node_name),
        ("endpointslice_endpoint_zone", &endpoint.zone),
    ] {
        target.set(name, value.as_deref().unwrap_or_default());
    }
    target
        .flag("endpointslice_endpoint_conditions_ready", endpoint.ready)
        .flag("endpointslice_endpoint_conditions_serving", endpoint.serving)
        .flag("endpointslice_endpoint_conditions_terminating", endpoint.terminating);
    for (name, value) in endpoint.topology.iter() {
        let name = super::super::label_name(name);
        target.set(&format!("endpointslice_endpoint_topology_{name}"), value);
        target.set(&format!("endpointslice_endpoint_topology_present_{name}"), "true");
    }
    target
}
