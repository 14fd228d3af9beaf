//! Targets in files: JSON or YAML, found by pattern, read again when they change.
//!
//! Files are looked at every few seconds: size, time and inode behind all symbolic links. That finds what
//! a watch on the file would miss, such as the swap of a directory's link by which Kubernetes changes a ConfigMap, and
//! what a watch on a network file system never reports.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::Labels;
use serde::Deserialize;

use super::FileDiscovery;
use super::feed::Feed;
use crate::config::TargetGroup;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A file larger than this is refused.
const FILE_BYTES_MAX: u64 = 256 << 20;
const FILE_PATH: &str = "__meta_filepath";

/// What tells that a file has changed.
type Stamp = (u64, u64, i64, i64, u64);

pub(super) async fn run(options: FileDiscovery, feed: Arc<Feed>) {
    let options = Arc::new(options);
    let mut known: HashMap<PathBuf, (Stamp, Vec<TargetGroup>)> = HashMap::new();
    let refresh = Duration::from_millis(options.refresh_ms.max(1).unsigned_abs());
    let mut read_all_at = tokio::time::Instant::now() + refresh;
    loop {
        let (again, before, failing) = (Arc::clone(&options), known, Arc::clone(&feed));
        let looked = tokio::task::spawn_blocking(move || look(&again.files, before, &failing)).await;
        known = match looked {
            Ok((now, is_changed)) => {
                if is_changed {
                    feed.replace(now.values().flat_map(|(_, groups)| groups.iter().cloned()).collect());
                }
                now
            }
            Err(_) => HashMap::new(),
        };
        tokio::time::sleep(LOOK_EVERY.min(refresh)).await;
        if tokio::time::Instant::now() >= read_all_at {
            read_all_at = tokio::time::Instant::now() + refresh;
            for (stamp, _) in known.values_mut() {
                *stamp = Stamp::default();
            }
        }
    }
}

type Known = HashMap<PathBuf, (Stamp, Vec<TargetGroup>)>;

/// Reads what is new or changed. A file that cannot be read stands for what it last held.
fn look(patterns: &[PathBuf], mut known: Known, feed: &Feed) -> (Known, bool) {
    let (mut now, mut is_changed) = (Known::new(), false);
    for path in patterns.iter().flat_map(|pattern| matching(pattern)) {
        let old = known.remove(&path);
        let stamp = stamp(&path);
        if let Some((before, groups)) = &old
            && stamp.is_some_and(|stamp| stamp == *before)
        {
            now.insert(path, (*before, groups.clone()));
            continue;
        }
        match read(&path) {
            Ok(groups) => {
                is_changed |= old.is_none_or(|(_, before)| before != groups);
                now.insert(path, (stamp.unwrap_or_default(), groups));
            }
            Err(error) => {
                feed.fail("file", &path.display().to_string(), &error);
                if let Some((_, groups)) = old {
                    now.insert(path, (stamp.unwrap_or_default(), groups));
                }
            }
        }
    }
    // What is left is gone.
    is_changed |= !known.is_empty();
    (now, is_changed)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.dev(), about.ino(), about.mtime(), about.mtime_nsec(), about.size()))
}

/// The files that a pattern means. Its last part may hold `*` and `?`.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !name.contains(['*', '?']) {
        return if pattern.is_file() { vec![pattern.to_owned()] } else { Vec::new() };
    }
    let parent = pattern.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let fitting = entries.filter_map(Result::ok).filter(|entry| {
        let found = entry.file_name();
        fits(name.as_bytes(), found.as_encoded_bytes())
    });
    let mut files: Vec<PathBuf> = fitting.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Whether `name` is of the form `pattern`: `*` is any text, `?` any byte.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on if the text that a star stands for has to be one byte longer.
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[from] => (at, from) = (at + 1, from + 1),
            _ => match star {
                Some((star_at, star_from)) => {
                    star = Some((star_at, star_from + 1));
                    (at, from) = (star_at + 1, star_from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

fn read(path: &Path) -> Result<Vec<TargetGroup>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{size} bytes are too many"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let groups: Vec<Option<GroupOnDisk>> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        _ if text.trim().is_empty() => Vec::new(),
        _ => serde_saphyr::from_str(&text).map_err(|error| error.without_snippet().to_string())?,
    };
    let name = path.display().to_string();
    let named = |(at, group): (usize, Option<GroupOnDisk>)| {
        let group = group.ok_or("a target group is null")?;
        Ok(group.with(format!("{name}:{at}"), (FILE_PATH, &name)))
    };
    groups.into_iter().enumerate().map(named).collect()
}

/// A group as files and HTTP servers write it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GroupOnDisk {
    targets: Vec<String>,
    labels: BTreeMap<String, String>,
}

impl GroupOnDisk {
    pub(super) fn with(mut self, source: String, (name, value): (&str, &str)) -> TargetGroup {
        self.labels.insert(name.to_owned(), value.to_owned());
        TargetGroup { source, ..TargetGroup::of_addresses(&self.targets, Labels::from_pairs(&self.labels)) }
    }
}
