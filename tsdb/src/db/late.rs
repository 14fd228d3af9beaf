//! The log of late samples, and their way into blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::{TimeRange, Timestamp};
use ulid::Ulid;

use super::cut::new_ulid;
use super::logs::{Logs, Written};
use super::{Inner, Maintained};
use crate::block::meta::Meta;
use crate::block::writer::Writer;
use crate::chunk::{Encoder, Sample};
use crate::disk::Disk;
use crate::error::{CommitError, IoError};
use crate::head::late;
use crate::options::Options;
use crate::wal::samples::SampleRecords;
use crate::wal::{Wal, segment_path, segments};

pub(crate) const WBL_DIR: &str = "wbl";

/// Opens the log of late samples where the window allows them. `last` is its newest segment.
pub(super) fn open_log(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    last: Option<u64>,
    options: &Options,
) -> Result<Option<Wal>, IoError> {
    if options.late_window_ms() == 0 {
        return Ok(None);
    }
    let dir = dir.join(WBL_DIR);
    let next = last.map_or(0, |last| last + 1);
    let log = Wal::create(Arc::clone(disk), &dir, next, options.wal_compression);
    Ok(Some(log.map_err(CommitError::at(&dir))?))
}

/// Late samples of one block by series.
type Samples<'a> = BTreeMap<u32, Vec<&'a Sample>>;

impl Inner {
    /// Writes the late samples of the time that blocks have already into blocks of their own, aligned
    /// as those of the head, and shortens their log.
    ///
    /// Later ones have to wait: a block that reached beyond the head's edge would, once compacted with
    /// others, seem to hold the head's samples of that time, too.
    pub(super) fn cut_late(&self, done: &mut Maintained) -> Result<(), IoError> {
        if self.head.late.is_empty() {
            return Ok(());
        }
        let edge = self.published.read().head_from;
        let (taken, covered) = self.rotate_late(&|_, ts| ts < edge)?;
        let range_ms = self.options.block_range_ms;
        let mut by_block: BTreeMap<Timestamp, Samples<'_>> = BTreeMap::new();
        for (id, sample) in &taken {
            let start = sample.ts.div_euclid(range_ms) * range_ms;
            by_block.entry(start).or_default().entry(*id).or_default().push(sample);
        }
        for (start, samples) in by_block {
            let written = self.write_late(&self.dir, start, edge.min(start + range_ms), samples)?;
            let Some(ulid) = written else { continue };
            done.blocks_written += 1;
            let block = self.open_block(ulid)?;
            let _logs = self.log.lock();
            let mut published = self.published.write();
            published.blocks.push(block);
            published.blocks.sort_by_key(|block| (block.meta.min_time, block.meta.max_time, block.meta.ulid));
        }
        self.end_late(covered)
    }

    /// Writes all late samples as a block below `dir`, and leaves them where they are.
    pub(super) fn copy_late(&self, dir: &Path) -> Result<(), IoError> {
        let all = self.head.late.living();
        let mut by_series = Samples::new();
        for (id, sample) in &all {
            by_series.entry(*id).or_default().push(sample);
        }
        let times = all.iter().map(|(_, sample)| sample.ts);
        if let (Some(min), Some(max)) = (times.clone().min(), times.max()) {
            self.write_late(dir, min, max.saturating_add(1), by_series)?;
        }
        Ok(())
    }

    /// Deletes late samples of `ids` in `range`.
    pub(super) fn delete_late(&self, ids: &croaring::Bitmap, range: TimeRange) -> Result<(), IoError> {
        if self.head.late.is_empty() {
            return Ok(());
        }
        let (_, covered) = self.rotate_late(&|id, ts| range.contains(ts) && ids.contains(id))?;
        self.end_late(covered)
    }

    /// Marks late samples as on their way out, and logs those that stay anew, so that the segments up to
    /// the one returned are not needed for them.
    fn rotate_late(
        &self,
        take: &dyn Fn(u32, Timestamp) -> bool,
    ) -> Result<(late::Samples, Option<u64>), IoError> {
        // Between two commits: what is in memory is what the segments have.
        let mut logs = self.log.lock();
        logs.catch_up()?;
        let (taken, left) = self.head.late.begin(take);
        let dir = self.dir.join(WBL_DIR);
        if logs.late.is_none() {
            // The window has been closed since the samples came.
            let last = segments(&*self.disk, &dir).map_err(CommitError::at(&dir))?.last().map(|last| last.0);
            let next = last.map_or(0, |last| last + 1);
            let log = Wal::create(Arc::clone(&self.disk), &dir, next, self.options.wal_compression);
            logs.late = Some(log.map_err(CommitError::at(&dir))?);
        }
        self.log_names(&mut logs.wal, &left)?;
        let Some(log) = &mut logs.late else { return Ok((taken, None)) };
        let covered = log.segment();
        let mut records = SampleRecords::new(left.iter().any(|(_, sample)| sample.start != 0));
        for (id, sample) in &left {
            let Some(wal_ref) = self.head.name_of(*id) else { continue };
            records.push(wal_ref, sample);
        }
        let written = log
            .next_segment()
            .and_then(|()| log.append(records.finish().into_iter()))
            .and_then(|()| log.sync());
        written.map_err(|source| CommitError { path: log.path(), source })?;
        Ok((taken, Some(covered)))
    }

    /// Makes sure that a power cut does not take the names under which late samples are about to be logged anew: since
    /// they were logged first, their series may have got others.
    fn log_names(&self, wal: &mut Wal, samples: &[(u32, Sample)]) -> Result<(), IoError> {
        let ids = samples.iter().map(|(id, _)| *id);
        let mut unlogged: Vec<u32> = ids.filter(|&id| !self.head.is_logged(id)).collect();
        let record = self.series_record(&mut unlogged);
        let written = wal.append(record.finish().into_iter()).and_then(|()| {
            self.head.set_logged(&unlogged);
            wal.sync()
        });
        written.map_err(|source| CommitError { path: wal.path(), source })
    }

    /// Whether the log of late samples has any that are needed in segments before `until`.
    pub(super) fn late_needs(&self, until: u64) -> Result<bool, IoError> {
        let dir = self.dir.join(WBL_DIR);
        let all = segments(&*self.disk, &dir).map_err(CommitError::at(&dir))?;
        Ok(!self.head.late.is_empty() && all.first().is_some_and(|&(first, _)| first < until))
    }

    /// The marked samples are out.
    fn end_late(&self, covered: Option<u64>) -> Result<(), IoError> {
        {
            let _logs = self.log.lock();
            self.head.late.end(self.head.snapshots.next());
        }
        self.head.late.forget(self.head.snapshots.floor());
        let dir = self.dir.join(WBL_DIR);
        for (number, _) in segments(&*self.disk, &dir).map_err(CommitError::at(&dir))? {
            if covered.is_some_and(|covered| number <= covered) {
                let path = segment_path(&dir, number);
                self.disk.remove_file(&path).map_err(CommitError::at(&path))?;
            }
        }
        self.disk.sync_dir(&dir).map_err(CommitError::at(&dir))
    }

    /// A name that sorts behind those of all blocks of the same span: of two samples of one time the one that came
    /// first counts, and blocks are read in that order.
    fn late_ulid(&self, start: Timestamp, end: Timestamp) -> Ulid {
        let new = new_ulid(&*self.disk, end);
        let published = self.published.read();
        let same = published.blocks.iter().filter(|b| b.meta.min_time == start && b.meta.max_time == end);
        let last = same.map(|block| block.meta.ulid).max();
        last.map_or(new, |last| new.max(Ulid(last.0.saturating_add(1))))
    }

    fn write_late(
        &self,
        dir: &Path,
        start: Timestamp,
        end: Timestamp,
        mut samples: Samples<'_>,
    ) -> Result<Option<Ulid>, IoError> {
        let mut ids: Vec<u32> = samples.keys().copied().collect();
        let symbols: BTreeSet<String> = {
            let catalog = self.head.catalog.read_recursive();
            catalog.sort(&mut ids);
            let pairs = ids.iter().flat_map(|&id| catalog.pairs(id));
            pairs.flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
        };
        let mut meta = Meta::first_level(self.late_ulid(start, end), start, end);
        meta.compaction.hints = vec!["from-out-of-order".to_owned()];
        let in_order = symbols.iter().map(String::as_str);
        let mut writer = Writer::create(&self.disk, dir, meta, in_order)?;
        for id in ids {
            let mut series = samples.remove(&id).unwrap_or_default();
            series.sort_by_key(|sample| sample.ts);
            series.dedup_by_key(|sample| sample.ts);
            let mut encoder = Encoder::like(self.options.float_encoding());
            series.into_iter().for_each(|sample| encoder.push(sample));
            let catalog = self.head.catalog.read_recursive();
            writer.series(catalog.pairs(id), &encoder.finish())?;
        }
        writer.finish()
    }

    /// Whether a sample of this time may come out of order.
    pub(crate) fn accepts_late(&self, ts: Timestamp) -> bool {
        let window = self.options.late_window_ms();
        // Before history is there, blocks tell what there is at least.
        let cut = self.head.min_valid.load(Ordering::Acquire);
        let newest = self.head.max_ts().max(Some(cut.saturating_sub(1)).filter(|_| cut > Timestamp::MIN));
        window > 0 && newest.is_some_and(|newest| ts >= newest.saturating_sub(window))
    }

    /// Takes samples for late that turned out to be when history came. They are in the log of those in order, which will
    /// not be believed: so they are written to the log of late ones before anything is cut. Returns how many are too old,
    /// or contradict what is there, and whether that log has the others.
    pub(super) fn take_misplaced(
        &self,
        logs: &mut Logs,
        misplaced: Vec<(u32, Sample)>,
        from_snapshot: u64,
    ) -> Result<(u64, bool), IoError> {
        let mut records = SampleRecords::new(misplaced.iter().any(|(_, sample)| sample.start != 0));
        let (mut taken, mut refused, mut unlogged) = (0, 0, Vec::new());
        for (id, sample) in misplaced {
            let mut shard = self.head.shard(id);
            let Some(series) = shard.get(id) else { continue };
            let known = series.value_at(sample.ts, self.head.mapped());
            let (same, wal_ref) = (known.map(|known| known.is_same(&sample.value)), series.wal_ref());
            let is_logged = series.is_logged();
            drop(shard);
            match same.or_else(|| self.head.late.taken(id, sample.ts, &sample.value)) {
                Some(true) => {}
                None if self.accepts_late(sample.ts) => {
                    records.push(wal_ref, &sample);
                    unlogged.extend((!is_logged).then_some(id));
                    self.head.late.add(id, sample, (from_snapshot, 0));
                    taken += 1;
                }
                _ => refused += 1,
            }
        }
        if taken == 0 {
            return Ok((refused, true));
        }
        let names = self.series_record(&mut unlogged);
        let names: Vec<&[u8]> = names.finish().into_iter().collect();
        let written = logs.commit(&names, &records.finish(), taken).and_then(|written| {
            self.head.set_logged(&unlogged);
            logs.sync().map(|()| written)
        });
        match written {
            Err(error) if error.is_full() => {
                tracing::warn!(%error, samples = taken, "late samples are not in their log yet");
                Ok((refused, false))
            }
            written => written.map(|written| (refused, written == Written::Logged)),
        }
    }
}
