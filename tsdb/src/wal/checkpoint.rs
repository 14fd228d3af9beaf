//! Checkpoints: what must be kept of segments that are about to be deleted.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Labels, Timestamp};

use super::page::{Compression, Damage, Records};
use super::record::{self, HistogramRecords, Record, SamplesRecord, SeriesRecord, WalRef};
use super::samples::SampleRecords;
use super::{Wal, segment_path, segments};
use crate::codec::Malformed;
use crate::disk::Disk;
use crate::error::IoError;
use crate::head::metadata::Metadata;

const PREFIX: &str = "checkpoint.";

/// The newest checkpoint in log directory `dir`: the last segment it stands for, and its directory.
pub(crate) fn newest(disk: &dyn Disk, dir: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    let found = all(disk, dir)?.into_iter().filter_map(|(number, path)| Some((number?, path)));
    Ok(found.max())
}

/// All checkpoints; those without a number are unfinished.
fn all(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<(Option<u64>, PathBuf)>> {
    let entries = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let checkpoints = entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| {
        let number = entry.name.strip_prefix(PREFIX)?;
        Some((number.parse().ok(), dir.join(&entry.name)))
    });
    Ok(checkpoints.collect())
}

/// Removes checkpoints that are unfinished or older than the newest.
pub(crate) fn remove_obsolete(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let newest = newest(disk, dir)?.map(|(number, _)| number);
    for (number, path) in all(disk, dir)? {
        if number.is_none() || number < newest {
            disk.remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// What is to be kept.
pub(crate) struct Keep<'a> {
    /// Whether a series is still in use.
    pub(crate) series: &'a dyn Fn(WalRef) -> bool,
    /// Samples before this are in blocks.
    pub(crate) from: Timestamp,
    /// Before this, a start reads blocks only; so what is deleted there needs no mention. It is before `from` where all
    /// samples of a span were deleted, as that became no block: head chunks may have them still.
    pub(crate) deleted_from: Timestamp,
}

/// Writes a checkpoint that stands for the previous one and all segments up to `last`, then deletes
/// those. A crash at any moment leaves the old state or the new one, or both, which reads the same.
pub(crate) fn write(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    last: u64,
    keep: &Keep<'_>,
    compression: Compression,
) -> Result<(), IoError> {
    let old = newest(&**disk, dir).map_err(IoError::at(dir))?;
    let tmp = dir.join(format!("{PREFIX}{last:08}.tmp"));
    let done = dir.join(format!("{PREFIX}{last:08}"));
    if let Err(error) = disk.remove_dir_all(&tmp)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(IoError { path: tmp, source: error });
    }
    let written = write_segments(disk, (dir, &tmp), (old.as_ref(), last), keep, compression);
    let covered = written.inspect_err(|_| {
        // A full disk must not get fuller.
        let _ = disk.remove_dir_all(&tmp);
    })?;
    disk.rename(&tmp, &done).map_err(IoError::at(&done))?;
    disk.sync_dir(dir).map_err(IoError::at(dir))?;
    // From here on the checkpoint counts; what it replaces is only in the way.
    for number in covered {
        let path = segment_path(dir, number);
        disk.remove_file(&path).map_err(IoError::at(&path))?;
    }
    remove_obsolete(&**disk, dir).map_err(IoError::at(dir))
}

/// Writes what a checkpoint has into `tmp`: of the checkpoint `old`, and of the segments after it up to `last`. Returns
/// the segments that it stands for.
fn write_segments(
    disk: &Arc<dyn Disk>,
    (dir, tmp): (&Path, &Path),
    (old, last): (Option<&(u64, PathBuf)>, u64),
    keep: &Keep<'_>,
    compression: Compression,
) -> Result<Vec<u64>, IoError> {
    let out = Wal::create(Arc::clone(disk), tmp, 0, compression).map_err(IoError::at(tmp))?;
    let mut out = Copy { out, metadata: BTreeMap::new() };
    let from = old.map_or(0, |(number, _)| number + 1);
    if let Some((_, old)) = old {
        for (number, _) in segments(&**disk, old).map_err(IoError::at(old))? {
            copy_segment(&**disk, &segment_path(old, number), keep, &mut out)?;
        }
    }
    let covered: Vec<u64> = segments(&**disk, dir)
        .map_err(IoError::at(dir))?
        .into_iter()
        .map(|(number, _)| number)
        .filter(|&number| number <= last)
        .collect();
    for &number in covered.iter().filter(|&&number| number >= from) {
        copy_segment(&**disk, &segment_path(dir, number), keep, &mut out)?;
    }
    let Copy { mut out, metadata } = out;
    let newest = record::metadata_record(metadata.iter().map(|(&series, entry)| (series, entry)));
    out.append(newest.iter().map(Vec::as_slice)).map_err(IoError::at(tmp))?;
    out.sync().map_err(IoError::at(tmp))?;
    drop(out);
    disk.sync_dir(tmp).map_err(IoError::at(tmp))?;
    Ok(covered)
}

/// A checkpoint that is being written.
struct Copy {
    out: Wal,
    /// Only the newest of each series is kept, and written in the end.
    metadata: BTreeMap<WalRef, Metadata>,
}

fn copy_segment(disk: &dyn Disk, path: &Path, keep: &Keep<'_>, out: &mut Copy) -> Result<(), IoError> {
    let segment = disk.map(path).map_err(IoError::at(path))?;
    let (mut records, mut space) = (Records::new(&segment), Vec::new());
    let mut is_copy = false;
    while let Some(next) = records.next() {
        let invalid = |what: &str, offset: usize| IoError {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, format!("{what} at offset {offset}")),
        };
        let damaged = |Damage { what, offset, .. }| invalid(what, offset);
        let next = next.map_err(damaged)?;
        let data = next.unpack(&mut space).map_err(damaged)?;
        let record = record::decode(data).map_err(|Malformed(what)| invalid(what, next.start))?;
        let leave_out = std::mem::replace(&mut is_copy, matches!(record, Record::CopyMark));
        if leave_out && record.has_samples() {
            // The log of late samples has them until they are in blocks.
            continue;
        }
        if let Record::Metadata(entries) = record {
            let live = entries.into_iter().filter(|(series, _)| (keep.series)(*series));
            out.metadata.extend(live);
            continue;
        }
        for kept in filter(record, keep) {
            out.out.append(std::iter::once(kept.as_slice())).map_err(IoError::at(&out.out.path()))?;
        }
    }
    Ok(())
}

/// What remains of a record.
fn filter(record: Record, keep: &Keep<'_>) -> Vec<Vec<u8>> {
    let mut kept = Vec::new();
    match record {
        Record::Series(entries) => {
            let mut out = SeriesRecord::new();
            for (series, labels) in entries.iter().filter(|(series, _)| (keep.series)(*series)) {
                push_series(&mut out, *series, labels);
            }
            kept.extend(out.finish().map(<[u8]>::to_vec));
        }
        Record::Samples(entries) => {
            let mut out = SamplesRecord::default();
            for (series, ts, value) in entries.into_iter().filter(|&(_, ts, _)| ts >= keep.from) {
                out.push(series, ts, value);
            }
            kept.extend(out.finish().map(<[u8]>::to_vec));
        }
        Record::Histograms(entries) => {
            let mut out = HistogramRecords::new();
            for (series, ts, value) in entries.iter().filter(|&&(_, ts, _)| ts >= keep.from) {
                out.push(*series, *ts, value);
            }
            kept.extend(out.finish().map(<[u8]>::to_vec));
        }
        Record::Started(entries) => {
            let mut out = SampleRecords::new(true);
            for (series, sample) in entries.iter().filter(|(_, sample)| sample.ts >= keep.from) {
                out.push(*series, sample);
            }
            kept.extend(out.finish().into_iter().map(<[u8]>::to_vec));
        }
        Record::Tombstones(mut entries) => {
            entries.retain(|&(_, _, max)| max >= keep.deleted_from);
            if !entries.is_empty() {
                kept.push(record::tombstones(&entries));
            }
        }
        Record::Exemplars(entries) => {
            let new = entries.iter().filter(|&&(_, ts, ..)| ts >= keep.from);
            kept.extend(record::exemplars(
                new.map(|(series, ts, value, labels)| (*series, *ts, *value, labels)),
            ));
        }
        Record::Metadata(_) | Record::MappedMarkers | Record::CopyMark | Record::Unknown => {}
    }
    kept
}

fn push_series(out: &mut SeriesRecord, series: WalRef, labels: &Labels) {
    let pairs: Vec<_> = labels.iter().collect();
    out.push(series, pairs.into_iter());
}
