//! `meta.json`: what a block is. Drawn in `docs/format.md`, section "meta.json".

use model::{TimeRange, Timestamp};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The content of `meta.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// The block's name, and that of its directory.
    pub ulid: Ulid,
    /// The first millisecond that may have samples.
    pub min_time: Timestamp,
    /// The millisecond after the last that may have samples.
    pub max_time: Timestamp,
    /// Counts.
    #[serde(default)]
    pub stats: Stats,
    /// How the block came to be.
    pub compaction: Compaction,
    /// Always 1.
    pub version: u32,
    /// What other programs have added.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// What a block contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Samples of all kinds.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Floats.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Native histograms.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    /// Series.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Deleted intervals that are still in the files.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The ancestry of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Compaction {
    /// 1 for a block cut from a head; one more than its parents' otherwise.
    pub level: u32,
    /// The blocks of level 1 that went into it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Ulid>,
    /// The blocks it was made of directly; they may be deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// Whether it has no samples and may be deleted at once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deletable: bool,
    /// Whether compacting it has failed before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Words about its origin, e.g. `from-out-of-order`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// A block that was compacted away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// Its name.
    pub ulid: Ulid,
    /// Its first millisecond.
    pub min_time: Timestamp,
    /// The millisecond after its last.
    pub max_time: Timestamp,
}

impl Meta {
    /// A block of level 1.
    pub(crate) fn first_level(ulid: Ulid, min_time: Timestamp, max_time: Timestamp) -> Self {
        let compaction = Compaction { level: 1, sources: vec![ulid], ..Compaction::default() };
        let other = serde_json::Map::new();
        Self { ulid, min_time, max_time, stats: Stats::default(), compaction, version: 1, other }
    }

    /// The span of time the block may have samples in.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        TimeRange::new(self.min_time, self.max_time.saturating_sub(1))
    }

    /// Whether it was made of late samples, so that it says nothing about the end of in-order history.
    #[must_use]
    pub fn is_out_of_order(&self) -> bool {
        self.compaction.hints.iter().any(|hint| hint == "from-out-of-order")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_prometheus_and_keeps_what_others_added() {
        let text = r#"{"ulid":"01M7Y7CEY9RBZ03TVMP804ARK5","minTime":1,"maxTime":9,
            "stats":{"numSamples":4,"numSeries":3,"numChunks":3},
            "compaction":{"level":2,"sources":["01M7Y7CEY9RBZ03TVMP804ARK5"],"hints":["from-out-of-order"]},
            "version":1,"thanos":{"labels":{"a":"b"}}}"#;
        let meta: Meta = serde_json::from_str(text).unwrap();
        assert_eq!(meta.range(), TimeRange::new(1, 8));
        assert!(meta.is_out_of_order());
        assert_eq!(meta.stats.num_samples, 4);
        let again: Meta = serde_json::from_str(&serde_json::to_string(&meta).unwrap()).unwrap();
        assert_eq!(again, meta);
        assert_eq!(again.other["thanos"]["labels"]["a"], "b");
    }
}
