//! The agent against trees that look like hosts.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::{Agent, Options};

const BOOT_S: i64 = 1_700_000_000;

struct Host {
    dir: tempfile::TempDir,
    now: Arc<AtomicI64>,
    agent: Agent,
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A process with `user` and `system` ticks of its own and `reaped` user ticks of ended children.
fn process(root: &Path, pid: u32, command: &str, ticks: [u64; 3], cgroup: &str) {
    let [user, system, reaped] = ticks;
    let stat = format!(
        "{pid} ({command}) S 1 {pid} {pid} 0 -1 4194560 50 0 2 0 {user} {system} {reaped} 0 20 0 3 0 {} 0 0",
        pid * 100
    );
    write(root, &format!("proc/{pid}/stat"), &stat);
    write(root, &format!("proc/{pid}/cgroup"), cgroup);
    write(root, &format!("proc/{pid}/status"), "VmRSS:\t    2048 kB\nRssAnon:\t 1024 kB\nVmSwap:\t 4 kB\n");
}

fn cgroup(root: &Path, path: &str, usec: u64, current: u64, inactive: u64) {
    let dir = format!("sys/fs/cgroup/{path}");
    write(
        root,
        &format!("{dir}/cpu.stat"),
        &format!(
            "usage_usec {usec}\nuser_usec {usec}\nsystem_usec 0\nnr_periods 4\nnr_throttled 1\nthrottled_usec 2\n"
        ),
    );
    write(root, &format!("{dir}/memory.current"), &format!("{current}\n"));
    write(
        root,
        &format!("{dir}/memory.stat"),
        &format!("anon 100\nfile 200\ninactive_file {inactive}\nactive_file 5\n"),
    );
    write(root, &format!("{dir}/memory.swap.max"), "max\n");
    write(root, &format!("{dir}/cpu.max"), "200000 100000\n");
    write(root, &format!("{dir}/io.stat"), "254:0 rbytes=512 wbytes=1024 rios=1 wios=2\n");
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(
            root,
            "proc/stat",
            &format!("cpu  100 10 50 9999 7 1 2 3 0 0\ncpu0 1 2\ncpu1 1 2\nbtime {BOOT_S}\n"),
        );
        write(
            root,
            "proc/meminfo",
            "MemTotal: 1000 kB\nMemFree: 300 kB\nInactive(file): 100 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n",
        );
        write(
            root,
            "proc/cpuinfo",
            "processor: 0\nphysical id: 0\ncore id: 0\nprocessor: 1\nphysical id: 0\ncore id: 1\n",
        );
        write(
            root,
            "proc/net/dev",
            "h\nh\n  lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth0: 10 2 0 1 0 0 0 0 30 4 0 0 0 0 0 0\n",
        );
        write(root, "proc/diskstats", "254 0 vda 5 0 8 0 7 0 16 0 0 0 0\n7 0 loop0 1 0 1 0 1 0 1 0 0 0 0\n");
        process(root, 2, "kthreadd", [9, 9, 9], "0::/\n");
        let now = Arc::new(AtomicI64::new(BOOT_S * 1_000 + 60_000));
        let clock = Arc::clone(&now);
        let options = Options {
            node_name: "host-1".to_owned(),
            root: root.to_owned(),
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        };
        let agent = Agent::new(options).unwrap();
        Self { dir, now, agent }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn pass(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let response = self.agent.router().oneshot(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        })
    }

    /// The line of a page that starts with `series`, without it.
    fn value(&self, path: &str, series: &str) -> String {
        let (_, page) = self.get(path);
        let line = page.lines().find(|line| line.starts_with(series) && !line.starts_with('#'));
        line.map_or_else(String::new, |line| line[series.len()..].trim().to_owned())
    }
}

#[test]
fn machine_is_what_proc_says() {
    let host = Host::new();
    let machine = host.agent.machine();
    assert!((machine.cpus - 2.0).abs() < 1e-9);
    assert_eq!((machine.physical_cores, machine.sockets), (2, 1));
    assert_eq!((machine.memory_bytes, machine.swap_bytes), (1_024_000, 51_200));
    assert_eq!(machine.boot_time_ms, BOOT_S * 1_000);
}

#[test]
fn a_resource_page_of_cgroups_has_the_kubelet_s_form() {
    let host = Host::new();
    write(host.root(), "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    process(host.root(), 30, "nginx", [1, 1, 0], "0::/system.slice/nginx.service\n");
    cgroup(host.root(), "system.slice/nginx.service", 1_500_000, 8_000, 3_000);
    let ts = BOOT_S * 1_000 + 60_000;
    let labels = "container=\"nginx\",namespace=\"system\",pod=\"nginx\"";
    let (status, page) = host.get("/metrics/resource");
    assert_eq!(status, StatusCode::OK);
    let expected = format!(
        "# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{{{labels}}} 1.5 {ts}
# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes
# TYPE container_memory_working_set_bytes gauge
container_memory_working_set_bytes{{{labels}}} 5000 {ts}
# HELP container_start_time_seconds [STABLE] Start time of the container since unix epoch in seconds
# TYPE container_start_time_seconds gauge
container_start_time_seconds{{{labels}}} 1.70000003e+09
# HELP container_swap_usage_bytes [ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems
# TYPE container_swap_usage_bytes gauge
container_swap_usage_bytes{{{labels}}} 0 {ts}
# HELP node_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the node in core-seconds
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total 1.63 {ts}
# HELP node_memory_working_set_bytes [STABLE] Current working set of the node in bytes
# TYPE node_memory_working_set_bytes gauge
node_memory_working_set_bytes 614400 {ts}
# HELP node_swap_usage_bytes [ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems
# TYPE node_swap_usage_bytes gauge
node_swap_usage_bytes 30720 {ts}
# HELP pod_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the pod in core-seconds
# TYPE pod_cpu_usage_seconds_total counter
pod_cpu_usage_seconds_total{{namespace=\"system\",pod=\"nginx\"}} 1.5 {ts}
# HELP pod_memory_working_set_bytes [STABLE] Current working set of the pod in bytes
# TYPE pod_memory_working_set_bytes gauge
pod_memory_working_set_bytes{{namespace=\"system\",pod=\"nginx\"}} 5000 {ts}
# HELP pod_swap_usage_bytes [ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems
# TYPE pod_swap_usage_bytes gauge
pod_swap_usage_bytes{{namespace=\"system\",pod=\"nginx\"}} 0 {ts}
# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise
# TYPE resource_scrape_error gauge
resource_scrape_error 0
# HELP scrape_error [ALPHA] 1 if there was an error while getting container metrics, 0 otherwise
# TYPE scrape_error gauge
scrape_error 0
"
    );
    assert_eq!(page, expected);
}

#[test]
fn processes_without_cgroups_are_grouped_by_command() {
    let host = Host::new();
    process(host.root(), 40, "cc", [100, 0, 0], "4:memory:/x\n0::/\n");
    process(host.root(), 41, "cc", [20, 30, 0], "4:memory:/x\n0::/\n");
    let series = "container_cpu_usage_seconds_total{container=\"cc\",namespace=\"host\",pod=\"cc\"}";
    let first = format!("1.5 {}", BOOT_S * 1_000 + 60_000);
    assert_eq!(host.value("/metrics/resource", series), first);
    assert_eq!(
        host.value(
            "/metrics/resource",
            "container_start_time_seconds{container=\"cc\",namespace=\"host\",pod=\"cc\"}"
        ),
        "1.70000004e+09"
    );
    assert!(
        host.value("/metrics/resource", "container_memory_working_set_bytes{container=\"cc\"")
            .contains(" 3.145728e+06 ")
    );
    // One ends: the counter stays, and within a second the page does too.
    fs::remove_dir_all(host.root().join("proc/40")).unwrap();
    process(host.root(), 41, "cc", [25, 30, 0], "0::/\n");
    host.pass(999);
    assert_eq!(host.value("/metrics/resource", series), first);
    host.pass(1);
    assert_eq!(host.value("/metrics/resource", series), format!("1.55 {}", BOOT_S * 1_000 + 61_000));
}

#[test]
fn a_cgroup_keeps_its_start_when_its_first_process_ends() {
    let host = Host::new();
    write(host.root(), "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    let path = "0::/system.slice/a.service\n";
    process(host.root(), 30, "a", [1, 1, 0], path);
    process(host.root(), 31, "a", [1, 1, 0], path);
    cgroup(host.root(), "system.slice/a.service", 10, 10, 0);
    assert_eq!(host.agent.pods()[0].start_time_ms, BOOT_S * 1_000 + 30_000);
    fs::remove_dir_all(host.root().join("proc/30")).unwrap();
    host.pass(2_000);
    let pods = host.agent.pods();
    assert_eq!(pods[0].start_time_ms, BOOT_S * 1_000 + 30_000);
    assert_eq!((pods[0].namespace.as_str(), pods[0].name.as_str()), ("system", "a"));
    assert_eq!(pods[0].labels["app.kubernetes.io/name"], "a");
    assert_eq!(pods[0].uid.len(), 36);
}

#[test]
fn a_cadvisor_page_has_node_machine_and_containers() {
    let host = Host::new();
    write(host.root(), "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    process(host.root(), 30, "nginx", [1, 1, 0], "0::/system.slice/nginx.service\n");
    cgroup(host.root(), "system.slice/nginx.service", 1_500_000, 8_000, 3_000);
    let ts = BOOT_S * 1_000 + 60_000;
    let (_, page) = host.get("/metrics/cadvisor");
    let row = "id=\"/system.slice/nginx.service\",image=\"\",name=\"\",namespace=\"system\",pod=\"nginx\"";
    for line in [
        format!("container_cpu_usage_seconds_total{{container=\"nginx\",cpu=\"total\",{row}}} 1.5 {ts}"),
        format!("container_memory_usage_bytes{{container=\"nginx\",{row}}} 8000 {ts}"),
        format!("container_cpu_cfs_periods_total{{container=\"nginx\",{row}}} 4 {ts}"),
        format!("container_spec_cpu_quota{{container=\"nginx\",{row}}} 200000"),
        format!("container_threads{{container=\"nginx\",{row}}} 3 {ts}"),
        format!("container_fs_reads_bytes_total{{container=\"nginx\",device=\"/dev/vda\",{row}}} 512 {ts}"),
        format!(
            "container_network_receive_bytes_total{{container=\"\",id=\"/\",image=\"\",interface=\"eth0\",name=\"\",namespace=\"\",pod=\"\"}} 10 {ts}"
        ),
        "machine_cpu_cores{boot_id=\"\",machine_id=\"\",system_uuid=\"\"} 2".to_owned(),
        "machine_memory_bytes{boot_id=\"\",machine_id=\"\",system_uuid=\"\"} 1.024e+06".to_owned(),
    ] {
        assert!(page.lines().any(|have| have == line), "{line}\nnot in\n{page}");
    }
    assert!(!page.contains("container_pressure_"));
}

#[test]
fn the_summary_has_rates_from_the_second_look_on() {
    let host = Host::new();
    process(host.root(), 40, "cc", [100, 0, 0], "0::/\n");
    host.get("/stats/summary");
    process(host.root(), 40, "cc", [150, 0, 0], "0::/\n");
    host.pass(2_000);
    let (_, text) = host.get("/stats/summary");
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["node"]["nodeName"], "host-1");
    let container = &summary["pods"][0]["containers"][0];
    assert_eq!(container["cpu"]["usageCoreNanoSeconds"], 1_500_000_000_u64);
    assert_eq!(container["cpu"]["usageNanoCores"], 250_000_000);
    assert_eq!(container["memory"]["workingSetBytes"], 2_097_152);
    assert!(container.get("swap").is_some());
    let (_, text) = host.get("/stats/summary?only_cpu_and_memory=true");
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(summary["pods"][0]["containers"][0].get("swap").is_none());
}

#[test]
fn a_host_that_cannot_be_read_answers_with_the_error_metric() {
    let host = Host::new();
    fs::remove_file(host.root().join("proc/stat")).unwrap();
    let (status, page) = host.get("/metrics/resource");
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("\nresource_scrape_error 1\n") && !page.contains("node_cpu"));
    assert_eq!(host.get("/metrics/cadvisor").0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(host.get("/healthz"), (StatusCode::OK, "ok".to_owned()));
}

#[cfg(target_os = "linux")]
#[test]
fn this_host_can_be_read() {
    let options =
        Options { node_name: "here".to_owned(), root: "/".into(), clock: Arc::new(|| 1_800_000_000_000) };
    let agent = Agent::new(options).unwrap();
    assert!(agent.machine().cpus >= 1.0 && agent.machine().memory_bytes > 0);
    assert!(!agent.pods().is_empty());
}
