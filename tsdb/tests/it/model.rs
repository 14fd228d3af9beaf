//! The store against a map: whatever is appended, cut, compacted, deleted and reopened, both say the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::{Labels, Matcher, TimeRange};
use proptest::prelude::*;
use tsdb::disk::memory::Memory;
use tsdb::{AppendError, Db, FloatChunks, Options};

use super::reading::{Content, all};
use super::simulation::cases;

const SERIES: u8 = 6;

#[derive(Clone, Debug)]
enum Step {
    /// A batch: series, milliseconds since the newest, bits.
    Commit(Vec<(u8, i64, u64)>),
    Maintain,
    Cut,
    Clean,
    /// A series, and how long ago the deletion begins and ends.
    Delete(u8, i64, i64),
    /// Opened at once and attached, or in one go.
    Reopen(bool),
    Seal(u8),
    Scrub,
}

fn bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0u64..100).prop_map(|n| (n as f64).to_bits()),
        // NaNs with every payload, quiet and signalling, of both signs.
        (any::<bool>(), 1u64..1 << 52)
            .prop_map(|(sign, payload)| u64::from(sign) << 63 | 0x7ff << 52 | payload),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sample = (0..SERIES, prop_oneof![0i64..2_000, Just(500), -400i64..0], bits());
    let step = prop_oneof![
        12 => prop::collection::vec(sample, 1..40).prop_map(Step::Commit),
        3 => Just(Step::Maintain),
        1 => Just(Step::Cut),
        1 => Just(Step::Clean),
        1 => (0..SERIES, 0i64..20_000, 0i64..20_000).prop_map(|(n, a, b)| Step::Delete(n, a.max(b), a.min(b))),
        2 => any::<bool>().prop_map(Step::Reopen),
        1 => (0..SERIES).prop_map(Step::Seal),
        1 => Just(Step::Scrub),
    ];
    prop::collection::vec(step, 1..40)
}

fn labels(n: u8) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())])
}

struct Both {
    disk: Memory,
    float_chunks: FloatChunks,
    db: Option<Db>,
    now: i64,
    map: BTreeMap<(u8, i64), u64>,
}

impl Both {
    fn new(float_chunks: FloatChunks) -> Self {
        let mut new =
            Self { disk: Memory::new(), float_chunks, db: None, now: 1_000_000, map: BTreeMap::new() };
        new.open(false);
        new
    }

    fn open(&mut self, at_once: bool) {
        let (disk, dir) = (Arc::new(self.disk.clone()), Path::new("/data"));
        let options = options(self.float_chunks);
        self.db = Some(if at_once {
            let db = Db::open_at_once_on(disk, dir, options, &mut |_| {}).unwrap();
            db.attach_history(&mut |_| {}).unwrap();
            db
        } else {
            Db::open_on(disk, dir, options, &mut |_| {}).unwrap()
        });
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn commit(&mut self, samples: &[(u8, i64, u64)]) {
        let mut batch = self.db.as_ref().unwrap().appender();
        let mut newest: BTreeMap<u8, i64> = BTreeMap::new();
        let mut given = 0;
        for &(n, after, bits) in samples {
            let ts = self.now + after;
            let series = batch.series(&labels(n)).unwrap();
            match batch.append(series, ts, f64::from_bits(bits)) {
                Ok(()) => {}
                Err(AppendError::OutOfOrder | AppendError::OutOfBounds | AppendError::Duplicate) => continue,
                Err(error) => unreachable!("{error}"),
            }
            // A repetition of the newest one is accepted, and so is what does not ascend within the batch;
            // neither is stored.
            if newest.get(&n).is_none_or(|&newest| ts > newest) && !self.map.contains_key(&(n, ts)) {
                newest.insert(n, ts);
                self.map.insert((n, ts), bits);
                given += 1;
            }
        }
        self.now = newest.values().copied().max().unwrap_or(self.now).max(self.now);
        assert!(batch.commit().unwrap() <= given);
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Commit(samples) => self.commit(samples),
            Step::Maintain => drop(self.db().maintain(self.now).unwrap()),
            Step::Cut => drop(self.db().cut_head().unwrap()),
            Step::Clean => drop(self.db().clean_tombstones().unwrap()),
            &Step::Delete(n, from, to) => {
                let range = TimeRange::new(self.now - from, self.now - to);
                self.db().delete(&[Matcher::equal("n", &n.to_string())], range).unwrap();
                self.map.retain(|&(other, ts), _| other != n || !range.contains(ts));
                // What is appended at a deleted time is another matter.
                self.now += 1;
            }
            &Step::Reopen(at_once) => {
                self.db.take().unwrap().close().unwrap();
                self.open(at_once);
            }
            &Step::Seal(n) => {
                let mut batch = self.db().appender();
                let series = batch.series(&labels(n)).unwrap();
                drop(batch);
                self.db().seal(&[series]);
            }
            Step::Scrub => {
                let report = self.db().scrub(true).unwrap();
                assert!(report.iter().all(|file| file.damage.is_empty()), "{report:?}");
            }
        }
    }

    fn expected(&self) -> Content {
        let mut content = Content::new();
        for (&(n, ts), &bits) in &self.map {
            content.entry(labels(n).to_string()).or_default().push((ts, bits));
        }
        content
    }
}

fn options(float_chunks: FloatChunks) -> Options {
    Options {
        retention_ms: None,
        block_range_ms: 5_000,
        wal_segment_bytes_max: 33_000,
        float_chunks,
        ..Options::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(64)))]

    #[test]
    fn store_and_map_say_the_same(steps in steps(), xor2: bool) {
        let mut both = Both::new(if xor2 { FloatChunks::Xor2 } else { FloatChunks::Xor });
        for step in &steps {
            both.run(step);
            prop_assert_eq!(all(&both.db().snapshot()), both.expected(), "after {:?}", step);
        }
    }
}
