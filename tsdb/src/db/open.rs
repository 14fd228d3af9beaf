//! Opening a directory.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use model::Timestamp;
use parking_lot::{Condvar, Mutex, RwLock};
use ulid::Ulid;

use super::logs::Logs;
use super::{Counters, Inner, LOCK_FILE, Progress, Published, WAL_DIR, history, late, replay};
use crate::block::{Block, DELETION_SUFFIX, TMP_SUFFIX, read_meta};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::head::Head;
use crate::head::exemplars::Exemplars;
use crate::head::mapped::{self, MappedChunks};
use crate::head::names::Names;
use crate::head::series::{Chunks, Rules};
use crate::options::Options;
use crate::wal::{Wal, checkpoint, damage};

/// A database without the history of its head.
pub(super) struct Opened {
    pub(super) inner: Inner,
    pub(super) lock: Box<dyn Send + Sync>,
    /// The first segments of this run: history ends before them.
    pub(super) first: (u64, u64),
    /// Whether samples can be taken before history is there.
    pub(super) takes_samples: bool,
}

/// Until when `blocks` have everything that came in order, as far as a start can tell.
pub(super) fn end_of(blocks: &[Arc<Block>]) -> Timestamp {
    let in_order = blocks.iter().filter(|block| !block.meta.is_out_of_order());
    in_order.map(|block| block.meta.max_time).max().unwrap_or(i64::MIN)
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Opened, OpenError> {
    disk.create_dir_all(dir).map_err(|source| OpenError::io(dir, source))?;
    let lock = take_lock(&*disk, dir)?;
    remove_unfinished(&*disk, dir).map_err(|source| OpenError::io(dir, source))?;
    let blocks = open_blocks(&*disk, dir, &options, progress)?;
    let head_from = end_of(&blocks);
    let wal_dir = dir.join(WAL_DIR);
    let io_error = |source| OpenError::io(&wal_dir, source);
    let checkpointed = checkpoint::newest(&*disk, &wal_dir).map_err(io_error)?.map(|(last, _)| last);
    let newest = replay::prepare(&*disk, dir, WAL_DIR)?.max(checkpointed);
    let (mut newest_late, mut in_use) = (None, newest);
    let files = if options.log_only.is_some() {
        MappedChunks::none(Arc::clone(&disk), &dir.join(mapped::DIR))
    } else {
        newest_late = replay::prepare(&*disk, dir, late::WBL_DIR)?;
        let files = MappedChunks::open(Arc::clone(&disk), &dir.join(mapped::DIR))?;
        // Chunks without a log have names, too, and no file can tell of them.
        in_use = newest.or(files.any()?.then_some(u64::MAX));
        files
    };
    let names = Arc::new(Names::open(Arc::clone(&disk), dir, in_use));
    let mut wal =
        Wal::create(Arc::clone(&disk), &wal_dir, newest.map_or(0, |last| last + 1), options.wal_compression)
            .map_err(io_error)?;
    wal.limit_segments(options.wal_segment_bytes_max);
    wal.tell(Arc::clone(&names));
    if names.are_known() {
        names.begin_unattached(wal.segment());
        names.begin_segment(wal.segment());
    }
    let takes_samples = names.are_known();
    let late_log = late::open_log(&disk, dir, newest_late, &options)?;
    disk.sync_dir(dir).map_err(|source| OpenError::io(dir, source))?;
    let first = (wal.segment(), late_log.as_ref().map_or(u64::MAX, Wal::segment));
    let chunks = match (options.log_only, options.keeps_starts()) {
        (Some(_), _) => Chunks::None,
        (None, true) => Chunks::Xor2,
        (None, false) => Chunks::Xor,
    };
    let rules = Rules { range_ms: options.block_range_ms, chunks };
    let head = Head::new((rules, options.late_window_ms()), options.series_max, files, names);
    head.min_valid.store(head_from, Ordering::Release);
    let inner = Inner {
        disk,
        dir: dir.to_owned(),
        head,
        log: Mutex::new(Logs::new(wal, late_log, options.backlog_bytes_max)),
        published: RwLock::new(Published { blocks, head_from }),
        maintenance: Mutex::default(),
        counters: Counters::default(),
        exemplars: Exemplars::new(options.exemplars_max),
        batches: Mutex::default(),
        history: history::State::default(),
        committed: Condvar::new(),
        wanted_from: AtomicI64::new(Timestamp::MAX),
        log_wanted_from: AtomicU64::new(0),
        options,
    };
    Ok(Opened { inner, lock, first, takes_samples })
}

fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Send + Sync>, OpenError> {
    let path = dir.join(LOCK_FILE);
    disk.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked(path),
        _ => OpenError::Io { path, source },
    })
}

/// Removes what a crash left half-made, and the snapshots of memory that Prometheus may have written when
/// it was stopped: the log has all that they have, and they would be out of date when it starts again.
fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        let unfinished = entry.name.ends_with(TMP_SUFFIX)
            || entry.name.ends_with(DELETION_SUFFIX)
            || entry.name.starts_with("chunk_snapshot.");
        if entry.is_dir && unfinished {
            disk.remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// The directories of blocks in `dir`.
pub(crate) fn block_dirs(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<(Ulid, PathBuf)>> {
    let entries = disk.list(dir)?;
    let dirs = entries.iter().filter(|entry| entry.is_dir);
    Ok(dirs.filter_map(|entry| Some((entry.name.parse().ok()?, dir.join(&entry.name)))).collect())
}

fn open_blocks(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Arc<Block>>, OpenError> {
    let dirs = block_dirs(disk, dir).map_err(|source| OpenError::io(dir, source))?;
    if options.log_only.is_some() {
        if !dirs.is_empty() {
            tracing::warn!(
                dir = %dir.display(), blocks = dirs.len(),
                "here is a store with blocks; they stay as they are, while its log is used and shortened"
            );
        }
        return Ok(Vec::new());
    }
    let total = dirs.len();
    let mut opened = Vec::new();
    for (done, (ulid, path)) in dirs.into_iter().enumerate() {
        progress(Progress::Blocks { done, total });
        opened.push((ulid, path.clone(), Block::open(disk, &path)));
    }
    progress(Progress::Blocks { done: total, total });
    let replaced: BTreeSet<Ulid> = opened
        .iter()
        .filter_map(|(_, _, block)| block.as_ref().ok())
        .flat_map(|block| block.meta.compaction.parents.iter().map(|parent| parent.ulid))
        .collect();
    let mut blocks = Vec::new();
    for (ulid, path, block) in opened {
        // A compaction was interrupted after its result and before the removal of what it read.
        if replaced.contains(&ulid) {
            disk.remove_dir_all(&path).map_err(|source| OpenError::io(&path, source))?;
            continue;
        }
        match block {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error) if is_damage(&error) => quarantine_block(disk, dir, &path, &error)?,
            Err(error) => return Err(error),
        }
    }
    blocks.sort_by_key(|block| (block.meta.min_time, block.meta.max_time, block.meta.ulid));
    Ok(blocks)
}

/// Whether a block cannot be read because of what it is, not because of the disk.
fn is_damage(error: &OpenError) -> bool {
    match error {
        OpenError::Corrupt { .. } => true,
        OpenError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        OpenError::Locked(_) => false,
    }
}

/// Moves a block aside that cannot be read, and says what is lost.
pub(super) fn quarantine_block(
    disk: &dyn Disk,
    dir: &Path,
    block: &Path,
    error: &OpenError,
) -> Result<(), OpenError> {
    let lost = match read_meta(disk, block) {
        Ok(meta) => format!("the time from {} to {} ms", meta.min_time, meta.max_time),
        Err(_) => "an unknown span of time".to_owned(),
    };
    let name = block.file_name().unwrap_or_default().to_string_lossy();
    let io_error = |source| OpenError::io(block, source);
    let aside = damage::free_name(disk, dir, &name).map_err(io_error)?;
    tracing::error!(
        %error, moved_to = %aside.display(),
        "a block cannot be read and is put aside; of {lost} it has all that was not in the head"
    );
    disk.rename(block, &aside).map_err(io_error)?;
    let quarantine = dir.join(damage::QUARANTINE_DIR);
    disk.sync_dir(&quarantine).and_then(|()| disk.sync_dir(dir)).map_err(io_error)
}
