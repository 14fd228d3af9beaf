//! Objects, reduced to what discovery and the metrics APIs use of them.

pub(crate) mod endpoints;
pub(crate) mod ingress;
pub(crate) mod node;
pub(crate) mod owned;
pub(crate) mod pod;
pub(crate) mod service;

/// Makes a kind of object one that can be listed and watched.
macro_rules! object {
    ($type:ty, $api:literal, $resource:literal) => {
        impl crate::client::Object for $type {
            const API: &'static str = $api;
            const RESOURCE: &'static str = $resource;

            fn meta(&self) -> &crate::meta::Meta {
                &self.meta
            }

            fn meta_mut(&mut self) -> &mut crate::meta::Meta {
                &mut self.meta
            }
        }
    };
}
pub(crate) use object;

/// `metadata` of an object.
#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct Metadata {
    pub(crate) metadata: crate::meta::Meta,
}
