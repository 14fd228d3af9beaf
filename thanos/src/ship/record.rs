//! `thanos.shipper.json`: the blocks that are in the bucket, or were before somebody compacted or deleted them there.
//! The file is Thanos' own, so a sidecar can take over.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(super) const FILE: &str = "thanos.shipper.json";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    version: u32,
    /// Go writes an empty list as null.
    #[serde(default)]
    uploaded: Option<BTreeSet<String>>,
}

/// The record of a data directory.
pub(super) struct Record {
    path: PathBuf,
    uploaded: BTreeSet<String>,
    changed: bool,
}

impl Record {
    /// Reads the record. One that is not there or cannot be read is empty: then the bucket is asked.
    pub(super) fn read(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let read = std::fs::read(&path).and_then(|text| {
            let content: Content = serde_json::from_slice(&text)?;
            if content.version == 1 { Ok(content) } else { Err(io::Error::other("an unknown version")) }
        });
        let (uploaded, changed) = match read {
            Ok(content) => (content.uploaded.unwrap_or_default(), false),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("{}: {error}; the bucket is asked for each block", path.display());
                }
                (BTreeSet::new(), true)
            }
        };
        Self { path, uploaded, changed }
    }

    /// Forgets blocks that are not among `here`.
    pub(super) fn retain(&mut self, here: &BTreeSet<String>) {
        let before = self.uploaded.len();
        self.uploaded.retain(|name| here.contains(name));
        self.changed |= self.uploaded.len() != before;
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.uploaded.contains(name)
    }

    pub(super) fn insert(&mut self, name: String) {
        self.changed |= self.uploaded.insert(name);
    }

    /// Replaces the file, if something has changed.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let content = Content { version: 1, uploaded: Some(self.uploaded.clone()) };
        let next = self.path.with_extension("json.tmp");
        let mut text = serde_json::to_string_pretty(&content)?;
        text.push('\n');
        std::fs::write(&next, text)?;
        std::fs::File::open(&next)?.sync_all()?;
        std::fs::rename(&next, &self.path)
    }
}
