//! From the log back to the head.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use model::{TimeRange, Timestamp};

use super::late::WBL_DIR;
use super::{Progress, QUARANTINE_DIR, WAL_DIR};
use crate::chunk::Value;
use crate::chunk::layout::is_consistent;
use crate::codec::Malformed;
use crate::disk::{Disk, write_atomically};
use crate::error::OpenError;
use crate::head::exemplars::{Exemplar, Exemplars};
use crate::head::mapped::Found;
use crate::head::{Head, SeriesRef};
use crate::wal::page::{Damage, Records};
use crate::wal::record::{self, Record, WalRef};
use crate::wal::{checkpoint, segment_path, segments};

struct Replay<'a> {
    head: &'a Head,
    exemplars: &'a Exemplars,
    series: HashMap<WalRef, SeriesRef>,
    /// Chunks on disk that no series has taken over yet.
    found: Found,
    /// Samples before this are in blocks.
    from: Timestamp,
    unknown: u64,
    /// Whether the log of late samples is being read.
    late: bool,
}

/// What replay tells.
pub(super) struct Replayed {
    /// The newest segment.
    pub(super) last: Option<u64>,
    /// The newest segment of the log of late samples.
    pub(super) last_late: Option<u64>,
    /// Names that the log uses for series which have a newer one.
    pub(super) names: Vec<WalRef>,
}

/// Fills `head` from checkpoint and segments.
///
/// A segment that cannot be read to its end is cut back to its last good record; what is cut, and all
/// later segments, are moved to the quarantine directory, since samples after a gap could contradict
/// what was acknowledged before it.
///
/// The log of late samples follows, and is repaired by itself.
pub(super) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    (head, exemplars): (&Head, &Exemplars),
    found: Found,
    progress: &mut dyn FnMut(Progress),
) -> Result<Replayed, OpenError> {
    let from = head.min_valid.load(Ordering::Acquire);
    let mut replay = Replay { head, exemplars, series: HashMap::new(), found, from, unknown: 0, late: false };
    // A chunk may have outlived the record that names its series. No other series may get that name.
    replay.found.keys().for_each(|&wal_ref| head.reserve_wal_ref(wal_ref));
    let checkpointed = replay.checkpoint(disk, &dir.join(WAL_DIR))?;
    let last = replay.log(disk, (dir, WAL_DIR), checkpointed, progress)?;
    replay.late = true;
    let last_late = replay.log(disk, (dir, WBL_DIR), None, progress)?;
    if replay.unknown > 0 {
        tracing::warn!(samples = replay.unknown, "the log has samples of series that it does not name");
    }
    let mut names = replay.series;
    names.retain(|&name, &mut series| {
        head.shard(series.id()).resolve(series).is_none_or(|series| series.wal_ref() != name)
    });
    Ok(Replayed { last, last_late, names: names.into_keys().collect() })
}

impl Replay<'_> {
    /// Reads the newest checkpoint and returns the last segment it stands for. Older checkpoints, and
    /// segments that a crash left behind it, are removed.
    fn checkpoint(&mut self, disk: &dyn Disk, wal_dir: &Path) -> Result<Option<u64>, OpenError> {
        let io_error = |source| OpenError::io(wal_dir, source);
        let Some((last, dir)) = checkpoint::newest(disk, wal_dir).map_err(io_error)? else {
            return Ok(None);
        };
        for (number, _) in segments(disk, &dir).map_err(io_error)? {
            let path = segment_path(&dir, number);
            if let Some(damage) = self.segment(disk, &path)? {
                let what = format!(
                    "{} at offset {} of a checkpoint; older samples of the head are lost if it is removed",
                    damage.what, damage.offset
                );
                return Err(OpenError::Corrupt { path, what });
            }
        }
        checkpoint::remove_obsolete(disk, wal_dir).map_err(io_error)?;
        for (number, _) in segments(disk, wal_dir).map_err(io_error)? {
            if number <= last {
                let path = segment_path(wal_dir, number);
                disk.remove_file(&path).map_err(|source| OpenError::io(&path, source))?;
            }
        }
        Ok(Some(last))
    }

    /// Reads the segments of the log `name` after `checkpointed`, and returns the newest.
    fn log(
        &mut self,
        disk: &dyn Disk,
        (dir, name): (&Path, &str),
        checkpointed: Option<u64>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<u64>, OpenError> {
        let log_dir = dir.join(name);
        let all = segments(disk, &log_dir).map_err(|source| OpenError::io(&log_dir, source))?;
        let live: Vec<u64> = all.into_iter().map(|(number, _)| number).collect();
        let mut last = live.last().copied();
        let mut before = checkpointed;
        for (at, &number) in live.iter().enumerate() {
            progress(Progress::Wal { segment: number, first: live[0], last: last.unwrap_or(number) });
            let path = segment_path(&log_dir, number);
            let io_error = |source| OpenError::io(&path, source);
            if before.is_some_and(|before| before + 1 != number) {
                tracing::error!(path = %path.display(), "the segment before this one is missing");
                quarantine(disk, (dir, name), &live[at..]).map_err(io_error)?;
                last = before.filter(|_| at > 0);
                break;
            }
            if let Some(damage) = self.segment(disk, &path)? {
                repair(disk, (dir, name), &live[at..], damage).map_err(io_error)?;
                last = Some(number);
                break;
            }
            before = Some(number);
        }
        // A process that was killed may have left the end of its log in the page cache only. What is
        // shown from here on must not be lost by a power cut that comes before the kernel writes it.
        if let Some(last) = last {
            let path = segment_path(&log_dir, last);
            disk.sync_file(&path).map_err(|source| OpenError::io(&path, source))?;
        }
        Ok(last.or(checkpointed))
    }

    fn segment(&mut self, disk: &dyn Disk, path: &Path) -> Result<Option<Damage>, OpenError> {
        let data = disk.map(path).map_err(|source| OpenError::io(path, source))?;
        let mut records = Records::new(&data);
        while let Some(next) = records.next() {
            let next = match next {
                Ok(next) => next,
                Err(damage) => return Ok(Some(damage)),
            };
            match record::decode(&next.data) {
                Ok(Record::WithStartTimes) => {
                    let what = "the log has samples with start times, which are not supported yet";
                    return Err(OpenError::corrupt(path, what));
                }
                Ok(record) => self.record(record),
                Err(Malformed(what)) => return Ok(Some(Damage { offset: next.start, torn: false, what })),
            }
        }
        Ok(None)
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Series(entries) => {
                for (wal_ref, labels) in entries {
                    let series = self.head.replay_series(wal_ref, &labels, &mut self.found);
                    self.series.insert(wal_ref, series);
                }
            }
            Record::Samples(entries) => {
                self.samples(
                    entries.into_iter().map(|(series, ts, value)| (series, ts, Value::Float(value))),
                );
            }
            Record::Histograms(entries) => {
                let consistent = entries.into_iter().filter(|(_, _, value)| is_consistent(value));
                self.samples(consistent.map(|(series, ts, value)| (series, ts, Value::Histogram(value))));
            }
            Record::Tombstones(entries) => {
                for (wal_ref, min, max) in entries {
                    if let Some(series) = self.series.get(&wal_ref) {
                        self.head.delete(series.id(), TimeRange::new(min, max), 0);
                    }
                }
            }
            Record::Exemplars(entries) => {
                for (wal_ref, ts, value, labels) in entries {
                    let Some(series) = self.series.get(&wal_ref) else { continue };
                    let series = self.head.catalog.read_recursive().labels(series.id());
                    let exemplar = Exemplar { labels, ts, value };
                    if self.exemplars.check(&series, &exemplar) == Ok(true) {
                        self.exemplars.add(&series, exemplar);
                    }
                }
            }
            Record::WithStartTimes | Record::Metadata(_) | Record::MappedMarkers | Record::Unknown => {}
        }
    }

    fn samples(&mut self, entries: impl Iterator<Item = (WalRef, Timestamp, Value)>) {
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for (wal_ref, ts, value) in entries {
            let Some(&series) = self.series.get(&wal_ref) else {
                self.head.reserve_wal_ref(wal_ref);
                self.unknown += 1;
                continue;
            };
            if self.late {
                self.head.late.add(series.id(), ts, value, 0);
                continue;
            }
            if ts < self.from {
                continue;
            }
            let mut shard = self.head.shard(series.id());
            let applied = match &value {
                Value::Float(value) => self.head.apply(&mut shard, series, ts, *value),
                Value::Histogram(value) => self.head.apply_histogram(&mut shard, series, ts, value),
            };
            if applied {
                (min, max) = (min.min(ts), max.max(ts));
            }
        }
        if min <= max {
            self.head.extend_time(min, max);
        }
    }
}

/// Cuts the first of `segments` to its good part and puts everything behind it aside.
fn repair(disk: &dyn Disk, (dir, name): (&Path, &str), segments: &[u64], damage: Damage) -> io::Result<()> {
    let wal_dir = dir.join(name);
    let Some((&damaged, later)) = segments.split_first() else { return Ok(()) };
    let path = segment_path(&wal_dir, damaged);
    let Damage { offset, torn, what } = damage;
    let cut_short = torn && later.is_empty();
    let data = disk.read(&path)?;
    if cut_short {
        let bytes = data.len() - offset;
        tracing::info!(path = %path.display(), offset, bytes, "the log's last record was not finished; cut off");
    } else {
        tracing::error!(
            path = %path.display(), offset, what, later_segments = later.len(),
            "the log is damaged; all samples logged after this point are in the quarantine directory"
        );
        quarantine(disk, (dir, name), later)?;
        write_atomically(disk, &quarantined(disk, (dir, name), damaged, offset)?, &data[offset..])?;
    }
    write_atomically(disk, &path, &data[..offset])
}

/// Moves segments to the quarantine directory, the newest first, so that no crash leaves a gap.
fn quarantine(disk: &dyn Disk, (dir, name): (&Path, &str), segments: &[u64]) -> io::Result<()> {
    let log_dir = dir.join(name);
    disk.create_dir_all(&dir.join(QUARANTINE_DIR))?;
    for &number in segments.iter().rev() {
        disk.rename(&segment_path(&log_dir, number), &quarantined(disk, (dir, name), number, 0)?)?;
    }
    disk.sync_dir(&dir.join(QUARANTINE_DIR))?;
    disk.sync_dir(&log_dir)?;
    disk.sync_dir(dir)
}

/// A name in the quarantine directory that nothing has yet.
fn quarantined(
    disk: &dyn Disk,
    (dir, log): (&Path, &str),
    segment: u64,
    offset: usize,
) -> io::Result<PathBuf> {
    let dir = dir.join(QUARANTINE_DIR);
    let taken = disk.list(&dir)?;
    let name = format!("{log}-{segment:08}-from-{offset}");
    let names = std::iter::once(name.clone()).chain((2..).map(|copy: u64| format!("{name}-{copy}")));
    let mut free = names.filter(|name| taken.iter().all(|entry| entry.name != *name));
    Ok(dir.join(free.next().unwrap_or(name.clone())))
}
