//! `/metrics/cadvisor`: the names and labels of cAdvisor.
//!
//! The node is the container with the id `/`; a family whose value the kernel does not tell for a
//! container has no sample for it.

use crate::Machine;
use crate::cgroup::{Memory, Pressure, Usage};
use crate::page::{Page, number, seconds};
use crate::resource::start_seconds;
use crate::sample::{NodeUse, Sample};

/// The labels that every container series has, and what it uses.
struct Row<'a> {
    container: &'a str,
    id: &'a str,
    namespace: &'a str,
    pod: &'a str,
    usage: &'a Usage,
    start_ms: i64,
    processes: u64,
    threads: u64,
}

struct Writer<'a> {
    page: Page,
    rows: Vec<Row<'a>>,
    ts: i64,
}

/// The page of a sample.
pub(crate) fn render(sample: &Sample, machine: &Machine) -> String {
    let node = node_usage(&sample.node);
    let mut rows = vec![Row {
        container: "",
        id: "/",
        namespace: "",
        pod: "",
        usage: &node,
        start_ms: machine.boot_time_ms,
        processes: sample.node.processes,
        threads: sample.node.threads,
    }];
    for pod in &sample.pods {
        rows.extend(pod.containers.iter().map(|container| Row {
            container: &container.name,
            id: &container.id,
            namespace: &pod.namespace,
            pod: &pod.name,
            usage: &container.usage,
            start_ms: container.start_ms,
            processes: container.processes,
            threads: container.threads,
        }));
    }
    let mut writer = Writer { page: Page::default(), rows, ts: sample.at_ms };
    writer.page.family(
        "cadvisor_version_info",
        "gauge",
        "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.",
    );
    let version = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", machine.kernel.as_str()),
        ("osVersion", machine.os_image.as_str()),
    ];
    writer.page.sample(&version, 1.0, None);
    writer.cpu();
    writer.disk(sample);
    writer.memory();
    writer.network(&sample.node);
    writer.pressure();
    writer.rest();
    machine_families(&mut writer.page, machine);
    writer.page.finish()
}

fn node_usage(node: &NodeUse) -> Usage {
    Usage {
        cpu_ns: node.cpu_ns,
        cpu_user_ns: node.cpu_user_ns,
        cpu_system_ns: node.cpu_system_ns,
        memory: node.memory,
        pressure: node.pressure,
        ..Usage::default()
    }
}

/// The common labels with one more, `extra`, in ascending order of names.
fn labels<'a>(row: &Row<'a>, extra: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut labels = vec![
        ("container", row.container),
        ("id", row.id),
        ("image", ""),
        ("name", ""),
        ("namespace", row.namespace),
        ("pod", row.pod),
    ];
    labels.extend_from_slice(extra);
    labels.sort_unstable();
    labels
}

impl Writer<'_> {
    /// A family with one sample a container, where there is a value.
    fn family(&mut self, head: [&'static str; 3], of: impl Fn(&Row<'_>) -> Option<f64>) {
        self.labelled(head, &[], of);
    }

    fn labelled(
        &mut self,
        [name, kind, help]: [&'static str; 3],
        extra: &[(&str, &str)],
        of: impl Fn(&Row<'_>) -> Option<f64>,
    ) {
        self.page.family(name, kind, help);
        for row in &self.rows {
            if let Some(value) = of(row) {
                self.page.sample(&labels(row, extra), value, Some(self.ts));
            }
        }
    }

    fn cpu(&mut self) {
        const COUNTER: &str = "counter";
        let throttle = |row: &Row<'_>| row.usage.cpu_quota.and(row.usage.throttle);
        self.family(
            ["container_cpu_cfs_periods_total", COUNTER, "Number of elapsed enforcement period intervals."],
            |row| throttle(row).map(|throttle| number(throttle.periods)),
        );
        self.family(
            ["container_cpu_cfs_throttled_periods_total", COUNTER, "Number of throttled period intervals."],
            |row| throttle(row).map(|throttle| number(throttle.throttled_periods)),
        );
        self.family(
            [
                "container_cpu_cfs_throttled_seconds_total",
                COUNTER,
                "Total time duration the container has been throttled.",
            ],
            |row| throttle(row).map(|throttle| seconds(throttle.throttled_ns)),
        );
        self.family(
            [
                "container_cpu_system_seconds_total",
                COUNTER,
                "Cumulative system cpu time consumed in seconds.",
            ],
            |row| Some(seconds(row.usage.cpu_system_ns)),
        );
        self.labelled(
            ["container_cpu_usage_seconds_total", COUNTER, "Cumulative cpu time consumed in seconds."],
            &[("cpu", "total")],
            |row| Some(seconds(row.usage.cpu_ns)),
        );
        self.family(
            ["container_cpu_user_seconds_total", COUNTER, "Cumulative user cpu time consumed in seconds."],
            |row| Some(seconds(row.usage.cpu_user_ns)),
        );
    }

    /// The node's devices by name, a container's by the name of the device with the same numbers.
    fn disk(&mut self, sample: &Sample) {
        const FAMILIES: [[&str; 3]; 4] = [
            ["container_fs_reads_bytes_total", "counter", "Cumulative count of bytes read"],
            ["container_fs_reads_total", "counter", "Cumulative count of reads completed"],
            ["container_fs_writes_bytes_total", "counter", "Cumulative count of bytes written"],
            ["container_fs_writes_total", "counter", "Cumulative count of writes completed"],
        ];
        let disks = &sample.node.disks;
        for (at, [name, kind, help]) in FAMILIES.into_iter().enumerate() {
            self.page.family(name, kind, help);
            for disk in disks {
                let values = [disk.read_bytes, disk.reads, disk.written_bytes, disk.writes];
                let labels = labels(&self.rows[0], &[("device", &disk.device)]);
                self.page.sample(&labels, number(values[at]), Some(self.ts));
            }
            for row in &self.rows {
                for io in &row.usage.io {
                    let disk = disks.iter().find(|disk| (disk.major, disk.minor) == (io.major, io.minor));
                    let device =
                        disk.map_or_else(|| format!("{}:{}", io.major, io.minor), |disk| disk.device.clone());
                    let values = [io.read_bytes, io.reads, io.written_bytes, io.writes];
                    self.page.sample(&labels(row, &[("device", &device)]), number(values[at]), Some(self.ts));
                }
            }
        }
    }

    fn memory(&mut self) {
        const GAUGE: &str = "gauge";
        type Of = fn(&Memory) -> Option<u64>;
        let families: [([&'static str; 2], Of); 10] = [
            (["container_memory_cache", "Number of bytes of page cache memory."], |m| m.cache),
            (["container_memory_kernel_usage", "Size of kernel memory allocated in bytes."], |m| m.kernel),
            (["container_memory_mapped_file", "Size of memory mapped files in bytes."], |m| m.mapped_file),
            (["container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes"], |m| m.peak),
            (["container_memory_rss", "Size of RSS in bytes."], |m| Some(m.rss)),
            (["container_memory_swap", "Container swap usage in bytes."], |m| Some(m.swap)),
            (["container_memory_total_active_file_bytes", "Current total active file in bytes."], |m| {
                m.active_file
            }),
            (["container_memory_total_inactive_file_bytes", "Current total inactive file in bytes."], |m| {
                m.inactive_file
            }),
            (
                [
                    "container_memory_usage_bytes",
                    "Current memory usage in bytes, including all memory regardless of when it was accessed",
                ],
                |m| Some(m.usage),
            ),
            (["container_memory_working_set_bytes", "Current working set in bytes."], |m| {
                Some(m.working_set)
            }),
        ];
        for ([name, help], of) in families {
            self.family([name, GAUGE, help], |row| of(&row.usage.memory).map(number));
        }
        self.page.family(
            "container_memory_failures_total",
            "counter",
            "Cumulative count of memory allocation failures.",
        );
        for row in &self.rows {
            let memory = row.usage.memory;
            for (kind, count) in [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)] {
                let labels = labels(row, &[("failure_type", kind), ("scope", "container")]);
                self.page.sample(&labels, number(count), Some(self.ts));
            }
        }
    }

    fn network(&mut self, node: &NodeUse) {
        const FAMILIES: [[&str; 2]; 8] = [
            ["container_network_receive_bytes_total", "Cumulative count of bytes received"],
            ["container_network_receive_packets_total", "Cumulative count of packets received"],
            [
                "container_network_receive_errors_total",
                "Cumulative count of errors encountered while receiving",
            ],
            [
                "container_network_receive_packets_dropped_total",
                "Cumulative count of packets dropped while receiving",
            ],
            ["container_network_transmit_bytes_total", "Cumulative count of bytes transmitted"],
            ["container_network_transmit_packets_total", "Cumulative count of packets transmitted"],
            [
                "container_network_transmit_errors_total",
                "Cumulative count of errors encountered while transmitting",
            ],
            [
                "container_network_transmit_packets_dropped_total",
                "Cumulative count of packets dropped while transmitting",
            ],
        ];
        for (at, [name, help]) in FAMILIES.into_iter().enumerate() {
            self.page.family(name, "counter", help);
            for interface in &node.interfaces {
                let counters = if at < 4 { &interface.received } else { &interface.transmitted };
                let labels = labels(&self.rows[0], &[("interface", &interface.name)]);
                self.page.sample(&labels, number(counters[at % 4]), Some(self.ts));
            }
        }
    }

    fn pressure(&mut self) {
        type Of = fn(&Pressure) -> u64;
        let families: [([&'static str; 2], Of); 6] = [
            (
                [
                    "container_pressure_cpu_stalled_seconds_total",
                    "Total time duration no tasks in the container could make progress due to CPU congestion.",
                ],
                |p| p.cpu.1,
            ),
            (
                [
                    "container_pressure_cpu_waiting_seconds_total",
                    "Total time duration tasks in the container have waited due to CPU congestion.",
                ],
                |p| p.cpu.0,
            ),
            (
                [
                    "container_pressure_io_stalled_seconds_total",
                    "Total time duration no tasks in the container could make progress due to IO congestion.",
                ],
                |p| p.io.1,
            ),
            (
                [
                    "container_pressure_io_waiting_seconds_total",
                    "Total time duration tasks in the container have waited due to IO congestion.",
                ],
                |p| p.io.0,
            ),
            (
                [
                    "container_pressure_memory_stalled_seconds_total",
                    "Total time duration no tasks in the container could make progress due to memory congestion.",
                ],
                |p| p.memory.1,
            ),
            (
                [
                    "container_pressure_memory_waiting_seconds_total",
                    "Total time duration tasks in the container have waited due to memory congestion.",
                ],
                |p| p.memory.0,
            ),
        ];
        for ([name, help], of) in families {
            self.family([name, "counter", help], |row| row.usage.pressure.map(|p| number(of(&p)) / 1e6));
        }
    }

    fn rest(&mut self) {
        self.family(
            [
                "container_oom_events_total",
                "counter",
                "Count of out of memory events observed for the container",
            ],
            |row| row.usage.oom_kills.map(number),
        );
        self.family(
            ["container_processes", "gauge", "Number of processes running inside the container."],
            |row| Some(number(row.processes)),
        );
        self.family(
            ["container_threads", "gauge", "Number of threads running inside the container"],
            |row| Some(number(row.threads)),
        );
        self.untimed(["container_spec_cpu_period", "gauge", "CPU period of the container."], |row| {
            row.usage.cpu_quota.map(|(period, _)| number(period))
        });
        self.untimed(["container_spec_cpu_quota", "gauge", "CPU quota of the container."], |row| {
            row.usage.cpu_quota.map(|(_, quota)| number(quota))
        });
        self.untimed(
            ["container_spec_memory_limit_bytes", "gauge", "Memory limit for the container."],
            |row| Some(number(row.usage.memory.limit.unwrap_or(0))),
        );
        self.untimed(
            [
                "container_start_time_seconds",
                "gauge",
                "Start time of the container since unix epoch in seconds.",
            ],
            |row| start_seconds(row.start_ms),
        );
        self.family(["container_last_seen", "gauge", "Last time a container was seen by the exporter"], {
            let at = start_seconds(self.ts).map(f64::floor);
            move |_| at
        });
        self.page.family(
            "container_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
        );
        self.page.sample(&[], 0.0, None);
    }

    /// As `family`, without timestamps.
    fn untimed(&mut self, [name, kind, help]: [&'static str; 3], of: impl Fn(&Row<'_>) -> Option<f64>) {
        self.page.family(name, kind, help);
        for row in &self.rows {
            if let Some(value) = of(row) {
                self.page.sample(&labels(row, &[]), value, None);
            }
        }
    }
}

fn machine_families(page: &mut Page, machine: &Machine) {
    let labels = [
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", machine.machine_id.as_str()),
        ("system_uuid", machine.system_uuid.as_str()),
    ];
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", machine.cpus),
        ("machine_cpu_physical_cores", "Number of physical CPU cores.", number(machine.physical_cores)),
        ("machine_cpu_sockets", "Number of CPU sockets.", number(machine.sockets)),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", number(machine.memory_bytes)),
        ("machine_swap_bytes", "Amount of swap memory available on the machine.", number(machine.swap_bytes)),
    ] {
        page.family(name, "gauge", help);
        page.sample(&labels, value, None);
    }
    page.family(
        "machine_scrape_error",
        "gauge",
        "1 if there was an error while getting machine metrics, 0 otherwise.",
    );
    page.sample(&[], 0.0, None);
}
