//! What stands between a pod and what it was made for: only whose it is matters.

use serde::Deserialize;

use crate::meta::{Meta, Owner, controller};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: OwnedMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OwnedMeta {
    name: Box<str>,
    namespace: Box<str>,
    #[serde(rename = "ownerReferences", deserialize_with = "controller")]
    controller: Option<Box<Owner>>,
    resource_version: String,
}

impl From<Wire> for Meta {
    fn from(Wire { metadata }: Wire) -> Self {
        let OwnedMeta { name, namespace, controller, resource_version } = metadata;
        Self { name, namespace, controller, resource_version, ..Self::default() }
    }
}

macro_rules! owned {
    ($(#[$doc:meta])* $type:ident, $api:literal, $resource:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(from = "Wire")]
        pub struct $type {
            /// Its name, and what controls it.
            pub meta: Meta,
        }

        impl From<Wire> for $type {
            fn from(wire: Wire) -> Self {
                Self { meta: wire.into() }
            }
        }

        impl crate::client::Object for $type {
            const API: &'static str = $api;
            const RESOURCE: &'static str = $resource;
            const METADATA_ONLY: bool = true;

            fn meta(&self) -> &Meta {
                &self.meta
            }

            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.meta
            }
        }
    };
}

owned! {
    /// A replica set: whose it is, in about 0.2 KB.
    ReplicaSet, "/apis/apps/v1", "replicasets"
}
owned! {
    /// A job: whose it is, in about 0.2 KB.
    Job, "/apis/batch/v1", "jobs"
}
