//! What is scraped in a Kubernetes cluster without a word of configuration: all kubelets, and whatever is
//! annotated for it.

use std::path::PathBuf;

use k8s::{Access, Origin};
use scraper::ScrapeJob;
use scraper::config::{
    Attach, Auth, Discovery, Identity, KubernetesDiscovery, KubernetesRole, NameScheme, Scheme, Secret,
};
use scraper::relabel::{Action, Rule, RuleError, RuleSpec};

/// Kubelets' own pages: job, path, interval and timeout in milliseconds.
const KUBELET_PAGES: [(&str, &str, i64, i64); 3] = [
    // The small page often, for `kubectl top`; the large ones at the usual pace.
    ("kubelet-resource", "/metrics/resource", 15_000, 10_000),
    ("kubelet-cadvisor", "/metrics/cadvisor", 30_000, 20_000),
    ("kubelet-probes", "/metrics/probes", 30_000, 20_000),
];
/// What the Metrics API is computed from.
const RESOURCE_METRICS: &str =
    "(node|container)_(cpu_usage_seconds_total|memory_working_set_bytes)|container_start_time_seconds";
/// Where a node says that its page is, as metrics-server has it.
const PAGE_ANNOTATION: &str = "__meta_kubernetes_node_annotation_metrics_k8s_io_resource_metrics_path";
const ANNOTATED_INTERVAL_MS: i64 = 30_000;
const ANNOTATED_TIMEOUT_MS: i64 = 10_000;

/// How kubelets are trusted.
#[derive(Clone, Debug, Default)]
pub(crate) struct KubeletTrust {
    /// PEM file of the authority that signs their certificates; the cluster's own if not set.
    pub(crate) authority: Option<PathBuf>,
    /// Takes any certificate.
    pub(crate) insecure: bool,
}

/// The jobs, for a process that runs in the cluster.
pub(crate) fn jobs(access: &Access, trust: &KubeletTrust) -> Result<Vec<ScrapeJob>, RuleError> {
    let mut jobs = Vec::new();
    for (name, path, interval_ms, timeout_ms) in KUBELET_PAGES {
        jobs.push(kubelet(
            access,
            trust,
            ScrapeJob { metrics_path: path.to_owned(), interval_ms, timeout_ms, ..ScrapeJob::new(name) },
        )?);
    }
    jobs.push(annotated("annotated-pods", access, KubernetesRole::Pod)?);
    jobs.push(annotated("annotated-services", access, KubernetesRole::EndpointSlice)?);
    Ok(jobs)
}

/// Of kubelets' pages only what the Metrics API shows: for a process that has nothing else to do.
pub(crate) fn resource_job(access: &Access, trust: &KubeletTrust) -> Result<ScrapeJob, RuleError> {
    let (name, path, interval_ms, timeout_ms) = KUBELET_PAGES[0];
    let job = ScrapeJob { metrics_path: path.to_owned(), interval_ms, timeout_ms, ..ScrapeJob::new(name) };
    let mut job = kubelet(access, trust, job)?;
    job.metric_relabel = vec![
        rule(Action::Keep, &["__name__"], RESOURCE_METRICS, ("", ""))?,
        // Nodes have names; addresses would only be further texts.
        rule(Action::LabelDrop, &[], "instance|job", ("", ""))?,
    ];
    Ok(job)
}

fn discovery(access: &Access, role: KubernetesRole) -> Vec<Discovery> {
    vec![Discovery::Kubernetes(Box::new(KubernetesDiscovery {
        role,
        access: Ok(access.clone()),
        namespaces: Vec::new(),
        own_namespace: false,
        selectors: Vec::new(),
        attach: Attach::default(),
        http: None,
    }))]
}

/// A rule over labels of targets; what is empty takes its default.
fn rule(
    action: Action,
    sources: &[&str],
    regex: &str,
    (target, replacement): (&str, &str),
) -> Result<Rule, RuleError> {
    let spec = RuleSpec {
        source_labels: sources.iter().map(|&source| source.to_owned()).collect(),
        separator: None,
        regex: (!regex.is_empty()).then(|| regex.to_owned()),
        modulus: 0,
        target_label: target.to_owned(),
        replacement: (!replacement.is_empty()).then(|| replacement.to_owned()),
        action,
    };
    Rule::new(spec, NameScheme::Utf8)
}

fn copy(source: &str, target: &str) -> Result<Rule, RuleError> {
    rule(Action::Replace, &[source], "(.+)", (target, ""))
}

fn kubelet(access: &Access, trust: &KubeletTrust, mut job: ScrapeJob) -> Result<ScrapeJob, RuleError> {
    job.scheme = Scheme::Https;
    job.honor_labels = true;
    job.discoveries = discovery(access, KubernetesRole::Node);
    job.relabel = vec![
        rule(Action::Replace, &[], "", ("job", "kubelet"))?,
        copy("__metrics_path__", "metrics_path")?,
        copy("__meta_kubernetes_node_name", "node")?,
    ];
    if job.metrics_path == KUBELET_PAGES[0].1 {
        // The label names what the page is, wherever it is.
        job.relabel.push(copy(PAGE_ANNOTATION, "__metrics_path__")?);
    }
    job.http.tls.identity = Identity::Node;
    job.http.tls.insecure_skip_verify = trust.insecure;
    job.http.tls.ca = trust.authority.clone().map(Secret::File);
    if let Origin::ServiceAccount { dir } = &access.origin {
        job.http.auth =
            Auth::Authorization { kind: "Bearer".to_owned(), credentials: Secret::File(dir.join("token")) };
        job.http.tls.ca = job.http.tls.ca.or_else(|| Some(Secret::File(dir.join("ca.crt"))));
    }
    Ok(job)
}

/// Targets with annotations `prometheus.io/scrape: "true"` and perhaps `prometheus.io/port`, `path` and `scheme`, on the
/// pod or on the service.
fn annotated(name: &str, access: &Access, role: KubernetesRole) -> Result<ScrapeJob, RuleError> {
    let mut job = ScrapeJob::new(name);
    (job.interval_ms, job.timeout_ms) = (ANNOTATED_INTERVAL_MS, ANNOTATED_TIMEOUT_MS);
    job.discoveries = discovery(access, role);
    let (on, declared) = if role == KubernetesRole::Pod {
        ("pod", "__meta_kubernetes_pod_container_port_number")
    } else {
        ("service", "__meta_kubernetes_endpointslice_port")
    };
    let annotation = |key: &str| format!("__meta_kubernetes_{on}_annotation_prometheus_io_{key}");
    let port = annotation("port");
    job.relabel = vec![
        rule(Action::Keep, &[&annotation("scrape")], "true", ("", ""))?,
        rule(Action::Drop, &["__meta_kubernetes_pod_phase"], "Pending|Succeeded|Failed|Completed", ("", ""))?,
        rule(Action::Drop, &["__meta_kubernetes_pod_container_init"], "true", ("", ""))?,
        // Declared ports, or the one of the annotation, which is the same for all containers.
        rule(Action::Keep, &[declared, &port], r".*\d.*", ("", ""))?,
        rule(
            Action::Replace,
            &["__meta_kubernetes_pod_ip", &port],
            r"([\d.]+);(\d+)",
            ("__address__", "$1:$2"),
        )?,
        rule(
            Action::Replace,
            &["__meta_kubernetes_pod_ip", &port],
            r"([\da-f]*:[\da-f:.]+);(\d+)",
            ("__address__", "[$1]:$2"),
        )?,
        rule(Action::Replace, &[&annotation("scheme")], "(https?)", ("__scheme__", ""))?,
        copy(&annotation("path"), "__metrics_path__")?,
        copy("__meta_kubernetes_namespace", "namespace")?,
        copy("__meta_kubernetes_pod_name", "pod")?,
        copy("__meta_kubernetes_pod_node_name", "node")?,
    ];
    if role == KubernetesRole::EndpointSlice {
        // What is annotated itself is scraped already.
        let own = "__meta_kubernetes_pod_annotation_prometheus_io_scrape";
        job.relabel.push(rule(Action::Drop, &[own], "true", ("", ""))?);
        job.relabel.push(copy("__meta_kubernetes_service_name", "service")?);
    }
    Ok(job)
}

#[cfg(test)]
#[expect(dead_code, reason = "k8s tests more of it")]
#[path = "../k8s/tests/fake/mod.rs"]
mod fake;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::fake::Fake;
    use super::*;

    fn pod(name: &str, ip: &str, annotations: &Value) -> Value {
        json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name, "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "c", "ports": [{"containerPort": 8080}]}, {"name": "side"}]},
            "status": {"phase": "Running", "podIP": ip},
        })
    }

    fn populate(fake: &Fake) {
        fake.world.put(
            "nodes",
            json!({
                "metadata": {"name": "n1"},
                "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                           "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}},
            }),
        );
        let all = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "9102", "prometheus.io/path": "/m",
                         "prometheus.io/scheme": "https"});
        fake.world.put("pods", pod("declared", "127.0.0.2", &json!({"prometheus.io/scrape": "true"})));
        fake.world.put("pods", pod("annotated", "127.0.0.3", &all));
        fake.world.put(
            "pods",
            pod("v6", "fd00::7", &json!({"prometheus.io/scrape": "true", "prometheus.io/port": "1"})),
        );
        fake.world.put("pods", pod("other", "127.0.0.4", &json!({})));
        fake.world.put("pods", pod("behind", "127.0.0.5", &json!({})));
        fake.world.put(
            "services",
            json!({
                "metadata": {"namespace": "ns", "name": "s", "annotations": {"prometheus.io/scrape": "true"}},
                "spec": {"ports": [{"port": 80}]},
            }),
        );
        let endpoint = |ip: &str, pod: &str| json!({"addresses": [ip], "targetRef": {"kind": "Pod", "name": pod, "namespace": "ns"}});
        fake.world.put(
            "endpointslices",
            json!({
                "metadata": {"namespace": "ns", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
                "addressType": "IPv4",
                "endpoints": [endpoint("127.0.0.5", "behind"), endpoint("127.0.0.2", "declared")],
                "ports": [{"name": "http", "port": 8443}],
            }),
        );
    }

    #[tokio::test]
    async fn kubelets_and_what_is_annotated_are_scraped() {
        let fake = Fake::start().await;
        populate(&fake);
        let access = Access { origin: Origin::Given, server: fake.server() };
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(tsdb::Db::open(dir.path(), tsdb::Options::default()).unwrap());
        let config = scraper::Config {
            jobs: jobs(&access, &KubeletTrust::default()).unwrap(),
            ..scraper::Config::new(Arc::new(crate::wire::now))
        };
        let handle = scraper::start(config, db, scraper::Shutdown::new()).unwrap();
        let expected = BTreeSet::from([
            r#"https://127.0.0.1:1/metrics/cadvisor {instance="n1", job="kubelet", metrics_path="/metrics/cadvisor", node="n1"}"#,
            r#"https://127.0.0.1:1/metrics/probes {instance="n1", job="kubelet", metrics_path="/metrics/probes", node="n1"}"#,
            r#"https://127.0.0.1:1/metrics/resource {instance="n1", job="kubelet", metrics_path="/metrics/resource", node="n1"}"#,
            r#"http://127.0.0.2:8080/metrics {instance="127.0.0.2:8080", job="annotated-pods", namespace="ns", node="n1", pod="declared"}"#,
            r#"https://127.0.0.3:9102/m {instance="127.0.0.3:9102", job="annotated-pods", namespace="ns", node="n1", pod="annotated"}"#,
            r#"http://[fd00::7]:1/metrics {instance="[fd00::7]:1", job="annotated-pods", namespace="ns", node="n1", pod="v6"}"#,
            r#"http://127.0.0.5:8443/metrics {instance="127.0.0.5:8443", job="annotated-services", namespace="ns", node="n1", pod="behind", service="s"}"#,
        ].map(str::to_owned));
        let mut found = BTreeSet::new();
        for _ in 0..1_000 {
            let targets = handle.targets().active;
            found = targets.iter().map(|target| format!("{} {}", target.url, target.labels)).collect();
            if found == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(found, expected);
        handle.stop().await;
    }

    #[test]
    fn kubelets_get_the_service_account_s_token() {
        let access =
            Access { origin: Origin::ServiceAccount { dir: "/sa".into() }, server: "https://x".into() };
        let job = &jobs(&access, &KubeletTrust::default()).unwrap()[0];
        let token = Secret::File("/sa/token".into());
        assert_eq!(job.http.auth, Auth::Authorization { kind: "Bearer".into(), credentials: token });
        assert_eq!(job.http.tls.ca, Some(Secret::File("/sa/ca.crt".into())));
        let trust = KubeletTrust { authority: Some("/ca".into()), insecure: true };
        let job = &jobs(&access, &trust).unwrap()[0];
        assert_eq!(job.http.tls.ca, Some(Secret::File("/ca".into())));
        assert!(job.http.tls.insecure_skip_verify);
    }
}
