//! What does not change about the host.

use std::fs;
use std::path::Path;

use crate::AgentError;

/// The machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Processors that are online.
    pub cpus: f64,
    /// Physical cores.
    pub physical_cores: u64,
    /// Processor packages.
    pub sockets: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Swap in bytes.
    pub swap_bytes: u64,
    /// When the kernel started, milliseconds since the epoch.
    pub boot_time_ms: i64,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The operating system's name and version.
    pub os_image: String,
    /// The operating system: `linux`.
    pub os: &'static str,
    /// The architecture by Go's name: `amd64`, `arm64` ...
    pub arch: &'static str,
    /// `/etc/machine-id`, if there is one.
    pub machine_id: String,
    /// The kernel's random name of this boot.
    pub boot_id: String,
    /// The firmware's UUID, if it can be read.
    pub system_uuid: String,
}

impl Machine {
    pub(crate) fn read(root: &Path) -> Result<Self, AgentError> {
        let stat = read(root, "proc/stat")?;
        let meminfo = read(root, "proc/meminfo")?;
        let cpuinfo = read(root, "proc/cpuinfo")?;
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
        let boot =
            boot.ok_or_else(|| AgentError::Format { path: root.join("proc/stat"), what: "btime line" })?;
        let memory = meminfo_bytes(&meminfo, "MemTotal")
            .ok_or_else(|| AgentError::Format { path: root.join("proc/meminfo"), what: "MemTotal line" })?;
        let text = |path: &str| fs::read_to_string(root.join(path)).map_or_else(|_| String::new(), trimmed);
        let (cpus, physical_cores, sockets) = count_processors(&stat, &cpuinfo);
        Ok(Self {
            cpus,
            physical_cores,
            sockets,
            memory_bytes: memory,
            swap_bytes: meminfo_bytes(&meminfo, "SwapTotal").unwrap_or(0),
            boot_time_ms: boot.saturating_mul(1_000),
            kernel: text("proc/sys/kernel/osrelease"),
            os_image: os_image(&text("etc/os-release")),
            os: std::env::consts::OS,
            arch: go_arch(),
            machine_id: text("etc/machine-id"),
            boot_id: text("proc/sys/kernel/random/boot_id"),
            system_uuid: text("sys/class/dmi/id/product_uuid"),
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the text was just read and is not needed any more")]
fn trimmed(text: String) -> String {
    text.trim().to_owned()
}

pub(crate) fn read(root: &Path, path: &str) -> Result<String, AgentError> {
    let path = root.join(path);
    fs::read_to_string(&path).map_err(|source| AgentError::Read { path, source })
}

/// A line of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Online processors, physical cores, packages.
fn count_processors(stat: &str, cpuinfo: &str) -> (f64, u64, u64) {
    let online = stat
        .lines()
        .filter(|line| {
            line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .fold(0.0, |count, _| count + 1.0);
    let (mut cores, mut packages) = (Vec::new(), Vec::new());
    let mut package = "0";
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key.trim() {
            "physical id" => {
                package = value.trim();
                packages.push(package);
            }
            "core id" => cores.push((package, value.trim())),
            _ => {}
        }
    }
    cores.sort_unstable();
    cores.dedup();
    packages.sort_unstable();
    packages.dedup();
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let cores = if cores.is_empty() { processors } else { cores.len() };
    (online, cores as u64, packages.len().max(1) as u64)
}

fn os_image(os_release: &str) -> String {
    let pretty = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.unwrap_or("").trim_matches('"').to_owned()
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
