//! Names for series in the log: numbers, never used twice within a directory.
//!
//! New series are named before it is known which names the log has used. So names are reserved on disk, many
//! at a time, in a small file of ours beside the log. It tells which segment was the newest when it was written:
//! if there is a newer one, somebody else has been here, and only the log itself can tell.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, write_atomically};

/// The file, in the data directory.
pub(crate) const FILE: &str = "wal-names";
/// So many names are reserved at once.
const RESERVED: u64 = 1 << 16;

/// The source of names.
pub(crate) struct Names {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    next: AtomicU64,
    /// Names from here on are not reserved.
    limit: AtomicU64,
    /// The newest segment; `None` until the names in use are known.
    segment: Mutex<Option<u64>>,
    /// From this segment on, samples were taken before it was known what is before them: by this run or by an earlier one
    /// that ended too soon.
    unattached: Mutex<Option<u64>>,
}

impl Names {
    /// Reads the file. `newest` is the newest segment or checkpoint of the log.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, newest: Option<u64>) -> Self {
        let path = dir.join(FILE);
        let text = disk.read(&path).ok().and_then(|data| String::from_utf8(data).ok());
        let mut unattached = None;
        let reserved = match newest {
            // An empty log has used no name.
            None => Some(1),
            Some(newest) => text
                .and_then(|text| decode(&text))
                .filter(|&(segment, ..)| segment == newest)
                .map(|(_, limit, from)| {
                    unattached = from;
                    limit
                }),
        };
        let first = reserved.unwrap_or(1);
        Self {
            disk,
            path,
            next: AtomicU64::new(first),
            limit: AtomicU64::new(first),
            segment: Mutex::new(reserved.and(newest.or(Some(0)))),
            unattached: Mutex::new(unattached),
        }
    }

    /// Whether new names are sure to be new before the log has been read.
    pub(crate) fn are_known(&self) -> bool {
        self.segment.lock().is_some()
    }

    /// A new name.
    pub(crate) fn next(&self) -> u64 {
        let name = self.next.fetch_add(1, Ordering::Relaxed);
        if name >= self.limit.load(Ordering::Acquire) {
            self.reserve();
        }
        name
    }

    /// Makes sure that no new series gets a name that the log has used.
    pub(crate) fn skip(&self, name: u64) {
        self.next.fetch_max(name.saturating_add(1), Ordering::Relaxed);
    }

    /// From segment `segment` on, samples are taken before it is known what is before them. To be told before the
    /// segment is begun.
    pub(crate) fn begin_unattached(&self, segment: u64) {
        self.unattached.lock().get_or_insert(segment);
    }

    /// All samples are where they belong. To be told before a segment is begun.
    pub(crate) fn end_unattached(&self) {
        *self.unattached.lock() = None;
    }

    /// The first segment with samples that may not be where they belong.
    pub(crate) fn unattached(&self) -> Option<u64> {
        *self.unattached.lock()
    }

    /// The log has begun segment `segment`, and all names in use are known.
    pub(crate) fn begin_segment(&self, segment: u64) {
        *self.segment.lock() = Some(segment);
        self.reserve();
    }

    fn reserve(&self) {
        let segment = self.segment.lock();
        let Some(segment) = *segment else { return };
        let limit = self.next.load(Ordering::Relaxed).saturating_add(RESERVED);
        let mut text = format!("segment {segment}\nreserved {limit}\n");
        if let Some(from) = *self.unattached.lock() {
            text += &format!("unattached {from}\n");
        }
        if write_atomically(&*self.disk, &self.path, text.as_bytes()).is_err() {
            // Without the file the next start reads the log first; with an old one it might reuse names.
            let _ = self.disk.remove_file(&self.path);
        }
        self.limit.store(limit, Ordering::Release);
    }
}

/// The segment, the first name that is free, and the first segment of samples that nobody has placed yet.
fn decode(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let mut lines = text.lines();
    let segment = lines.next()?.strip_prefix("segment ")?.parse().ok()?;
    let reserved = lines.next()?.strip_prefix("reserved ")?.parse().ok()?;
    let unattached = match lines.next() {
        Some(line) => Some(line.strip_prefix("unattached ")?.parse().ok()?),
        None => None,
    };
    text.ends_with('\n').then_some((segment, reserved, unattached))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::Memory;

    #[test]
    fn names_are_not_given_twice() {
        let (disk, dir) = (Arc::new(Memory::new()), Path::new("/d"));
        disk.create_dir_all(dir).unwrap();
        let names = Names::open(Arc::<Memory>::clone(&disk), dir, None);
        assert!(names.are_known());
        names.begin_segment(0);
        let last = (0..100_000).map(|_| names.next()).last().unwrap();
        let again = Names::open(Arc::<Memory>::clone(&disk), dir, Some(0));
        assert!(again.are_known() && again.next() > last);
        names.begin_segment(1);
        let stale = Names::open(Arc::<Memory>::clone(&disk), dir, Some(2));
        assert!(!stale.are_known());
        stale.skip(500_000);
        stale.begin_segment(3);
        assert_eq!(stale.next(), 500_001);
        assert_eq!(decode("segment 1\nreserved 2"), None);
        assert_eq!(decode("segment 1\nreserved 2\n"), Some((1, 2, None)));
        assert_eq!(decode("segment 1\nreserved 2\nunattached x\n"), None);
        names.begin_unattached(7);
        names.begin_segment(8);
        let died = Names::open(Arc::<Memory>::clone(&disk), dir, Some(8));
        died.begin_unattached(9);
        assert_eq!(died.unattached(), Some(7));
        died.end_unattached();
        died.begin_segment(9);
        assert_eq!(Names::open(Arc::<Memory>::clone(&disk), dir, Some(9)).unattached(), None);
    }
}
