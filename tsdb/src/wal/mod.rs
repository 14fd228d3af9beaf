//! The write-ahead log: segments of pages of records, and the checkpoints that replace old segments.
//!
//! One commit is one `write`, which is why a batch is never half in the log after `kill -9`, save
//! where the kernel itself was stopped in the middle; then the checksum of the torn record tells.

pub(crate) mod checkpoint;
pub(crate) mod damage;
pub(crate) mod page;
pub(crate) mod record;
pub(crate) mod samples;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{AppendFile, Disk, SyncFile};
use crate::head::names::Names;
use page::{Compression, Framer};
use smallvec::SmallVec;

/// A segment is not grown beyond this.
const SEGMENT_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The path of segment `index` in `dir`.
pub(crate) fn segment_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:08}"))
}

/// The segments in a log or checkpoint directory with their lengths, ascending.
pub(crate) fn segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    let entries = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found: Vec<(u64, u64)> = entries
        .iter()
        .filter(|entry| !entry.is_dir && entry.name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|entry| Some((entry.name.parse().ok()?, entry.bytes)))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The end of the log, where commits are appended.
pub(crate) struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    framer: Framer,
    segment: u64,
    file: Box<dyn AppendFile>,
    sync: Arc<dyn SyncFile>,
    offset: u64,
    frames: Vec<u8>,
    /// How often something was written, and how much of that is durable.
    written: u64,
    synced: u64,
    /// A sync failed or a torn write could not be taken back: nothing may be acknowledged any more.
    poisoned: bool,
    segment_bytes_max: u64,
    /// Who has to know which segment is the newest.
    names: Option<Arc<Names>>,
}

impl Wal {
    /// Starts segment `segment`, which must be newer than all others.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment: u64,
        compression: Compression,
    ) -> io::Result<Self> {
        disk.create_dir_all(dir)?;
        let file = disk.create(&segment_path(dir, segment))?;
        disk.sync_dir(dir)?;
        Ok(Self {
            sync: file.syncer()?,
            disk,
            dir: dir.to_owned(),
            framer: Framer::new(compression),
            segment,
            file,
            offset: 0,
            frames: Vec::new(),
            written: 0,
            synced: 0,
            poisoned: false,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            names: None,
        })
    }

    /// Limits segments to fewer bytes than usual.
    pub(crate) fn limit_segments(&mut self, bytes: u64) {
        self.segment_bytes_max = bytes.min(SEGMENT_BYTES_MAX);
    }

    /// Tells `names` of every segment that is begun.
    pub(crate) fn tell(&mut self, names: Arc<Names>) {
        self.names = Some(names);
    }

    pub(crate) fn segment(&self) -> u64 {
        self.segment
    }

    /// Where the log ends now, for [`Wal::undo`].
    pub(crate) fn end(&self) -> (u64, u64) {
        (self.segment, self.offset)
    }

    /// Takes back everything appended since the log ended at `end`. A batch that fails in the other log
    /// must not stay in this one: at replay it would come before batches that were acknowledged later.
    pub(crate) fn undo(&mut self, end: (u64, u64)) {
        let undone = self.segment == end.0 && self.file.truncate(end.1).is_ok();
        if undone {
            self.offset = end.1;
        }
        self.poisoned |= !undone;
    }

    /// Whether nothing has been written to the segment yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.offset == 0
    }

    /// The segment being written.
    pub(crate) fn path(&self) -> PathBuf {
        segment_path(&self.dir, self.segment)
    }

    /// Appends all records by one write to one segment, which is larger than usual if it has to be.
    ///
    /// On an error nothing of them stays in the log.
    pub(crate) fn append<'a>(&mut self, records: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let records: SmallVec<[&[u8]; 8]> = records.collect();
        self.check()?;
        self.frames.clear();
        let end = records.iter().fold(self.offset, |end, record| end + page::framed_bytes(end, record.len()));
        if self.offset > 0 && end > self.segment_bytes_max {
            self.next_segment()?;
        }
        for record in records {
            let end = self.offset + self.frames.len() as u64;
            self.framer.frame(&mut self.frames, end, record);
        }
        self.write_frames()
    }

    fn write_frames(&mut self) -> io::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.append(&self.frames) {
            // Whatever arrived must go, or everything after it would be unreadable.
            self.poisoned |= self.file.truncate(self.offset).is_err();
            return Err(error);
        }
        self.offset += self.frames.len() as u64;
        self.frames.clear();
        // A batch with one enormous scrape shall not pin its memory.
        self.frames.shrink_to(1 << 20);
        self.written += 1;
        Ok(())
    }

    /// Ends this segment durably and starts the next one.
    pub(crate) fn next_segment(&mut self) -> io::Result<()> {
        self.sync()?;
        let next = self.segment + 1;
        let file = self.disk.create(&segment_path(&self.dir, next))?;
        let sync = file.syncer()?;
        self.disk.sync_dir(&self.dir)?;
        (self.segment, self.file, self.sync, self.offset) = (next, file, sync, 0);
        if let Some(names) = self.names.as_ref().filter(|names| names.are_known()) {
            names.begin_segment(next);
        }
        Ok(())
    }

    /// Fails if the log has failed before: what is not durable then may never be.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.poisoned {
            return Err(io::Error::other("the log failed earlier; restart to recover"));
        }
        Ok(())
    }

    /// Makes everything appended so far durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        let Some((file, written)) = self.unsynced() else { return Ok(()) };
        let result = file.sync();
        match &result {
            Ok(()) => self.set_synced(written),
            Err(_) => self.poison(),
        }
        result
    }

    /// A handle whose `sync` covers everything appended so far, and what to tell [`Wal::set_synced`] when that has been
    /// done; `None` if all is durable already. A failure is to be told by [`Wal::poison`].
    pub(crate) fn unsynced(&self) -> Option<(Arc<dyn SyncFile>, u64)> {
        (self.synced < self.written).then(|| (Arc::clone(&self.sync), self.written))
    }

    /// What [`Wal::unsynced`] was about is durable. Until this is told, nobody else takes it for that.
    pub(crate) fn set_synced(&mut self, written: u64) {
        self.synced = self.synced.max(written);
    }

    /// Refuses all further appends: a failed sync may have lost acknowledged samples.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
    }
}
