//! The newest points of nodes and containers and nothing else: what a process has in place of a store that serves the
//! Metrics API alone.
//!
//! Arithmetic. A container is one row: 72 bytes of points (two of its counter, one of its memory, its start) and 100 of
//! names ([`crate::roster`]), 2.4 MB for 14,000; in a store it is three series of 190 bytes and five minutes of samples,
//! 9.5 MB. A sample is a comparison and a write; a list reads the rows in the order of their names.
//! `benches/src/bin/metrics-api.rs` measures the process: 36 MB with a store, 18 with this.
//!
//! What is computed from the points is computed by the same function as from a store's samples ([`crate::usage`]), and
//! a property test holds both against each other. Two things differ: nothing outlives the process, and a kubelet whose
//! clock is ahead of ours is believed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Labels, Matcher, Timestamp, is_stale_nan, stale_nan};

use crate::roster::{Counter, Names};
use crate::usage::{self, NodeUsage, PodScope, PodTable, Points};
use crate::{POINT_AGE_MAX_MS, kubelet_pages};

/// Fewer rows than these are not looked through for those that are gone.
const ROWS_MIN: usize = 1024;

/// What a series is of.
const CPU: u64 = 1;
const MEMORY: u64 = 2;
const START: u64 = 3;
const CPU_OF_NODES: u64 = 4;
const MEMORY_OF_NODES: u64 = 5;
/// Nothing that is wanted.
const NOTHING: u64 = 15;

/// The newest points. Shared by the threads that scrape and those that answer.
#[derive(Debug)]
pub struct Newest {
    tables: Mutex<Tables>,
    kubelet: Vec<Matcher>,
}

#[derive(Debug, Default)]
struct Tables {
    containers: Table,
    nodes: Table,
    /// The time of the newest point of all.
    newest: Timestamp,
    /// Changes whenever rows get other numbers.
    generation: u16,
}

#[derive(Debug, Default)]
struct Table {
    names: Arc<Names>,
    rows: Vec<Row>,
    /// So many rows there may be before those that are gone are taken out.
    rows_max: usize,
}

/// The points of a node or container; those of [`Timestamp::MIN`] are none.
#[derive(Clone, Copy, Debug)]
struct Row {
    cpu: (Timestamp, f64),
    /// The point of the counter before that one; at first a stale one of the time when the row came to be.
    before: (Timestamp, f64),
    memory: (Timestamp, f64),
    /// In seconds since the epoch.
    start: (Timestamp, f64),
    /// Who told of it, which makes two series of what is one container on two nodes.
    source: u16,
}

const NEVER: (Timestamp, f64) = (Timestamp::MIN, 0.0);

impl Row {
    fn new(source: u16, now: Timestamp) -> Self {
        Self { cpu: NEVER, before: (now, stale_nan()), memory: NEVER, start: NEVER, source }
    }

    fn newest(&self) -> Timestamp {
        let times = [self.cpu.0, self.before.0, self.memory.0, self.start.0];
        times.into_iter().fold(Timestamp::MIN, Timestamp::max)
    }

    fn take(&mut self, (kind, source): (u64, u16), ts: Timestamp, value: f64) {
        if source != self.source {
            if is_stale_nan(value) || ts <= self.newest() {
                return;
            }
            // It is somewhere else now, and counts from there.
            *self = Self::new(source, ts - 1);
        }
        match kind {
            CPU | CPU_OF_NODES if ts > self.cpu.0 => (self.before, self.cpu) = (self.cpu, (ts, value)),
            MEMORY | MEMORY_OF_NODES if ts > self.memory.0 => self.memory = (ts, value),
            START if ts > self.start.0 => self.start = (ts, value),
            _ => {}
        }
    }

    /// The points not older than `oldest`, if there is one of the counter.
    fn points(&self, oldest: Timestamp) -> Option<Points> {
        let counts = |(ts, value): &(Timestamp, f64)| *ts >= oldest && !is_stale_nan(*value);
        let last = Some(self.cpu).filter(counts)?;
        Some(Points {
            cpu: Counter { last, previous: Some(self.before).filter(counts) },
            memory: Some(self.memory).filter(counts).map(|(_, value)| value),
            started: Some(self.start)
                .filter(counts)
                .and_then(|(_, start)| usage::recent_start(start, oldest)),
        })
    }
}

impl Table {
    /// The row of these names, which is added if it is new. None for what is too long to be a name.
    fn row(&mut self, names: [&str; 3], (source, now): (u16, Timestamp)) -> Option<usize> {
        let row = match self.names.row(names) {
            Some(row) => row,
            None => Arc::make_mut(&mut self.names).add(names)?,
        } as usize;
        if row == self.rows.len() {
            self.rows.push(Row::new(source, now));
        }
        (row < self.rows.len()).then_some(row)
    }

    /// Takes out the rows without a point since `oldest`. False if there are none: then all keep their numbers.
    fn prune(&mut self, oldest: Timestamp) -> bool {
        if self.rows.iter().all(|row| row.newest() >= oldest) {
            self.rows_max = ROWS_MIN.max(2 * self.rows.len());
            return false;
        }
        let mut kept = Self::default();
        for (at, row) in (0_u32..).zip(&self.rows) {
            if row.newest() >= oldest && Arc::make_mut(&mut kept.names).add(self.names.values(at)).is_some() {
                kept.rows.push(*row);
            }
        }
        kept.rows_max = ROWS_MIN.max(2 * kept.rows.len());
        *self = kept;
        true
    }

    /// The names in their order.
    fn names(&mut self) -> Arc<Names> {
        if !self.names.is_sorted() {
            Arc::make_mut(&mut self.names).sort();
            self.rows.shrink_to_fit();
        }
        Arc::clone(&self.names)
    }
}

impl Default for Newest {
    fn default() -> Self {
        Self::new()
    }
}

impl Newest {
    /// Without points. Of series only those of kubelets' resource pages count, as where a store is read.
    #[must_use]
    pub fn new() -> Self {
        Self { tables: Mutex::default(), kubelet: kubelet_pages() }
    }

    /// Begins a page. Nothing is read while it lasts.
    #[must_use]
    pub fn page(&self) -> NewestPage<'_> {
        NewestPage { tables: self.lock(), kubelet: &self.kubelet }
    }

    /// The number of nodes and containers that points are kept of, those that are gone but not taken out yet included.
    #[must_use]
    pub fn rows(&self) -> usize {
        let tables = self.lock();
        tables.containers.rows.len() + tables.nodes.rows.len()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Usage of the pods in `scope`.
    pub(crate) fn pods(&self, now: Timestamp, scope: PodScope<'_>) -> PodTable {
        let mut tables = self.lock();
        let names = tables.containers.names();
        let (chosen, rows) = (names.pods_in(scope.namespace, scope.name), &tables.containers.rows);
        PodTable::new(names, chosen, |row| rows.get(row as usize)?.points(now - POINT_AGE_MAX_MS))
    }

    /// Usage of all nodes, or of one, in ascending order of names.
    pub(crate) fn nodes(&self, now: Timestamp, name: Option<&str>) -> Vec<NodeUsage> {
        let tables = self.lock();
        let rows = (0_u32..).zip(&tables.nodes.rows);
        let usage = rows.filter_map(|(at, row)| {
            let [node, ..] = tables.nodes.names.values(at);
            let points =
                row.points(now - POINT_AGE_MAX_MS).filter(|_| name.is_none_or(|name| name == node))?;
            Some(NodeUsage { name: node.to_owned(), usage: points.usage()? })
        });
        let mut nodes: Vec<NodeUsage> = usage.collect();
        nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        nodes
    }
}

/// A page while it is taken in.
#[derive(Debug)]
pub struct NewestPage<'a> {
    tables: MutexGuard<'a, Tables>,
    kubelet: &'a [Matcher],
}

impl NewestPage<'_> {
    /// The number of a series, for [`NewestPage::append`]; never 0.
    pub fn series(&mut self, labels: &Labels) -> u64 {
        let text = |name: &str| labels.get(name).unwrap_or_default();
        let kind = match text(model::METRIC_NAME) {
            usage::CPU_NAME => CPU,
            usage::MEMORY_NAME => MEMORY,
            usage::START_NAME => START,
            usage::NODE_CPU_NAME => CPU_OF_NODES,
            usage::NODE_MEMORY_NAME => MEMORY_OF_NODES,
            _ => return NOTHING,
        };
        if !self.kubelet.iter().all(|matcher| matcher.matches(text(&matcher.name))) {
            return NOTHING;
        }
        let source = source_of(labels);
        let Tables { containers, nodes, newest, generation } = &mut *self.tables;
        let (table, names) = match kind {
            CPU | MEMORY | START => (containers, ["container", "namespace", "pod"].map(text)),
            _ => (nodes, [text("node"), "", ""]),
        };
        let is_full = table.rows.len() >= table.rows_max.max(ROWS_MIN);
        if is_full && table.prune(newest.saturating_sub(POINT_AGE_MAX_MS)) {
            *generation = generation.wrapping_add(1);
        }
        let row = table.row(names, (source, *newest)).and_then(|row| u32::try_from(row).ok());
        let Some(row) = row.filter(|row| *row < 1 << ROW_BITS) else { return NOTHING };
        u64::from(*generation) << 48 | u64::from(source) << 32 | u64::from(row) << KIND_BITS | kind
    }

    /// Takes a sample. False if the series has another number now.
    pub fn append(&mut self, series: u64, ts: Timestamp, value: f64) -> bool {
        let kind = series & ((1 << KIND_BITS) - 1);
        if kind == NOTHING {
            return true;
        }
        let [_, _, low, high] = quarters(series);
        if high != self.tables.generation {
            return false;
        }
        let tables = &mut *self.tables;
        let table = if kind <= START { &mut tables.containers } else { &mut tables.nodes };
        let row = (series & u64::from(u32::MAX)) >> KIND_BITS;
        let Some(row) = usize::try_from(row).ok().and_then(|row| table.rows.get_mut(row)) else {
            return false;
        };
        tables.newest = tables.newest.max(ts);
        row.take((kind, low), ts, value);
        true
    }
}

/// The number of a series: its kind, its row, its source and the generation, from the lowest bits.
const KIND_BITS: u32 = 4;
const ROW_BITS: u32 = 28;

#[expect(clippy::cast_possible_truncation, reason = "the quarters of a 64-bit number")]
fn quarters(number: u64) -> [u16; 4] {
    [0, 16, 32, 48].map(|shift| (number >> shift) as u16)
}

/// Tells one who speaks of a container from another, as labels besides its names do.
fn source_of(labels: &Labels) -> u16 {
    const NAMES: [&str; 4] = [model::METRIC_NAME, "container", "namespace", "pod"];
    let mut hash = 0_u64;
    for (name, value) in labels.iter().filter(|(name, _)| !NAMES.contains(name)) {
        let [name, value] = [name, value].map(|text| rapidhash::v3::rapidhash_v3(text.as_bytes()));
        hash = hash.rotate_left(7) ^ name ^ value.rotate_left(32);
    }
    quarters(hash)[0]
}
