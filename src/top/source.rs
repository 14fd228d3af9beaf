//! Where the numbers come from: the metrics API of a server or of a cluster, or, for the past, PromQL.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::rows::{Kind, Row};
use crate::tools::client::{Connection, escape};

/// Who is asked.
pub(crate) enum Source {
    /// A Pyrometer.
    Server(Box<Connection>),
    /// A cluster's API server.
    Cluster(k8s::Client, tokio::runtime::Runtime),
}

/// What is asked for.
pub(crate) struct Question {
    pub(crate) kind: Kind,
    /// All namespaces if none.
    pub(crate) namespace: Option<String>,
    /// A label selector, in the API server's language.
    pub(crate) selector: Option<String>,
    /// Milliseconds since the epoch; now if none.
    pub(crate) at_ms: Option<i64>,
}

impl Source {
    /// The cluster of a kubeconfig.
    pub(crate) fn cluster(path: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(k8s::Access::of_kubeconfig(path)?.connect())?;
        Ok(Self::Cluster(client, runtime))
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        match self {
            Self::Server(connection) => {
                let (status, body) = connection.get(path)?;
                if status != 200 {
                    let message = serde_json::from_str::<Value>(&body).unwrap_or_default()["message"].take();
                    bail!("{path}: {status} {}", message.as_str().unwrap_or(body.trim()));
                }
                serde_json::from_str(&body).with_context(|| path.to_owned())
            }
            Self::Cluster(client, runtime) => Ok(runtime.block_on(client.get(path))?),
        }
    }

    /// What is used.
    pub(crate) fn rows(&self, question: &Question) -> anyhow::Result<Vec<Row>> {
        match (question.at_ms, self) {
            (None, _) => self.rows_now(question),
            (Some(at_ms), Self::Server(connection)) => rows_then(connection, question, at_ms),
            (Some(_), Self::Cluster(..)) => bail!("the past is known to a Pyrometer only: --at needs --url"),
        }
    }

    fn rows_now(&self, question: &Question) -> anyhow::Result<Vec<Row>> {
        const API: &str = "/apis/metrics.k8s.io/v1beta1";
        let path = match (question.kind, &question.namespace) {
            (Kind::Nodes, _) => format!("{API}/nodes"),
            (_, None) => format!("{API}/pods"),
            (_, Some(namespace)) => format!("{API}/namespaces/{}/pods", escape(namespace)),
        };
        let selector = question.selector.as_ref();
        let query = selector.map_or_else(String::new, |text| format!("?labelSelector={}", escape(text)));
        let list = self.get(&format!("{path}{query}"))?;
        let items = list["items"].as_array().context("the answer is no list")?;
        let mut rows: Vec<Row> = items.iter().flat_map(|item| of_item(item, question.kind)).collect();
        if question.kind == Kind::Nodes {
            // Only for the share of a node: whoever may not read nodes still sees what they use.
            if let Ok(nodes) = self.get("/api/v1/nodes") {
                add_capacity(&mut rows, &nodes);
            }
        }
        Ok(rows)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// CPU in cores and memory in bytes. What is no amount is nothing.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn used(usage: &Value) -> (f64, f64) {
    let amount = |name: &str, scale| usage[name].as_str().and_then(|text| k8s::quantity::scaled(text, scale));
    (amount("cpu", 1_000_000_000).unwrap_or(0) as f64 / 1e9, amount("memory", 1).unwrap_or(0) as f64)
}

fn of_item(item: &Value, kind: Kind) -> Vec<Row> {
    let timestamp = item["timestamp"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let window = item["window"].as_str().and_then(|text| model::duration::parse_ms(text).ok());
    let row = Row {
        namespace: text(&item["metadata"]["namespace"]),
        name: text(&item["metadata"]["name"]),
        timestamp_ms: timestamp.map_or(0, jiff::Timestamp::as_millisecond),
        window_ms: window.unwrap_or(0),
        ..Row::default()
    };
    let containers = item["containers"].as_array().into_iter().flatten();
    match kind {
        Kind::Nodes => {
            let (cpu_cores, memory_bytes) = used(&item["usage"]);
            vec![Row { cpu_cores, memory_bytes, ..row }]
        }
        Kind::Pods => {
            let add = |(cpu, memory), (more_cpu, more_memory)| (cpu + more_cpu, memory + more_memory);
            let all = containers.map(|container| used(&container["usage"]));
            let (cpu_cores, memory_bytes) = all.fold((0.0, 0.0), add);
            vec![Row { cpu_cores, memory_bytes, ..row }]
        }
        Kind::Containers => containers
            .map(|container| {
                let (cpu_cores, memory_bytes) = used(&container["usage"]);
                Row { container: text(&container["name"]), cpu_cores, memory_bytes, ..row.clone() }
            })
            .collect(),
    }
}

fn add_capacity(rows: &mut [Row], nodes: &Value) {
    let mut capacity = HashMap::new();
    for node in nodes["items"].as_array().into_iter().flatten() {
        capacity.insert(text(&node["metadata"]["name"]), used(&node["status"]["allocatable"]));
    }
    for row in rows {
        if let Some((cpu, memory)) = capacity.get(&row.name) {
            (row.cpu_capacity_cores, row.memory_capacity_bytes) = (Some(*cpu), Some(*memory));
        }
    }
}

/// The same numbers at another time, from the same series of the kubelet's: `irate` takes the two newest samples,
/// as the metrics API does.
fn rows_then(connection: &Connection, question: &Question, at_ms: i64) -> anyhow::Result<Vec<Row>> {
    anyhow::ensure!(
        question.selector.is_none(),
        "--at knows what was used, not which labels pods had: no --selector"
    );
    let (prefix, by) = match question.kind {
        Kind::Nodes => ("node", "node, instance"),
        Kind::Pods => ("container", "namespace, pod"),
        Kind::Containers => ("container", "namespace, pod, container"),
    };
    let mut matchers = "metrics_path=\"/metrics/resource\"".to_owned();
    if let Some(namespace) = question.namespace.as_ref().filter(|_| question.kind != Kind::Nodes) {
        matchers.push_str(&format!(",namespace={namespace:?}"));
    }
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53")]
    let time = (at_ms as f64 / 1000.0).to_string();
    let ask = |query: String| connection.data("query", &[("query", query), ("time", time.clone())]);
    let cpu = format!("sum by ({by}) (irate({prefix}_cpu_usage_seconds_total{{{matchers}}}[5m]))");
    let memory = format!("sum by ({by}) ({prefix}_memory_working_set_bytes{{{matchers}}})");
    let mut rows: HashMap<(String, String, String), Row> = HashMap::new();
    for (answer, is_cpu) in [(ask(cpu)?, true), (ask(memory)?, false)] {
        for one in answer["result"].as_array().into_iter().flatten() {
            let labels = &one["metric"];
            let name = ["pod", "node", "instance"].iter().find_map(|label| labels[*label].as_str());
            let (namespace, container) = (text(&labels["namespace"]), text(&labels["container"]));
            let key = (namespace, name.unwrap_or_default().to_owned(), container);
            let row = rows.entry(key.clone()).or_insert_with(|| Row {
                namespace: key.0,
                name: key.1,
                container: key.2,
                timestamp_ms: at_ms,
                ..Row::default()
            });
            let value = one["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0);
            *(if is_cpu { &mut row.cpu_cores } else { &mut row.memory_bytes }) = value;
        }
    }
    Ok(rows.into_values().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_shown_alone_or_together() {
        let usage = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        let item = json!({
            "metadata": {"namespace": "ns", "name": "pod"}, "timestamp": "2026-11-21T04:51:40Z", "window": "15s",
            "containers": [{"name": "a", "usage": usage("250m", "1Ki")}, {"name": "b", "usage": usage("5n", "3Ki")}],
        });
        let pod = &of_item(&item, Kind::Pods)[0];
        assert!((pod.cpu_cores - 0.250_000_005).abs() < 1e-15);
        assert_eq!((pod.memory_bytes, pod.window_ms, pod.container.as_str()), (4096.0, 15_000, ""));
        assert_eq!(pod.timestamp_ms, 1_795_236_700_000);
        let containers = of_item(&item, Kind::Containers);
        assert_eq!(containers.iter().map(|row| row.container.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
