//! From the log back to the head.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use model::{TimeRange, Timestamp};

use super::{Progress, QUARANTINE_DIR, WAL_DIR};
use crate::chunk::Value;
use crate::chunk::layout::is_consistent;
use crate::codec::Malformed;
use crate::disk::{Disk, write_atomically};
use crate::error::OpenError;
use crate::head::mapped::Found;
use crate::head::{Head, SeriesRef};
use crate::wal::page::{Damage, Records};
use crate::wal::record::{self, Record, WalRef};
use crate::wal::{checkpoint, segment_path, segments};

struct Replay<'a> {
    head: &'a Head,
    series: HashMap<WalRef, SeriesRef>,
    /// Chunks on disk that no series has taken over yet.
    found: Found,
    /// Samples before this are in blocks.
    from: Timestamp,
    unknown: u64,
}

/// What replay tells.
pub(super) struct Replayed {
    /// The newest segment.
    pub(super) last: Option<u64>,
    /// Names that the log uses for series which have a newer one.
    pub(super) names: Vec<WalRef>,
}

/// Fills `head` from checkpoint and segments.
///
/// A segment that cannot be read to its end is cut back to its last good record; what is cut, and all
/// later segments, are moved to the quarantine directory, since samples after a gap could contradict
/// what was acknowledged before it.
pub(super) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    head: &Head,
    found: Found,
    progress: &mut dyn FnMut(Progress),
) -> Result<Replayed, OpenError> {
    let wal_dir = dir.join(WAL_DIR);
    let io_error = |source| OpenError::io(&wal_dir, source);
    let from = head.min_valid.load(Ordering::Acquire);
    let mut replay = Replay { head, series: HashMap::new(), found, from, unknown: 0 };
    // A chunk may have outlived the record that names its series. No other series may get that name.
    replay.found.keys().for_each(|&wal_ref| head.reserve_wal_ref(wal_ref));
    let newest = checkpoint::newest(disk, &wal_dir).map_err(io_error)?;
    if let Some((_, path)) = &newest {
        for (number, _) in segments(disk, path).map_err(io_error)? {
            let path = segment_path(path, number);
            if let Some(damage) = replay.segment(disk, &path)? {
                let what = format!(
                    "{} at offset {} of a checkpoint; older samples of the head are lost if it is removed",
                    damage.what, damage.offset
                );
                return Err(OpenError::Corrupt { path, what });
            }
        }
        checkpoint::remove_obsolete(disk, &wal_dir).map_err(io_error)?;
    }
    let checkpointed = newest.as_ref().map(|(number, _)| *number);
    let all = segments(disk, &wal_dir).map_err(io_error)?;
    for &(number, _) in all.iter().filter(|&&(number, _)| Some(number) <= checkpointed) {
        // A crash came between the checkpoint and the removal of what it stands for.
        let path = segment_path(&wal_dir, number);
        disk.remove_file(&path).map_err(|source| OpenError::io(&path, source))?;
    }
    let live: Vec<u64> =
        all.iter().map(|&(number, _)| number).filter(|&number| Some(number) > checkpointed).collect();
    let mut last = live.last().copied().or(checkpointed);
    for (at, &number) in live.iter().enumerate() {
        progress(Progress::Wal { segment: number, first: live[0], last: last.unwrap_or(number) });
        let gap = at > 0 && live[at - 1] + 1 != number;
        let path = segment_path(&wal_dir, number);
        let damage = if gap {
            Some(Damage { offset: 0, torn: false, what: "the segment before this one is missing" })
        } else {
            replay.segment(disk, &path)?
        };
        if let Some(damage) = damage {
            repair(disk, dir, &live[at..], damage).map_err(|source| OpenError::io(&path, source))?;
            last = Some(number);
            break;
        }
    }
    // A process that was killed may have left the end of its log in the page cache only. What is shown
    // from here on must not be lost by a power cut that comes before the kernel gets round to it.
    if let Some(last) = last.filter(|&last| Some(last) != checkpointed) {
        let path = segment_path(&wal_dir, last);
        disk.sync_file(&path).map_err(|source| OpenError::io(&path, source))?;
    }
    if replay.unknown > 0 {
        tracing::warn!(samples = replay.unknown, "the log has samples of series that it does not name");
    }
    let mut names = replay.series;
    names.retain(|&name, &mut series| {
        head.shard(series.id()).resolve(series).is_none_or(|series| series.wal_ref != name)
    });
    Ok(Replayed { last, names: names.into_keys().collect() })
}

impl Replay<'_> {
    fn segment(&mut self, disk: &dyn Disk, path: &Path) -> Result<Option<Damage>, OpenError> {
        let data = disk.map(path).map_err(|source| OpenError::io(path, source))?;
        let mut records = Records::new(&data);
        while let Some(next) = records.next() {
            let next = match next {
                Ok(next) => next,
                Err(damage) => return Ok(Some(damage)),
            };
            match record::decode(&next.data) {
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
            Record::Exemplars(_) | Record::Metadata(_) | Record::MappedMarkers | Record::Unknown => {}
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
            if ts < self.from {
                continue;
            }
            if self.head.apply(&mut self.head.shard(series.id()), series, ts, &value) {
                (min, max) = (min.min(ts), max.max(ts));
            }
        }
        if min <= max {
            self.head.extend_time(min, max);
        }
    }
}

/// Cuts the first of `segments` to its good part and puts everything behind it aside.
fn repair(disk: &dyn Disk, dir: &Path, segments: &[u64], damage: Damage) -> io::Result<()> {
    let wal_dir = dir.join(WAL_DIR);
    let quarantine = dir.join(QUARANTINE_DIR);
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
        disk.create_dir_all(&quarantine)?;
        for &number in later.iter().rev() {
            disk.rename(&segment_path(&wal_dir, number), &quarantined(&quarantine, number, 0))?;
        }
        write_atomically(disk, &quarantined(&quarantine, damaged, offset), &data[offset..])?;
        disk.sync_dir(&quarantine)?;
        disk.sync_dir(dir)?;
    }
    write_atomically(disk, &path, &data[..offset])
}

fn quarantined(dir: &Path, segment: u64, offset: usize) -> PathBuf {
    dir.join(format!("wal-{segment:08}-from-{offset}"))
}
