//! Ingresses.

use serde::Deserialize;

use super::object;
use crate::meta::{Meta, nullable};

/// An ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Wire")]
pub struct Ingress {
    /// Its metadata.
    pub meta: Meta,
    /// The class that carries it.
    pub class_name: Box<str>,
    /// Hosts that are served with TLS.
    pub tls_hosts: Box<[Box<str>]>,
    /// What is served where.
    pub rules: Box<[IngressRule]>,
}

object!(Ingress, "/apis/networking.k8s.io/v1", "ingresses");

/// What is served at one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngressRule {
    /// The host, empty for all.
    pub host: Box<str>,
    /// Its paths.
    pub paths: Box<[Box<str>]>,
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
    ingress_class_name: Box<str>,
    #[serde(deserialize_with = "nullable")]
    tls: Vec<Tls>,
    #[serde(deserialize_with = "nullable")]
    rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tls {
    #[serde(deserialize_with = "nullable")]
    hosts: Vec<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rule {
    host: Box<str>,
    http: Option<Http>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Http {
    #[serde(deserialize_with = "nullable")]
    paths: Vec<Path>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Path {
    path: Box<str>,
}

impl From<Wire> for Ingress {
    fn from(Wire { metadata, spec }: Wire) -> Self {
        // A rule without paths, and a path without a text, stand for the root.
        let path = |it: Path| if it.path.is_empty() { "/".into() } else { it.path };
        let rule = |it: Rule| {
            let paths: Box<[Box<str>]> = match it.http {
                Some(http) => http.paths.into_iter().map(path).collect(),
                None => ["/".into()].into(),
            };
            IngressRule { host: it.host, paths }
        };
        Self {
            meta: metadata,
            class_name: spec.ingress_class_name,
            tls_hosts: spec.tls.into_iter().flat_map(|tls| tls.hosts).collect(),
            rules: spec.rules.into_iter().map(rule).collect(),
        }
    }
}
