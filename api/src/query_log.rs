//! The query log: a JSON line for each query, in the form that Prometheus writes
//! (`global.query_log_file`), so that tools which read one read the other.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Method;
use axum::http::request::Parts;
use jiff::fmt::temporal::DateTimePrinter;
use model::Timestamp;
use serde_json::{Value, json};

/// Where queries are logged, if anywhere.
#[derive(Debug, Default)]
pub(crate) struct QueryLog(Mutex<Option<(PathBuf, File)>>);

/// A query that has ended.
pub(crate) struct Entry<'a> {
    pub(crate) now: Timestamp,
    pub(crate) query: &'a str,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) step_ms: i64,
    /// Why it has no answer.
    pub(crate) error: Option<String>,
    /// What it cost, as the API shows it.
    pub(crate) stats: Value,
    pub(crate) origin: Origin<'a>,
}

/// Who asked.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// Somebody over HTTP.
    Request { client: &'a Client, path: &'a str },
    /// A rule of a group.
    Group { file: &'a str, name: &'a str },
}

/// Who sent a request, and how.
pub(crate) struct Client {
    method: Method,
    address: Option<IpAddr>,
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self { method: parts.method.clone(), address: peer.map(|peer| peer.0.ip()) })
    }
}

impl QueryLog {
    /// Logs to `path` from now on; to nowhere without one. A file that is in use already stays open.
    pub(crate) fn switch(&self, path: Option<&Path>) -> std::io::Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().map(|(path, _)| path.as_path()) == path {
            return Ok(());
        }
        *slot = match path {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                Some((path.to_owned(), file))
            }
            None => None,
        };
        Ok(())
    }

    /// Whether queries are logged.
    pub(crate) fn is_on(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Logs a query. A line that cannot be written is lost: the query has its answer.
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let line = format!("{}\n", line(entry));
        if let Some((_, file)) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

fn line(entry: &Entry<'_>) -> Value {
    let mut line = json!({
        "time": rfc3339(entry.now),
        "level": "INFO",
        "msg": "promql query logged",
        "params": {
            "query": entry.query,
            "start": rfc3339(entry.start),
            "end": rfc3339(entry.end),
            "step": entry.step_ms / 1000,
        },
        "stats": entry.stats,
    });
    match entry.origin {
        Origin::Request { client, path } => {
            let address =
                client.address.map_or_else(String::new, |address| address.to_canonical().to_string());
            line["httpRequest"] =
                json!({"clientIP": address, "method": client.method.as_str(), "path": path});
        }
        Origin::Group { file, name } => line["ruleGroup"] = json!({"file": file, "name": name}),
    }
    if let Some(error) = &entry.error {
        line["error"] = json!(error);
    }
    line
}

/// `2006-01-02T15:04:05.000Z`
fn rfc3339(ms: Timestamp) -> String {
    let printer = DateTimePrinter::new().precision(Some(3));
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| ms.to_string(), |timestamp| printer.timestamp_to_string(&timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(query: &str) -> Entry<'_> {
        Entry {
            now: 1_795_236_700_123,
            query,
            start: 1_795_236_700_000,
            end: 1_795_236_730_000,
            step_ms: 15_000,
            error: None,
            stats: json!({"samples": {"totalQueryableSamples": 12}}),
            origin: Origin::Group { file: "/rules.yml", name: "g" },
        }
    }

    #[test]
    fn lines_are_those_of_prometheus() {
        let of_rule = line(&entry("up"));
        assert_eq!(of_rule["ruleGroup"], json!({"file": "/rules.yml", "name": "g"}));
        assert!(of_rule.get("httpRequest").is_none());
        let address = Some("::ffff:10.1.2.3".parse().unwrap());
        let client = Client { method: Method::GET, address };
        let origin = Origin::Request { client: &client, path: "/api/v1/query_range" };
        let line = line(&Entry { origin, ..entry("up") });
        assert_eq!(line["time"], "2026-11-21T04:51:40.123Z");
        assert_eq!(line["msg"], "promql query logged");
        let params = json!({
            "query": "up", "start": "2026-11-21T04:51:40.000Z", "end": "2026-11-21T04:52:10.000Z", "step": 15
        });
        assert_eq!(line["params"], params);
        let request = json!({"clientIP": "10.1.2.3", "method": "GET", "path": "/api/v1/query_range"});
        assert_eq!(line["httpRequest"], request);
        assert!(line.get("error").is_none());
    }

    #[test]
    fn the_file_can_be_switched_while_queries_come() {
        let dir = std::env::temp_dir().join(format!("query-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let log = QueryLog::default();
        assert!(!log.is_on());
        for name in ["a", "b", "b"] {
            log.switch(Some(&dir.join(name))).unwrap();
            log.write(&entry(name));
        }
        log.switch(None).unwrap();
        log.write(&entry("nowhere"));
        let lines = |name| std::fs::read_to_string(dir.join(name)).unwrap().lines().count();
        assert_eq!((lines("a"), lines("b"), log.is_on()), (1, 2, false));
        assert!(log.switch(Some(&dir.join("no/such/folder"))).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
