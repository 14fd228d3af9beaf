//! The host at one moment.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use crate::accounting::{Accounting, Group};
use crate::cgroup::{self, Memory, Pressure, Usage};
use crate::machine::{self, Machine, meminfo_bytes};
use crate::names::Names;
use crate::process::{self, Process, TICK_NS};
use crate::{AgentError, PodInfo};

/// The host at one moment.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
    pub(crate) node: NodeUse,
    /// Ascending by namespace and name.
    pub(crate) pods: Vec<PodUse>,
}

/// The host as a whole.
#[derive(Debug, Default)]
pub(crate) struct NodeUse {
    pub(crate) cpu_ns: u64,
    pub(crate) cpu_user_ns: u64,
    pub(crate) cpu_system_ns: u64,
    pub(crate) memory: Memory,
    pub(crate) pressure: Option<Pressure>,
    pub(crate) processes: u64,
    pub(crate) threads: u64,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) disks: Vec<Disk>,
}

/// Counters of a network interface: bytes, packets, errors, drops; received, then transmitted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) received: [u64; 4],
    pub(crate) transmitted: [u64; 4],
}

/// Counters of a block device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) device: String,
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
}

/// One pod.
#[derive(Debug, Default)]
pub(crate) struct PodUse {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Ascending by name.
    pub(crate) containers: Vec<ContainerUse>,
}

/// One container.
#[derive(Debug, Default)]
pub(crate) struct ContainerUse {
    pub(crate) name: String,
    /// Path in the cgroup tree, or a stand-in that begins with `/host/`.
    pub(crate) id: String,
    pub(crate) start_ms: i64,
    pub(crate) usage: Usage,
    pub(crate) processes: u64,
    pub(crate) threads: u64,
}

impl PodUse {
    pub(crate) fn start_ms(&self) -> i64 {
        self.containers.iter().map(|container| container.start_ms).min().unwrap_or(0)
    }

    /// The sum of `of` over the containers.
    pub(crate) fn total(&self, of: impl Fn(&Usage) -> u64) -> u64 {
        self.containers.iter().map(|container| of(&container.usage)).fold(0, u64::saturating_add)
    }

    pub(crate) fn info(&self) -> PodInfo {
        let labels =
            [("app.kubernetes.io/name", self.name.as_str()), ("app.kubernetes.io/managed-by", "pyrometer")];
        PodInfo {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            start_time_ms: self.start_ms(),
            containers: self.containers.iter().map(|container| container.name.clone()).collect(),
            labels: labels.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        }
    }
}

impl Sample {
    /// Looks at the host. Blocks.
    pub(crate) fn take(
        root: &Path,
        machine: &Machine,
        accounting: &mut Accounting,
        now_ms: i64,
    ) -> Result<Self, AgentError> {
        // First, so that the node's counter is of the moment that stands beside it.
        let mut node = NodeUse::read(root)?;
        let processes =
            process::list(root).map_err(|source| AgentError::Read { path: root.join("proc"), source })?;
        let mut containers = Vec::new();
        let grouped = in_cgroups(root, machine, accounting, &processes, &mut containers);
        in_groups(root, machine, accounting, &grouped, &mut containers);
        node.processes = processes.len() as u64;
        node.threads = processes.iter().map(|process| process.threads).sum();
        Ok(Self { at_ms: now_ms, node, pods: pods(containers) })
    }
}

/// Containers for which the kernel counts; returns the processes that are in none of them.
fn in_cgroups<'a>(
    root: &Path,
    machine: &Machine,
    accounting: &mut Accounting,
    processes: &'a [Process],
    containers: &mut Vec<(Names, ContainerUse)>,
) -> Vec<&'a Process> {
    let tree = cgroup::tree(root);
    let mut by_cgroup: BTreeMap<&str, Vec<&Process>> = BTreeMap::new();
    for process in processes {
        by_cgroup.entry(&process.cgroup).or_default().push(process);
    }
    let (mut rest, mut inodes) = (Vec::new(), HashSet::new());
    for (path, members) in by_cgroup {
        let counted = tree.as_deref().filter(|_| path != "/").and_then(|tree| cgroup::read(tree, path));
        let Some((inode, mut usage, has_memory)) = counted else {
            rest.extend(members);
            continue;
        };
        if !has_memory {
            usage.memory = added_up(root, &members);
        }
        let oldest = members.iter().map(|p| p.start_ms(machine.boot_time_ms)).min().unwrap_or(0);
        inodes.insert(inode);
        let container = ContainerUse {
            start_ms: accounting.cgroup_start(inode, oldest),
            id: path.to_owned(),
            usage,
            processes: members.len() as u64,
            threads: members.iter().map(|process| process.threads).sum(),
            name: String::new(),
        };
        containers.push((unique(Names::of_cgroup(path), containers, inode), container));
    }
    accounting.retain_cgroups(|inode| inodes.contains(&inode));
    rest
}

/// Two cgroups may have one name, as units of two slices do; the later in order of paths gets a suffix.
fn unique(mut names: Names, containers: &[(Names, ContainerUse)], inode: u64) -> Names {
    if containers.iter().any(|(taken, _)| *taken == names) {
        names.container.push_str(&format!("-{inode}"));
    }
    names
}

/// Containers made of processes for which the kernel does not count.
fn in_groups(
    root: &Path,
    machine: &Machine,
    accounting: &mut Accounting,
    processes: &[&Process],
    containers: &mut Vec<(Names, ContainerUse)>,
) {
    let names = |process: &Process| match process.cgroup.as_str() {
        "/" => Names::of_command(&process.command),
        path => Names::of_cgroup(path),
    };
    let named: Vec<(Names, &Process)> = processes.iter().map(|process| (names(process), *process)).collect();
    accounting.update(&named, machine.boot_time_ms);
    let mut members: HashMap<&Names, Vec<&Process>> = HashMap::new();
    for (names, process) in &named {
        members.entry(names).or_default().push(process);
    }
    for (names, group) in accounting.live() {
        let members = members.get(names).map_or(&[][..], Vec::as_slice);
        containers.push((names.clone(), group_use(root, names, group, members)));
    }
}

fn group_use(root: &Path, names: &Names, group: &Group, members: &[&Process]) -> ContainerUse {
    let (user, system) = (group.cpu_user_ns(), group.cpu_system_ns());
    let memory = Memory {
        page_faults: group.page_faults,
        major_page_faults: group.major_page_faults,
        ..added_up(root, members)
    };
    let id = match members.first().map(|process| process.cgroup.as_str()) {
        Some(path) if path != "/" => path.to_owned(),
        _ => format!("/{}/{}", names.namespace, names.pod),
    };
    ContainerUse {
        name: String::new(),
        id,
        start_ms: group.start_ms,
        usage: Usage {
            cpu_ns: user.saturating_add(system),
            cpu_user_ns: user,
            cpu_system_ns: system,
            memory,
            ..Usage::default()
        },
        processes: members.len() as u64,
        threads: members.iter().map(|process| process.threads).sum(),
    }
}

/// Memory of processes. What they may share, program, libraries and shared memory, counts once: as much as the process has
/// that has most of it.
fn added_up(root: &Path, members: &[&Process]) -> Memory {
    let (mut sum, mut shared) = (Memory::default(), 0);
    for process in members {
        let memory = process::memory(root, process.pid);
        sum.rss = sum.rss.saturating_add(memory.anonymous);
        sum.swap = sum.swap.saturating_add(memory.swap);
        shared = memory.shared.max(shared);
    }
    sum.usage = sum.rss.saturating_add(shared);
    sum.working_set = sum.usage;
    sum
}

fn pods(containers: Vec<(Names, ContainerUse)>) -> Vec<PodUse> {
    let mut pods: BTreeMap<(String, String), PodUse> = BTreeMap::new();
    for (names, container) in containers {
        let pod = pods.entry((names.namespace, names.pod)).or_default();
        pod.containers.push(ContainerUse { name: names.container, ..container });
    }
    let finished = |((namespace, name), mut pod): ((String, String), PodUse)| {
        pod.containers.sort_by(|a, b| a.name.cmp(&b.name));
        pod.uid = uid(&namespace, &name, pod.start_ms());
        PodUse { namespace, name, ..pod }
    };
    pods.into_iter().map(finished).collect()
}

/// The uid of a Kubernetes pod is its name here; any other gets one made of its names and start.
fn uid(namespace: &str, name: &str, start_ms: i64) -> String {
    if namespace == "kubepods" {
        return name.to_owned();
    }
    let mut halves = [0xcbf2_9ce4_8422_2325_u64, 0x9ae1_6a3b_2f90_404f];
    let text = format!("{namespace}/{name}/{start_ms}");
    for half in &mut halves {
        for byte in text.bytes() {
            *half = (*half ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    let hex = format!("{:016x}{:016x}", halves[0], halves[1]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl NodeUse {
    fn read(root: &Path) -> Result<Self, AgentError> {
        let stat = machine::read(root, "proc/stat")?;
        let missing = |file: &str, what| AgentError::Format { path: root.join(file), what };
        let (user, system) = cpu_ticks(&stat).ok_or_else(|| missing("proc/stat", "cpu line"))?;
        let meminfo = machine::read(root, "proc/meminfo")?;
        let memory = node_memory(&meminfo).ok_or_else(|| missing("proc/meminfo", "MemFree line"))?;
        let optional = |path: &str| machine::read(root, path).unwrap_or_default();
        let vmstat = optional("proc/vmstat");
        Ok(Self {
            cpu_ns: user.saturating_add(system).saturating_mul(TICK_NS),
            cpu_user_ns: user.saturating_mul(TICK_NS),
            cpu_system_ns: system.saturating_mul(TICK_NS),
            memory: Memory {
                page_faults: cgroup::keyed(&vmstat, "pgfault").unwrap_or(0),
                major_page_faults: cgroup::keyed(&vmstat, "pgmajfault").unwrap_or(0),
                ..memory
            },
            pressure: cgroup::pressure(|what| machine::read(root, &format!("proc/pressure/{what}")).ok()),
            interfaces: interfaces(&optional("proc/net/dev")),
            disks: disks(&optional("proc/diskstats")),
            ..Self::default()
        })
    }
}

/// Busy ticks of all processors: user and nice; system and both kinds of interrupts. Time that the
/// hypervisor took away is not use, and guests are part of user already.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    let of = |at: usize| ticks.get(at).copied().unwrap_or(0);
    (ticks.len() >= 4).then(|| (of(0) + of(1), of(2) + of(5) + of(6)))
}

/// As a kubelet has it: usage is all that is not free, the working set is usage less inactive files.
fn node_memory(meminfo: &str) -> Option<Memory> {
    let of = |key| meminfo_bytes(meminfo, key);
    let total = of("MemTotal")?;
    let usage = total.saturating_sub(of("MemFree")?);
    let inactive_file = of("Inactive(file)").unwrap_or(0);
    let cache = of("Cached").unwrap_or(0).saturating_add(of("Buffers").unwrap_or(0));
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(inactive_file),
        rss: of("AnonPages").unwrap_or(0),
        swap: of("SwapTotal").unwrap_or(0).saturating_sub(of("SwapFree").unwrap_or(0)),
        cache: Some(cache),
        mapped_file: of("Mapped"),
        kernel: of("Slab"),
        active_file: of("Active(file)"),
        inactive_file: Some(inactive_file),
        limit: Some(total),
        swap_limit: of("SwapTotal"),
        ..Memory::default()
    })
}

fn interfaces(net_dev: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let fields: Vec<u64> = rest.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
        let of = |at: usize| fields.get(at).copied().unwrap_or(0);
        let name = name.trim().to_owned();
        let interface = Interface {
            name,
            received: [of(0), of(1), of(2), of(3)],
            transmitted: [of(8), of(9), of(10), of(11)],
        };
        (interface.name != "lo" && fields.len() >= 12).then_some(interface)
    };
    net_dev.lines().skip(2).filter_map(line).collect()
}

fn disks(diskstats: &str) -> Vec<Disk> {
    const SECTOR_BYTES: u64 = 512;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let of = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let name = *fields.get(2)?;
        let disk = Disk {
            device: format!("/dev/{name}"),
            major: of(0)?,
            minor: of(1)?,
            reads: of(3)?,
            read_bytes: of(5)?.saturating_mul(SECTOR_BYTES),
            writes: of(7)?,
            written_bytes: of(9)?.saturating_mul(SECTOR_BYTES),
        };
        let real = !["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
        (real && disk.reads + disk.writes > 0).then_some(disk)
    };
    diskstats.lines().filter_map(line).collect()
}
