//! Config maps: text that a cluster keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Client, Error, Query, push_encoded};
use crate::meta::Meta;
use crate::objects::object;
use crate::store::Store;

/// A config map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    /// Its metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// Its texts by name.
    #[serde(deserialize_with = "crate::meta::nullable")]
    pub data: BTreeMap<String, String>,
}

object!(ConfigMap, "/api/v1", "configmaps");

impl Client {
    /// Reads one config map.
    ///
    /// # Errors
    /// It is not there, or may not be read.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<ConfigMap, Error> {
        self.get(&path(namespace, Some(name))).await
    }

    /// One config map, kept up to date: a store of at most one object.
    #[must_use]
    pub fn watch_config_map(&self, namespace: &str, name: &str) -> Arc<Store<ConfigMap>> {
        let fields = format!("metadata.name={name}");
        self.store(Query { namespace: Some(namespace.to_owned()), fields, labels: String::new() })
    }

    /// Writes a config map over the state that [`Client::config_map`] read; one that was not read is made.
    ///
    /// # Errors
    /// [`Error::is_conflict`] if somebody else has written or made it meanwhile.
    pub async fn write_config_map(&self, map: &ConfigMap) -> Result<ConfigMap, Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            #[serde(rename = "apiVersion")]
            version: &'static str,
            kind: &'static str,
            metadata: serde_json::Value,
            data: &'a BTreeMap<String, String>,
        }
        let meta = &map.meta;
        let mut metadata = json!({"name": meta.name, "namespace": meta.namespace});
        let labels: BTreeMap<&str, &str> = meta.labels.iter().collect();
        let annotations: BTreeMap<&str, &str> = meta.annotations.iter().collect();
        (metadata["labels"], metadata["annotations"]) = (json!(labels), json!(annotations));
        let is_new = meta.resource_version.is_empty();
        if !is_new {
            metadata["resourceVersion"] = json!(meta.resource_version);
        }
        let written = Written { version: "v1", kind: "ConfigMap", metadata, data: &map.data };
        if is_new {
            self.post(&path(&meta.namespace, None), &written).await
        } else {
            self.put(&path(&meta.namespace, Some(&meta.name)), &written).await
        }
    }
}

fn path(namespace: &str, name: Option<&str>) -> String {
    let mut path = "/api/v1/namespaces/".to_owned();
    push_encoded(&mut path, namespace);
    path.push_str("/configmaps");
    if let Some(name) = name {
        path.push('/');
        push_encoded(&mut path, name);
    }
    path
}
