//! A store on a disk that fails, driven by seed, against a map.
//!
//! What must hold after every crash: each sample that was acknowledged and made durable is there with
//! its bits; nothing is there that was never appended; of each series a prefix in time is there. Somebody who
//! follows the log has heard everything that is there, late or not, and of each batch everything once.
//! `tsdb/simulate --seeds N --from S` runs others than the usual seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{HistogramValue, IntHistogram, Labels, Matcher, Span, TimeRange};
use tsdb::disk::Disk as _;
use tsdb::disk::memory::{Faults, Memory};
use tsdb::{Appender, Compression, Db, FloatChunks, History, Options};

use super::follower::{Follower, Samples};
use super::reading::{Content, all, fingerprint};

/// SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }
}

type Model = BTreeMap<String, BTreeMap<i64, u64>>;

pub(super) const DIR: &str = "/data";
pub(super) const SERIES: u64 = 12;

struct Simulation {
    dice: Dice,
    disk: Memory,
    db: Option<Db>,
    options: Options,
    now: i64,
    /// Everything that was acknowledged.
    acknowledged: Model,
    /// What of it a power cut must not take.
    durable: Model,
    /// What of it the log has, where that is not all: on a full disk, commits wait in memory.
    logged: Option<Model>,
    /// Samples of commits that failed: they may appear after a restart.
    unsure: BTreeMap<(String, i64), BTreeSet<u64>>,
    /// What was deleted. The newest sample of a series may be among it; repeating that one is accepted
    /// and does nothing, so that it stays deleted.
    deleted: BTreeSet<(String, i64)>,
    /// What was committed before history was there, also if some of that is lost.
    early: BTreeSet<(String, i64)>,
    /// Of these, what was acknowledged since the start, and is not sure to be durable.
    loose: Vec<(String, i64, u64)>,
    follower: Follower,
    /// The machine has stopped: what was not durable may be gone from one log, and not from the other.
    cut: bool,
    /// Whatever a batch has taken.
    appended: Samples,
    /// Bugs that stay planted.
    planted: Faults,
}

/// What the simulator found wrong.
pub(super) type Wrong = String;

/// What of the acknowledged samples must be there.
#[derive(Clone, Copy, PartialEq)]
enum Must {
    All,
    /// What was in the log: the process was killed.
    Logged,
    /// What was synced: the machine was.
    Durable,
}

impl Simulation {
    fn new(seed: u64, planted: Faults) -> Self {
        let mut dice = Dice(seed);
        let options = Options {
            wal_sync_interval: if dice.one_in(3) { Duration::ZERO } else { Duration::MAX },
            block_range_ms: 2_000,
            retention_ms: None,
            out_of_order_window_ms: if dice.one_in(2) { 0 } else { 3_000 },
            wal_compression: [Compression::None, Compression::Snappy, Compression::Zstd]
                [usize::try_from(dice.below(3)).unwrap()],
            wal_segment_bytes_max: if dice.one_in(2) { 36_000 } else { 200_000 },
            backlog_bytes_max: [0, 3_000, 1 << 20][usize::try_from(dice.below(3)).unwrap()],
            float_chunks: if dice.one_in(4) { FloatChunks::Xor2 } else { FloatChunks::Xor },
            ..Options::default()
        };
        let disk = Memory::new();
        disk.set_faults(planted);
        Self {
            dice,
            disk,
            db: None,
            options,
            now: 1_000_000,
            acknowledged: Model::new(),
            durable: Model::new(),
            logged: None,
            unsure: BTreeMap::new(),
            deleted: BTreeSet::new(),
            early: BTreeSet::new(),
            loose: Vec::new(),
            follower: Follower::default(),
            cut: false,
            appended: Samples::new(),
            planted,
        }
    }

    fn open(&mut self) -> Result<(), Wrong> {
        let disk = Arc::new(self.disk.clone());
        let db = Db::open_at_once_on(disk, Path::new(DIR), self.options.clone(), &mut |_| {});
        self.db = Some(db.map_err(|error| format!("cannot open: {error}"))?);
        self.loose.clear();
        if self.dice.one_in(3) {
            self.spread();
        }
        for _ in 0..[0, 0, 1, 5][usize::try_from(self.dice.below(4)).unwrap()] {
            self.commit_early();
        }
        let Some(db) = &self.db else { return Ok(()) };
        if self.dice.one_in(8) {
            // Died before history was there. (Nobody follows yet.)
            self.disk.set_faults(Faults { operations: Some(0), ..self.planted });
            self.db = None;
            let dice = &mut self.dice;
            self.disk = if dice.one_in(2) {
                self.disk.after_kill()
            } else {
                // What is from before the start has been made durable by it.
                for (series, ts, bits) in self.loose.drain(..) {
                    if let Some(samples) = self.acknowledged.get_mut(&series) {
                        samples.remove(&ts);
                    }
                    self.unsure.entry((series, ts)).or_default().insert(bits);
                }
                self.cut = true;
                self.disk.after_power_cut(&mut || dice.next())
            };
            self.disk.set_faults(self.planted);
            return self.open();
        }
        let (snapshot, left_out) = (db.snapshot(), db.stats().samples_out_of_order);
        let before = all(&snapshot);
        db.attach_history(&mut |_| {}).map_err(|error| format!("cannot attach: {error}"))?;
        let after = all(&snapshot);
        let of = |content: &Content| -> BTreeSet<(String, (i64, u64))> {
            let all = content.iter();
            all.flat_map(|(series, samples)| samples.iter().map(|sample| (series.clone(), *sample))).collect()
        };
        let added: Vec<_> = of(&after).difference(&of(&before)).cloned().collect();
        let left_out = usize::try_from(db.stats().samples_out_of_order - left_out).unwrap();
        // What early samples repeat is shown as the history that it is; or it is late now.
        let now = of(&all(&db.snapshot()));
        // What repeats a deleted sample stays deleted.
        let stays = |(series, (ts, bits)): &(String, (i64, u64))| {
            now.contains(&(series.clone(), (*ts, *bits))) || self.deleted.contains(&(series.clone(), *ts))
        };
        let gone = of(&before).difference(&of(&after)).filter(|sample| !stays(sample)).count();
        if !added.is_empty() || gone > left_out {
            return Err(format!("a snapshot has seen history come: {added:?}, {gone} not {left_out} gone"));
        }
        self.follower.begin(db)?;
        self.listen()
    }

    /// Hears what has been committed.
    fn listen(&mut self) -> Result<(), Wrong> {
        let mut once = Samples::new();
        for sample in self.follower.read(u64::MAX)? {
            let of_time = (sample.0.clone(), sample.1);
            let may_repeat = self.deleted.contains(&of_time) || self.early.contains(&of_time);
            if !self.appended.contains(&sample) {
                return Err(format!("{sample:?} was invented for the follower"));
            }
            if !once.insert(sample) && !may_repeat {
                return Err(format!("{of_time:?} was heard twice"));
            }
        }
        Ok(())
    }

    /// Creates series that get no samples, so that the others do not all lie in one part of the head.
    fn spread(&self) {
        let Some(db) = &self.db else { return };
        let mut batch = db.appender();
        for n in 0..SERIES {
            let pairs = [("__name__", "m"), ("n", &n.to_string()), ("generation", "0")];
            let _ = batch.series(&Labels::from_pairs(pairs));
            for empty in 0..70 {
                let pairs = [("__name__", "empty"), ("n", &(n * 70 + empty).to_string())];
                let _ = batch.series(&Labels::from_pairs(pairs));
            }
        }
    }

    /// Opens with history, as far as it can be read.
    fn open_damaged(&self) -> Option<Db> {
        let disk = Arc::new(self.disk.clone());
        Db::open_on(disk, Path::new(DIR), self.options.clone(), &mut |_| {}).ok()
    }

    /// Commits before history is there. Whatever is not newer than that will be late, or left out.
    fn commit_early(&mut self) {
        if matches!(self.db.as_ref().map(Db::history), None | Some(History::Attached)) {
            return;
        }
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let durable = self.durable.clone();
        self.commit();
        let fresh = std::mem::replace(&mut self.acknowledged, acknowledged);
        let mut sure = Vec::new();
        for (series, samples) in fresh {
            for (ts, bits) in samples {
                let newest = self.acknowledged.get(&series).and_then(|s| s.keys().next_back());
                let mut unsure = self.unsure.keys().filter(|(other, _)| *other == series).map(|(_, ts)| ts);
                let mut deleted = self.deleted.iter().filter(|(other, _)| *other == series);
                let newer = newest.is_none_or(|newest| ts > *newest)
                    && unsure.all(|unsure| ts > *unsure)
                    && deleted.all(|(_, deleted)| ts > *deleted);
                let known = self.acknowledged.get(&series).is_some_and(|s| s.contains_key(&ts));
                let of_time = (series.clone(), ts);
                let window = self.options.out_of_order_window_ms;
                let late = window > 0
                    && ts >= self.now - window
                    && !known
                    && !self.unsure.contains_key(&of_time)
                    && !self.deleted.contains(&of_time);
                if newer || late {
                    sure.push((series.clone(), ts, bits));
                    self.acknowledged.entry(series.clone()).or_default().entry(ts).or_insert(bits);
                } else {
                    self.unsure.entry((series.clone(), ts)).or_default().insert(bits);
                }
                self.early.insert((series.clone(), ts));
            }
        }
        // Of what was acknowledged before the start, nobody has looked yet what is left.
        self.durable = durable;
        self.loose.extend(sure.iter().cloned());
        if self.options.wal_sync_interval.is_zero() && self.waiting() == 0 {
            for (series, ts, bits) in self.loose.drain(..) {
                self.durable.entry(series).or_default().entry(ts).or_insert(bits);
            }
        }
    }

    fn run(&mut self, steps: u64) -> Result<(), Wrong> {
        self.open()?;
        for _ in 0..steps {
            self.step()?;
        }
        self.power_cut()?;
        self.check(Must::All)
    }

    fn step(&mut self) -> Result<(), Wrong> {
        self.listen()?;
        let Some(db) = &self.db else { return self.open() };
        let action = self.dice.below(42);
        if std::env::var_os("SIMULATION_TRACE").is_some() {
            eprintln!("at {}: action {action}", self.now);
        }
        match action {
            0..25 => self.commit(),
            25..29 => {
                let _ = db.maintain(self.now);
            }
            29 => {
                let _ = db.cut_head();
            }
            30..32 => self.sync(),
            32 => {
                // A snapshot never changes, whatever happens behind it.
                let snapshot = db.snapshot();
                let before = all(&snapshot);
                self.commit();
                self.listen()?;
                let Some(db) = &self.db else { return Ok(()) };
                let _ = db.cut_head();
                if all(&snapshot) != before {
                    return Err("a snapshot has changed".to_owned());
                }
            }
            33 => {
                self.follower.end();
                self.db = None;
                self.mark_durable();
                self.restart()?;
            }
            34 => self.kill()?,
            35 => self.power_cut()?,
            40 => self.delete(),
            41 => {
                let _ = db.clean_tombstones();
            }
            36 => {
                self.interrupted();
                self.power_cut()?;
            }
            37 => {
                self.interrupted();
                self.kill()?;
            }
            38 => self.full_disk()?,
            _ => {
                self.disk.set_faults(Faults { fail_sync: true, ..self.planted });
                self.commit();
                self.sync();
                self.disk.set_faults(self.planted);
                self.check(Must::All)?;
                self.power_cut()?;
            }
        }
        Ok(())
    }

    /// The disk is full for a while. What is acknowledged then is visible, and in the log as soon as there is space.
    fn full_disk(&mut self) -> Result<(), Wrong> {
        self.logged = Some(self.acknowledged.clone());
        let space_bytes = Some(self.dice.below(4000));
        self.disk.set_faults(Faults { space_bytes, ..self.planted });
        for _ in 0..5 {
            self.commit();
            if self.waiting() == 0 {
                self.logged = Some(self.acknowledged.clone());
            }
        }
        self.listen()?;
        if let Some(db) = &self.db {
            let _ = db.maintain(self.now);
        }
        if self.dice.one_in(3) {
            self.sync();
        }
        self.check(Must::All)?;
        match self.dice.below(6) {
            0 => return self.kill(),
            1 => return self.power_cut(),
            _ => self.disk.set_faults(self.planted),
        }
        // Space again: everything goes on by itself.
        match (self.dice.below(3), &self.db) {
            (0, Some(db)) => drop(db.maintain(self.now)),
            (1, _) => self.sync(),
            _ => {
                let before = self.acknowledged.clone();
                self.commit();
                if self.acknowledged == before {
                    // A batch of nothing writes nothing.
                    self.sync();
                }
            }
        }
        let waiting = self.waiting();
        if waiting > 0 {
            return Err(format!("{waiting} samples wait although there is space"));
        }
        self.logged = None;
        self.check(Must::All)
    }

    /// How many samples are in memory only.
    fn waiting(&self) -> u64 {
        self.db.as_ref().map_or(0, |db| db.stats().samples_not_durable)
    }

    fn delete(&mut self) {
        let Some(db) = &self.db else { return };
        let number = self.dice.below(SERIES).to_string();
        let start = self.now - i64::try_from(self.dice.below(4000)).unwrap();
        let range = TimeRange::new(start, start + i64::try_from(self.dice.below(2000)).unwrap());
        if db.delete(&[Matcher::equal("n", &number)], range).is_err() {
            return;
        }
        self.unsure
            .retain(|(series, ts), _| !series.contains(&format!(" n=\"{number}\"")) || !range.contains(*ts));
        for model in [&mut self.acknowledged, &mut self.durable].into_iter().chain(&mut self.logged) {
            for (series, samples) in model {
                if series.contains(&format!(" n=\"{number}\"")) {
                    samples.retain(|&ts, _| {
                        let gone = range.contains(ts);
                        if gone {
                            self.deleted.insert((series.clone(), ts));
                        }
                        !gone
                    });
                }
            }
        }
    }

    /// Runs until the disk stops in the middle of something.
    fn interrupted(&mut self) {
        let operations = Some(self.dice.below(30));
        self.disk.set_faults(Faults { operations, ..self.planted });
        for _ in 0..8 {
            self.commit();
            // Before that is gone from the log.
            let _ = self.listen();
            let Some(db) = &self.db else { return };
            let _ = if self.dice.one_in(3) { db.cut_head() } else { db.maintain(self.now) };
        }
    }

    fn sync(&mut self) {
        if self.db.as_ref().is_some_and(|db| db.sync().is_ok()) {
            self.mark_durable();
        }
    }

    fn mark_durable(&mut self) {
        self.durable.clone_from(&self.acknowledged);
    }

    /// One batch. What the store refuses is not in the model either.
    fn commit(&mut self) {
        let Some(db) = &self.db else { return };
        self.now += i64::try_from(self.dice.below(60)).unwrap();
        let mut batch = db.appender();
        let mut accepted: Vec<(String, i64, u64)> = Vec::new();
        for _ in 0..=self.dice.below(SERIES) {
            let number = self.dice.below(SERIES);
            // Series come and go.
            let generation = self.now / 7_000;
            let labels = Labels::from_pairs([
                ("__name__", "m"),
                ("n", &number.to_string()),
                ("generation", &(if number < 6 { 0 } else { generation }).to_string()),
            ]);
            let late = if self.dice.one_in(10) { i64::try_from(self.dice.below(500)).unwrap() } else { 0 };
            let ts = self.now - late;
            // Of two samples of one batch, the second may be late.
            let window = self.options.out_of_order_window_ms;
            let in_the_way = |other: i64| if window > 0 { other == ts } else { other >= ts };
            let mut same = accepted.iter().filter(|(series, ..)| *series == labels.to_string());
            let is_taken = !same.any(|(_, other, _)| in_the_way(*other));
            let taken = append(&mut batch, &mut self.dice, &labels, number, ts);
            self.appended.extend(taken.map(|bits| (labels.to_string(), ts, bits)));
            if let Some(bits) = taken
                && is_taken
            {
                accepted.push((labels.to_string(), ts, bits));
            }
        }
        let result = batch.commit();
        for (series, ts, bits) in accepted {
            let sure = result.is_ok() && !self.deleted.contains(&(series.clone(), ts));
            if sure {
                // A repetition is accepted and changes nothing.
                self.acknowledged.entry(series).or_default().entry(ts).or_insert(bits);
            } else {
                self.unsure.entry((series, ts)).or_default().insert(bits);
            }
        }
        if result.is_ok() && self.options.wal_sync_interval.is_zero() && self.waiting() == 0 {
            self.mark_durable();
        }
    }

    fn kill(&mut self) -> Result<(), Wrong> {
        self.disk.set_faults(Faults { operations: Some(0), ..self.planted });
        self.follower.end();
        self.db = None;
        self.disk = self.disk.after_kill();
        self.disk.set_faults(self.planted);
        self.restart()
    }

    /// Opens again, and takes what is there for the truth from now on.
    fn restart(&mut self) -> Result<(), Wrong> {
        self.open()?;
        self.check(Must::Logged)?;
        self.forget_lost();
        Ok(())
    }

    fn power_cut(&mut self) -> Result<(), Wrong> {
        // The dead process must not write any more.
        self.disk.set_faults(Faults { operations: Some(0), ..self.planted });
        self.follower.end();
        self.db = None;
        let dice = &mut self.dice;
        self.disk = self.disk.after_power_cut(&mut || dice.next());
        self.cut = true;
        self.disk.set_faults(self.planted);
        self.open()?;
        self.check(Must::Durable)?;
        // What has survived is the truth from now on.
        self.forget_lost();
        Ok(())
    }

    fn content(&self) -> Content {
        self.db.as_ref().map(|db| all(&db.snapshot())).unwrap_or_default()
    }

    fn forget_lost(&mut self) {
        self.acknowledged = Model::new();
        for (series, samples) in self.content() {
            self.acknowledged.insert(series, samples.into_iter().collect());
        }
        self.logged = None;
        self.unsure.clear();
        self.early.clear();
    }

    /// Compares the store with the model.
    fn check(&mut self, must: Must) -> Result<(), Wrong> {
        let content = self.content();
        self.listen()?;
        let waits = self.waiting() > 0 || self.follower.skipped;
        for (series, samples) in &content {
            for &(ts, bits) in samples {
                let sure = self.acknowledged.get(series).and_then(|s| s.get(&ts)) == Some(&bits);
                let unsure = self.unsure.get(&(series.clone(), ts));
                if !sure && !unsure.is_some_and(|unsure| unsure.contains(&bits)) {
                    return Err(format!("{series} at {ts} was invented, with bits {bits}"));
                }
                let durable = self.durable.get(series).is_some_and(|samples| samples.contains_key(&ts));
                if self.cut && !durable {
                    self.follower.heard.insert((series.clone(), ts, bits));
                } else if !waits && !self.follower.heard.contains(&(series.clone(), ts, bits)) {
                    return Err(format!("nobody who follows has heard of {series} at {ts}"));
                }
            }
        }
        self.cut = false;
        for (series, samples) in &self.acknowledged {
            let present: BTreeMap<i64, u64> =
                content.get(series).map(|samples| samples.iter().copied().collect()).unwrap_or_default();
            let needed = match must {
                Must::All => Some(samples),
                Must::Logged => self.logged.as_ref().unwrap_or(&self.acknowledged).get(series),
                Must::Durable => self.durable.get(series),
            };
            // Late samples have a log of their own.
            let in_order = self.options.out_of_order_window_ms == 0;
            let mut lost = None;
            for ts in samples.keys() {
                match (present.contains_key(ts), lost) {
                    (true, Some(lost)) if in_order && !self.early.contains(&(series.clone(), *ts)) => {
                        return Err(format!("{series} at {lost} is lost, but {ts} is there"));
                    }
                    (false, _) if needed.is_some_and(|needed| needed.contains_key(ts)) => {
                        return Err(format!("{series} at {ts} is lost"));
                    }
                    (false, None) => lost = Some(*ts),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Appends a float or, for some series, a histogram; returns its bits if it was accepted.
pub(super) fn append(
    batch: &mut Appender<'_>,
    dice: &mut Dice,
    labels: &Labels,
    number: u64,
    ts: i64,
) -> Option<u64> {
    let series = batch.series(labels).ok()?;
    let start = if number.is_multiple_of(2) { 0 } else { ts / 1_000 * 1_000 };
    if number % 4 == 3 {
        let counts = [dice.below(9), dice.below(9)];
        let histogram = IntHistogram {
            count: counts.iter().sum(),
            sum: 1.5,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive: counts.to_vec(),
            ..IntHistogram::default()
        };
        let bits = fingerprint(&histogram.to_float());
        let histogram = HistogramValue::Int(histogram);
        return batch.append_histogram_started(series, (ts, start), &histogram).is_ok().then_some(bits);
    }
    let bits = if dice.one_in(3) { dice.next() } else { 1 };
    let bits = if model::is_stale_nan(f64::from_bits(bits)) { 0 } else { bits };
    batch.append_started(series, (ts, start), f64::from_bits(bits)).is_ok().then_some(bits)
}

pub(super) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many cases of a property to try: `PROPTEST_CASES`, or so many.
pub(super) fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn crashes_lose_nothing_that_was_durable() {
    let (from, seeds) = (number("SIMULATION_FROM", 0), number("SIMULATION_SEEDS", 200));
    let steps = number("SIMULATION_STEPS", 60);
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || {
                for seed in (from..from + seeds).filter(|seed| seed % 2 == part) {
                    if let Err(wrong) = Simulation::new(seed, Faults::default()).run(steps) {
                        unreachable!("seed {seed}: {wrong}");
                    }
                }
            });
        }
    });
}

/// Whether the simulator notices a planted bug within a number of seeds.
fn is_caught(planted: Faults) -> bool {
    (0..40).any(|seed| Simulation::new(seed, planted).run(120).is_err())
}

#[test]
fn a_sync_that_does_nothing_is_caught() {
    assert!(is_caught(Faults { ignore_sync: true, ..Faults::default() }));
}

#[test]
fn names_that_are_not_synced_are_caught() {
    assert!(is_caught(Faults { ignore_sync_dir: true, ..Faults::default() }));
}

#[test]
fn a_torn_write_that_stays_is_caught() {
    assert!(is_caught(Faults { ignore_truncate: true, ..Faults::default() }));
}

#[test]
fn a_checkpoint_that_cuts_too_far_is_caught() {
    assert!(is_caught(Faults { cut_too_far: true, ..Faults::default() }));
}

/// Fills a store, flips one bit of it, and says what a reader takes for true that never was. With `mend`, the checksum
/// over the bit is made to fit it: so does the world look to a reader that skips the check.
fn flip(seed: u64, mend: Option<Mend>) -> Result<(), Wrong> {
    let mut simulation = Simulation::new(seed, Faults::default());
    simulation.open()?;
    for _ in 0..60 {
        simulation.commit();
        if simulation.dice.one_in(8) {
            let _ = simulation.db.as_ref().unwrap().maintain(0);
        }
        if simulation.dice.one_in(30) {
            let _ = simulation.db.as_ref().unwrap().cut_head();
        }
    }
    simulation.db = None;
    let files: Vec<_> = simulation
        .disk
        .files()
        .into_iter()
        // Prometheus gives meta.json no checksum.
        .filter(|(path, bytes)| *bytes > 0 && !path.ends_with("meta.json"))
        .filter(|(path, _)| mend.is_none_or(|mend| path.to_string_lossy().contains(mend.files)))
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    let (path, _) = &files[usize::try_from(simulation.dice.below(files.len() as u64)).unwrap()];
    let bit = simulation.dice.next();
    simulation.disk.flip_bit(path, bit);
    if let Some(mend) = mend {
        mended(&simulation.disk, path, mend.sums);
    }
    let Some(db) = simulation.open_damaged() else { return Ok(()) };
    let snapshot = db.snapshot();
    let selection = model::Selection::new(&[], model::TimeRange::ALL);
    let Ok(set) = model::Querier::select(&snapshot, &selection) else { return Ok(()) };
    for index in 0..set.len() {
        let mut samples = model::Samples::default();
        if set.samples(index, model::TimeRange::ALL, &mut samples).is_err() {
            continue;
        }
        let labels = set.labels(index).to_string();
        let known = simulation.acknowledged.get(&labels);
        for (ts, value) in samples.ts.iter().zip(&samples.values) {
            if known.and_then(|known| known.get(ts)) != Some(&value.to_bits()) {
                return Err(format!("{}: {labels} at {ts} was invented", path.display()));
            }
        }
    }
    Ok(())
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    for seed in 0..60 {
        flip(seed, None).unwrap_or_else(|wrong| unreachable!("seed {seed}: {wrong}"));
    }
}

/// The checksums of one kind of file.
#[derive(Clone, Copy)]
struct Mend {
    files: &'static str,
    /// The parts that a checksum covers, each followed by it or (in the log) after it.
    sums: fn(&[u8]) -> Vec<Sum>,
}

/// Bytes, and where their checksum is.
type Sum = (std::ops::Range<usize>, usize);

/// Makes all checksums of a file fit what they cover.
fn mended(disk: &Memory, path: &Path, sums: fn(&[u8]) -> Vec<Sum>) {
    let data = disk.read(path).unwrap();
    for (covered, sum_at) in sums(&data) {
        let Some(covered) = data.get(covered) else { continue };
        let sum = crc32c::crc32c(covered).to_be_bytes();
        for (at, byte) in (sum_at..).zip(sum) {
            let Some(old) = data.get(at) else { continue };
            for bit in (0..8).filter(|bit| (old ^ byte) >> bit & 1 == 1) {
                disk.flip_bit(path, at as u64 * 8 + bit);
            }
        }
    }
}

fn uvarint(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in data.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// The chunks of a file: `head` bytes that are covered, too, a length, `more` bytes besides, the data.
fn chunk_sums(data: &[u8], head: usize, more: usize) -> Vec<Sum> {
    let (mut sums, mut at) = (Vec::new(), 8);
    while let Some((length, width)) = data.get(at + head..).and_then(uvarint) {
        let end = at + head + width + more + length;
        if head == 0 && length == 0 || end + 4 > data.len() {
            break;
        }
        let start = if head > 0 { at } else { at + width };
        sums.push((start..end, end));
        at = end + 4;
    }
    sums
}

fn fragment_sums(data: &[u8]) -> Vec<Sum> {
    let mut sums = Vec::new();
    for page in (0..data.len()).step_by(32 * 1024) {
        let mut at = page;
        while at + 7 <= data.len().min(page + 32 * 1024) && data[at] != 0 {
            let length = usize::from(u16::from_be_bytes([data[at + 1], data[at + 2]]));
            sums.push((at + 7..at + 7 + length, at + 3));
            at += 7 + length;
        }
    }
    sums
}

#[test]
fn a_checksum_that_is_skipped_is_caught() {
    // Series reference, minimum, maximum and encoding are before the length of a head chunk.
    let all = [
        Mend { files: "/wal/0", sums: fragment_sums },
        Mend { files: "/chunks/0", sums: |data| chunk_sums(data, 0, 1) },
        Mend { files: "/chunks_head/0", sums: |data| chunk_sums(data, 8 + 8 + 8 + 1, 0) },
    ];
    for mend in all {
        let caught = (0..400).any(|seed| flip(seed, Some(mend)).is_err());
        assert!(caught, "nobody noticed that checksums of {} are not looked at", mend.files);
    }
}
