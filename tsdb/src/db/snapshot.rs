//! What a query sees.

use std::collections::BTreeSet;
use std::hash::Hasher as _;
use std::path::Path;
use std::sync::Arc;

use model::{Labels, Matcher, Querier, Samples, Selection, SeriesSet, StorageError, TimeRange, Timestamp};

use super::Inner;
use super::merge::{Merged, merge};
use crate::block::Block;
use crate::codec::Malformed;
use crate::head::{Head, SeriesRef, View, mapped};
use crate::select;

/// A consistent view: head and blocks as of one commit.
///
/// It keeps the blocks it reads, and the head's samples of its time; so it should live for one query. The head
/// waits with what it drops until one more block could be cut; a snapshot that lives longer fails.
pub struct Snapshot {
    inner: Arc<Inner>,
    blocks: Vec<Arc<Block>>,
    view: View,
}

impl Snapshot {
    pub(super) fn take(inner: &Arc<Inner>) -> Self {
        // Between two commits.
        let _log = inner.log.lock();
        let published = inner.published.read();
        let plain = inner.head.is_plain();
        let view = View { snapshot: inner.head.snapshots.register(), from: published.head_from, plain };
        Self { inner: Arc::clone(inner), blocks: published.blocks.clone(), view }
    }

    pub(super) fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
    }

    /// Fails if the head could not wait for this snapshot any longer. To be asked after something was read.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        if self.inner.head.snapshots.has_expired(self.view.snapshot) {
            let what = "the query has taken so long that the samples it reads have left memory";
            return Err(StorageError::Unavailable(what.to_owned()));
        }
        Ok(())
    }

    pub(super) fn view(&self) -> View {
        self.view
    }

    pub(super) fn head(&self) -> &Head {
        &self.inner.head
    }

    pub(super) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The number of the head as a source; those below are blocks, oldest first.
    fn head_source(&self) -> u32 {
        u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)
    }

    fn block(&self, source: u32) -> Option<&Arc<Block>> {
        self.blocks.get(source as usize)
    }

    /// Series of the head that are selected and have visible samples, by number.
    fn head_series(&self, selection: &Selection<'_>) -> Result<Vec<u32>, StorageError> {
        let Selection { matchers, range, cancelled } = *selection;
        let head = &self.inner.head;
        let outside = head.max_ts().is_none_or(|max| max < range.start) || range.end < self.view.from;
        if outside && head.late.is_empty() {
            return Ok(Vec::new());
        }
        let catalog = head.catalog.read_recursive();
        let all = matchers.is_empty();
        let found = if all { catalog.all().clone() } else { catalog.select(matchers, cancelled) };
        selection.check()?;
        head.with_samples(&found, (self.view, range), || selection.check())
    }

    /// The blocks that overlap `range`, with their source numbers.
    fn blocks_in(&self, range: TimeRange) -> impl Iterator<Item = (u32, &Arc<Block>)> {
        (0..).zip(&self.blocks).filter(move |(_, block)| block.meta.range().overlaps(range))
    }

    /// Series of a block that fulfil `matchers` and may have samples in `range`.
    pub(super) fn block_series(block: &Block, selection: &Selection<'_>) -> Result<Vec<u32>, StorageError> {
        let Selection { matchers, range, cancelled } = *selection;
        let found =
            select::series(&block.index, matchers, cancelled).map_err(|error| block.index_error(error))?;
        selection.check()?;
        let mut ids = found.to_vec();
        let span = block.meta.range();
        let whole = range.start <= span.start && span.end <= range.end;
        if !whole || block.tombstones.len() > 0 {
            let (mut scratch, mut failed) = (Vec::new(), None);
            ids.retain(|&id| {
                let overlaps = selection.check().and_then(|()| block.overlaps(id, range, &mut scratch));
                overlaps.unwrap_or_else(|error| {
                    failed = Some(error);
                    false
                })
            });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(ids)
    }

    fn labels_of(&self, source: u32, id: u32) -> Result<Labels, StorageError> {
        match self.block(source) {
            Some(block) => block.labels(id),
            None => Ok(self.inner.head.catalog.read_recursive().labels(id)),
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.inner.head.snapshots.release(self.view.snapshot);
    }
}

/// Selected series: 8 bytes each, and 4 more where several sources had to be joined.
pub(super) struct Set<'a> {
    pub(super) snapshot: &'a Snapshot,
    merged: Merged,
}

impl<'a> Set<'a> {
    /// What has samples of series `index`: blocks, and the head (`None`), with the number of the series there.
    ///
    /// Of two samples of one time the one that came first counts, and is read first: those in order,
    /// late ones that are in blocks already, late ones that wait for theirs. A block may be written
    /// between two late samples, which then do not know of each other.
    pub(super) fn sources(&self, index: usize) -> impl Iterator<Item = (Option<&'a Arc<Block>>, u32)> {
        let snapshot = self.snapshot;
        let entries = self.merged.entries(index).iter().map(|&(source, id)| (snapshot.block(source), id));
        let is_late =
            |(block, _): &(Option<&Arc<Block>>, u32)| block.is_some_and(|block| block.meta.is_out_of_order());
        entries.clone().filter(move |entry| !is_late(entry)).chain(entries.filter(is_late))
    }
}

impl SeriesSet for Set<'_> {
    fn len(&self) -> usize {
        self.merged.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        let (source, id) = self.merged.entries(index)[0];
        match self.snapshot.block(source) {
            // The entry was read when the series was selected, and blocks do not change.
            Some(block) => {
                let _ = block.index.visit_labels(id, visit);
            }
            None => {
                let catalog = self.snapshot.inner.head.catalog.read_recursive();
                // Numbers of an expired snapshot may mean others by now; its samples are an error.
                let valid = self.snapshot.check().is_ok();
                for (name, value) in valid.then(|| catalog.pairs(id)).into_iter().flatten() {
                    visit(name, value);
                }
            }
        }
    }

    fn visit_some_labels(&self, index: usize, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        let (source, id) = self.merged.entries(index)[0];
        match self.snapshot.block(source) {
            Some(block) => {
                let _ = block.index.visit_labels(id, |name, value| {
                    if names.iter().any(|wanted| wanted == name) {
                        visit(name, value);
                    }
                });
            }
            None => self.snapshot.inner.head.catalog.read_recursive().visit_some(id, names, visit),
        }
    }

    fn may_have_label(&self, name: &str) -> bool {
        self.snapshot.inner.head.catalog.read_recursive().may_have_name(name)
            || self.snapshot.blocks.iter().any(|block| block.index.names().any(|other| other == name))
    }

    /// Series of the head only: a hash of their references, which are never used twice.
    fn fingerprint(&self) -> Option<u64> {
        let head = self.snapshot.head_source();
        if self.merged.entries.iter().any(|(source, _)| *source != head) {
            return None;
        }
        let catalog = self.snapshot.inner.head.catalog.read_recursive();
        let mut hasher = rapidhash::fast::RapidHasher::default();
        for &(_, id) in &self.merged.entries {
            hasher.write_u64(SeriesRef::new(id, catalog.generation(id)).0);
        }
        Some(hasher.finish())
    }

    fn newest_float(&self, index: usize) -> Option<(Timestamp, f64)> {
        match self.merged.entries(index) {
            [(source, id)] if *source == self.snapshot.head_source() => {
                self.snapshot.inner.head.newest_float(*id, self.snapshot.view)
            }
            _ => None,
        }
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        into.clear();
        let mut scratch = Vec::new();
        let mut unordered = self.merged.entries(index).len() > 1;
        let mut in_head = None;
        for (block, id) in self.sources(index) {
            match block {
                Some(block) => block.samples(id, range, &mut scratch, into)?,
                None => {
                    self.snapshot.head_samples(id, range, into)?;
                    in_head = Some(id);
                }
            }
        }
        if let Some(id) = in_head.filter(|_| !self.snapshot.view.plain) {
            let late = &self.snapshot.inner.head.late;
            unordered |= late.samples(id, range, self.snapshot.view.snapshot, into);
        }
        if unordered || !into.histogram_ts.is_empty() {
            crate::samples::order(into);
        }
        crate::samples::complete_starts(into);
        Ok(())
    }
}

impl Snapshot {
    /// Appends the head's samples of a series that came in order.
    fn head_samples(&self, id: u32, whole: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        let from: Timestamp = whole.start.max(self.view.from);
        let range = TimeRange::new(from, whole.end);
        let starts = (into.ts.len(), into.histogram_ts.len());
        let decoded = self.inner.head.samples(id, self.view, range, into);
        self.check()?;
        if let Some(deleted) = self.inner.head.deleted(id, self.view) {
            crate::samples::retain_from(into, starts, |ts| !deleted.contains(ts));
        }
        decoded.map_err(|error| self.head_error(id, error))
    }

    pub(super) fn head_error(&self, id: u32, Malformed(what): Malformed) -> StorageError {
        let labels = self.inner.head.catalog.read_recursive().labels(id);
        let what = format!("{what}; cannot read {labels} until the next restart replays the log");
        StorageError::Corrupt { path: self.inner.dir.join(mapped::DIR), what }
    }

    /// The selected series, sorted, or as they lie where there is nothing to merge.
    pub(super) fn select_sorted(
        &self,
        selection: &Selection<'_>,
        sorted: bool,
    ) -> Result<Set<'_>, StorageError> {
        if self.inner.head.is_log_only() {
            let what =
                format!("{} has a log only, of which no samples can be selected", self.dir().display());
            return Err(StorageError::Unavailable(what));
        }
        let range = selection.range;
        let mut sources = Vec::new();
        for (number, block) in self.blocks_in(range) {
            sources.push((number, Self::block_series(block, selection)?));
        }
        let mut head = self.head_series(selection)?;
        self.check()?;
        if sorted || sources.iter().any(|(_, ids)| !ids.is_empty()) {
            self.inner.head.sort(&mut head, || selection.check())?;
        }
        sources.push((self.head_source(), head));
        let merged = merge(sources, |source, id| {
            selection.check()?;
            self.labels_of(source, id)
        })?;
        Ok(Set { snapshot: self, merged })
    }
}

impl Querier for Snapshot {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        Ok(Box::new(self.select_sorted(selection, true)?))
    }

    fn select_unordered(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        Ok(Box::new(self.select_sorted(selection, false)?))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let (mut names, selection) = (BTreeSet::new(), Selection::new(matchers, range));
        let mut add = |name: &str| {
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        };
        for (_, block) in self.blocks_in(range) {
            if matchers.is_empty() && block.tombstones.len() == 0 {
                block.index.names().for_each(&mut add);
                continue;
            }
            for id in Self::block_series(block, &selection)? {
                let read = block.index.visit_labels(id, |name, _| add(name));
                read.map_err(|error| block.index_error(error))?;
            }
        }
        let ids = self.head_series(&selection)?;
        self.inner.head.catalog.read_recursive().names_of(&ids).for_each(add);
        Ok(names.into_iter().take(if limit == 0 { usize::MAX } else { limit }).collect())
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let mut values = Vec::new();
        self.visit_label_values(name, matchers, range, limit, &mut |value| {
            values.push(value.to_owned());
            true
        })?;
        Ok(values)
    }

    fn visit_label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        visit: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), StorageError> {
        let selection = Selection::new(matchers, range);
        let mut left = if limit == 0 { usize::MAX } else { limit };
        let mut visit = |value: &str| {
            left -= 1;
            visit(value) && left > 0
        };
        let (mut values, mut sources) = (Vec::new(), 0);
        for (_, block) in self.blocks_in(range) {
            let whole = matchers.is_empty() && block.tombstones.len() == 0;
            let ids = if whole { None } else { Some(Self::block_series(block, &selection)?) };
            let before = values.len();
            let read = block.index.push_values_of(name, ids.as_deref(), &mut values);
            read.map_err(|error| block.index_error(error))?;
            sources += usize::from(values.len() > before);
        }
        let ids = self.head_series(&selection)?;
        let catalog = self.inner.head.catalog.read_recursive();
        if sources == 0 {
            catalog.visit_values(name, &ids, &mut visit);
        } else {
            let (mut texts, mut ends) = (String::new(), vec![0]);
            catalog.visit_values(name, &ids, &mut |value| {
                texts.push_str(value);
                ends.push(texts.len());
                true
            });
            values.extend(ends.windows(2).map(|ends| &texts[ends[0]..ends[1]]));
            if sources > 1 || !texts.is_empty() {
                // Each source has put its own in order, which this makes use of.
                values.sort();
                values.dedup();
            }
            values.into_iter().all(visit);
        }
        let wants_ranks = catalog.wants_ranks(name);
        drop(catalog);
        if wants_ranks {
            self.rank(name);
        }
        self.check()
    }
}

impl Snapshot {
    /// Puts the values of a label in order, aside: whoever comes next will be glad of it.
    fn rank(&self, name: &str) {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        let work = std::thread::Builder::new().name("label-ranks".to_owned());
        // Without a thread all remains as slow as it was.
        let _ = work.spawn(move || inner.head.rank(&name));
    }
}
