//! The queries under way, in a file that outlives the process: `queries.active`, as Prometheus keeps it.
//!
//! The file is `[` and one place of 1,000 bytes for each query that may run at once: a JSON object and a
//! comma, or zeros. A place is written with one call when its query begins and cleared when it ends, so
//! what a crash of the process leaves tells which queries ran. Two small writes to the page cache cost some
//! microseconds a query; nothing is synced, as a crash of the machine is not what this is for.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

/// The file's name in the data directory.
const NAME: &str = "queries.active";

/// Bytes of a place.
const PLACE_BYTES: usize = 1000;

/// More places than this are not made, whatever the concurrency.
const PLACES_MAX: usize = 10_000;

/// The file with its free places.
#[derive(Debug)]
pub struct ActiveQueries {
    file: File,
    free: Mutex<Vec<usize>>,
}

/// A query's place; dropping it clears it.
#[derive(Debug)]
pub(crate) struct Place {
    queries: Arc<ActiveQueries>,
    at: usize,
}

impl ActiveQueries {
    /// Makes the file anew in `dir` for `places` queries at once. Also returns what the last run left, as
    /// a JSON list, if it did not end in order.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(dir: &Path, places: usize) -> std::io::Result<(Self, Option<String>)> {
        let path = dir.join(NAME);
        let places = places.clamp(1, PLACES_MAX);
        let mut left = Vec::new();
        match File::open(&path) {
            Ok(old) => drop(old.take((1 + PLACES_MAX * PLACE_BYTES) as u64).read_to_end(&mut left)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = File::create(&path)?;
        file.write_all(b"[")?;
        file.set_len((1 + places * PLACE_BYTES) as u64)?;
        let free = (0..places).rev().collect();
        Ok((Self { file, free: Mutex::new(free) }, unfinished(&left)))
    }

    /// Writes a query that begins at `now_s`; nothing if all places are taken.
    pub(crate) fn begin(self: &Arc<Self>, query: &str, now_s: i64) -> Option<Place> {
        let at = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        let place = Place { queries: Arc::clone(self), at };
        // A query that cannot be noted runs all the same.
        let _ = self.file.write_all_at(&entry(query, now_s), offset(at));
        Some(place)
    }
}

fn offset(at: usize) -> u64 {
    (1 + at * PLACE_BYTES) as u64
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.queries.file.write_all_at(&[0; PLACE_BYTES], offset(self.at));
        self.queries.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.at);
    }
}

/// A query as it stands in the file; of a long one the beginning.
fn entry(query: &str, now_s: i64) -> Vec<u8> {
    let mut end = query.len().min(PLACE_BYTES);
    loop {
        while !query.is_char_boundary(end) {
            end -= 1;
        }
        let mut text = json!({"query": query[..end], "timestamp_sec": now_s}).to_string();
        text.push(',');
        if text.len() <= PLACE_BYTES || end == 0 {
            return text.into_bytes();
        }
        end -= (text.len() - PLACE_BYTES).min(end);
    }
}

/// What a file tells of the run that wrote it: a JSON list, if any query was under way.
fn unfinished(file: &[u8]) -> Option<String> {
    let text: Vec<u8> = file.iter().copied().filter(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&text);
    let queries = text.strip_prefix('[')?.trim_end_matches(',');
    (!queries.is_empty()).then(|| format!("[{queries}]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_crash_leaves_the_queries_that_ran() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let (queries, left) = ActiveQueries::open(dir, 2).unwrap();
        assert_eq!(left, None);
        let queries = Arc::new(queries);
        let first = queries.begin("up", 1).unwrap();
        let second = queries.begin("sum(rate(x[5m]))", 2).unwrap();
        assert!(queries.begin("one too many", 3).is_none());
        drop(first);
        std::mem::forget(second);
        let (_, left) = ActiveQueries::open(dir, 2).unwrap();
        let left: serde_json::Value = serde_json::from_str(&left.unwrap()).unwrap();
        assert_eq!(left, json!([{"query": "sum(rate(x[5m]))", "timestamp_sec": 2}]));
        assert_eq!(ActiveQueries::open(dir, 2).unwrap().1, None);
    }

    #[test]
    fn what_prometheus_leaves_is_read() {
        let mut file = b"[{\"query\":\"a\",\"timestamp_sec\":1},".to_vec();
        file.resize(1001, 0);
        file.extend_from_slice(b"{\"query\":\"b\",\"timestamp_sec\":2},");
        let wanted = r#"[{"query":"a","timestamp_sec":1},{"query":"b","timestamp_sec":2}]"#;
        assert_eq!(unfinished(&file).as_deref(), Some(wanted));
        assert_eq!(unfinished(b"["), None);
        assert_eq!(unfinished(b""), None);
    }

    proptest! {
        #[test]
        fn an_entry_fits_its_place(query in "(?s).{0,1500}") {
            let entry = entry(&query, i64::MAX);
            prop_assert!(entry.len() <= PLACE_BYTES);
            let value: serde_json::Value = serde_json::from_slice(&entry[..entry.len() - 1]).unwrap();
            let kept = value["query"].as_str().unwrap();
            prop_assert!(query.starts_with(kept));
            let fits = json!({"query": query, "timestamp_sec": i64::MAX}).to_string().len() < PLACE_BYTES;
            prop_assert_eq!(kept == query, fits);
        }
    }
}
