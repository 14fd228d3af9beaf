//! What has to be done from time to time.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::Timestamp;

use super::late::WBL_DIR;
use super::{Inner, Maintained, WAL_DIR, directory_bytes, log_only, open};
use crate::block::{Block, DELETION_SUFFIX};
use crate::error::{CommitError, IoError};
use crate::head::mapped;
use crate::wal::{checkpoint, segments};

/// What maintenance remembers from step to step.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// The head is to be truncated before the time `.0` as soon as all snapshots older than `.1` are gone.
    truncate: Option<(Timestamp, u64)>,
    /// Files and log still have to be freed of samples before this.
    shorten: Option<Timestamp>,
    /// Names of series that left the head, or that it had before the start, with the segment that was
    /// current then: until that one is deleted, the log may still have samples under them.
    dropped: BTreeMap<u64, u64>,
    /// Series that have got a new name since the start.
    renamed: Renamed,
    /// How many refused series have been told of, and when.
    pub(super) told: (u64, Timestamp),
    /// What a log that is all there is remembers.
    pub(super) log_only: log_only::State,
    /// The history of the head is there. Before, nothing may be cut from it, and nothing of the log may go.
    ready: bool,
}

/// Names of series that have a newer one since the start. As long as a sample under one of them is kept, the name is.
#[derive(Debug, Default)]
struct Renamed {
    names: HashSet<u64>,
    /// The newest sample that the log may have under one.
    newest: Option<Timestamp>,
    /// The log of late samples may use them in segments before this.
    late_until: u64,
}

impl Pending {
    /// After replay: the log uses `names` in segments before `first.0`, that of late samples before `first.1`, and for
    /// nothing after `newest`; of `segments` the newest times are known.
    pub(super) fn new(
        names: Vec<u64>,
        (first, newest): ((u64, u64), Option<Timestamp>),
        segments: BTreeMap<u64, Timestamp>,
    ) -> Self {
        let dropped = names.iter().map(|&name| (name, first.0)).collect();
        let renamed = Renamed { names: names.into_iter().collect(), newest, late_until: first.1 };
        Self { dropped, renamed, log_only: log_only::State::new(segments), ready: true, ..Self::default() }
    }

    /// Fails where history cannot be read.
    pub(super) fn check(&self, dir: &Path) -> Result<(), CommitError> {
        let missing = || std::io::Error::other("the history of the head could not be read");
        if self.ready { Ok(()) } else { Err(CommitError { path: dir.to_owned(), source: missing() }) }
    }
}

/// One step.
pub(super) fn step(inner: &Inner, now: Timestamp) -> Result<Maintained, CommitError> {
    // While history is being attached, its thread has the lock.
    let Some(mut pending) = inner.maintenance.try_lock().filter(|pending| pending.ready) else {
        return Ok(Maintained::default());
    };
    inner.tell_of_limit(&mut pending, now);
    if let Some(rules) = inner.options.log_only {
        return inner.maintain_log(rules, &mut pending, now).map(|()| Maintained::default());
    }
    let mut done = Maintained::default();
    let written = write_and_cut(inner, &mut pending, &mut done);
    // On a full disk nothing can be written, but this may make room.
    inner.retain(now, &mut done)?;
    written.map(|()| done)
}

/// Everything of a step but deleting what is old.
fn write_and_cut(inner: &Inner, pending: &mut Pending, done: &mut Maintained) -> Result<(), CommitError> {
    // A disk that is still full shall not keep memory from being freed.
    inner.log.lock().catch_up().or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })?;
    inner.truncate_head(pending)?;
    inner.head.late.forget(inner.head.snapshots.floor());
    inner.head.map_closed()?;
    let range = inner.options.block_range_ms;
    if let (Some(min), Some(max)) = (inner.head.min_ts(), inner.head.max_ts())
        && pending.truncate.is_none()
        && max.saturating_sub(min) > range / 2 * 3
    {
        cut_one(inner, min, next_edge(min, range), pending, done)?;
    }
    if done.head_cut {
        inner.cut_late(done)?;
    }
    if inner.options.compact { inner.compact(done) } else { Ok(()) }
}

/// Cuts everything.
pub(super) fn cut_all(inner: &Inner) -> Result<Maintained, CommitError> {
    let mut pending = inner.maintenance.lock();
    pending.check(&inner.dir)?;
    let mut done = Maintained::default();
    if inner.options.log_only.is_some() {
        return Ok(done);
    }
    let range = inner.options.block_range_ms;
    inner.truncate_head(&mut pending)?;
    let Some(end) = inner.head.max_ts().map(|max| max.saturating_add(1)) else { return Ok(done) };
    let from = inner.published.read().head_from;
    let Some(mut min) = inner.head.min_ts().map(|min| min.max(from)) else { return Ok(done) };
    while min < end {
        let edge = next_edge(min, range).min(end);
        cut_one(inner, min, edge, &mut pending, &mut done)?;
        min = edge;
    }
    inner.cut_late(&mut done)?;
    Ok(done)
}

/// The first multiple of `range` after `ts`.
fn next_edge(ts: Timestamp, range: i64) -> Timestamp {
    (ts.div_euclid(range) + 1).saturating_mul(range)
}

fn cut_one(
    inner: &Inner,
    min: Timestamp,
    edge: Timestamp,
    pending: &mut Pending,
    done: &mut Maintained,
) -> Result<(), CommitError> {
    if inner.cut(min, edge)? {
        done.head_cut = true;
        done.blocks_written += 1;
    }
    let snapshots = inner.head.snapshots.next();
    let (until, _) = pending.truncate.unwrap_or((edge, snapshots));
    pending.truncate = Some((until.max(edge), snapshots));
    inner.truncate_head(pending)
}

impl Inner {
    /// Drops from the head and the log what blocks have, unless an old snapshot still reads it there.
    fn truncate_head(&self, pending: &mut Pending) -> Result<(), IoError> {
        if let Some((until, snapshots)) = pending.truncate
            && (self.head.snapshots.oldest() >= snapshots || self.is_overdue(until))
        {
            self.head.snapshots.expire(snapshots);
            let dropped = self.head.truncate(until);
            self.note_dropped(dropped, pending);
            (pending.truncate, pending.shorten) = (None, Some(until));
        }
        // If the disk is full, this is tried again by every step.
        let Some(until) = pending.shorten else { return Ok(()) };
        self.head.truncate_files(until)?;
        let mut log = self.log.lock();
        log.catch_up()?;
        let wal = &mut log.wal;
        if !wal.is_fresh() {
            wal.next_segment().map_err(|source| CommitError { path: wal.path(), source })?;
        }
        drop(log);
        self.truncate_log(until, pending)?;
        pending.shorten = None;
        Ok(())
    }

    /// Whether one more block has come together since the head was to drop what is before `until`: memory must not
    /// grow for as long as somebody holds a snapshot.
    fn is_overdue(&self, until: Timestamp) -> bool {
        let due = until.saturating_add(self.options.block_range_ms / 2 * 5);
        self.head.max_ts().is_some_and(|newest| newest > due)
    }

    /// Replaces the first two thirds of the log by a checkpoint.
    fn truncate_log(&self, from: Timestamp, pending: &mut Pending) -> Result<(), IoError> {
        let dir = self.dir.join(WAL_DIR);
        let all = segments(&*self.disk, &dir).map_err(CommitError::at(&dir))?;
        let [(first, _), .., (current, _)] = all[..] else { return Ok(()) };
        // The segment before the current one is the newest that is complete.
        let last = first + (current - 1 - first) * 2 / 3;
        if last <= first {
            return Ok(());
        }
        self.checkpoint(last, from, pending)
    }

    /// Replaces the log up to segment `last` by a checkpoint with the series that are still in use, and the samples from
    /// `from` on.
    pub(super) fn checkpoint(
        &self,
        last: u64,
        from: Timestamp,
        pending: &mut Pending,
    ) -> Result<(), IoError> {
        let mut live = HashSet::new();
        self.head.for_each(|series| {
            live.insert(series.wal_ref());
        });
        pending.dropped.retain(|_, segment| *segment > last);
        let Renamed { newest, late_until, .. } = pending.renamed;
        if newest.is_none_or(|newest| newest < from) && !self.late_needs(late_until)? {
            pending.renamed = Renamed::default();
        }
        let (dropped, renamed) = (&pending.dropped, &pending.renamed.names);
        let is_used =
            |series| live.contains(&series) || dropped.contains_key(&series) || renamed.contains(&series);
        let deleted_from = from.min(open::end_of(&self.published.read().blocks));
        let keep = checkpoint::Keep { series: &is_used, from, deleted_from };
        checkpoint::write(&self.disk, &self.dir.join(WAL_DIR), last, &keep, self.options.wal_compression)
    }

    /// Notes that series have left the head; the log may have samples of them up to here.
    pub(super) fn note_dropped(&self, dropped: Vec<u64>, pending: &mut Pending) {
        let segment = self.log.lock().wal.segment();
        pending.dropped.extend(dropped.into_iter().map(|series| (series, segment)));
    }

    /// Deletes blocks that are older than the retention time, then the oldest ones while everything in
    /// the directory together exceeds the retention size.
    ///
    /// Age is counted from the newest block, but not from a time that is still to come: one sample with a
    /// wrong clock must not make everything else old. The newest block in order always stays: it tells how
    /// far the head has been cut, and without it the log would bring back what is deleted.
    fn retain(&self, now: Timestamp, done: &mut Maintained) -> Result<(), IoError> {
        let log_and_head =
            [WAL_DIR, WBL_DIR, mapped::DIR].map(|name| directory_bytes(&*self.disk, &self.dir.join(name)));
        let mut removed = Vec::new();
        {
            let mut published = self.published.write();
            let newest =
                published.blocks.iter().map(|block| block.meta.max_time).max().unwrap_or(now).min(now);
            let in_order = published.blocks.iter().filter(|block| !block.meta.is_out_of_order());
            let edge = in_order.max_by_key(|block| block.meta.max_time).map(|block| block.meta.ulid);
            let mut bytes: u64 = log_and_head.iter().sum();
            let wanted_from = self.wanted_from.load(Ordering::Relaxed);
            // Newest first: what does not fit any more goes, with all that is older.
            let mut full = false;
            let mut kept: Vec<Arc<Block>> = Vec::new();
            for block in published.blocks.drain(..).rev() {
                bytes += block.bytes;
                let age = newest.saturating_sub(block.meta.max_time);
                let old = self.options.retention_ms.is_some_and(|retention| age >= retention);
                full |= self.options.retention_bytes.is_some_and(|retention| bytes > retention);
                let wanted = block.meta.max_time > wanted_from;
                let due = (old && !wanted || full) && Some(block.meta.ulid) != edge;
                if due && wanted {
                    let dir = block.dir().display();
                    tracing::error!(
                        "{dir} is deleted, as there is no room for it, though it has no copy elsewhere yet"
                    );
                }
                if due { removed.push(block) } else { kept.push(block) }
            }
            kept.reverse();
            published.blocks = kept;
        }
        for block in removed {
            self.delete_block_dir(block.dir())?;
            done.blocks_deleted += 1;
        }
        Ok(())
    }

    /// Deletes a block's files. Readers that have them mapped go on reading.
    pub(super) fn delete_block_dir(&self, dir: &Path) -> Result<(), IoError> {
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(DELETION_SUFFIX);
        let doomed = dir.with_file_name(name);
        self.disk.rename(dir, &doomed).map_err(CommitError::at(dir))?;
        self.disk.sync_dir(&self.dir).map_err(CommitError::at(&self.dir))?;
        self.disk.remove_dir_all(&doomed).map_err(CommitError::at(&doomed))
    }
}
