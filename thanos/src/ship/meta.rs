//! `meta.json` as Thanos wants it.

use model::{Labels, Timestamp};
use serde_json::{Map, Value, json};
use tsdb::BlockMeta;

/// A file of a block.
pub(super) struct StagedFile {
    /// Below the block's directory.
    pub(super) path: String,
    pub(super) bytes: u64,
}

/// The block's own description with a section for Thanos. Fields that another program has put into that section
/// stay, but for those that say whose block this is and what it consists of.
pub(super) fn with_thanos(
    block: &BlockMeta,
    labels: &Labels,
    files: &[StagedFile],
    now: Timestamp,
) -> String {
    let mut meta = block.clone();
    let mut section = match meta.other.remove("thanos") {
        Some(Value::Object(section)) => section,
        _ => Map::new(),
    };
    let segments = files.iter().filter_map(|file| file.path.strip_prefix("chunks/"));
    let mut all: Vec<Value> =
        files.iter().map(|file| json!({"rel_path": file.path, "size_bytes": file.bytes})).collect();
    // It cannot say how long it is itself.
    all.push(json!({"rel_path": "meta.json"}));
    let labels: Map<String, Value> =
        labels.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    section.insert("version".to_owned(), json!(1));
    section.insert("labels".to_owned(), Value::Object(labels));
    section.entry("downsample").or_insert_with(|| json!({"resolution": 0}));
    section.insert("source".to_owned(), json!("sidecar"));
    section.insert("segment_files".to_owned(), segments.collect());
    section.insert("files".to_owned(), Value::Array(all));
    section.entry("index_stats").or_insert_with(|| json!({}));
    if let Ok(time) = jiff::Timestamp::from_millisecond(now) {
        section.insert("upload_time".to_owned(), json!(time.to_string()));
    }
    meta.other.insert("thanos".to_owned(), Value::Object(section));
    // Everything in it can be written.
    let mut text = serde_json::to_string_pretty(&meta).unwrap_or_default();
    text.push('\n');
    text
}
