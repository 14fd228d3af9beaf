//! A log without a head on a disk that fails, driven by seed, with somebody who follows it.
//!
//! What must hold: the follower, who goes on after every crash at the place up to which he was done, hears every sample
//! that was durable, with its bits and under its series; he hears nothing that was never appended. Only where the log
//! may go for its age, he may be told that a part of it has gone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Labels;
use tsdb::disk::memory::{Faults, Memory};
use tsdb::{Compression, Db, FloatChunks, LogOnly, Options};

use super::follower::{Follower, Samples};
use super::simulation::{DIR, Dice, SERIES, Wrong, append, number};

struct Simulation {
    dice: Dice,
    disk: Memory,
    db: Option<Db>,
    options: Options,
    now: i64,
    /// Whatever a batch has taken.
    appended: Samples,
    /// What was acknowledged, and is in the log.
    logged: Samples,
    durable: Samples,
    follower: Follower,
    may_skip: bool,
    planted: Faults,
}

impl Simulation {
    fn new(seed: u64, planted: Faults) -> Self {
        let mut dice = Dice(seed);
        let may_skip = dice.one_in(4);
        let log_only =
            LogOnly { min_ms: 300, max_ms: if may_skip { 2_000 } else { i64::MAX }, truncate_every_ms: 900 };
        let options = Options {
            log_only: Some(log_only),
            wal_sync_interval: if dice.one_in(3) { Duration::ZERO } else { Duration::MAX },
            out_of_order_window_ms: if dice.one_in(2) { 0 } else { 300 },
            wal_compression: [Compression::None, Compression::Snappy, Compression::Zstd]
                [usize::try_from(dice.below(3)).unwrap()],
            wal_segment_bytes_max: if dice.one_in(2) { 36_000 } else { 3_000 },
            backlog_bytes_max: if dice.one_in(2) { 0 } else { 3_000 },
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
            appended: Samples::new(),
            logged: Samples::new(),
            durable: Samples::new(),
            follower: Follower::default(),
            may_skip,
            planted,
        }
    }

    fn open(&mut self) -> Result<(), Wrong> {
        let disk = Arc::new(self.disk.clone());
        let db = Db::open_at_once_on(disk, Path::new(DIR), self.options.clone(), &mut |_| {});
        self.db = Some(db.map_err(|error| format!("cannot open: {error}"))?);
        for _ in 0..self.dice.below(3) {
            self.commit();
        }
        let Some(db) = &self.db else { return Ok(()) };
        db.attach_history(&mut |_| {}).map_err(|error| format!("cannot attach: {error}"))?;
        self.follower.begin(db)?;
        self.follow(u64::MAX)
    }

    fn run(&mut self, steps: u64) -> Result<(), Wrong> {
        self.open()?;
        for _ in 0..steps {
            self.step()?;
        }
        self.end(true)
    }

    fn step(&mut self) -> Result<(), Wrong> {
        match self.dice.below(40) {
            0..22 => self.commit(),
            22..27 => self.maintain(),
            27..31 => {
                let items = self.dice.below(20);
                self.follow(items)?;
            }
            31 => {
                // Another follower takes over.
                let Some(db) = &self.db else { return Ok(()) };
                self.follower.begin(db)?;
            }
            32 => self.sync(),
            33 => {
                self.follower.end();
                self.db = None;
                self.durable.extend(self.logged.iter().cloned());
                self.open()?;
                self.check(true)?;
            }
            34 => self.end(false)?,
            35 => self.end(true)?,
            36 => {
                let operations = Some(self.dice.below(30));
                self.disk.set_faults(Faults { operations, ..self.planted });
                for _ in 0..8 {
                    self.commit();
                    self.maintain();
                }
                let cut = self.dice.one_in(2);
                self.end(cut)?;
            }
            37 => {
                let space_bytes = Some(self.dice.below(2000));
                self.disk.set_faults(Faults { space_bytes, ..self.planted });
                for _ in 0..5 {
                    self.commit();
                }
                self.maintain();
                self.disk.set_faults(self.planted);
            }
            _ => {
                self.disk.set_faults(Faults { fail_sync: true, ..self.planted });
                self.commit();
                self.sync();
                self.end(true)?;
            }
        }
        Ok(())
    }

    fn maintain(&mut self) {
        let Some(db) = &self.db else { return };
        db.keep_log_from(Some(self.follower.done));
        let _ = db.maintain(self.now);
    }

    fn sync(&mut self) {
        if self.db.as_ref().is_some_and(|db| db.sync().is_ok()) {
            self.durable.extend(self.logged.iter().cloned());
        }
    }

    fn commit(&mut self) {
        let Some(db) = &self.db else { return };
        self.now += i64::try_from(self.dice.below(60)).unwrap();
        let (mut batch, mut taken) = (db.appender(), Samples::new());
        for _ in 0..=self.dice.below(SERIES) {
            let number = self.dice.below(SERIES);
            let generation = if number < 6 { 0 } else { self.now / 700 };
            let labels = Labels::from_pairs([
                ("__name__", "m"),
                ("n", &number.to_string()),
                ("generation", &generation.to_string()),
            ]);
            let late = if self.dice.one_in(10) { i64::try_from(self.dice.below(500)).unwrap() } else { 0 };
            // Repeating the newest does nothing, and what does nothing is in no log.
            self.now += 1;
            let (series, ts) = (labels.to_string(), self.now - late);
            let known = |samples: &Samples| {
                let mut of_time = samples.range((series.clone(), ts, 0)..=(series.clone(), ts, u64::MAX));
                of_time.next().is_some()
            };
            if known(&self.appended) || known(&taken) {
                continue;
            }
            if let Some(bits) = append(&mut batch, &mut self.dice, &labels, number, ts) {
                taken.insert((series, ts, bits));
            }
        }
        self.appended.extend(taken.iter().cloned());
        if batch.commit().is_ok() && db.stats().samples_not_durable == 0 {
            self.logged.extend(taken);
            if self.options.wal_sync_interval.is_zero() {
                self.durable.extend(self.logged.iter().cloned());
            }
        }
    }

    /// Reads so many items, and is done with them.
    fn follow(&mut self, items: u64) -> Result<(), Wrong> {
        for sample in self.follower.read(items)? {
            if !self.appended.contains(&sample) {
                return Err(format!("{sample:?} was invented"));
            }
        }
        if self.follower.skipped && !self.may_skip {
            return Err("a part of the log is gone".to_owned());
        }
        Ok(())
    }

    /// The process ends, or the machine does.
    fn end(&mut self, power_cut: bool) -> Result<(), Wrong> {
        self.disk.set_faults(Faults { operations: Some(0), ..self.planted });
        self.follower.end();
        self.db = None;
        let dice = &mut self.dice;
        self.disk =
            if power_cut { self.disk.after_power_cut(&mut || dice.next()) } else { self.disk.after_kill() };
        self.disk.set_faults(self.planted);
        // Before anything new is committed.
        let durable = self.durable.clone();
        let logged = self.logged.clone();
        self.open()?;
        let missing = |all: &Samples| all.difference(&self.follower.heard).next().cloned();
        let lost = missing(if power_cut { &durable } else { &logged }).filter(|_| !self.follower.skipped);
        // What a power cut takes, it takes.
        self.logged.retain(|sample| self.follower.heard.contains(sample) || !logged.contains(sample));
        self.durable.extend(self.logged.intersection(&logged).cloned());
        lost.map_or(Ok(()), |lost| Err(format!("{lost:?} is lost")))
    }

    fn check(&self, all: bool) -> Result<(), Wrong> {
        let must = if all { &self.logged } else { &self.durable };
        let lost = must.difference(&self.follower.heard).next().filter(|_| !self.follower.skipped);
        lost.map_or(Ok(()), |lost| Err(format!("{lost:?} is lost")))
    }
}

#[test]
fn a_follower_hears_everything_that_was_durable() {
    let (from, seeds) = (number("SIMULATION_FROM", 0), number("SIMULATION_SEEDS", 100));
    let steps = number("SIMULATION_STEPS", 60);
    for seed in from..from + seeds {
        let run = Simulation::new(seed, Faults::default()).run(steps);
        run.unwrap_or_else(|wrong| unreachable!("seed {seed}: {wrong}"));
    }
}

fn is_caught(planted: Faults) -> bool {
    (0..40).any(|seed| Simulation::new(seed, planted).run(120).is_err())
}

#[test]
fn planted_bugs_are_caught() {
    assert!(is_caught(Faults { ignore_sync: true, ..Faults::default() }), "a sync that does nothing");
    assert!(is_caught(Faults { ignore_sync_dir: true, ..Faults::default() }), "names that are not synced");
    assert!(is_caught(Faults { ignore_truncate: true, ..Faults::default() }), "a torn write that stays");
    assert!(is_caught(Faults { cut_too_far: true, ..Faults::default() }), "a checkpoint that cuts too far");
}
