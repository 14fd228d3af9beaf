//! The series of a cluster's pods, as remote-write requests: what dashboards ask for.
//!
//! A pod has 100 series of twelve labels: its containers' counters and gauges, what the cluster says of it,
//! requests by code and method, latencies as a classic histogram (5 handlers x 10 buckets), and 27 more.

use crate::load::{Generated, push_bytes, requests};

/// Upper bounds of the latency buckets.
const BOUNDS: [&str; 10] = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "5", "+Inf"];
const HANDLERS: [&str; 5] = ["/", "/api", "/login", "/search", "/static"];

/// How a value moves.
#[derive(Clone, Copy)]
enum Kind {
    /// Around a level.
    Gauge,
    /// By whole steps, this many at most.
    Counter(f64),
    /// Not at all.
    Constant,
}

/// One series: its encoded labels and where its value stands.
struct Series {
    labels: Vec<u8>,
    value: f64,
    kind: Kind,
}

/// All series of some pods.
pub struct Pods {
    series: Vec<Series>,
    random: u64,
}

impl Pods {
    /// 100 series for each of `count` pods.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut series = Vec::with_capacity(count * 100);
        for pod in 0..count {
            pod_series(pod, &mut series);
        }
        Self { series, random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// The CPU counter of each of `count` pods, and nothing else.
    #[must_use]
    pub fn cpu_only(count: usize) -> Self {
        let series = (0..count).map(|pod| Series::new(pod, CPU, Kind::Counter(30.0), &[])).collect();
        Self { series, random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// The number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The bodies of the requests that carry one sample of every series at `ts`.
    pub fn requests(&mut self, ts: i64) -> impl Iterator<Item = Vec<u8>> + '_ {
        requests(&mut self.series, &mut self.random, ts)
    }
}

const CPU: &str = "container_cpu_usage_seconds_total";

fn pod_series(pod: usize, out: &mut Vec<Series>) {
    let mut add = |name: &str, kind, extra: &[(&str, &str)]| out.push(Series::new(pod, name, kind, extra));
    add(CPU, Kind::Counter(30.0), &[]);
    add("container_memory_working_set_bytes", Kind::Gauge, &[]);
    add("container_network_receive_bytes_total", Kind::Counter(1e6), &[]);
    add("container_network_transmit_bytes_total", Kind::Counter(1e5), &[]);
    add("kube_pod_info", Kind::Constant, &[("uid", "4b1f")]);
    add("kube_pod_container_resource_requests", Kind::Constant, &[("resource", "cpu")]);
    add("kube_pod_container_resource_requests", Kind::Constant, &[("resource", "memory")]);
    for code in ["200", "404", "500"] {
        for method in ["GET", "POST"] {
            add("http_requests_total", Kind::Counter(100.0), &[("code", code), ("method", method)]);
        }
    }
    for handler in HANDLERS {
        let handler = ("handler", handler);
        for le in BOUNDS {
            add("http_request_duration_seconds_bucket", Kind::Counter(20.0), &[handler, ("le", le)]);
        }
        add("http_request_duration_seconds_sum", Kind::Counter(7.0), &[handler]);
        add("http_request_duration_seconds_count", Kind::Counter(20.0), &[handler]);
    }
    for at in 0..27 {
        let kind = if at % 2 == 0 { Kind::Gauge } else { Kind::Counter(10.0) };
        add(&format!("app_metric_{at}"), kind, &[]);
    }
}

impl Series {
    fn new(pod: usize, name: &str, kind: Kind, extra: &[(&str, &str)]) -> Self {
        let mut text = vec![
            ("__name__", name.to_owned()),
            ("app", format!("app-{}", pod % 97)),
            ("cluster", "production-1".to_owned()),
            ("container", "main".to_owned()),
            ("image", format!("registry.example/app-{}:v1.{}", pod % 97, pod % 7)),
            ("instance", format!("10.{}.{}.{}:10250", pod / 65_536, pod / 256 % 256, pod % 256)),
            ("job", "kubelet".to_owned()),
            ("namespace", format!("namespace-{}", pod % 31)),
            ("node", format!("node-{}", pod / 70)),
            ("pod", format!("app-{}-{:08x}", pod % 97, pod * 2_654_435_761 % 0xffff_ffff)),
        ];
        for at in 0..2 {
            let fallback = [("endpoint", "https-metrics"), ("service", "metrics")][at];
            let (name, value) = extra.get(at).unwrap_or(&fallback);
            text.push((*name, (*value).to_owned()));
        }
        text.sort();
        let mut labels = Vec::with_capacity(300);
        for (name, value) in &text {
            let mut label = Vec::with_capacity(64);
            push_bytes(&mut label, 1, name.as_bytes());
            push_bytes(&mut label, 2, value.as_bytes());
            push_bytes(&mut labels, 1, &label);
        }
        let value = if matches!(kind, Kind::Constant) { 1.0 } else { (pod % 1000) as f64 };
        Self { labels, value, kind }
    }
}

impl Generated for Series {
    fn labels(&self) -> &[u8] {
        &self.labels
    }

    fn next(&mut self, random: u64) -> f64 {
        let noise = (random >> 40) as f64 / f64::from(1 << 24);
        match self.kind {
            Kind::Gauge => self.value = (self.value * 0.9 + noise * 100.0).round(),
            Kind::Counter(step) => self.value += (noise * step).floor(),
            Kind::Constant => {}
        }
        self.value
    }
}
