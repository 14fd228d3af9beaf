//! Targets registered in Consul: the catalog's services are followed with blocking queries, and so are the healthy and
//! unhealthy instances of each service that is wanted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::response::Parts;
use model::Labels;
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::feed::Feed;
use super::http::get;
use super::{ConsulDiscovery, join_address, label_name};
use crate::config::TargetGroup;
use crate::http::Client;

/// How long the server may hold a query back, and how much longer it may take then.
const HOLD: Duration = Duration::from_secs(120);
const SLACK: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(15);

pub(super) async fn run(mut options: ConsulDiscovery, client: Client, feed: Arc<Feed>) {
    let asking = Asking { client };
    // The data centre is a label even if nobody names it.
    let data_center = loop {
        let known = options.parameters.iter().find(|(name, _)| name == "dc").map(|(_, value)| value.clone());
        match known {
            Some(name) => break name,
            None => match asking.data_center(&options).await {
                Ok(name) => break name,
                Err(error) => feed.fail("consul", &options.server, &error),
            },
        }
        tokio::time::sleep(RETRY).await;
    };
    options.parameters.retain(|(name, _)| name != "dc");
    options.parameters.push(("dc".to_owned(), data_center.clone()));
    let following = Arc::new(Following { options, asking, data_center, feed });
    let mut running: HashMap<String, Running> = HashMap::new();
    // A tag, a filter and metadata of nodes are looked for in the catalog.
    if !following.options.services.is_empty() && following.options.tags.is_empty() {
        let names = following.options.services.clone();
        following.start(&mut running, &names);
        return std::future::pending().await;
    }
    let mut index = 0;
    loop {
        let every = Duration::from_millis(following.options.refresh_ms.max(1).unsigned_abs());
        match following.services(&mut index).await {
            Ok(names) => {
                following.start(&mut running, &names);
                tokio::time::sleep(every).await;
            }
            Err(error) => {
                following.feed.fail("consul", &following.options.server, &error);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

struct Asking {
    client: Client,
}

struct Following {
    options: ConsulDiscovery,
    asking: Asking,
    data_center: String,
    feed: Arc<Feed>,
}

/// A task that follows one service. Dropping it ends it.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One instance of a service with its node and health.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Node {
    node: String,
    address: String,
    datacenter: String,
    namespace: String,
    partition: String,
    #[serde(deserialize_with = "null_is_empty")]
    tagged_addresses: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_empty")]
    meta: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    address: String,
    port: u16,
    namespace: String,
    partition: String,
    #[serde(deserialize_with = "null_is_empty")]
    tags: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    meta: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_empty")]
    tagged_addresses: BTreeMap<String, TaggedAddress>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct TaggedAddress {
    address: String,
    port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default)]
    status: String,
    #[serde(default, rename = "CheckID")]
    id: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Asking {
    async fn data_center(&self, options: &ConsulDiscovery) -> Result<String, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Agent {
            config: AgentConfig,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct AgentConfig {
            datacenter: String,
        }
        let (_, agent): (_, Agent) = self.get(options, "/v1/agent/self", &[], SLACK).await?;
        Ok(agent.config.datacenter)
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        options: &ConsulDiscovery,
        path: &str,
        parameters: &[(String, String)],
        patience: Duration,
    ) -> Result<(Parts, T), String> {
        let mut url = format!("{}{path}", options.server.trim_end_matches('/'));
        for (at, (name, value)) in options.parameters.iter().chain(parameters).enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            push_encoded(&mut url, name);
            url.push('=');
            push_encoded(&mut url, value);
        }
        let (head, body) = get(&self.client, &url, (&[], patience)).await?.into_parts();
        if head.status != StatusCode::OK {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(format!("{path}: {}: {text}", head.status));
        }
        let value = serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))?;
        Ok((head, value))
    }
}

fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Where to go on; an index that falls begins anew.
fn advance(index: &mut u64, head: &Parts) {
    let new = head.headers.get("x-consul-index").and_then(|value| value.to_str().ok()?.parse().ok());
    let new = new.unwrap_or(0);
    *index = if new < *index { 0 } else { new };
}

impl Following {
    /// Asks for what is newer than `index`.
    async fn blocking<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        index: &mut u64,
        parameters: &[(&str, &str)],
    ) -> Result<T, String> {
        let mut all: Vec<(String, String)> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if *index > 0 {
            all.push(("index".to_owned(), index.to_string()));
            all.push(("wait".to_owned(), format!("{}s", HOLD.as_secs())));
        }
        let (head, value) = self.asking.get(&self.options, path, &all, HOLD + SLACK).await?;
        advance(index, &head);
        Ok(value)
    }

    /// The names of the services that are wanted, once the catalog has changed.
    async fn services(&self, index: &mut u64) -> Result<Vec<String>, String> {
        let options = &self.options;
        let metas: Vec<String> =
            options.node_meta.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        let mut parameters: Vec<(&str, &str)> =
            metas.iter().map(|meta| ("node-meta", meta.as_str())).collect();
        if !options.filter.is_empty() {
            parameters.push(("filter", &options.filter));
        }
        let catalog: BTreeMap<String, Option<Vec<String>>> =
            self.blocking("/v1/catalog/services", index, &parameters).await?;
        let is_wanted = |name: &String, tags: &Option<Vec<String>>| {
            let has = |tag: &String| tags.as_ref().is_some_and(|tags| tags.contains(tag));
            (options.services.is_empty() || options.services.contains(name)) && options.tags.iter().all(has)
        };
        Ok(catalog.into_iter().filter(|(name, tags)| is_wanted(name, tags)).map(|(name, _)| name).collect())
    }

    /// Follows these services and no others.
    fn start(self: &Arc<Self>, running: &mut HashMap<String, Running>, names: &[String]) {
        let gone: Vec<String> = running.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            running.remove(&name);
            self.feed.replace_part(&prefix(&name), Vec::new());
        }
        for name in names {
            running.entry(name.clone()).or_insert_with(|| {
                let (following, name) = (Arc::clone(self), name.clone());
                Running(tokio::spawn(async move { following.follow(&name).await }))
            });
        }
    }

    async fn follow(&self, name: &str) {
        let options = &self.options;
        let mut path = "/v1/health/service/".to_owned();
        push_encoded(&mut path, name);
        let metas: Vec<String> =
            options.node_meta.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        let mut parameters: Vec<(&str, &str)> =
            options.tags.iter().map(|tag| ("tag", tag.as_str())).collect();
        parameters.extend(metas.iter().map(|meta| ("node-meta", meta.as_str())));
        if !options.health_filter.is_empty() {
            parameters.push(("filter", &options.health_filter));
        }
        let every = Duration::from_millis(options.refresh_ms.max(1).unsigned_abs());
        let mut index = 0;
        loop {
            let began = tokio::time::Instant::now();
            match self.blocking::<Vec<Entry>>(&path, &mut index, &parameters).await {
                Ok(entries) => {
                    let group = self.group(name, &entries);
                    self.feed.replace_part(&prefix(name), vec![group]);
                    // The server holds a query back; one that answers at once is not asked all the time.
                    tokio::time::sleep(every.saturating_sub(began.elapsed()).min(every)).await;
                }
                Err(error) => {
                    self.feed.fail("consul", &options.server, &error);
                    index = 0;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn group(&self, name: &str, entries: &[Entry]) -> TargetGroup {
        let labels =
            [("__meta_consul_service", name.to_owned()), ("__meta_consul_dc", self.data_center.clone())];
        TargetGroup {
            source: prefix(name),
            targets: entries.iter().map(|entry| self.target(entry)).collect(),
            labels: Labels::from_pairs(labels),
        }
    }

    fn target(&self, Entry { node, service, checks }: &Entry) -> Labels {
        let address = if service.address.is_empty() { &node.address } else { &service.address };
        let separator = &self.options.tag_separator;
        let tags = format!("{separator}{}{separator}", service.tags.join(separator));
        let mut labels = model::LabelsBuilder::new();
        let own = |of_service: &str, of_node: &str| {
            if of_service.is_empty() { of_node.to_owned() } else { of_service.to_owned() }
        };
        for (label, value) in [
            ("__address__", join_address(address, service.port)),
            ("__meta_consul_address", node.address.clone()),
            ("__meta_consul_node", node.node.clone()),
            ("__meta_consul_tags", tags),
            ("__meta_consul_service", service.service.clone()),
            ("__meta_consul_service_address", service.address.clone()),
            ("__meta_consul_service_port", service.port.to_string()),
            ("__meta_consul_service_id", service.id.clone()),
            ("__meta_consul_health", health(checks).to_owned()),
            ("__meta_consul_namespace", own(&service.namespace, &node.namespace)),
            ("__meta_consul_partition", own(&service.partition, &node.partition)),
        ] {
            labels.set(label, &value);
        }
        if !node.datacenter.is_empty() {
            labels.set("__meta_consul_dc", &node.datacenter);
        }
        let sets = [
            ("__meta_consul_metadata_", &node.meta),
            ("__meta_consul_service_metadata_", &service.meta),
            ("__meta_consul_tagged_address_", &node.tagged_addresses),
        ];
        for (prefix, set) in sets {
            for (name, value) in set {
                labels.set(&format!("{prefix}{}", label_name(name)), value);
            }
        }
        for (name, tagged) in &service.tagged_addresses {
            let address = format!("{}:{}", tagged.address, tagged.port);
            labels.set(&format!("__meta_consul_service_tagged_address_{}", label_name(name)), &address);
        }
        labels.build()
    }
}

/// Ends in a byte that no service's name has.
fn prefix(name: &str) -> String {
    format!("{name}\n")
}

/// The worst of all checks.
fn health(checks: &[Check]) -> &'static str {
    let is = |status: &str| checks.iter().any(|check| check.status == status);
    let in_maintenance =
        |check: &Check| check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance:");
    if checks.iter().any(in_maintenance) {
        "maintenance"
    } else if is("critical") {
        "critical"
    } else if is("warning") {
        "warning"
    } else {
        "passing"
    }
}
