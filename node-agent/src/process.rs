//! Processes, from `/proc/<pid>`.

use std::fs;
use std::path::Path;

/// Clock ticks a second in `/proc`. The kernel's ABI fixes it at 100 on every architecture that Rust
/// supports on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Nanoseconds of one tick.
pub(crate) const TICK_NS: u64 = 1_000_000_000 / TICKS_PER_SECOND;

/// One process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) command: String,
    /// Ticks from boot to the start.
    pub(crate) start_ticks: u64,
    /// Its own use.
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
    /// Use of its children that ended and were waited for, and of theirs.
    pub(crate) reaped_user_ticks: u64,
    pub(crate) reaped_system_ticks: u64,
    pub(crate) threads: u64,
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    /// Path in the cgroup tree; `/` for none of its own.
    pub(crate) cgroup: String,
}

/// Memory of one process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    pub(crate) anonymous: u64,
    /// Resident pages of files and of shared memory: those that others may have too.
    pub(crate) shared: u64,
    pub(crate) swap: u64,
}

/// All processes that are not the kernel's own. One that ends meanwhile is left out.
pub(crate) fn list(root: &Path) -> std::io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir(root.join("proc"))? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(process) = read(&entry.path(), pid) {
            processes.push(process);
        }
    }
    processes.sort_unstable_by_key(|process| process.pid);
    Ok(processes)
}

fn read(dir: &Path, pid: u32) -> Option<Process> {
    // A command may hold any byte.
    let stat = String::from_utf8_lossy(&fs::read(dir.join("stat")).ok()?).into_owned();
    let cgroup = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    let mut process = parse_stat(&stat, pid)?;
    process.cgroup = parse_cgroup(&cgroup);
    Some(process)
}

/// `None` for the kernel's threads, children of process 2.
fn parse_stat(stat: &str, pid: u32) -> Option<Process> {
    // The command stands in parentheses and may hold any character, parentheses too.
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let command = stat.get(open + 1..close)?.to_owned();
    let fields: Vec<&str> = stat.get(close + 1..)?.split_ascii_whitespace().collect();
    // Numbers as in proc(5), where the state after the command is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let parent = fields.get(1)?.parse().ok()?;
    if pid == 2 || parent == 2 {
        return None;
    }
    Some(Process {
        pid,
        parent,
        command,
        minor_faults: field(10)?,
        major_faults: field(12)?,
        user_ticks: field(14)?,
        system_ticks: field(15)?,
        reaped_user_ticks: field(16)?,
        reaped_system_ticks: field(17)?,
        threads: field(20)?,
        start_ticks: field(22)?,
        cgroup: String::new(),
    })
}

/// The path in the unified tree, else in systemd's own tree of a hybrid host, else `/`.
fn parse_cgroup(text: &str) -> String {
    let path = |prefix: &str| {
        let of = |line: &str| {
            line.split_once(':')
                .filter(|(_, rest)| rest.starts_with(prefix))
                .map(|(_, rest)| rest[prefix.len()..].to_owned())
        };
        text.lines().find_map(of).filter(|path| path.starts_with('/') && path != "/")
    };
    path(":").or_else(|| path("name=systemd:")).unwrap_or_else(|| "/".to_owned())
}

impl Process {
    /// Milliseconds since the epoch at which it started.
    pub(crate) fn start_ms(&self, boot_time_ms: i64) -> i64 {
        let since_boot = self.start_ticks.saturating_mul(1_000 / TICKS_PER_SECOND);
        boot_time_ms.saturating_add(i64::try_from(since_boot).unwrap_or(0))
    }
}

/// The memory of a process; zero if it has ended. `smaps_rollup` would divide shared pages exactly, but the kernel walks all
/// pages of the process for it: milliseconds for a large one, where its counters take microseconds.
pub(crate) fn memory(root: &Path, pid: u32) -> ProcessMemory {
    let path = root.join("proc").join(pid.to_string()).join("status");
    parse_memory(&fs::read_to_string(path).unwrap_or_default())
}

fn parse_memory(status: &str) -> ProcessMemory {
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let anonymous = bytes("RssAnon").unwrap_or(0);
    let shared = bytes("VmRSS").unwrap_or(0).saturating_sub(anonymous);
    ProcessMemory { anonymous, shared, swap: bytes("VmSwap").unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_parentheses_and_spaces() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 3 0 11 12 13 14 20 0 5 0 900 1 2 3";
        let process = parse_stat(stat, 7).unwrap();
        assert_eq!(process.command, "a) b (c");
        assert_eq!((process.user_ticks, process.system_ticks), (11, 12));
        assert_eq!((process.reaped_user_ticks, process.reaped_system_ticks), (13, 14));
        assert_eq!((process.threads, process.start_ticks), (5, 900));
        assert_eq!((process.minor_faults, process.major_faults), (100, 3));
        assert_eq!(process.start_ms(1_000), 10_000);
    }

    #[test]
    fn memory_is_that_of_the_counters() {
        let memory = parse_memory("Name:\tx\nVmRSS:\t  300 kB\nRssAnon:\t 100 kB\nVmSwap:\t 4 kB\n");
        assert_eq!((memory.anonymous, memory.shared, memory.swap), (100 << 10, 200 << 10, 4 << 10));
        let ended = parse_memory("");
        assert_eq!((ended.anonymous, ended.shared, ended.swap), (0, 0, 0));
    }

    #[test]
    fn threads_of_the_kernel_are_no_processes() {
        assert_eq!(parse_stat("9 (kworker/0:0) I 2 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9", 9), None);
        assert_eq!(parse_stat("9 (cut", 9), None);
        assert_eq!(parse_stat("9 (cut) S 1", 9), None);
    }

    #[test]
    fn the_cgroup_is_the_unified_one_or_that_of_systemd() {
        assert_eq!(parse_cgroup("0::/system.slice/a.service\n"), "/system.slice/a.service");
        assert_eq!(
            parse_cgroup("4:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n"),
            "/system.slice/a.service"
        );
        assert_eq!(parse_cgroup("4:memory:/x\n0::/\n"), "/");
        assert_eq!(parse_cgroup(""), "/");
    }
}
