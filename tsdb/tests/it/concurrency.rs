//! Everything at once: no deadlock, and no reader ever sees half a commit.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Labels, Matcher, Querier, StorageError, TimeRange};
use tsdb::{Db, Options};

use super::reading::{all, try_read};

const THREADS: usize = 3;
const SERIES: usize = 30;
const STEPS: i64 = 400;

fn append(db: &Db, thread: usize, step: i64) {
    let mut batch = db.appender();
    let mut references = Vec::new();
    for n in 0..SERIES {
        // Half of the series are replaced again and again.
        let generation = if n % 2 == 0 { 0 } else { step / 50 };
        let labels = Labels::from_pairs([
            ("__name__", format!("m{thread}")),
            ("n", n.to_string()),
            ("generation", generation.to_string()),
        ]);
        let series = batch.series(&labels).unwrap();
        batch.append(series, step * 1000, step as f64).unwrap();
        references.push(series);
    }
    assert_eq!(batch.commit().unwrap(), SERIES);
    if step % 50 == 49 {
        db.seal(&references);
    }
}

#[test]
fn appends_queries_and_maintenance_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        block_range_ms: 60_000,
        retention_ms: None,
        wal_segment_bytes_max: 100_000,
        ..Options::default()
    };
    let db = Db::open(dir.path(), options.clone()).unwrap();
    let (db, barrier, done) = (&db, &Barrier::new(THREADS), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let appenders: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    for step in 0..STEPS {
                        barrier.wait();
                        append(db, thread, step);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                db.maintain(0).unwrap();
                let _ = db.stats();
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let snapshot = db.snapshot();
                for thread in 0..THREADS {
                    let name = format!("m{thread}");
                    let content =
                        match try_read(&snapshot, &[Matcher::equal("__name__", &name)], TimeRange::ALL) {
                            // On a busy machine the head may not wait for this thread.
                            Err(StorageError::Unavailable(_)) => continue,
                            content => content.unwrap(),
                        };
                    let samples: usize = content.values().map(Vec::len).sum();
                    assert_eq!(samples % SERIES, 0, "half a commit of {name} is visible");
                }
                let names = snapshot.label_values("__name__", &[], TimeRange::ALL, 0).unwrap();
                assert!(names.len() <= THREADS);
            }
        });
        let ended: Vec<_> = appenders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    assert!(db.stats().blocks > 0);
    let content = all(&db.snapshot());
    let samples: usize = content.values().map(Vec::len).sum();
    assert_eq!(samples, THREADS * SERIES * usize::try_from(STEPS).unwrap());
}

/// What was in order when it was appended, but not when it was committed.
fn overtaken(window_ms: i64) -> (usize, Vec<i64>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { out_of_order_window_ms: window_ms, ..Options::default() };
    let times = |db: &Db| {
        let matchers = [Matcher::equal("__name__", "a")];
        let snapshot = db.snapshot();
        let set = snapshot.select(&model::Selection::new(&matchers, TimeRange::ALL)).unwrap();
        let mut samples = model::Samples::default();
        set.samples(0, TimeRange::ALL, &mut samples).unwrap();
        samples.ts
    };
    let applied;
    {
        let db = Db::open(dir.path(), options.clone()).unwrap();
        let (mut slow, mut quick) = (db.appender(), db.appender());
        for (appender, all) in [(&mut slow, &[1_000, 3_000][..]), (&mut quick, &[2_000])] {
            let series = appender.series(&Labels::from_pairs([("__name__", "a")])).unwrap();
            all.iter().for_each(|ts| appender.append(series, *ts, 1.0).unwrap());
        }
        assert_eq!(quick.commit().unwrap(), 1);
        applied = slow.commit().unwrap();
        assert_eq!(times(&db).len(), applied + 1);
    }
    // The log has what was visible.
    (applied, times(&Db::open(dir.path(), options).unwrap()))
}

#[test]
fn a_sample_that_another_commit_overtakes_is_a_late_one() {
    assert_eq!(overtaken(60_000), (2, vec![1_000, 2_000, 3_000]));
    // Without a window it is left out, and not counted.
    assert_eq!(overtaken(0), (1, vec![2_000, 3_000]));
}
