//! The labels that a Kubernetes object gives its targets.

use k8s::{Container, ContainerPort, Meta, Owner, Pod};
use model::{Labels, LabelsBuilder};

use super::super::label_name;
use super::Stores;

const PREFIX: &str = "__meta_kubernetes_";

/// Labels under construction; names are given without their common prefix.
#[derive(Default)]
pub(super) struct Builder {
    labels: LabelsBuilder,
    name: String,
}

impl Builder {
    pub(super) fn address(&mut self, address: &str) -> &mut Self {
        self.labels.set("__address__", address);
        self
    }

    pub(super) fn instance(&mut self, instance: &str) -> &mut Self {
        self.labels.set("instance", instance);
        self
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.name.clear();
            self.name.push_str(PREFIX);
            self.name.push_str(name);
            self.labels.set(&self.name, value);
        }
        self
    }

    pub(super) fn flag(&mut self, name: &str, value: Option<bool>) -> &mut Self {
        match value {
            Some(value) => self.set(name, if value { "true" } else { "false" }),
            None => self,
        }
    }

    /// Name, labels and annotations of an object of a role.
    pub(super) fn meta(&mut self, role: &str, meta: &Meta) -> &mut Self {
        self.set(&format!("{role}_name"), &meta.name);
        self.pairs(role, meta)
    }

    /// Labels and annotations of an object of a role.
    pub(super) fn pairs(&mut self, role: &str, meta: &Meta) -> &mut Self {
        for (kind, pairs) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
            for (name, value) in pairs.iter() {
                let name = label_name(name);
                self.set(&format!("{role}_{kind}_{name}"), value);
                self.set(&format!("{role}_{kind}present_{name}"), "true");
            }
        }
        self
    }

    pub(super) fn pod(&mut self, pod: &Pod, stores: &Stores) -> &mut Self {
        self.meta("pod", &pod.meta);
        for (name, value) in [
            ("pod_ip", &pod.ip),
            ("pod_ready", &pod.ready),
            ("pod_phase", &pod.phase),
            ("pod_node_name", &pod.node_name),
            ("pod_host_ip", &pod.host_ip),
            ("pod_uid", &pod.meta.uid),
        ] {
            self.set(name, value);
        }
        if let Some(owner) = &pod.meta.controller {
            self.set("pod_controller_kind", &owner.kind).set("pod_controller_name", &owner.name);
            self.owners(owner, &pod.meta.namespace, stores);
        }
        self
    }

    /// What a pod's replica set or job was made for, as far as that is wanted.
    fn owners(&mut self, owner: &Owner, namespace: &str, stores: &Stores) {
        let key = format!("{namespace}/{}", owner.name);
        let set = |label: &str, kind: &str, above: Option<&Owner>| {
            let above = above.filter(|above| &*above.kind == kind);
            above.map(|above| (label.to_owned(), above.name.clone()))
        };
        let found = match &*owner.kind {
            "ReplicaSet" if stores.attach.deployment => {
                let found = stores.replica_sets.get(&key);
                let above = found.as_ref().and_then(|it| it.meta.controller.as_deref());
                set("pod_deployment_name", "Deployment", above)
            }
            "Job" => {
                if stores.attach.job {
                    self.set("pod_job_name", &owner.name);
                }
                let found = stores.jobs.get(&key).filter(|_| stores.attach.cronjob);
                let above = found.as_ref().and_then(|it| it.meta.controller.as_deref());
                set("pod_cronjob_name", "CronJob", above)
            }
            _ => None,
        };
        if let Some((label, name)) = found {
            self.set(&label, &name);
        }
    }

    pub(super) fn container(&mut self, container: &Container, port: Option<&ContainerPort>) -> &mut Self {
        self.set("pod_container_name", &container.name)
            .set("pod_container_id", &container.id)
            .set("pod_container_image", &container.image)
            .flag("pod_container_init", Some(container.is_init));
        if let Some(port) = port {
            self.set("pod_container_port_name", &port.name)
                .set("pod_container_port_number", &port.container_port.to_string())
                .set("pod_container_port_protocol", &port.protocol);
        }
        self
    }

    pub(super) fn build(&self) -> Labels {
        self.labels.build()
    }
}
