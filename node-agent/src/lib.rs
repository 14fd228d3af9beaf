//! This host in the wire format of a kubelet: `/metrics/resource`, `/metrics/cadvisor` and
//! `/stats/summary`, from `/proc` and cgroup v2.
//!
//! This crate is *not* a container runtime's client and knows no Kubernetes API: names come from the
//! cgroup tree and from the processes alone. It does not know the other crates either; whoever scrapes
//! it does so over HTTP, as with any kubelet.
//!
//! ```no_run
//! # fn now_ms() -> i64 { 0 }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = node_agent::Options {
//!     node_name: "host-1".to_owned(),
//!     root: "/".into(),
//!     clock: std::sync::Arc::new(now_ms),
//! };
//! let agent = node_agent::Agent::new(options)?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:10255").await?;
//! axum::serve(listener, agent.router()).await?;
//! # Ok(()) }
//! ```
//!
//! The hard decision is what stands for a pod. Each cgroup that holds processes is a container, named
//! after its unit, scope or container (module `names`). Processes outside of any
//! cgroup of their own (cgroup v1, or a host without a service supervisor) are grouped by command name in
//! the namespace `host`. The kernel keeps counters for the former; for the latter the agent keeps them
//! itself, by adding up what each process, keyed by id and start time, has used since the last look,
//! so that a counter never falls when processes end.
//!
//! What the figures mean: the working set of a cgroup is `memory.current` less `inactive_file`, as a
//! kubelet has it. That of a group of processes is the sum of their proportional set sizes, so that a page
//! shared by two counts half for each, or of their resident sizes where the kernel does not tell the
//! former. The node's CPU time is all busy time of `/proc/stat` but what the hypervisor took; its working
//! set is all memory that is neither free nor an inactive page of a file.

mod accounting;
mod cadvisor;
mod cgroup;
mod machine;
mod names;
mod page;
mod process;
mod resource;
mod router;
mod sample;
mod summary;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub use machine::Machine;

use accounting::Accounting;
use sample::Sample;

/// Milliseconds since the Unix epoch, now.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A host is not looked at more often than this.
const SAMPLE_INTERVAL_MS: i64 = 1_000;

/// What the agent looks at.
#[derive(Clone)]
pub struct Options {
    /// The name under which the host appears as a node.
    pub node_name: String,
    /// The directory that holds `proc` and `sys`; `/` but in tests.
    pub root: PathBuf,
    /// Where timestamps come from.
    pub clock: Clock,
}

/// Why the host could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file without which there is nothing to say could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file does not look as the kernel writes it.
    #[error("{}: no {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
}

/// One pod as the Metrics API's selectors see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// `system`, `user-1000`, `docker`, `host` ...
    pub namespace: String,
    /// The unit, session, container or command.
    pub name: String,
    /// Stable while the pod lives.
    pub uid: String,
    /// Milliseconds since the epoch.
    pub start_time_ms: i64,
    /// Names, ascending.
    pub containers: Vec<String>,
    /// `app.kubernetes.io/name` and `app.kubernetes.io/managed-by`.
    pub labels: BTreeMap<String, String>,
}

/// The agent. Clones share their state.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    options: Options,
    machine: Machine,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accounting: Accounting,
    latest: Option<Arc<Sample>>,
    previous: Option<Arc<Sample>>,
}

/// The latest look at the host and the one before it.
#[derive(Clone)]
struct Look {
    latest: Arc<Sample>,
    previous: Option<Arc<Sample>>,
}

impl Agent {
    /// Reads what does not change about the machine.
    ///
    /// # Errors
    /// `/proc/stat`, `/proc/meminfo` or `/proc/cpuinfo` cannot be read.
    pub fn new(options: Options) -> Result<Self, AgentError> {
        let machine = Machine::read(&options.root)?;
        Ok(Self(Arc::new(Inner { options, machine, state: Mutex::default() })))
    }

    /// The kubelet's endpoints, and `/healthz`.
    pub fn router(&self) -> axum::Router {
        router::build(self.clone())
    }

    /// The machine, for a node's capacity.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.0.machine
    }

    /// The name under which the host appears.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.0.options.node_name
    }

    /// All pods, ascending by namespace and name. Reads `/proc` if the latest sample is more than a
    /// second old: do not call it on a thread that must not block. Empty if the host cannot be read.
    #[must_use]
    pub fn pods(&self) -> Vec<PodInfo> {
        self.look()
            .map(|look| look.latest.pods.iter().map(sample::PodUse::info).collect())
            .unwrap_or_default()
    }

    /// The latest sample, taken now if it is more than a second old. Blocks.
    fn look(&self) -> Result<Look, AgentError> {
        let mut guard = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        let now = (self.0.options.clock)();
        let fresh = |sample: &&Arc<Sample>| (0..SAMPLE_INTERVAL_MS).contains(&(now - sample.at_ms));
        if let Some(latest) = state.latest.as_ref().filter(fresh) {
            return Ok(Look { latest: Arc::clone(latest), previous: state.previous.clone() });
        }
        let sample = Sample::take(&self.0.options.root, &self.0.machine, &mut state.accounting, now)?;
        state.previous = state.latest.replace(Arc::new(sample));
        let latest = state.latest.as_ref().map(Arc::clone).unwrap_or_default();
        Ok(Look { latest, previous: state.previous.clone() })
    }
}

#[cfg(test)]
mod tests;
