//! Kinds of objects: which resources a cluster has, and what they are called.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::client::{Client, Error};

/// One kind of object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKind {
    /// The API group, empty for core.
    pub group: String,
    /// The preferred version: `v1`.
    pub version: String,
    /// The resource as it stands in paths: `deployments`.
    pub resource: String,
    /// One of them, in lower case: `deployment`.
    pub singular: String,
    /// The kind: `Deployment`.
    pub kind: String,
    /// Whether objects belong to a namespace.
    pub namespaced: bool,
}

/// Group, version, resource, kind, and whether it belongs to a namespace.
const USUAL: [(&str, &str, &str, &str, bool); 22] = [
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "services", "Service", true),
    ("", "v1", "endpoints", "Endpoints", true),
    ("", "v1", "replicationcontrollers", "ReplicationController", true),
    ("", "v1", "persistentvolumes", "PersistentVolume", false),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "secrets", "Secret", true),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "resourcequotas", "ResourceQuota", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("apps", "v1", "statefulsets", "StatefulSet", true),
    ("apps", "v1", "daemonsets", "DaemonSet", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
    ("batch", "v1", "jobs", "Job", true),
    ("batch", "v1", "cronjobs", "CronJob", true),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", true),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", false),
];

impl ResourceKind {
    /// The kinds that every cluster has and metrics are usually about.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        let one = |(group, version, resource, kind, namespaced): (&str, &str, &str, &str, bool)| Self {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            singular: kind.to_lowercase(),
            kind: kind.to_owned(),
            namespaced,
        };
        USUAL.map(one).into()
    }

    /// `apps/v1`, `v1`
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, `pods`
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    preferred_version: Version,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    kind: String,
}

#[derive(Deserialize)]
struct Names {
    items: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    metadata: Name,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

impl Client {
    /// The kinds of objects that the cluster knows, each group in its preferred version. Groups in `without`
    /// are not asked for: those that this process serves itself.
    ///
    /// # Errors
    /// The API server does not answer, or refuses. A group whose own server is away is left out.
    pub async fn resource_kinds(&self, without: &[&str]) -> Result<Vec<ResourceKind>, Error> {
        let mut kinds = BTreeSet::new();
        let core: Resources = self.get("/api/v1").await?;
        kinds.extend(of_group("", "v1", core));
        let groups: Groups = self.get("/apis").await?;
        for Group { name, preferred_version } in groups.groups {
            if without.contains(&name.as_str()) {
                continue;
            }
            let path = format!("/apis/{name}/{}", preferred_version.version);
            if let Ok(resources) = self.get::<Resources>(&path).await {
                kinds.extend(of_group(&name, &preferred_version.version, resources));
            }
        }
        Ok(kinds.into_iter().collect())
    }

    /// The names of the objects of a kind that fulfil a label selector.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub async fn object_names(
        &self,
        kind: &ResourceKind,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<String>, Error> {
        let root = if kind.group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{}", kind.api_version())
        };
        let mut path = root;
        if let Some(namespace) = namespace {
            path.push_str("/namespaces/");
            crate::client::push_encoded(&mut path, namespace);
        }
        path.push('/');
        crate::client::push_encoded(&mut path, &kind.resource);
        if !labels.is_empty() {
            path.push_str("?labelSelector=");
            crate::client::push_encoded(&mut path, labels);
        }
        let list: Names = self.get(&path).await?;
        Ok(list.items.into_iter().map(|named| named.metadata.name).collect())
    }
}

fn of_group(group: &str, version: &str, resources: Resources) -> impl Iterator<Item = ResourceKind> {
    // What has a slash in its name is a part of an object.
    let whole = resources.resources.into_iter().filter(|resource| !resource.name.contains('/'));
    whole.map(move |resource| ResourceKind {
        group: group.to_owned(),
        version: version.to_owned(),
        singular: if resource.singular_name.is_empty() {
            resource.kind.to_lowercase()
        } else {
            resource.singular_name
        },
        resource: resource.name,
        kind: resource.kind,
        namespaced: resource.namespaced,
    })
}
