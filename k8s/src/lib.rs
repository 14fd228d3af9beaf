//! A small client of the Kubernetes API server: what the metrics path needs of one, and no more.
//!
//! This crate is *not* a general client: objects are reduced to what discovery and the metrics APIs
//! use, and nothing is written but leases, config maps and reviews. It reads neither the environment nor the
//! clock: both come in as arguments.
//!
//! ```
//! let nowhere = k8s::Environment::default();
//! assert!(k8s::find(k8s::Mode::Auto, &nowhere).unwrap().is_none());
//! assert!(k8s::find(k8s::Mode::InCluster, &nowhere).is_err());
//!
//! # async fn example(access: k8s::Access) -> Result<(), Box<dyn std::error::Error>> {
//! let client = access.connect().await?;
//! let pods: std::sync::Arc<k8s::Store<k8s::Pod>> = client.store(k8s::Query::default());
//! pods.synced().await;
//! for pod in pods.all() {
//!     println!("{}/{} on {}", pod.meta.namespace, pod.meta.name, pod.node_name);
//! }
//! # Ok(()) }
//! ```
//!
//! The hard decision: credentials, TLS and kubeconfig files are `kube`'s, while lists and watches are our
//! own, because a pod of its generated types takes 34 KB of memory and one of ours about 1.5 KB.

mod access;
mod client;
mod config_map;
mod kinds;
mod lease;
mod mailbox;
mod meta;
mod objects;
pub mod quantity;
mod review;
mod store;
mod watch;

#[cfg(test)]
#[path = "../tests/fake/mod.rs"]
mod fake;
#[cfg(test)]
mod tests;

pub use access::{Access, AccessError, Environment, Mode, Origin, find};
pub use client::{Answering, Client, Error, Object, Query, Transport};
pub use config_map::ConfigMap;
pub use kinds::ResourceKind;
pub use lease::{Lease, LeaseState};
pub use mailbox::{Changed, Mailbox};
pub use meta::{Meta, Owner, Pairs};
pub use objects::endpoints::{Endpoint, EndpointSlice, Endpoints, Port, Reference, Subset};
pub use objects::ingress::{Ingress, IngressRule};
pub use objects::node::{Namespace, Node};
pub use objects::owned::{Job, ReplicaSet};
pub use objects::pod::{Container, ContainerPort, Pod, PodLabels};
pub use objects::service::{Service, ServicePort};
pub use review::{AccessRequest, User, Verdict};
pub use store::Store;
