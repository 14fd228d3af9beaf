//! What targets say about their metrics.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;

/// The kind of a metric, as the exposition formats have it. The numbers are those of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MetricKind {
    /// Not said.
    #[default]
    Unknown = 0,
    /// Only grows.
    Counter = 1,
    /// Moves up and down.
    Gauge = 2,
    /// Counts by bucket.
    Histogram = 3,
    /// Counts by bucket that move up and down.
    GaugeHistogram = 4,
    /// Quantiles.
    Summary = 5,
    /// Labels with the value 1.
    Info = 6,
    /// One of several states.
    StateSet = 7,
}

impl MetricKind {
    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Counter,
            2 => Self::Gauge,
            3 => Self::Histogram,
            4 => Self::GaugeHistogram,
            5 => Self::Summary,
            6 => Self::Info,
            7 => Self::StateSet,
            _ => Self::Unknown,
        }
    }
}

/// What a target says about a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The kind of the metric.
    pub kind: MetricKind,
    /// The unit, e.g. `seconds`; empty if there is none.
    pub unit: String,
    /// What it means, for people.
    pub help: String,
}

/// The newest metadata of each series: about 20 bytes a series that has some, and the texts once.
#[derive(Debug, Default)]
pub(crate) struct AllMetadata(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    texts: HashSet<Arc<Metadata>>,
    by_series: HashMap<u32, Arc<Metadata>>,
}

impl AllMetadata {
    pub(crate) fn get(&self, id: u32) -> Option<Arc<Metadata>> {
        self.0.read().by_series.get(&id).cloned()
    }

    /// Sets what is known about a series; false if it was known.
    pub(crate) fn set(&self, id: u32, metadata: &Metadata) -> bool {
        let mut known = self.0.write();
        if known.by_series.get(&id).is_some_and(|old| **old == *metadata) {
            return false;
        }
        let shared =
            Arc::clone(known.texts.get_or_insert_with(metadata, |metadata| Arc::new(metadata.clone())));
        known.by_series.insert(id, shared);
        true
    }

    /// Takes in what was said earlier about series that have nothing newer.
    pub(crate) fn absorb(&self, older: Self) {
        for (id, metadata) in older.0.into_inner().by_series {
            if self.get(id).is_none() {
                self.set(id, &metadata);
            }
        }
    }

    /// Forgets series, and texts that no other has.
    pub(crate) fn forget(&self, ids: &[u32]) {
        let mut known = self.0.write();
        if known.by_series.is_empty() {
            return;
        }
        for id in ids {
            known.by_series.remove(id);
        }
        known.texts.retain(|text| Arc::strong_count(text) > 1);
    }
}
