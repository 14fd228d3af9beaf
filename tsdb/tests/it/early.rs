//! Samples that come before history does, against a map.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::{Labels, Matcher, TimeRange};
use proptest::prelude::*;
use tsdb::disk::memory::Memory;
use tsdb::{AppendError, Db, Options};

use super::reading::{Content, all};
use super::simulation::cases;

const WINDOW_MS: i64 = 3_000;

fn labels(n: u8) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())])
}

/// A series, and a time.
type Key = (u8, i64);

struct Both {
    disk: Memory,
    window_ms: i64,
    db: Option<Db>,
    map: BTreeMap<Key, u64>,
    /// What was taken before history came and may be left out: it is too old, or contradicts what was there.
    left_out: u64,
    /// The newest deleted time of each series: it may still count as the newest.
    deleted: BTreeMap<u8, i64>,
}

impl Both {
    fn new(window_ms: i64) -> Self {
        let mut new = Self {
            disk: Memory::new(),
            window_ms,
            db: None,
            map: BTreeMap::new(),
            left_out: 0,
            deleted: BTreeMap::new(),
        };
        new.reopen(&[]);
        new
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    /// One batch for each sample; says what was taken.
    fn commit(&self, samples: &[(Key, u64)]) -> Vec<(Key, u64)> {
        let mut taken = Vec::new();
        for &((n, ts), bits) in samples {
            let mut batch = self.db().appender();
            let series = batch.series(&labels(n)).unwrap();
            match batch.append(series, ts, f64::from_bits(bits)) {
                Ok(()) => taken.push(((n, ts), bits)),
                Err(
                    AppendError::OutOfOrder
                    | AppendError::OutOfBounds
                    | AppendError::Duplicate
                    | AppendError::TooOld,
                ) => {}
                Err(error) => unreachable!("{error}"),
            }
            batch.commit().unwrap();
        }
        taken
    }

    fn late_commit(&mut self, samples: &[(Key, u64)]) {
        for (key, bits) in self.commit(samples) {
            self.map.entry(key).or_insert(bits);
        }
    }

    /// Starts again, with samples that come before history does.
    fn reopen(&mut self, early: &[(Key, u64)]) {
        self.db = None;
        let options = Options {
            retention_ms: None,
            block_range_ms: 5_000,
            wal_segment_bytes_max: 33_000,
            out_of_order_window_ms: self.window_ms,
            ..Options::default()
        };
        let (disk, dir) = (Arc::new(self.disk.clone()), Path::new("/data"));
        self.db = Some(Db::open_at_once_on(disk, dir, options, &mut |_| {}).unwrap());
        let taken = self.commit(early);
        let before = self.db().stats().samples_out_of_order;
        self.db().attach_history(&mut |_| {}).unwrap();
        self.left_out = self.db().stats().samples_out_of_order - before;
        let newest = self.map.keys().chain(taken.iter().map(|(key, _)| key)).map(|(_, ts)| *ts).max();
        let (mut now, mut left_out, content) = (BTreeMap::new(), 0, all(&self.db().snapshot()));
        for ((n, ts), bits) in taken {
            let known = self.map.get(&(n, ts));
            let of_series = self.map.range((n, i64::MIN)..=(n, i64::MAX)).next_back();
            let late = of_series.is_some_and(|((_, newest), _)| ts <= *newest);
            let unsure = self.deleted.get(&n).is_some_and(|newest| ts <= *newest);
            let takes = self.window_ms > 0 && newest.is_some_and(|newest| ts >= newest - self.window_ms);
            match known {
                Some(known) => left_out += u64::from(*known != bits || self.window_ms == 0),
                // What was known to be late was judged when it came, the window being where it was then.
                None if unsure || late && !takes => {
                    left_out += 1;
                    let there = content.get(&labels(n).to_string());
                    if (unsure || self.window_ms > 0)
                        && there.is_some_and(|there| there.contains(&(ts, bits)))
                    {
                        now.entry((n, ts)).or_insert(bits);
                    }
                }
                None => {
                    now.entry((n, ts)).or_insert(bits);
                }
            }
        }
        self.map.extend(now);
        // What came late was judged at once as far as could be; the other part is counted here.
        assert!(self.left_out <= left_out, "{} were left out, not {left_out}", self.left_out);
    }

    fn expected(&self) -> Content {
        let mut content = Content::new();
        for (&(n, ts), &bits) in &self.map {
            content.entry(labels(n).to_string()).or_default().push((ts, bits));
        }
        content
    }
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, i64)>),
    Reopen(Vec<(u8, i64)>),
    Maintain,
    Cut,
    Delete(u8, i64, i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sample = (0..3u8, prop_oneof![0i64..700, -2_000i64..0, Just(0)]);
    let several = prop::collection::vec(sample, 1..12);
    let step = prop_oneof![
        6 => several.clone().prop_map(Step::Commit),
        4 => several.prop_map(Step::Reopen),
        2 => Just(Step::Maintain),
        1 => Just(Step::Cut),
        1 => (0..3u8, 0i64..4_000, 0i64..4_000).prop_map(|(n, a, b)| Step::Delete(n, a.max(b), a.min(b))),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(96)))]

    #[test]
    fn what_comes_before_history_is_late_or_left_out(steps in steps(), allowed: bool) {
        let mut both = Both::new(if allowed { WINDOW_MS } else { 0 });
        let (mut now, mut bits) = (1_000_000, 0);
        let mut placed = |samples: &[(u8, i64)]| -> Vec<(Key, u64)> {
            let place = |&(n, after): &(u8, i64)| {
                // Repetitions, and contradictions.
                bits += u64::from(after != 0);
                let ts = now + after;
                now = now.max(ts);
                ((n, ts), bits)
            };
            samples.iter().map(place).collect()
        };
        for step in &steps {
            match step {
                Step::Commit(samples) => both.late_commit(&placed(samples)),
                Step::Reopen(early) => both.reopen(&placed(early)),
                Step::Maintain => drop(both.db().maintain(i64::MAX).unwrap()),
                Step::Cut => drop(both.db().cut_head().unwrap()),
                &Step::Delete(n, from, to) => {
                    let newest = placed(&[(0, 1)])[0].0.1 - 1;
                    let range = TimeRange::new(newest - from, newest - to);
                    both.db().delete(&[Matcher::equal("n", &n.to_string())], range).unwrap();
                    let newest = both.deleted.entry(n).or_insert(i64::MIN);
                    both.map.retain(|&(other, ts), _| {
                        let gone = other == n && range.contains(ts);
                        *newest = if gone { ts.max(*newest) } else { *newest };
                        !gone
                    });
                }
            }
            prop_assert_eq!(all(&both.db().snapshot()), both.expected(), "after {:?}", step);
        }
        both.reopen(&[]);
        prop_assert_eq!(all(&both.db().snapshot()), both.expected(), "after all");
    }
}

/// What a restart finds in the log of samples in order, though they are late, comes from an earlier run that died early.
#[test]
fn a_late_sample_survives_that_nobody_could_know_to_be_late() {
    let both = || {
        let mut both = Both::new(WINDOW_MS);
        both.late_commit(&[((0, 10_000), 1), ((0, 11_000), 2), ((1, 11_000), 3)]);
        both
    };
    for kept in [true, false] {
        let mut both = both();
        both.db = None;
        let options = Options { out_of_order_window_ms: WINDOW_MS, retention_ms: None, ..Options::default() };
        let (disk, dir) = (Arc::new(both.disk.clone()), Path::new("/data"));
        let db = Db::open_at_once_on(disk, dir, options.clone(), &mut |_| {}).unwrap();
        let mut batch = db.appender();
        let series = batch.series(&labels(0)).unwrap();
        batch.append(series, 10_500, f64::from_bits(7)).unwrap();
        batch.commit().unwrap();
        if kept {
            db.attach_history(&mut |_| {}).unwrap();
            assert_eq!(db.stats().samples_out_of_order, 0);
        }
        drop(db);
        both.map.insert((0, 10_500), 7);
        for _ in 0..2 {
            both.reopen(&[]);
            assert_eq!(all(&both.db().snapshot()), both.expected());
            assert_eq!(both.db().stats().samples_out_of_order, 0);
        }
    }
}

/// A span of which everything was deleted becomes no block, so only the log can say so.
#[test]
fn what_is_deleted_stays_deleted_where_no_block_says_so() {
    let mut both = Both::new(0);
    let rows = |n: u8, times: &[i64]| times.iter().map(|ts| ((n, *ts), 1)).collect::<Vec<_>>();
    both.late_commit(&rows(1, &[998_465]));
    both.late_commit(&rows(0, &[1_000_081]));
    both.db().delete(&[Matcher::equal("n", "1")], TimeRange::new(998_000, 999_000)).unwrap();
    both.map.remove(&(1, 998_465));
    for step in 0..40 {
        both.late_commit(&rows(0, &[1_000_100 + step * 100]));
        if step % 8 == 7 {
            both.reopen(&[]);
        }
    }
    both.late_commit(&rows(0, &[1_005_000]));
    both.late_commit(&rows(1, &[1_005_100]));
    both.late_commit(&rows(0, &[1_006_500]));
    for _ in 0..3 {
        both.db().maintain(i64::MAX).unwrap();
        both.reopen(&[]);
        assert_eq!(all(&both.db().snapshot()), both.expected());
    }
}
