//! What the kernel says about this process, for `process_*` metrics.

/// Figures of this process. Fields are absent where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    /// CPU time in user and kernel mode, in seconds.
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) open_files: Option<usize>,
    pub(crate) open_files_max: Option<u64>,
    pub(crate) threads: Option<u64>,
}

/// Ticks of `/proc/self/stat` per second. The kernel's ABI fixes it at 100 on every architecture that
/// Pyrometer runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// `/proc/self/status` counts memory in units of this many bytes.
const KIB: u64 = 1024;

impl Process {
    /// Reads `/proc/self`.
    pub(crate) fn read() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let open_files = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        Self { open_files, ..Self::parse(&stat, &status, &limits) }
    }

    fn parse(stat: &str, status: &str, limits: &str) -> Self {
        // The command name, in parentheses, may hold blanks: fields are counted from behind it.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let cpu_seconds =
            ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) as f64 / TICKS_PER_SECOND);
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let open_files_max = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .and_then(|line| line.split_whitespace().next()?.parse().ok());
        Self {
            cpu_seconds,
            resident_bytes: line("VmRSS:").map(|kib| kib * KIB),
            virtual_bytes: line("VmSize:").map(|kib| kib * KIB),
            open_files: None,
            open_files_max,
            threads: line("Threads:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_text() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 1234 1 2";
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t4\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 4096                 files\n";
        let process = Process::parse(stat, status, limits);
        assert_eq!(process.cpu_seconds, Some(2.0));
        assert_eq!(process.resident_bytes, Some(1 << 20));
        assert_eq!(process.virtual_bytes, Some(2 << 20));
        assert_eq!(process.open_files_max, Some(1024));
        assert_eq!(process.threads, Some(4));
        assert_eq!(Process::parse("", "", ""), Process::default());
        assert!(Process::read().resident_bytes.is_some_and(|bytes| bytes > 0));
    }
}
