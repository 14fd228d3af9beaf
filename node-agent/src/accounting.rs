//! CPU counters of groups of processes for which the kernel keeps none.
//!
//! A group's counter is the sum of what its processes have used since each was first seen, and of what
//! they had used until then. A process that ends takes nothing away. What a process used after the
//! last look at it, and the use of one that started and ended between two looks, shows up in the
//! `cutime`/`cstime` of the parent that waited for it; what of that is not yet accounted for goes to the
//! parent's group. So short-lived commands are not lost, only billed to whoever ran them.

use std::collections::{HashMap, HashSet};

use crate::names::Names;
use crate::process::{Process, TICK_NS};

/// Groups without processes that are remembered, so that their counters go on when they come back.
const EMPTY_GROUPS_MAX: usize = 1_024;

/// Ticks of user and system time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    user: u64,
    system: u64,
}

impl Ticks {
    fn own(process: &Process) -> Self {
        Self { user: process.user_ticks, system: process.system_ticks }
    }

    fn reaped(process: &Process) -> Self {
        Self { user: process.reaped_user_ticks, system: process.reaped_system_ticks }
    }

    fn plus(self, other: Self) -> Self {
        Self { user: self.user.saturating_add(other.user), system: self.system.saturating_add(other.system) }
    }

    fn minus(self, other: Self) -> Self {
        Self { user: self.user.saturating_sub(other.user), system: self.system.saturating_sub(other.system) }
    }
}

/// One group of processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    used: Ticks,
    pub(crate) start_ms: i64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    /// The number of the look at which it last had a process.
    seen: u64,
}

impl Group {
    pub(crate) fn cpu_user_ns(&self) -> u64 {
        self.used.user.saturating_mul(TICK_NS)
    }

    pub(crate) fn cpu_system_ns(&self) -> u64 {
        self.used.system.saturating_mul(TICK_NS)
    }
}

/// A process as of the last look.
#[derive(Clone, Copy, Debug)]
struct Known {
    parent: u32,
    own: Ticks,
    reaped: Ticks,
    faults: (u64, u64),
}

/// All groups since the agent started.
#[derive(Debug, Default)]
pub(crate) struct Accounting {
    groups: HashMap<Names, Group>,
    /// By process id and start time, which together are never used twice.
    processes: HashMap<(u32, u64), Known>,
    looks: u64,
    /// When each cgroup, by its inode, was first seen to have started.
    cgroup_starts: HashMap<u64, i64>,
}

impl Accounting {
    /// Takes in all processes, each with its group.
    pub(crate) fn update(&mut self, processes: &[(Names, &Process)], boot_time_ms: i64) {
        self.looks += 1;
        let known = std::mem::take(&mut self.processes);
        let ended = ended(&known, processes);
        for (names, process) in processes {
            let key = (process.pid, process.start_ticks);
            let now = Known {
                parent: process.parent,
                own: Ticks::own(process),
                reaped: Ticks::reaped(process),
                faults: (process.minor_faults, process.major_faults),
            };
            let start_ms = process.start_ms(boot_time_ms);
            let group =
                self.groups.entry(names.clone()).or_insert_with(|| Group { start_ms, ..Group::default() });
            group.seen = self.looks;
            group.add(known.get(&key).copied(), now, ended.get(&process.pid).copied().unwrap_or_default());
            if self.looks == 1 {
                group.start_ms = group.start_ms.min(start_ms);
            }
            self.processes.insert(key, now);
        }
        self.forget();
    }

    /// The groups that have processes now.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&Names, &Group)> {
        self.groups.iter().filter(|(_, group)| group.seen == self.looks)
    }

    /// When a cgroup started: the start of its oldest process when it was first seen. `inode` names it.
    pub(crate) fn cgroup_start(&mut self, inode: u64, oldest_ms: i64) -> i64 {
        *self.cgroup_starts.entry(inode).or_insert(oldest_ms)
    }

    /// Forgets the start times of cgroups that are gone.
    pub(crate) fn retain_cgroups(&mut self, alive: impl Fn(u64) -> bool) {
        self.cgroup_starts.retain(|inode, _| alive(*inode));
    }

    /// Forgets the groups that have been empty longest, beyond [`EMPTY_GROUPS_MAX`].
    fn forget(&mut self) {
        let looks = self.looks;
        let mut empty: Vec<u64> =
            self.groups.values().filter(|group| group.seen != looks).map(|group| group.seen).collect();
        if empty.len() > EMPTY_GROUPS_MAX {
            empty.sort_unstable();
            let oldest_kept = empty[empty.len() - EMPTY_GROUPS_MAX];
            self.groups.retain(|_, group| group.seen >= oldest_kept);
        }
    }
}

impl Group {
    /// Adds what a process used since `before`, and what of its reaped children no group has yet.
    fn add(&mut self, before: Option<Known>, now: Known, ended_children: Ticks) {
        let own = before.map_or(now.own, |before| now.own.minus(before.own));
        let reaped = before.map_or(now.reaped, |before| now.reaped.minus(before.reaped));
        self.used = self.used.plus(own).plus(reaped.minus(ended_children));
        let (minor, major) = before.map_or((0, 0), |before| before.faults);
        self.page_faults = self.page_faults.saturating_add(now.faults.0.saturating_sub(minor));
        self.major_page_faults = self.major_page_faults.saturating_add(now.faults.1.saturating_sub(major));
    }
}

/// What the processes that ended had used at the last look, by the process that has waited for them or
/// for their parents: their closest ancestor that still lives.
fn ended(known: &HashMap<(u32, u64), Known>, processes: &[(Names, &Process)]) -> HashMap<u32, Ticks> {
    let alive: HashSet<(u32, u64)> = processes.iter().map(|(_, p)| (p.pid, p.start_ticks)).collect();
    let gone = || known.iter().filter(|(key, _)| !alive.contains(key));
    let parents: HashMap<u32, u32> = gone().map(|((pid, _), before)| (*pid, before.parent)).collect();
    let mut ended: HashMap<u32, Ticks> = HashMap::new();
    for (_, before) in gone() {
        let mut ancestor = before.parent;
        // A process id may have been used again, so the chain may be a ring; it is not longer than this.
        for _ in 0..parents.len() {
            let Some(next) = parents.get(&ancestor) else { break };
            ancestor = *next;
        }
        let sum = ended.entry(ancestor).or_default();
        *sum = sum.plus(before.own).plus(before.reaped);
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, own: u64, reaped: u64) -> Process {
        Process {
            pid,
            parent,
            command: String::new(),
            start_ticks: u64::from(pid),
            user_ticks: own,
            system_ticks: 0,
            reaped_user_ticks: reaped,
            reaped_system_ticks: 0,
            threads: 1,
            minor_faults: 0,
            major_faults: 0,
            cgroup: "/".to_owned(),
        }
    }

    fn look(accounting: &mut Accounting, processes: &[(&str, Process)]) -> HashMap<String, u64> {
        let named: Vec<_> = processes.iter().map(|(name, p)| (Names::of_command(name), p)).collect();
        accounting.update(&named, 0);
        let all = accounting.groups.iter();
        all.map(|(names, group)| (names.pod.clone(), group.cpu_user_ns() / TICK_NS)).collect()
    }

    #[test]
    fn a_counter_does_not_fall_when_processes_end() {
        let mut accounting = Accounting::default();
        look(&mut accounting, &[("init", process(1, 0, 5, 0)), ("cc", process(10, 1, 100, 0))]);
        let used = look(&mut accounting, &[("init", process(1, 0, 5, 120)), ("cc", process(11, 1, 7, 0))]);
        // 100 + 7 of its own; the last 20 of the one that ended are its parent's.
        assert_eq!((used["cc"], used["init"]), (107, 25));
        let used = look(&mut accounting, &[("init", process(1, 0, 5, 127))]);
        assert_eq!((used["cc"], used["init"]), (107, 25));
        assert_eq!(accounting.live().count(), 1);
        let used = look(&mut accounting, &[("init", process(1, 0, 5, 127)), ("cc", process(12, 1, 3, 0))]);
        assert_eq!(used["cc"], 110);
    }

    #[test]
    fn a_process_that_lived_between_two_looks_is_billed_to_its_parent() {
        let mut accounting = Accounting::default();
        look(&mut accounting, &[("make", process(1, 0, 1, 0))]);
        let used = look(&mut accounting, &[("make", process(1, 0, 2, 50))]);
        assert_eq!(used["make"], 52);
    }

    #[test]
    fn what_an_orphan_used_is_not_billed_again_to_who_adopts_it() {
        let mut accounting = Accounting::default();
        let init = |reaped| ("init", process(1, 0, 0, reaped));
        look(&mut accounting, &[init(0), ("make", process(10, 1, 10, 0)), ("cc", process(11, 10, 100, 0))]);
        let used = look(&mut accounting, &[init(110)]);
        assert_eq!((used["init"], used["make"], used["cc"]), (0, 10, 100));
    }

    #[test]
    fn a_process_id_used_again_is_another_process() {
        let mut accounting = Accounting::default();
        look(&mut accounting, &[("a", process(5, 1, 100, 0))]);
        let again = Process { start_ticks: 900, ..process(5, 1, 3, 0) };
        assert_eq!(look(&mut accounting, &[("a", again)])["a"], 103);
    }

    #[test]
    fn empty_groups_are_bounded() {
        let mut accounting = Accounting::default();
        for pid in 0..1_080 {
            look(&mut accounting, &[(&format!("c{pid}"), process(pid + 3, 1, 1, 0))]);
        }
        assert!(accounting.groups.len() <= EMPTY_GROUPS_MAX + 1);
    }
}
