//! This machine as a cluster of one node: where the Metrics API finds its objects when there is no
//! Kubernetes, and the scrape jobs that feed it.

use std::net::SocketAddr;

use metrics_api::{Newest, NodeInfo, PodInfo, SystemInfo, Unavailable};
use model::{Labels, Querier, Timestamp};
use node_agent::Agent;
use scraper::ScrapeJob;
use scraper::config::TargetGroup;

use crate::samples::Samples;

/// The node agent and the samples, as the Metrics API sees them.
pub(crate) struct LocalCluster {
    pub(crate) agent: Agent,
    pub(crate) node_name: String,
    pub(crate) samples: Samples,
    pub(crate) now: fn() -> Timestamp,
}

impl metrics_api::Source for LocalCluster {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        self.samples.querier()
    }

    fn newest(&self) -> Option<&Newest> {
        self.samples.newest()
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        let machine = self.agent.machine();
        let labels = [
            ("kubernetes.io/hostname", self.node_name.clone()),
            ("kubernetes.io/os", machine.os.to_owned()),
            ("kubernetes.io/arch", machine.arch.to_owned()),
        ];
        vec![NodeInfo {
            name: self.node_name.clone(),
            labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
            uid: machine.machine_id.clone(),
            created_ms: machine.boot_time_ms,
            cpu_millicores: millicores(machine.cpus),
            memory_bytes: machine.memory_bytes,
            system: SystemInfo {
                kernel: machine.kernel.clone(),
                os: machine.os.to_owned(),
                arch: machine.arch.to_owned(),
                os_image: machine.os_image.clone(),
            },
        }]
    }

    fn pods(&self) -> Vec<PodInfo> {
        // It reads control groups, which may take a while; other tasks go on elsewhere.
        let pods = tokio::task::block_in_place(|| self.agent.pods()).into_iter();
        pods.map(|pod| PodInfo {
            namespace: pod.namespace,
            name: pod.name,
            uid: pod.uid,
            labels: pod.labels,
            created_ms: pod.start_time_ms,
            node: self.node_name.clone(),
            containers: pod.containers,
        })
        .collect()
    }

    fn now(&self) -> Timestamp {
        (self.now)()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn millicores(cpus: f64) -> u64 {
    (cpus * 1000.0).round() as u64
}

/// The job that scrapes this machine's own kubelet pages, labelled as is usual for kubelets.
pub(crate) fn kubelet_job(node_name: &str, address: SocketAddr) -> ScrapeJob {
    let mut job = ScrapeJob::new("kubelet");
    (job.interval_ms, job.timeout_ms) = (15_000, 10_000);
    let group = |path: &str, interval: &str, timeout: &str| {
        let labels = [
            ("__metrics_path__", path),
            ("__scrape_interval__", interval),
            ("__scrape_timeout__", timeout),
            ("metrics_path", path),
            ("node", node_name),
            ("instance", node_name),
        ];
        TargetGroup::of_addresses([address.to_string()], Labels::from_pairs(labels))
    };
    // The small page often, for `kubectl top`; the large one at the usual pace.
    job.targets = vec![group("/metrics/resource", "5s", "4s"), group("/metrics/cadvisor", "15s", "10s")];
    job
}
