//! `/metrics/resource`: what the Metrics API needs.

use crate::cgroup::Usage;
use crate::page::{Page, number, seconds};
use crate::sample::{ContainerUse, PodUse, Sample};

/// The page of a sample.
pub(crate) fn render(sample: &Sample) -> String {
    let mut page = Page::default();
    let ts = Some(sample.at_ms);
    container_families(&mut page, sample);
    page.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    page.sample(&[], seconds(sample.node.cpu_ns), ts);
    page.family(
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
    );
    page.sample(&[], number(sample.node.memory.working_set), ts);
    page.family(
        "node_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems",
    );
    page.sample(&[], number(sample.node.memory.swap), ts);
    pod_families(&mut page, sample);
    errors(&mut page, 0.0);
    page.finish()
}

/// The page where the host could not be read.
pub(crate) fn render_error() -> String {
    let mut page = Page::default();
    errors(&mut page, 1.0);
    page.finish()
}

fn errors(page: &mut Page, value: f64) {
    const HELP: &str = "1 if there was an error while getting container metrics, 0 otherwise";
    page.family("resource_scrape_error", "gauge", &format!("[STABLE] {HELP}"));
    page.sample(&[], value, None);
    page.family("scrape_error", "gauge", &format!("[ALPHA] {HELP}"));
    page.sample(&[], value, None);
}

fn containers(page: &mut Page, sample: &Sample, ts: Option<i64>, of: impl Fn(&ContainerUse) -> Option<f64>) {
    for pod in &sample.pods {
        for container in &pod.containers {
            if let Some(value) = of(container) {
                let labels = [
                    ("container", container.name.as_str()),
                    ("namespace", pod.namespace.as_str()),
                    ("pod", pod.name.as_str()),
                ];
                page.sample(&labels, value, ts);
            }
        }
    }
}

fn container_families(page: &mut Page, sample: &Sample) {
    let ts = Some(sample.at_ms);
    page.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    containers(page, sample, ts, |container| Some(seconds(container.usage.cpu_ns)));
    page.family(
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
    );
    containers(page, sample, ts, |container| Some(number(container.usage.memory.working_set)));
    page.family(
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
    );
    containers(page, sample, None, |container| start_seconds(container.start_ms));
    page.family(
        "container_swap_limit_bytes",
        "gauge",
        "[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems",
    );
    containers(page, sample, ts, |container| container.usage.memory.swap_limit.map(number));
    page.family(
        "container_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
    );
    containers(page, sample, ts, |container| Some(number(container.usage.memory.swap)));
}

fn pod_families(page: &mut Page, sample: &Sample) {
    let pods = |page: &mut Page, of: &dyn Fn(&PodUse) -> f64| {
        for pod in &sample.pods {
            let labels = [("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str())];
            page.sample(&labels, of(pod), Some(sample.at_ms));
        }
    };
    let total = |of: fn(&Usage) -> u64| move |pod: &PodUse| pod.total(of);
    page.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
    );
    pods(page, &|pod| seconds(total(|usage| usage.cpu_ns)(pod)));
    page.family("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes");
    pods(page, &|pod| number(total(|usage| usage.memory.working_set)(pod)));
    page.family(
        "pod_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
    );
    pods(page, &|pod| number(total(|usage| usage.memory.swap)(pod)));
}

/// Seconds since the epoch; `None` where the start is not known.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of any date fit a float")]
pub(crate) fn start_seconds(start_ms: i64) -> Option<f64> {
    (start_ms > 0).then(|| start_ms as f64 / 1_000.0)
}
