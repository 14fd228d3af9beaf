//! From the log back to the head.
//!
//! A segment passes three stages, which on large ones are threads: records are found, unpacked and taken apart;
//! they are put in order, series are created, and samples are sorted by shard; each shard takes its samples. 48
//! million samples of 200,000 series cost 10 ns to unpack, 5 to sort and 15 to append each, or 5 where
//! a mapped chunk has them already. What is on its way between the stages is bounded: two dozen
//! groups of records of half a MiB. Chunks that are full wait in memory until they may have come to 12 MiB, and are
//! mapped then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hashbrown::HashMap;
use model::{Exemplar, HistogramValue, Labels, TimeRange, Timestamp};
use parking_lot::Mutex;

use super::late::WBL_DIR;
use super::{Progress, WAL_DIR};
use crate::chunk::layout::is_consistent;
use crate::chunk::{Sample, Value};
use crate::codec::Malformed;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::head::exemplars::Exemplars;
use crate::head::late::Late;
use crate::head::mapped::Found;
use crate::head::metadata::AllMetadata;
use crate::head::{Head, SHARDS, shard_of};
use crate::wal::page::{Damage, Records, Stored};
use crate::wal::record::{self, Record, WalRef};
use crate::wal::{checkpoint, damage, segment_path, segments};

/// Smaller segments are read by one thread.
const PARALLEL_FROM_BYTES: usize = 1 << 20;
/// Records are unpacked in groups of about so many bytes.
const GROUP_BYTES: usize = 512 << 10;
/// Samples of a shard are appended in parts of so many.
const PART_SAMPLES: usize = 4096;
/// Closed chunks are mapped when they may have come to so many bytes.
const BYTES_BETWEEN_MAPPINGS: usize = 12 << 20;

/// What replay found besides the samples, which are in the head.
pub(super) struct Replayed {
    /// Names that the log uses for series which have a newer one.
    pub(super) names: Vec<WalRef>,
    pub(super) exemplars: Exemplars,
    pub(super) late: Late,
    pub(super) metadata: AllMetadata,
    pub(super) deleted: Vec<(u32, TimeRange)>,
    /// The segments of a log that is all there is, with the newest time that each has.
    pub(super) segments: BTreeMap<u64, Timestamp>,
}

/// Where to read, and how far it has come.
pub(super) struct Source<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
    /// Segments from these on, of the log and of that of late samples, are of this run.
    pub(super) until: (u64, u64),
    /// Segments from this one on have samples that were taken before it was known what is before them: of a time that
    /// mapped chunks have, perhaps, but not in those.
    pub(super) early_from: u64,
    /// Nobody waits for history any more.
    pub(super) abandoned: &'a AtomicBool,
    /// Late samples are not read: there is no head that would have them.
    pub(super) log_only: bool,
}

/// Reads checkpoint and segments into the history of `head`.
///
/// A segment that cannot be read to its end is cut back to its last good record; what is cut, and all
/// later segments, are moved to the quarantine directory, since samples after a gap could contradict
/// what was acknowledged before it.
///
/// The log of late samples follows, and is repaired by itself.
pub(super) fn replay(
    source: &Source<'_>,
    head: &Head,
    (found, exemplars_max): (Found, usize),
    progress: &mut dyn FnMut(Progress),
) -> Result<Replayed, OpenError> {
    // A chunk may have outlived the record that names its series. No other series may get that name.
    found.keys().for_each(|&wal_ref| head.names.skip(wal_ref));
    let mut replay = Replay {
        head,
        names: NameTable::new(u32::MAX),
        page: None,
        covered: covered(&found),
        found,
        from: head.min_valid.load(Ordering::Acquire),
        unknown: 0,
        is_late: false,
        is_copy: false,
        since_mapping: 0,
        newest: Timestamp::MIN,
        replayed: Replayed {
            names: Vec::new(),
            exemplars: Exemplars::new(exemplars_max),
            late: Late::default(),
            metadata: AllMetadata::default(),
            deleted: Vec::new(),
            segments: BTreeMap::new(),
        },
        parts: std::array::from_fn(|_| Vec::new()),
    };
    let checkpointed = replay.checkpoint(source)?;
    replay.log(source, (WAL_DIR, source.until.0), checkpointed, progress)?;
    if !source.log_only {
        replay.is_late = true;
        replay.log(source, (WBL_DIR, source.until.1), None, progress)?;
    }
    if replay.unknown > 0 {
        tracing::warn!(samples = replay.unknown, "the log has samples of series that it does not name");
    }
    let Replay { names, mut replayed, .. } = replay;
    replayed.names =
        names.all().filter(|&(name, id)| head.name_of(id) != Some(name)).map(|it| it.0).collect();
    Ok(replayed)
}

struct Replay<'a> {
    head: &'a Head,
    names: NameTable<u32>,
    /// The page of names used last.
    page: Option<(u64, usize)>,
    covered: NameTable<Timestamp>,
    /// Chunks on disk that no series has taken over yet.
    found: Found,
    /// Samples before this are in blocks.
    from: Timestamp,
    unknown: u64,
    /// Whether the log of late samples is being read.
    is_late: bool,
    /// The next record is a copy of what the log of late samples has, or had until that was in blocks or deleted.
    is_copy: bool,
    /// About how many bytes the samples may take that closed chunks have got.
    since_mapping: usize,
    /// The newest time of the segment.
    newest: Timestamp,
    replayed: Replayed,
    parts: [Vec<(u32, Timestamp, f64)>; SHARDS],
}

/// Samples of one shard in their order.
enum Work {
    Floats(usize, Vec<(u32, Timestamp, f64)>),
    Others(usize, Vec<(u32, Sample)>),
    /// Tell when everything before is done.
    Wait(SyncSender<()>),
}

/// Where work goes.
enum Hands<'a> {
    Own(&'a Head),
    /// Each takes every n-th shard. Used vectors come back.
    Others(Vec<SyncSender<Work>>, Receiver<Vec<(u32, Timestamp, f64)>>),
}

impl Hands<'_> {
    fn take(&self, work: Work) {
        match self {
            Self::Own(head) => drop(do_work(head, work)),
            Self::Others(hands, _) => match work {
                // A thread that is gone has panicked, and the scope that it ran in will, too.
                Work::Floats(shard, _) | Work::Others(shard, _) => {
                    drop(hands[shard % hands.len()].send(work));
                }
                Work::Wait(done) => {
                    for hand in hands {
                        drop(hand.send(Work::Wait(done.clone())));
                    }
                }
            },
        }
    }

    fn wait(&self) {
        if let Self::Others(hands, _) = self {
            let (done, all_done) = sync_channel(hands.len());
            self.take(Work::Wait(done));
            while all_done.recv().is_ok() {}
        }
    }

    fn empty_part(&self) -> Vec<(u32, Timestamp, f64)> {
        match self {
            Self::Own(_) => Vec::new(),
            Self::Others(_, used) => used.try_recv().unwrap_or_else(|_| Vec::with_capacity(PART_SAMPLES)),
        }
    }
}

fn do_work(head: &Head, work: Work) -> Option<Vec<(u32, Timestamp, f64)>> {
    match work {
        Work::Floats(number, mut samples) => {
            head.append_past(number, samples.drain(..));
            Some(samples)
        }
        Work::Others(number, samples) => {
            head.append_past_samples(number, &samples);
            None
        }
        Work::Wait(done) => {
            let _ = done.send(());
            None
        }
    }
}

/// What a float takes in a chunk: two bytes as a rule, and this if it has nothing of the one before.
const FLOAT_BYTES: usize = 8;

/// About how many bytes a value takes in a chunk.
fn chunk_bytes(value: &Value) -> usize {
    match value {
        Value::Float(_) => FLOAT_BYTES,
        // Some numbers of its own, and a few bytes for each bucket.
        Value::Histogram(HistogramValue::Int(it)) => 16 + 4 * (it.positive.len() + it.negative.len()),
        Value::Histogram(HistogramValue::Float(it)) => 16 + 8 * (it.positive.len() + it.negative.len()),
    }
}

/// A record taken apart, or why it cannot be.
type Taken = Result<Record, Damage>;

fn take_apart(stored: &Stored<'_>, mapped: &mut Covered<'_>, space: &mut Vec<u8>) -> Taken {
    let data = stored.unpack(space)?;
    record::decode_some(data, |name, ts| !mapped.has(name, ts)).map_err(|Malformed(what)| Damage {
        offset: stored.start,
        torn: false,
        what,
    })
}

/// Which samples need not be taken out of the log, since mapped chunks have them: those of a name up to the
/// end of its newest chunk. Names whose chunks overlap are left to those who know their series.
struct Covered<'a> {
    ends: &'a NameTable<Timestamp>,
    last: Option<(u64, usize)>,
}

impl<'a> Covered<'a> {
    fn new(ends: &'a NameTable<Timestamp>) -> Self {
        Self { ends, last: None }
    }

    #[inline]
    fn has(&mut self, name: WalRef, ts: Timestamp) -> bool {
        self.ends.get(name, &mut self.last).is_some_and(|end| ts <= end)
    }
}

/// The ends of mapped chunks by name.
fn covered(found: &Found) -> NameTable<Timestamp> {
    let mut ends = NameTable::new(Timestamp::MIN);
    for (&name, chunks) in found {
        let ascending = chunks.windows(2).all(|pair| pair[0].max() < pair[1].min());
        if let Some(newest) = chunks.last().filter(|_| ascending) {
            ends.set(name, newest.max());
        }
    }
    ends
}

impl Replay<'_> {
    /// Reads the newest checkpoint and returns the last segment it stands for. Older checkpoints, and
    /// segments that a crash left behind it, are removed.
    fn checkpoint(&mut self, source: &Source<'_>) -> Result<Option<u64>, OpenError> {
        let (disk, wal_dir) = (source.disk, source.dir.join(WAL_DIR));
        let io_error = |source| OpenError::io(&wal_dir, source);
        let Some((last, dir)) = checkpoint::newest(disk, &wal_dir).map_err(io_error)? else {
            return Ok(None);
        };
        let numbers: Vec<u64> =
            segments(disk, &dir).map_err(io_error)?.into_iter().map(|(number, _)| number).collect();
        for (at, &number) in numbers.iter().enumerate() {
            if let Some(damage) = self.segment(source, &segment_path(&dir, number))? {
                let name = dir.strip_prefix(source.dir).unwrap_or(&dir).to_string_lossy().into_owned();
                damage::repair(disk, (source.dir, &name), &numbers[at..], damage).map_err(io_error)?;
                break;
            }
        }
        checkpoint::remove_obsolete(disk, &wal_dir).map_err(io_error)?;
        for (number, _) in segments(disk, &wal_dir).map_err(io_error)? {
            if number <= last {
                let path = segment_path(&wal_dir, number);
                disk.remove_file(&path).map_err(|source| OpenError::io(&path, source))?;
            }
        }
        Ok(Some(last))
    }

    /// Reads the segments of the log `name` after `checkpointed` and before `until`.
    fn log(
        &mut self,
        source: &Source<'_>,
        (name, until): (&str, u64),
        checkpointed: Option<u64>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), OpenError> {
        let (disk, log_dir) = (source.disk, source.dir.join(name));
        let all = segments(disk, &log_dir).map_err(|source| OpenError::io(&log_dir, source))?;
        let live: Vec<u64> = all.into_iter().map(|(number, _)| number).filter(|&n| n < until).collect();
        let mut before = checkpointed;
        for (at, &number) in live.iter().enumerate() {
            let last = live.last().copied().unwrap_or(number);
            progress(Progress::Wal { segment: number, first: live[0], last });
            let path = segment_path(&log_dir, number);
            let io_error = |source| OpenError::io(&path, source);
            if let Some(before) = before.filter(|before| before + 1 != number) {
                tracing::error!(path = %path.display(), "the segment before this one is missing");
                let place = (source.dir, name);
                damage::set_aside(disk, place, &live[at..]).map_err(io_error)?;
                return damage::fill_gap(disk, &log_dir, before + 1..number).map_err(io_error);
            }
            self.newest = Timestamp::MIN;
            if number >= source.early_from {
                self.covered = NameTable::new(Timestamp::MIN);
            }
            let damage = self.segment(source, &path)?;
            if source.log_only && self.newest > Timestamp::MIN {
                self.replayed.segments.insert(number, self.newest);
            }
            if let Some(damage) = damage {
                return damage::repair(disk, (source.dir, name), &live[at..], damage).map_err(io_error);
            }
            before = Some(number);
        }
        Ok(())
    }

    fn segment(&mut self, source: &Source<'_>, path: &Path) -> Result<Option<Damage>, OpenError> {
        let data = source.disk.map(path).map_err(|source| OpenError::io(path, source))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.is_copy = false;
        let ended = if data.len() < PARALLEL_FROM_BYTES || cores < 2 || self.is_late {
            self.read_alone(&data, source.abandoned)
        } else {
            self.read_together(&data, cores, source.abandoned)
        };
        if source.abandoned.load(Ordering::Relaxed) {
            let source = std::io::Error::new(std::io::ErrorKind::Interrupted, "the store is being closed");
            return Err(OpenError::io(path, source));
        }
        match ended {
            Err(Stop::Damaged(damage)) => Ok(Some(damage)),
            Err(Stop::Failed(error)) => Err(error),
            Ok(()) => Ok(None),
        }
    }

    fn read_alone(&mut self, data: &[u8], abandoned: &AtomicBool) -> Result<(), Stop> {
        let (mut records, mut space) = (Records::new(data), Vec::new());
        let none = NameTable::new(Timestamp::MIN);
        let (hands, mut ended) = (Hands::Own(self.head), Ok(()));
        while let Some(next) = records.next()
            && ended.is_ok()
            && !abandoned.load(Ordering::Relaxed)
        {
            // Late samples are in no mapped chunk.
            let mut mapped = Covered::new(if self.is_late { &none } else { &self.covered });
            let taken = next.and_then(|stored| take_apart(&stored, &mut mapped, &mut space));
            ended = self.take(taken, &hands).and_then(|()| self.map_if_due(&hands));
        }
        self.flush(&hands);
        ended
    }

    fn read_together(&mut self, data: &[u8], cores: usize, abandoned: &AtomicBool) -> Result<(), Stop> {
        let (openers, hands) = ((cores / 2).clamp(1, 4), (cores / 2).clamp(1, 4));
        let (head, taken_out) =
            (self.head, std::mem::replace(&mut self.covered, NameTable::new(Timestamp::MIN)));
        let covered = &taken_out;
        let ended = std::thread::scope(|scope| {
            let (jobs, waiting) = sync_channel::<Job<'_>>(2 * openers);
            let (order, mut ordered) = sync_channel::<Receiver<Vec<Taken>>>(4 * openers);
            let waiting = Arc::new(Mutex::new(waiting));
            for _ in 0..openers {
                let waiting = Arc::clone(&waiting);
                scope.spawn(move || open_groups(&waiting, covered));
            }
            drop(waiting);
            scope.spawn(move || find_groups(data, &jobs, &order));
            let (used_to, used) = sync_channel(64);
            let senders = (0..hands).map(|_| {
                let (sender, work) = sync_channel(16);
                let used = used_to.clone();
                scope.spawn(move || {
                    for work in work {
                        // If there are enough of them, the vector goes.
                        if let Some(part) = do_work(head, work) {
                            let _ = used.try_send(part);
                        }
                    }
                });
                sender
            });
            let hands = Hands::Others(senders.collect(), used);
            let ended = self.take_groups(&mut ordered, &hands, abandoned);
            self.flush(&hands);
            hands.wait();
            ended
        });
        self.covered = taken_out;
        ended
    }

    fn take_groups(
        &mut self,
        ordered: &mut Receiver<Receiver<Vec<Taken>>>,
        hands: &Hands<'_>,
        abandoned: &AtomicBool,
    ) -> Result<(), Stop> {
        for group in ordered.iter() {
            for taken in group.recv().unwrap_or_default() {
                self.take(taken, hands)?;
            }
            if abandoned.load(Ordering::Relaxed) {
                break;
            }
            self.map_if_due(hands)?;
        }
        Ok(())
    }

    /// Maps closed chunks from time to time, so that memory does not grow with the log.
    fn map_if_due(&mut self, hands: &Hands<'_>) -> Result<(), Stop> {
        if self.since_mapping <= BYTES_BETWEEN_MAPPINGS {
            return Ok(());
        }
        self.since_mapping = 0;
        self.flush(hands);
        hands.wait();
        self.head.map_past().map_err(|error| Stop::Failed(error.into()))
    }

    fn take(&mut self, taken: Taken, hands: &Hands<'_>) -> Result<(), Stop> {
        let record = taken.map_err(Stop::Damaged)?;
        let is_mark = matches!(record, Record::CopyMark) && !self.is_late;
        let leave_out = std::mem::replace(&mut self.is_copy, is_mark);
        if leave_out && record.has_samples() {
            return Ok(());
        }
        match record {
            Record::Series(entries) => self.series(entries, hands),
            Record::Samples(entries) if !self.is_late => self.floats(entries, hands),
            Record::Samples(entries) => {
                let sample = |(series, ts, value)| (series, Sample::float(ts, value));
                self.samples(entries.into_iter().map(sample), hands);
            }
            Record::Histograms(entries) => {
                let sample = |(series, ts, value)| (series, Sample::new(ts, Value::Histogram(value)));
                self.samples(entries.into_iter().map(sample), hands);
            }
            Record::Started(entries) => self.samples(entries.into_iter(), hands),
            Record::Tombstones(entries) => {
                self.flush(hands);
                hands.wait();
                for (wal_ref, min, max) in entries {
                    if let Some(id) = self.names.get(wal_ref, &mut self.page) {
                        self.head.delete_past_late(id, TimeRange::new(min, max));
                        self.replayed.deleted.push((id, TimeRange::new(min, max)));
                    }
                }
            }
            Record::Exemplars(entries) => {
                for (wal_ref, ts, value, labels) in entries {
                    self.newest = self.newest.max(ts);
                    let Some(id) = self.names.get(wal_ref, &mut self.page) else { continue };
                    let series = self.head.catalog.read_recursive().labels(id);
                    let exemplar = Exemplar { labels, ts, value };
                    if self.replayed.exemplars.check(&series, &exemplar) == Ok(true) {
                        self.replayed.exemplars.add(&series, exemplar);
                    }
                }
            }
            Record::Metadata(entries) => {
                for (wal_ref, metadata) in entries {
                    if let Some(id) = self.resolve(wal_ref) {
                        self.replayed.metadata.set(id, &metadata);
                    }
                }
            }
            Record::MappedMarkers | Record::CopyMark | Record::Unknown => {}
        }
        Ok(())
    }

    fn series(&mut self, entries: Vec<(WalRef, Labels)>, hands: &Hands<'_>) {
        for (wal_ref, labels) in entries {
            self.head.names.skip(wal_ref);
            let (id, new) = self.head.replay_series(wal_ref, &labels);
            self.names.set(wal_ref, id);
            if let Some(chunks) = self.found.remove(&wal_ref) {
                if !new {
                    // What the log had under another name comes first.
                    self.flush(hands);
                    hands.wait();
                }
                self.head.adopt(id, &chunks);
            }
        }
    }

    fn resolve(&mut self, wal_ref: WalRef) -> Option<u32> {
        let id = self.names.get(wal_ref, &mut self.page);
        if id.is_none() {
            self.head.names.skip(wal_ref);
            self.unknown += 1;
        }
        id
    }

    fn floats(&mut self, entries: Vec<(WalRef, Timestamp, f64)>, hands: &Hands<'_>) {
        self.since_mapping += entries.len() * FLOAT_BYTES;
        for (wal_ref, ts, value) in entries {
            let Some(id) = self.resolve(wal_ref) else { continue };
            self.newest = self.newest.max(ts);
            if ts < self.from {
                continue;
            }
            let part = &mut self.parts[shard_of(id)];
            part.push((id, ts, value));
            if part.len() >= PART_SAMPLES {
                let part = std::mem::replace(part, hands.empty_part());
                hands.take(Work::Floats(shard_of(id), part));
            }
        }
    }

    /// Takes samples of any kind.
    fn samples(&mut self, entries: impl Iterator<Item = (WalRef, Sample)>, hands: &Hands<'_>) {
        self.flush(hands);
        let mut parts: [Vec<_>; SHARDS] = std::array::from_fn(|_| Vec::new());
        for (wal_ref, mut sample) in entries {
            let consistent = !matches!(&sample.value, Value::Histogram(value) if !is_consistent(value));
            let Some(id) = self.resolve(wal_ref).filter(|_| consistent) else { continue };
            self.newest = self.newest.max(sample.ts);
            if !self.head.keeps_starts() {
                sample.start = 0;
            }
            if !self.is_late {
                self.since_mapping += chunk_bytes(&sample.value);
            }
            if self.is_late {
                self.replayed.late.add(id, sample, (0, 0));
            } else if sample.ts >= self.from {
                parts[shard_of(id)].push((id, sample));
            }
        }
        for (shard, part) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            hands.take(Work::Others(shard, part));
        }
    }

    /// Hands on all samples that wait.
    fn flush(&mut self, hands: &Hands<'_>) {
        for (shard, part) in self.parts.iter_mut().enumerate().filter(|(_, part)| !part.is_empty()) {
            hands.take(Work::Floats(shard, std::mem::replace(part, hands.empty_part())));
        }
    }
}

/// Why a segment was not read to its end.
enum Stop {
    Damaged(Damage),
    Failed(OpenError),
}

/// A group of records to be taken apart, and where they go.
struct Job<'a> {
    group: Vec<Result<Stored<'a>, Damage>>,
    answer: SyncSender<Vec<Taken>>,
}

fn find_groups<'a>(data: &'a [u8], jobs: &SyncSender<Job<'a>>, order: &SyncSender<Receiver<Vec<Taken>>>) {
    let mut records = Records::new(data);
    loop {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP_BYTES
            && let Some(next) = records.next()
        {
            bytes += next.as_ref().map_or(GROUP_BYTES, Stored::unpacked_bytes);
            group.push(next);
        }
        // After damage nothing can be read.
        let last = group.last().is_none_or(Result::is_err);
        let (answer, answered) = sync_channel(1);
        // Whoever listens has stopped at damage.
        if group.is_empty()
            || order.send(answered).is_err()
            || jobs.send(Job { group, answer }).is_err()
            || last
        {
            return;
        }
    }
}

fn open_groups(waiting: &Mutex<Receiver<Job<'_>>>, covered: &NameTable<Timestamp>) {
    let (mut space, mut mapped) = (Vec::new(), Covered::new(covered));
    loop {
        let job = waiting.lock().recv();
        let Ok(Job { group, answer }) = job else { return };
        let taken = group
            .into_iter()
            .map(|next| next.and_then(|stored| take_apart(&stored, &mut mapped, &mut space)));
        drop(answer.send(taken.collect()));
    }
}

/// Something by the names in the log, which come in dense ranges.
struct NameTable<T> {
    pages: HashMap<u64, usize>,
    entries: Vec<Box<[T]>>,
    nothing: T,
}

const NAMES_PER_PAGE: u64 = 1024;

impl<T: Copy + PartialEq> NameTable<T> {
    /// `nothing` stands for what is not there.
    fn new(nothing: T) -> Self {
        Self { pages: HashMap::new(), entries: Vec::new(), nothing }
    }

    /// The entry of `name`; `last` is the page that was asked before.
    #[inline]
    fn get(&self, name: WalRef, last: &mut Option<(u64, usize)>) -> Option<T> {
        let page = name / NAMES_PER_PAGE;
        let at = match *last {
            Some((last, at)) if last == page => at,
            _ => {
                let at = *self.pages.get(&page)?;
                *last = Some((page, at));
                at
            }
        };
        Some(self.entries[at][slot(name)]).filter(|&entry| entry != self.nothing)
    }

    fn set(&mut self, name: WalRef, entry: T) {
        let next = self.entries.len();
        let at = *self.pages.entry(name / NAMES_PER_PAGE).or_insert(next);
        if at == next {
            self.entries.push((0..NAMES_PER_PAGE).map(|_| self.nothing).collect());
        }
        self.entries[at][slot(name)] = entry;
    }

    fn all(&self) -> impl Iterator<Item = (WalRef, T)> {
        self.pages.iter().flat_map(|(&page, &at)| {
            let names = (page * NAMES_PER_PAGE..).zip(self.entries[at].iter().copied());
            names.filter(|&(_, entry)| entry != self.nothing)
        })
    }
}

fn slot(name: WalRef) -> usize {
    // The remainder is below 1024.
    usize::try_from(name % NAMES_PER_PAGE).unwrap_or(0)
}

/// What a crash has left of the newest segment of a log is cut to its good part, before anybody appends behind
/// it: later segments would not be trusted. What a process that was killed has left in the page cache is made
/// durable, since it will be shown. Returns the newest segment.
pub(super) fn prepare(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<u64>, OpenError> {
    let log_dir = dir.join(name);
    let io_error = |source| OpenError::io(&log_dir, source);
    let Some((last, _)) = segments(disk, &log_dir).map_err(io_error)?.pop() else { return Ok(None) };
    let path = segment_path(&log_dir, last);
    let data = disk.map(&path).map_err(|source| OpenError::io(&path, source))?;
    let mut records = Records::new(&data);
    let mut damaged = None;
    while let Some(next) = records.next() {
        if let Err(damage) = next {
            damaged = Some(damage);
            break;
        }
    }
    drop(data);
    if let Some(damage) = damaged {
        damage::repair(disk, (dir, name), &[last], damage).map_err(io_error)?;
    }
    disk.sync_file(&path).map_err(|source| OpenError::io(&path, source))?;
    Ok(Some(last))
}
