//! Which series belong together.
//!
//! Arithmetic: of a series of twelve labels, `by` looks at those it lists and no others; the workers that
//! compute its values put their text together and hash it (about 60 bytes, some 150 ns), so that what is left
//! for the one that folds is to look the group up (some 50 ns). A new group costs its label set, one copy of
//! that text, and 8 bytes in a table.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::{Labels, LabelsBuffer, METRIC_NAME};

use crate::ast::Aggregate;
use crate::eval::source::Source;

/// By which labels series are grouped.
pub(super) struct Grouping {
    without: bool,
    /// Ascending and unique.
    names: Vec<String>,
    hasher: DefaultHashBuilder,
}

/// The labels that tell the group of a series, with their hash.
#[derive(Clone, Default)]
pub(super) struct Key {
    labels: LabelsBuffer,
    hash: u64,
}

impl Grouping {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        let mut names = aggregate.grouping.clone();
        if aggregate.without {
            names.push(METRIC_NAME.to_owned());
        }
        names.sort_unstable();
        names.dedup();
        Self { without: aggregate.without, names, hasher: DefaultHashBuilder::default() }
    }

    /// Reads the key of a series.
    pub(super) fn read(&self, source: &dyn Source, series: usize, key: &mut Key) {
        key.labels.clear();
        let mut listed = self.names.iter().map(String::as_str).peekable();
        if self.without {
            source.visit_labels(series, &mut |name, value| {
                while listed.next_if(|listed| *listed < name).is_some() {}
                if listed.peek() != Some(&name) {
                    key.labels.push(name, value);
                }
            });
        } else if listed.peek().is_some() {
            source.visit_some_labels(series, &self.names, &mut |name, value| key.labels.push(name, value));
        }
        key.hash = self.hasher.hash_one(&key.labels);
    }
}

/// The groups seen so far. A group is found by its labels.
#[derive(Default)]
pub(super) struct Groups {
    index: HashTable<Listed>,
    labels: Vec<(Labels, bool)>,
}

/// A group with half of its hash, so that a table that grows need not hash labels again.
struct Listed {
    group: u32,
    hash: u32,
}

impl Listed {
    /// The kept half of a hash.
    fn half(hash: u64) -> u32 {
        (hash >> 32) as u32
    }

    /// Spreads it over 64 bits for the table.
    fn spread(half: u32) -> u64 {
        u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Groups {
    /// The group of a key; new groups are numbered in order of appearance. `loses_name` says whether the
    /// metric name of the series is to be removed at the end.
    pub(super) fn of(&mut self, key: &Key, loses_name: bool) -> usize {
        let half = Listed::half(key.hash);
        let is_it =
            |listed: &Listed| listed.hash == half && key.labels.is(&self.labels[listed.group as usize].0);
        if let Some(listed) = self.index.find(Listed::spread(half), is_it) {
            let at = listed.group as usize;
            // One member that has lost its name is enough.
            let (labels, drop_name) = &mut self.labels[at];
            *drop_name = *drop_name || loses_name && labels.metric_name().is_some();
            return at;
        }
        let (at, labels) = (self.labels.len(), key.labels.to_labels());
        // 2^32 groups would be some 400 GB.
        let listed = Listed { group: u32::try_from(at).unwrap_or(u32::MAX), hash: half };
        self.index.insert_unique(Listed::spread(half), listed, |other| Listed::spread(other.hash));
        // A name that is kept only to be removed at the end is still to be removed.
        let drop_name = loses_name && labels.metric_name().is_some();
        self.labels.push((labels, drop_name));
        at
    }

    /// The labels of all groups, and whether their names are to be removed at the end.
    pub(super) fn into_labels(self) -> Vec<(Labels, bool)> {
        self.labels
    }
}
