//! Servers that answer questions about data they were loaded with.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::load::Sender;
use crate::pods::Pods;
use crate::rivals::Rival;
use crate::{Measured, free_address, get, now_ms, wait};

/// Whatever went wrong.
pub type Failure = Box<dyn std::error::Error>;

/// Time between two samples.
pub const STEP_MS: i64 = 15_000;
const PATIENCE: Duration = Duration::from_secs(300);

/// A server under measurement.
#[derive(Clone)]
pub struct Server {
    /// Which one.
    pub rival: Rival,
    /// What is added to a query.
    pub extra: &'static str,
}

impl From<Rival> for Server {
    fn from(rival: Rival) -> Self {
        // Its answers must be computed, as those of the others are.
        let extra = if rival.name == "victoria-metrics" { "&nocache=1" } else { "" };
        Self { rival, extra }
    }
}

impl Server {
    /// Starts it on the data in `dir`; the process and its address once it is ready.
    ///
    /// # Errors
    /// It does not start, or is not ready in time.
    pub fn start(&self, dir: &Path) -> Result<(Measured, String), Failure> {
        self.start_with(dir, None)
    }

    /// The same with a configuration file.
    ///
    /// # Errors
    /// As those of [`Server::start`].
    pub fn start_with(&self, dir: &Path, config: Option<&Path>) -> Result<(Measured, String), Failure> {
        let address = free_address()?;
        let mut arguments = (self.rival.arguments)(&address, dir);
        if let Some(config) = config {
            arguments.retain(|argument| !argument.starts_with("--config.file"));
            arguments.push(format!("--config.file={}", config.display()));
        }
        let server = Measured::start(&self.rival.program, &arguments)?;
        // Ours answers before it has its history, and says so in each answer.
        let is_whole = || {
            let answer = get(&address, "/api/v1/query?query=1");
            get(&address, self.rival.ready_path).is_some()
                && answer.is_some_and(|body| !body.contains("\"warnings\""))
        };
        wait(Instant::now(), PATIENCE, is_whole).ok_or("not ready")?;
        Ok((server, address))
    }
}

/// Loads the data for a server unless they are there; their last time.
///
/// # Errors
/// The server fails, or refuses data.
pub fn prepare(server: &Server, dir: &Path, pods: &dyn Fn() -> Pods, steps: i64) -> Result<i64, Failure> {
    std::fs::create_dir_all(dir)?;
    let (marker, data) = (dir.join(format!("{}.end", server.rival.name)), dir.join(server.rival.name));
    if let Ok(end) = std::fs::read_to_string(&marker) {
        return Ok(end.trim().parse()?);
    }
    let end = if server.rival.name == "prometheus" {
        let copied = Command::new("cp").arg("-r").arg(dir.join("pyrometer")).arg(&data).status()?;
        if !copied.success() {
            return Err("cannot copy the data".into());
        }
        let _ = std::fs::remove_file(data.join("lock"));
        std::fs::read_to_string(dir.join("pyrometer.end"))?.trim().parse()?
    } else {
        let end = match std::fs::read_to_string(dir.join("pyrometer.end")) {
            Ok(end) => end.trim().parse()?,
            Err(_) => now_ms() / STEP_MS * STEP_MS,
        };
        let (running, address) = server.start(&data)?;
        let mut pods = pods();
        let mut sender = Sender::connect(&address, "/api/v1/write")?;
        for step in (0..steps).rev() {
            for body in pods.requests(end - step * STEP_MS) {
                let status = sender.post(&body)?;
                if !(200..300).contains(&status) {
                    return Err(format!("{} refuses data with {status}", server.rival.name).into());
                }
            }
        }
        // Whatever is still on its way to disk.
        std::thread::sleep(Duration::from_secs(5));
        running.stop()?;
        end
    };
    std::fs::write(marker, end.to_string())?;
    Ok(end)
}

/// One line of the table.
pub struct Line {
    /// CPU of a request.
    pub cpu_ms: f64,
    /// Median time of a request.
    pub wall_ms: f64,
    /// Size of an answer.
    pub bytes: usize,
}

/// Waits until a server has done what it does after its start.
pub fn settle(running: &Measured) {
    for _ in 0..60 {
        let before = running.cpu_seconds();
        std::thread::sleep(Duration::from_millis(500));
        if running.cpu_seconds() - before < 0.02 {
            return;
        }
    }
}

/// Asks for `path` again and again until `enough` has passed, at least three times.
///
/// # Errors
/// There is no answer.
pub fn repeat(running: &Measured, address: &str, path: &str, enough: Duration) -> Result<Line, Failure> {
    let body = get(address, path).ok_or_else(|| format!("no answer to {path}"))?;
    let (before, since) = (running.cpu_seconds(), Instant::now());
    let mut walls = Vec::new();
    while walls.len() < 3 || since.elapsed() < enough {
        let asked = Instant::now();
        get(address, path).ok_or("no answer")?;
        walls.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    let cpu_ms = (running.cpu_seconds() - before) * 1e3 / walls.len() as f64;
    walls.sort_by(f64::total_cmp);
    Ok(Line { cpu_ms, wall_ms: walls[walls.len() / 2], bytes: body.len() })
}

/// `text` percent-encoded.
#[must_use]
pub fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
