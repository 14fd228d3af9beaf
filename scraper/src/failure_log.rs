//! `scrape_failure_log_file`: a line of JSON for each scrape that failed.

use std::io::Write as _;
use std::path::Path;

use model::Timestamp;

/// Appends a line. The file is opened for it, so that it may be moved away at any time.
pub(crate) fn append(
    path: &Path,
    at: Timestamp,
    (job, url, error): (&str, &str, &str),
) -> std::io::Result<()> {
    let time = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let line = serde_json::json!({
        "time": format!("{time:.3}"), "level": "ERROR", "msg": error, "job_name": job, "target": url,
    });
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
    // In one write, so that lines of several jobs do not mix.
    file.write_all(format!("{line}\n").as_bytes())
}
