//! Measurements: each binary here prints a table of one run, with what it ran beside.
//!
//! Wall time on a shared machine says little, so CPU-seconds and bytes are taken from the kernel's
//! accounts of the measured process (`/proc/<pid>`).

pub mod fakes;
pub mod kubelets;
pub mod load;
pub mod pods;
pub mod rivals;
pub mod served;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The kernel's clock ticks a second in `/proc/<pid>/stat`; fixed at 100 by its ABI.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of all threads of this process so far.
#[must_use]
pub fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A server under measurement. Dropping it kills it.
pub struct Measured {
    child: Child,
    started: Instant,
}

impl Measured {
    /// Starts `program`, silently.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, arguments: &[String]) -> std::io::Result<Self> {
        let started = Instant::now();
        let child =
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, started })
    }

    /// Since the process was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// User and kernel CPU time so far, in seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: f64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
        ticks / TICKS_PER_SECOND
    }

    /// A line of `/proc/<pid>/status` that counts memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let rest = status.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_default();
        rest.trim_start_matches(':')
            .split_whitespace()
            .next()
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    }

    /// Bytes that the process has caused to be written to disks.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
        line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Forgets the peak of memory (`VmHWM`) so far.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reset_peak(&self) -> std::io::Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")
    }

    /// Sends the process a signal.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn signal(&self, name: &str) -> std::io::Result<()> {
        Command::new("kill").args([name, &self.child.id().to_string()]).status().map(drop)
    }

    /// Ends the process with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn stop(mut self) -> std::io::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait().map(drop)
    }

    /// Ends the process with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a GET, or nothing if there is no answer of status 200.
#[must_use]
pub fn get(address: &str, path: &str) -> Option<String> {
    ask(address, "GET", path)
}

/// The same of a POST without a body.
#[must_use]
pub fn post(address: &str, path: &str) -> Option<String> {
    ask(address, "POST", path)
}

fn ask(address: &str, method: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1).filter(|status| *status == "200").map(|_| body.to_owned())
}

/// Asks until `done` says yes; how long that took since `since`.
pub fn wait(since: Instant, patience: Duration, mut done: impl FnMut() -> bool) -> Option<Duration> {
    while since.elapsed() < patience {
        if done() {
            return Some(since.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// The value of the first sample of metric `name` on a text page.
#[must_use]
pub fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A program built beside this one.
#[must_use]
pub fn sibling(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or(Path::new("")).join(name)
}

/// A port that was free a moment ago.
///
/// # Errors
/// No port is free.
pub fn free_address() -> std::io::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The wall clock, in milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Bytes of all files below `dir`, as long as they are.
#[must_use]
pub fn file_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => file_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

/// Bytes of all files below `dir`, as allocated on disk.
#[must_use]
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
