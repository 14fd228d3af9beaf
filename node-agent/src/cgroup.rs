//! One cgroup of a v2 tree.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where the unified tree is mounted, if it is and has the controllers.
pub(crate) fn tree(root: &Path) -> Option<PathBuf> {
    let tree = root.join("sys/fs/cgroup");
    tree.join("cgroup.controllers").is_file().then_some(tree)
}

/// What the kernel has counted for a container. `None` where the kernel does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_ns: u64,
    pub(crate) cpu_user_ns: u64,
    pub(crate) cpu_system_ns: u64,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) memory: Memory,
    pub(crate) io: Vec<DeviceIo>,
    pub(crate) pressure: Option<Pressure>,
    pub(crate) oom_kills: Option<u64>,
    /// Period and quota in microseconds, if there is a quota.
    pub(crate) cpu_quota: Option<(u64, u64)>,
}

/// `cpu.stat` of a cgroup with a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throttle {
    pub(crate) periods: u64,
    pub(crate) throttled_periods: u64,
    pub(crate) throttled_ns: u64,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) usage: u64,
    /// Usage less what the kernel would drop first: inactive pages of files.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) swap: u64,
    pub(crate) cache: Option<u64>,
    pub(crate) mapped_file: Option<u64>,
    pub(crate) kernel: Option<u64>,
    pub(crate) active_file: Option<u64>,
    pub(crate) inactive_file: Option<u64>,
    pub(crate) peak: Option<u64>,
    pub(crate) limit: Option<u64>,
    pub(crate) swap_limit: Option<u64>,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
}

/// One block device's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceIo {
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

/// Stall times in microseconds, `(some, full)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) cpu: (u64, u64),
    pub(crate) memory: (u64, u64),
    pub(crate) io: (u64, u64),
}

/// Reads a cgroup; `None` if it is gone or counts no CPU time, in which case its processes have to be
/// added up. So have they for the memory if [`Usage::memory`] is `None`.
pub(crate) fn read(tree: &Path, path: &str) -> Option<(u64, Usage, bool)> {
    let dir = tree.join(path.trim_start_matches('/'));
    let identity = fs::metadata(&dir).ok()?.ino();
    let stat = fs::read_to_string(dir.join("cpu.stat")).ok()?;
    let micros = |key| keyed(&stat, key).map(|micros| micros.saturating_mul(1_000));
    let memory = memory(&dir);
    let usage = Usage {
        cpu_ns: micros("usage_usec")?,
        cpu_user_ns: micros("user_usec").unwrap_or(0),
        cpu_system_ns: micros("system_usec").unwrap_or(0),
        throttle: keyed(&stat, "nr_periods").map(|periods| Throttle {
            periods,
            throttled_periods: keyed(&stat, "nr_throttled").unwrap_or(0),
            throttled_ns: micros("throttled_usec").unwrap_or(0),
        }),
        memory: memory.unwrap_or_default(),
        io: device_io(&fs::read_to_string(dir.join("io.stat")).unwrap_or_default()),
        pressure: pressure(|what| fs::read_to_string(dir.join(format!("{what}.pressure"))).ok()),
        oom_kills: fs::read_to_string(dir.join("memory.events"))
            .ok()
            .and_then(|text| keyed(&text, "oom_kill")),
        cpu_quota: fs::read_to_string(dir.join("cpu.max")).ok().and_then(|text| quota(&text)),
    };
    Some((identity, usage, memory.is_some()))
}

fn memory(dir: &Path) -> Option<Memory> {
    let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
    let usage = number("memory.current")?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let of = |key| keyed(&stat, key);
    let inactive_file = of("inactive_file");
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(inactive_file.unwrap_or(0)),
        rss: of("anon").unwrap_or(0),
        swap: number("memory.swap.current").unwrap_or(0),
        cache: of("file"),
        mapped_file: of("file_mapped"),
        kernel: of("kernel"),
        active_file: of("active_file"),
        inactive_file,
        peak: number("memory.peak"),
        limit: number("memory.max"),
        swap_limit: number("memory.swap.max"),
        page_faults: of("pgfault").unwrap_or(0),
        major_page_faults: of("pgmajfault").unwrap_or(0),
    })
}

/// The number behind `key` in a file of `key number` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn quota(text: &str) -> Option<(u64, u64)> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some((period.parse().ok()?, quota.parse().ok()?))
}

/// `io.stat`: `254:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`
fn device_io(text: &str) -> Vec<DeviceIo> {
    let line = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let of = |key: &str| {
            rest.split(' ')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
                .unwrap_or(0)
        };
        Some(DeviceIo {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            read_bytes: of("rbytes"),
            written_bytes: of("wbytes"),
            reads: of("rios"),
            writes: of("wios"),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Stall totals of the three resources, from the text of each one's file.
pub(crate) fn pressure(read: impl Fn(&str) -> Option<String>) -> Option<Pressure> {
    let totals = |what: &str| {
        let text = read(what)?;
        let total = |kind: &str| {
            let line = text.lines().find(|line| line.starts_with(kind))?;
            line.rsplit_once("total=")?.1.trim().parse::<u64>().ok()
        };
        Some((total("some")?, total("full").unwrap_or(0)))
    };
    Some(Pressure { cpu: totals("cpu")?, memory: totals("memory")?, io: totals("io")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_and_pressure_are_read() {
        let io = device_io("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nbroken\n8:1\n");
        assert_eq!(
            io,
            [DeviceIo { major: 254, minor: 0, read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 }]
        );
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 total=7\n";
        assert_eq!(
            pressure(|_| Some(text.to_owned())),
            Some(Pressure { cpu: (12, 7), memory: (12, 7), io: (12, 7) })
        );
        assert_eq!(pressure(|what| (what != "io").then(|| text.to_owned())), None);
    }

    #[test]
    fn a_quota_of_max_is_none() {
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("200000 100000\n"), Some((100_000, 200_000)));
    }
}
