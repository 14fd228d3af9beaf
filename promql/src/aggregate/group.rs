//! Which series belong together.
//!
//! Arithmetic: of a series of twelve labels, `by` looks at those it lists and no others. The worker that computes its
//! values puts their text together, hashes it (about 60 bytes, some 100 ns) and looks it up among the groups that it
//! has met itself, which its cache holds. What goes to the one that folds is two numbers, 8 bytes beside the values: a
//! label set would be two more cache lines from another core, some 50 ns each. Only with the first series of a group
//! that a worker meets goes its label set. A new group costs that, and 8 bytes in two tables.

use std::hash::BuildHasher as _;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use model::{Labels, LabelsBuffer, METRIC_NAME};
use parking_lot::Mutex;

use crate::ast::Aggregate;
use crate::eval::source::Source;

/// By which labels series are grouped.
pub(super) struct Grouping {
    without: bool,
    /// Ascending and unique.
    names: Vec<String>,
    hasher: DefaultHashBuilder,
    /// What each worker has met; behind them, what was met by no worker of the pool.
    met: Vec<Own>,
}

/// A worker's own. Cache lines go in pairs; sharing one would cost more than all the rest.
#[derive(Default)]
#[repr(align(128))]
struct Own(Mutex<Met>);

/// Groups that one worker has met.
#[derive(Default)]
struct Met {
    /// Of the series at hand.
    buffer: LabelsBuffer,
    index: HashTable<Listed>,
    labels: Vec<Labels>,
}

/// A worker remembers so many groups: more would not stay in its cache, and have few series each.
const MET_MAX: usize = 4096;

/// Which group a series belongs to.
#[derive(Clone, Default)]
pub(super) struct Key {
    worker: u32,
    /// The group's number there; [`MET_MAX`]: it is not remembered.
    number: u32,
    hash: u64,
    /// Where the worker has not met the group before.
    labels: Option<Labels>,
}

impl Grouping {
    /// `workers` are those of the pool.
    pub(super) fn new(aggregate: &Aggregate, workers: usize) -> Self {
        let mut names = aggregate.grouping.clone();
        if aggregate.without {
            names.push(METRIC_NAME.to_owned());
        }
        names.sort_unstable();
        names.dedup();
        let met = (0..=workers).map(|_| Own::default()).collect();
        Self { without: aggregate.without, names, hasher: DefaultHashBuilder::default(), met }
    }

    /// Reads the key of a series.
    pub(super) fn read(&self, source: &dyn Source, series: usize, key: &mut Key) {
        let other = self.met.len() - 1;
        let worker = rayon::current_thread_index().map_or(other, |worker| worker.min(other));
        let met = &mut *self.met[worker].0.lock();
        let buffer = &mut met.buffer;
        buffer.clear();
        let mut listed = self.names.iter().map(String::as_str).peekable();
        if self.without {
            source.visit_labels(series, &mut |name, value| {
                while listed.next_if(|listed| *listed < name).is_some() {}
                if listed.peek() != Some(&name) {
                    buffer.push(name, value);
                }
            });
        } else if listed.peek().is_some() {
            source.visit_some_labels(series, &self.names, &mut |name, value| buffer.push(name, value));
        }
        *key = met.key(self.hasher.hash_one(&met.buffer));
        key.worker = u32::try_from(worker).unwrap_or(u32::MAX);
    }

    /// The labels of a group that a worker remembers.
    fn remembered(&self, key: &Key) -> Labels {
        self.met[key.worker as usize].0.lock().labels[key.number as usize].clone()
    }
}

impl Met {
    /// The key of the labels in the buffer.
    fn key(&mut self, hash: u64) -> Key {
        let half = Listed::half(hash);
        let is_it =
            |listed: &Listed| listed.hash == half && self.buffer.is(&self.labels[listed.group as usize]);
        if let Some(listed) = self.index.find(Listed::spread(half), is_it) {
            return Key { number: listed.group, hash, ..Key::default() };
        }
        let (number, labels) = (self.labels.len(), self.buffer.to_labels());
        let group = u32::try_from(number).unwrap_or(u32::MAX);
        if number < MET_MAX {
            let listed = Listed { group, hash: half };
            self.index.insert_unique(Listed::spread(half), listed, |other| Listed::spread(other.hash));
            self.labels.push(labels.clone());
        }
        Key { number: group, hash, labels: Some(labels), ..Key::default() }
    }
}

/// The groups seen so far. A group is found by its labels.
#[derive(Default)]
pub(super) struct Groups {
    index: HashTable<Listed>,
    /// The labels of each, and whether their name is to be removed at the end, in blocks of [`BLOCK`]: copying them as
    /// they grow would touch twice the memory, which costs more than all else that is done for a new group.
    labels: Vec<Vec<(Labels, bool)>>,
    /// For each worker, the groups behind its numbers, as far as they are known.
    known: Vec<Vec<Option<u32>>>,
}

/// Groups whose labels lie together.
const BLOCK: usize = 1024;

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
    pub(super) fn of(&mut self, grouping: &Grouping, key: &mut Key, loses_name: bool) -> usize {
        self.known.resize_with(grouping.met.len(), Vec::new);
        let (worker, number) = (key.worker as usize, key.number as usize);
        let known = self.known[worker].get(number).copied().flatten();
        let at = match known {
            Some(at) => at as usize,
            None => {
                // A worker may compute a later series first.
                let labels = key.labels.take().unwrap_or_else(|| grouping.remembered(key));
                let at = self.enlist(labels, Listed::half(key.hash));
                if number < MET_MAX {
                    let known = &mut self.known[worker];
                    known.resize(known.len().max(number + 1), None);
                    known[number] = u32::try_from(at).ok();
                }
                at
            }
        };
        // A name that is kept only to be removed at the end is still to be removed. One member that has lost its name
        // is enough.
        if loses_name {
            let (labels, drop_name) = &mut self.labels[at / BLOCK][at % BLOCK];
            *drop_name = *drop_name || labels.metric_name().is_some();
        }
        at
    }

    /// The group of these labels, found or new.
    fn enlist(&mut self, labels: Labels, half: u32) -> usize {
        let is_it = |listed: &Listed| {
            let at = listed.group as usize;
            listed.hash == half && labels == self.labels[at / BLOCK][at % BLOCK].0
        };
        let at = self.index.len();
        match self.index.entry(Listed::spread(half), is_it, |other| Listed::spread(other.hash)) {
            Entry::Occupied(known) => return known.get().group as usize,
            // 2^32 groups would be some 400 GB.
            Entry::Vacant(free) => {
                free.insert(Listed { group: u32::try_from(at).unwrap_or(u32::MAX), hash: half });
            }
        }
        if at.is_multiple_of(BLOCK) {
            self.labels.push(Vec::with_capacity(if at == 0 { 0 } else { BLOCK }));
        }
        self.labels[at / BLOCK].push((labels, false));
        at
    }

    /// The number of groups.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The labels of all groups, and whether their names are to be removed at the end.
    pub(super) fn into_labels(self) -> impl Iterator<Item = (Labels, bool)> {
        self.labels.into_iter().flatten()
    }
}
