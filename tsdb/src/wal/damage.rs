//! What becomes of segments that cannot be read.
//!
//! Nothing is deleted: bytes that nobody can use are put into the quarantine directory, for a person to look
//! at. The log keeps its numbering without gaps, since a gap means loss to whoever finds it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::page::Damage;
use super::segment_path;
use crate::disk::{Disk, write_atomically};

/// Where bytes are put that cannot be read.
pub(crate) const QUARANTINE_DIR: &str = "quarantine";

/// Cuts the first of `segments`, which lie in `name` below `dir`, to its good part, and puts everything behind
/// it aside.
pub(crate) fn repair(
    disk: &dyn Disk,
    (dir, name): (&Path, &str),
    segments: &[u64],
    damage: Damage,
) -> io::Result<()> {
    let Some((&damaged, later)) = segments.split_first() else { return Ok(()) };
    let path = segment_path(&dir.join(name), damaged);
    let Damage { offset, torn, what } = damage;
    let data = disk.read(&path)?;
    if torn && later.is_empty() {
        let bytes = data.len() - offset;
        tracing::info!(path = %path.display(), offset, bytes, "the log's last record was not finished; cut off");
    } else {
        tracing::error!(
            path = %path.display(), offset, what, later_segments = later.len(),
            "the log is damaged; all samples logged after this point are in the quarantine directory"
        );
        set_aside(disk, (dir, name), later)?;
        write_atomically(disk, &quarantined(disk, (dir, name), damaged, offset)?, &data[offset..])?;
    }
    write_atomically(disk, &path, &data[..offset])
}

/// Moves what segments have to the quarantine directory, the newest first, and leaves them empty.
pub(crate) fn set_aside(disk: &dyn Disk, (dir, name): (&Path, &str), segments: &[u64]) -> io::Result<()> {
    for &number in segments.iter().rev() {
        let path = segment_path(&dir.join(name), number);
        let data = disk.map(&path)?;
        if data.is_empty() {
            continue;
        }
        drop(data);
        disk.hard_link(&path, &quarantined(disk, (dir, name), number, 0)?)?;
        disk.sync_dir(&dir.join(QUARANTINE_DIR))?;
        write_atomically(disk, &path, &[])?;
    }
    Ok(())
}

/// Puts empty segments where some are missing.
pub(crate) fn fill_gap(disk: &dyn Disk, log_dir: &Path, missing: Range<u64>) -> io::Result<()> {
    missing.rev().try_for_each(|number| write_atomically(disk, &segment_path(log_dir, number), &[]))
}

/// A name in the quarantine directory, which is created, that nothing has yet.
fn quarantined(
    disk: &dyn Disk,
    (dir, log): (&Path, &str),
    segment: u64,
    offset: usize,
) -> io::Result<PathBuf> {
    let log = log.replace('/', "-");
    free_name(disk, dir, &format!("{log}-{segment:08}-from-{offset}"))
}

/// The path of `name`, or of `name` with a number, that nothing in the quarantine directory has yet.
pub(crate) fn free_name(disk: &dyn Disk, data_dir: &Path, name: &str) -> io::Result<PathBuf> {
    let dir = data_dir.join(QUARANTINE_DIR);
    disk.create_dir_all(&dir)?;
    disk.sync_dir(data_dir)?;
    let taken = disk.list(&dir)?;
    let names = std::iter::once(name.to_owned()).chain((2..).map(|copy: u64| format!("{name}-{copy}")));
    let mut free = names.filter(|name| taken.iter().all(|entry| entry.name != *name));
    Ok(dir.join(free.next().unwrap_or_default()))
}
