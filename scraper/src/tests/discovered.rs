//! Targets that are discovered, come and go.

use super::*;
use crate::config::{Discovery, FileDiscovery, KubernetesDiscovery, KubernetesRole};
use crate::fake::Fake;
use crate::relabel::{Action, Rule, RuleSpec};

fn of_pods(fake: &Fake, name: &str) -> ScrapeJob {
    let mut job = job(name, &[]);
    job.targets.clear();
    job.discoveries = vec![Discovery::Kubernetes(Box::new(KubernetesDiscovery {
        role: KubernetesRole::Pod,
        access: Ok(k8s::Access { origin: k8s::Origin::Given, server: fake.server() }),
        namespaces: Vec::new(),
        own_namespace: false,
        selectors: Vec::new(),
        attach: Default::default(),
        http: None,
    }))];
    // The side car declares no port.
    job.relabel = vec![rule(Action::Keep, "__meta_kubernetes_pod_container_name", "c")];
    job
}

fn rule(action: Action, source: &str, regex: &str) -> Rule {
    let spec = RuleSpec {
        action,
        source_labels: vec![source.into()],
        regex: Some(regex.into()),
        ..RuleSpec::default()
    };
    Rule::new(spec, config::NameScheme::Utf8).unwrap()
}

fn pod(exporter: &Exporter, name: &str) -> serde_json::Value {
    let (ip, port) = exporter.address.rsplit_once(':').unwrap();
    crate::discovery::tests::pod(name, ip, port.parse().unwrap())
}

/// A kubelet's page speaks of pods: the series of one that is gone end before the next page, though it may go on to
/// show them, and others do not.
#[tokio::test]
async fn series_of_a_pod_in_a_kubelet_s_page_end_with_it() {
    let line = |pod: &str| format!("c{{namespace=\"ns\",pod=\"{pod}\",container=\"a\"}} 1\n");
    // As cAdvisor's samples are, with the time of the measurement.
    let timed = format!("t{{namespace=\"ns\",pod=\"p0\"}} 7 {}\n", clock()() - 500);
    let kubelet = Exporter::start(&format!("{}{}{timed}node 1\n", line("p0"), line("p1"))).await;
    let (fake, exporter) = (Fake::start().await, Exporter::start("a 1\n").await);
    let put = |name: &str| fake.world.put("pods", pod(&exporter, name));
    put("p0");
    put("p1");
    let (ip, port) = kubelet.address.rsplit_once(':').unwrap();
    fake.world.put(
        "nodes",
        serde_json::json!({
            "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}],
                       "daemonEndpoints": {"kubeletEndpoint": {"Port": port.parse::<u16>().unwrap()}}},
        }),
    );
    let pods = of_pods(&fake, "pods");
    let mut nodes = of_pods(&fake, "nodes");
    let Discovery::Kubernetes(discovery) = &mut nodes.discoveries[0] else { unreachable!() };
    discovery.role = KubernetesRole::Node;
    nodes.relabel.clear();
    nodes.honor_labels = true;
    (nodes.interval_ms, nodes.timeout_ms) = (2_000, 1_000);
    let bench = Bench::start(vec![nodes, pods]);
    let of = |bench: &Bench, name: &str, pod: &str| -> Vec<Option<f64>> {
        let found =
            bench.read(name).into_iter().find(|(labels, _)| labels.contains(&format!("pod=\"{pod}\"")));
        let samples = found.map(|(_, samples)| samples).unwrap_or_default();
        samples.into_iter().map(|(_, value)| Some(value).filter(|value| !value.is_nan())).collect()
    };
    bench
        .until("samples of both", |bench| {
            !of(bench, "c", "p0").is_empty() && !of(bench, "c", "p1").is_empty()
        })
        .await;
    bench.until("the pods' own", |bench| bench.handle.targets().active.len() == 2).await;
    fake.world.delete("pods", "ns/p0");
    // The page has p0 still, so that no scrape can have marked it.
    bench.until("a marker", |bench| of(bench, "c", "p0").contains(&None)).await;
    assert_eq!(of(&bench, "t", "p0").last(), Some(&None));
    assert!(!of(&bench, "c", "p1").contains(&None));
    assert!(!bench.values("node").contains(&None));
    // One that comes again with the same name goes on with the same series.
    put("p0");
    bench.until("it to be back", |bench| of(bench, "c", "p0").last() == Some(&Some(1.0))).await;
    let seen = of(&bench, "c", "p0");
    assert_eq!(seen.iter().filter(|value| value.is_none()).count(), 1, "{seen:?}");
    // What was measured before the end does not come after it.
    assert_eq!(of(&bench, "t", "p0"), [Some(7.0), None]);
    // And it ends like any other once the page does not show it.
    kubelet.set(&format!("{}node 1\n", line("p1")));
    bench.until("its end", |bench| of(bench, "c", "p0").iter().filter(|it| it.is_none()).count() == 2).await;
}

#[tokio::test]
async fn a_pod_s_series_end_with_it() {
    let (fake, exporter) = (Fake::start().await, Exporter::start("a 1\n").await);
    fake.world.put("pods", pod(&exporter, "p0"));
    let mut job = of_pods(&fake, "pods");
    // Two intervals would be beyond the patience of this test: it is the API server that ends the series.
    (job.interval_ms, job.timeout_ms) = (20_000, 1_000);
    let bench = Bench::start(vec![job]);
    bench.until("a sample", |bench| bench.values("a") == [Some(1.0)]).await;
    let targets = bench.handle.targets();
    assert_eq!(targets.active[0].discovered_labels.get("__meta_kubernetes_pod_name"), Some("p0"));
    assert_eq!(targets.dropped.len(), 1);
    assert_eq!(targets.dropped_counts, [("pods".to_owned(), 1)]);
    fake.world.delete("pods", "ns/p0");
    bench.until("a marker", |bench| bench.values("a") == [Some(1.0), None]).await;
    assert_eq!(bench.values("up").last(), Some(&None));
    assert!(bench.handle.targets().active.is_empty());
}

#[tokio::test]
async fn a_reload_keeps_discovered_targets() {
    let (fake, exporter) = (Fake::start().await, Exporter::start("a 1\n").await);
    fake.world.put("pods", pod(&exporter, "p0"));
    let bench = Bench::start(vec![of_pods(&fake, "pods")]);
    bench.until("a sample", |bench| !bench.values("a").is_empty()).await;
    let mut changed = of_pods(&fake, "pods");
    changed.honor_labels = true;
    bench.handle.reload(config(vec![changed.clone()])).unwrap();
    // At once, with the connection it had, and without a second listing.
    assert_eq!(bench.handle.targets().active.len(), 1);
    bench.until_scraped(2).await;
    assert_eq!(exporter.connections.load(Ordering::Relaxed), 1);
    let lists = fake.world.requests().iter().filter(|request| request.contains("limit=")).count();
    assert_eq!(lists, 1);
    // Another relabelling drops it.
    changed.relabel = vec![rule(Action::Drop, "__meta_kubernetes_pod_name", "p0")];
    bench.handle.reload(config(vec![changed])).unwrap();
    assert!(bench.handle.targets().active.is_empty());
    fake.world.put("pods", pod(&exporter, "p1"));
    bench.until("the new pod", |bench| bench.handle.targets().active.len() == 2).await;
}

#[tokio::test]
async fn a_target_that_two_sources_name_is_scraped_once() {
    let exporter = Exporter::start("a 1\n").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.json");
    let write = |text: String| std::fs::write(&file, text).unwrap();
    let address = &exporter.address;
    write(format!(r#"[{{"targets": ["{address}"]}}, {{"targets": ["{address}"]}}]"#));
    let mut job = job("j", &[]);
    job.limits.targets_max = 1;
    job.discoveries = vec![Discovery::File(FileDiscovery { files: vec![file.clone()], refresh_ms: 50 })];
    let bench = Bench::start(vec![job]);
    bench.until("a sample", |bench| !bench.values("a").is_empty()).await;
    assert_eq!(bench.handle.targets().active.len(), 1);
    write(format!(r#"[{{"targets": ["{address}"]}}]"#));
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    bench.until_scraped(2).await;
    assert_eq!(bench.values("a").last(), Some(&Some(1.0)));
    // One more is too many: none is scraped any more.
    write(format!(r#"[{{"targets": ["{address}", "127.0.0.1:1"]}}]"#));
    bench
        .until("the limit", |bench| {
            let targets = bench.handle.targets().active;
            targets.len() == 2
                && targets.iter().all(|target| {
                    target.last_error.as_ref().is_some_and(|error| error.contains("target_limit exceeded"))
                })
        })
        .await;
}
