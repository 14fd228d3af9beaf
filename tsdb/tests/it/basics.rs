use std::sync::Arc;
use std::time::Duration;

use model::{Labels, MatchOp, Matcher, Querier, TimeRange, Timestamp};
use tsdb::{AppendError, Db, OpenError, Options, SeriesRef};

use super::reading::{all, read};

const HOUR: i64 = 3_600_000;

fn labels(name: &str, n: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("n", &n.to_string()), ("job", "test")])
}

fn append(db: &Db, name: &str, series: usize, ts: i64, value: f64) {
    let mut batch = db.appender();
    for n in 0..series {
        let series = batch.series(&labels(name, n)).unwrap();
        batch.append(series, ts, value + n as f64).unwrap();
    }
    assert_eq!(batch.commit().unwrap(), series);
}

fn open(dir: &tempfile::TempDir) -> Db {
    Db::open(dir.path(), Options { retention_ms: None, ..Options::default() }).unwrap()
}

#[test]
fn db_and_snapshot_can_be_shared() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Db>();
    check::<tsdb::Snapshot>();
}

#[test]
fn samples_come_back_before_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    for step in 0..300 {
        append(&db, "m", 20, step * 15_000, step as f64);
    }
    let before = all(&db.snapshot());
    assert_eq!(before.len(), 20);
    assert!(before.values().all(|samples| samples.len() == 300));
    db.close().unwrap();
    let db = open(&dir);
    assert_eq!(all(&db.snapshot()), before);
    assert_eq!(db.stats().head_series, 20);
    append(&db, "m", 20, 300 * 15_000, 1.0);
    drop(db);
    let db = open(&dir);
    assert!(all(&db.snapshot()).values().all(|samples| samples.len() == 301));
}

#[test]
fn every_bit_pattern_survives_log_and_block() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let bits = [
        0,
        1,
        1 << 63,
        model::STALE_NAN,
        0x7ff8_0000_0000_0001,
        0xfff8_dead_beef_0001,
        0x7ff0_0000_0000_0001,
        f64::INFINITY.to_bits(),
        u64::MAX,
    ];
    for (step, bits) in (0..).zip(bits) {
        append(&db, "m", 1, step * 1000, f64::from_bits(bits));
        let mut batch = db.appender();
        let series = batch.series(&labels("exact", 0)).unwrap();
        batch.append(series, step * 1000, f64::from_bits(bits)).unwrap();
        batch.commit().unwrap();
    }
    let read_bits = |db: &Db| -> Vec<u64> {
        let content = read(&db.snapshot(), &[Matcher::equal("__name__", "exact")], TimeRange::ALL);
        content.values().next().unwrap().iter().map(|sample| sample.1).collect()
    };
    assert_eq!(read_bits(&db), bits);
    drop(db);
    let db = open(&dir);
    assert_eq!(read_bits(&db), bits);
    db.cut_head().unwrap();
    assert_eq!(db.stats().blocks, 1);
    assert_eq!(read_bits(&db), bits);
    drop(db);
    assert_eq!(read_bits(&open(&dir)), bits);
}

#[test]
fn refusals_are_typed_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    append(&db, "m", 2, 10 * HOUR, 1.0);
    let mut batch = db.appender();
    let zero = batch.series(&labels("m", 0)).unwrap();
    let one = batch.series(&labels("m", 1)).unwrap();
    assert_eq!(batch.append(zero, 9 * HOUR - 1, 1.0), Err(AppendError::OutOfBounds));
    assert_eq!(batch.append(zero, 10 * HOUR - 1, 1.0), Err(AppendError::OutOfOrder));
    assert_eq!(batch.append(zero, 10 * HOUR, 1.5), Err(AppendError::Duplicate));
    assert_eq!(batch.append(zero, 10 * HOUR, 1.0), Ok(()));
    assert_eq!(batch.append(SeriesRef(0), 10 * HOUR, 1.0), Err(AppendError::UnknownSeries));
    assert_eq!(batch.append(one, 10 * HOUR + 1, 1.0), Ok(()));
    assert_eq!(batch.commit().unwrap(), 1);
    let stats = db.stats();
    assert_eq!((stats.samples_out_of_bounds, stats.samples_out_of_order, stats.samples_duplicate), (1, 1, 1));
    assert_eq!(stats.samples_appended, 3);
}

#[test]
fn a_dropped_batch_leaves_nothing_but_later_batches_are_complete() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let mut batch = db.appender();
    let series = batch.series(&labels("m", 0)).unwrap();
    batch.append(series, 1000, 1.0).unwrap();
    drop(batch);
    assert!(all(&db.snapshot()).is_empty());
    append(&db, "m", 1, 2000, 2.0);
    drop(db);
    // The series record was not written by the batch that created the series.
    assert_eq!(all(&open(&dir).snapshot()).len(), 1);
}

#[test]
fn snapshots_see_whole_commits_and_never_change() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    append(&db, "m", 40, 1000, 1.0);
    let first = db.snapshot();
    append(&db, "m", 40, 2000, 1.0);
    append(&db, "late", 3, 2000, 1.0);
    let second = db.snapshot();
    append(&db, "m", 40, 3000, 1.0);
    let counts = |snapshot: &tsdb::Snapshot| -> Vec<usize> {
        let mut counts: Vec<_> = all(snapshot).values().map(Vec::len).collect();
        counts.dedup();
        counts
    };
    assert_eq!((all(&first).len(), counts(&first)), (40, vec![1]));
    assert_eq!((all(&second).len(), counts(&second)), (43, vec![1, 2]));
    // A cut with old snapshots alive takes nothing from them.
    db.cut_head().unwrap();
    assert_eq!((all(&first).len(), counts(&first)), (40, vec![1]));
    assert_eq!((all(&second).len(), counts(&second)), (43, vec![1, 2]));
    let third = db.snapshot();
    assert_eq!(counts(&third), vec![1, 3]);
    assert_eq!(db.stats().head_series, 43);
    drop((first, second));
    db.maintain(0).unwrap();
    assert_eq!(db.stats().head_series, 0, "the head was emptied once nobody needed it");
    assert_eq!(counts(&third), vec![1, 3]);
}

#[test]
fn concurrent_appends_and_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(open(&dir));
    std::thread::scope(|scope| {
        for thread in 0..3usize {
            let db = Arc::clone(&db);
            scope.spawn(move || {
                for step in 0..200 {
                    append(&db, &format!("m{thread}"), 30, step * 1000, 1.0);
                }
            });
        }
        for _ in 0..50 {
            for (name, samples) in [("m0", ()), ("m1", ())] {
                let () = samples;
                let snapshot = db.snapshot();
                let content = read(&snapshot, &[Matcher::equal("__name__", name)], TimeRange::ALL);
                let mut lengths: Vec<_> = content.values().map(Vec::len).collect();
                lengths.dedup();
                assert!(lengths.len() <= 1, "a commit was seen in part: {lengths:?}");
                assert!(content.is_empty() || content.len() == 30);
            }
        }
    });
    let content = all(&db.snapshot());
    assert_eq!(content.len(), 90);
    assert!(content.values().all(|samples| samples.len() == 200));
}

#[test]
fn blocks_are_cut_aligned_and_the_log_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { wal_segment_bytes_max: 64 * 1024, retention_ms: None, ..Options::default() };
    let db = Db::open(dir.path(), options.clone()).unwrap();
    let mut expected = 0;
    let mut cuts = 0;
    for step in 0..(20 * 60) {
        append(&db, "m", 10, step * 60_000, (step % 7) as f64 * 1.37);
        expected += 1;
        if step % 30 == 0 {
            cuts += db.maintain(step * 60_000).unwrap().blocks_written;
        }
    }
    assert!(cuts >= 8, "{cuts}");
    for block in db.blocks() {
        assert_eq!(block.max_time % (2 * HOUR), 0);
        assert_eq!(block.stats.num_series, 10);
    }
    let before = all(&db.snapshot());
    assert!(before.values().all(|samples| samples.len() == expected));
    assert!(
        dir.path()
            .join("wal")
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_str().unwrap().starts_with("checkpoint.") })
    );
    drop(db);
    let db = Db::open(dir.path(), options).unwrap();
    assert_eq!(all(&db.snapshot()), before);
    let range = TimeRange::new(3 * HOUR, 5 * HOUR);
    let part = read(&db.snapshot(), &[], range);
    assert!(part.values().all(|samples| samples.len() == 121));
}

#[test]
fn churn_leaves_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    for step in 0..(10 * 60) {
        append(&db, &format!("m{}", step / 60), 50, step * 60_000, 1.0);
        if step % 20 == 0 {
            db.maintain(0).unwrap();
        }
    }
    assert!(db.stats().head_series <= 250, "{}", db.stats().head_series);
    assert_eq!(all(&db.snapshot()).len(), 500);
    let names = db.snapshot().label_values("__name__", &[], TimeRange::ALL, 0).unwrap();
    assert_eq!(names.len(), 10);
    drop(db);
    assert_eq!(all(&open(&dir).snapshot()).len(), 500);
}

#[test]
fn old_blocks_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retention_ms: Some(6 * HOUR), ..Options::default() };
    let db = Db::open(dir.path(), options).unwrap();
    for step in 0..(24 * 6) {
        append(&db, "m", 3, step * 600_000, 1.0);
        db.maintain(step * 600_000).unwrap();
    }
    let blocks = db.blocks();
    let newest = blocks.last().unwrap().max_time;
    assert!(blocks.iter().all(|block| newest - block.max_time < 6 * HOUR));
    assert_eq!(blocks.len(), 3);
}

#[test]
fn blocks_that_are_wanted_stay_as_they_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retention_ms: Some(6 * HOUR), compact: false, ..Options::default() };
    let db = Db::open(dir.path(), options.clone()).unwrap();
    db.keep_from(4 * HOUR);
    for step in 0..(24 * 6) {
        append(&db, "m", 3, step * 600_000, 1.0);
        db.maintain(step * 600_000).unwrap();
    }
    let blocks = db.blocks();
    assert_eq!((blocks[0].min_time, blocks.len()), (4 * HOUR, 9));
    assert!(blocks.iter().all(|block| block.compaction.level == 1));
    db.keep_from(Timestamp::MAX);
    db.maintain(24 * HOUR).unwrap();
    assert_eq!(db.blocks().len(), 3);
    drop(db);
    // No room is a reason.
    let db = Db::open(dir.path(), Options { retention_bytes: Some(1), ..options }).unwrap();
    db.keep_from(Timestamp::MIN);
    db.maintain(24 * HOUR).unwrap();
    assert_eq!(db.blocks().len(), 1);
}

#[test]
fn a_wrong_clock_and_a_small_limit_leave_what_is_not_due() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retention_ms: Some(6 * HOUR), ..Options::default() };
    let db = Db::open(dir.path(), options).unwrap();
    for hour in 0..6 {
        append(&db, "m", 3, hour * HOUR, 1.0);
    }
    // A year ahead.
    append(&db, "m", 3, 9000 * HOUR, 1.0);
    db.cut_head().unwrap();
    db.maintain(6 * HOUR).unwrap();
    assert!(all(&db.snapshot()).values().all(|samples| samples.len() == 7));
    drop(db);
    let options = Options { retention_ms: None, retention_bytes: Some(1), ..Options::default() };
    let db = Db::open(dir.path(), options).unwrap();
    db.maintain(6 * HOUR).unwrap();
    assert_eq!(db.blocks().len(), 1, "the newest block tells how far the head was cut");
    let before = all(&db.snapshot());
    drop(db);
    assert_eq!(all(&open(&dir).snapshot()), before);
}

#[test]
fn blocks_are_compacted_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retention_ms: None, ..Options::default() };
    let db = Db::open(dir.path(), options).unwrap();
    let mut compacted = 0;
    for step in 0..(60 * 6) {
        append(&db, "m", 4, step * 600_000, step as f64);
        if step % 3 == 0 {
            compacted += db.maintain(0).unwrap().blocks_deleted;
        }
    }
    assert!(compacted > 20, "{compacted}");
    let blocks = db.blocks();
    assert!(blocks.iter().any(|block| block.compaction.level == 4 && block.compaction.sources.len() == 27));
    assert!(blocks.windows(2).all(|pair| pair[0].max_time <= pair[1].min_time));
    let before = all(&db.snapshot());
    assert!(before.values().all(|samples| samples.len() == 360));
    drop(db);
    assert_eq!(all(&open(&dir).snapshot()), before);
}

#[test]
fn deleted_samples_are_gone_from_head_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    for step in 0..100 {
        append(&db, "m", 3, step * 1000, step as f64);
    }
    db.cut_head().unwrap();
    for step in 100..200 {
        append(&db, "m", 3, step * 1000, step as f64);
    }
    let before = db.snapshot();
    let one = [Matcher::equal("n", "1")];
    db.delete(&one, TimeRange::new(50_000, 149_000)).unwrap();
    db.delete(&[Matcher::equal("n", "2")], TimeRange::ALL).unwrap();
    let check = |db: &Db| {
        let content = all(&db.snapshot());
        assert_eq!(content.len(), 2);
        let one = &content[r#"m{job="test", n="1"}"#];
        assert_eq!(one.len(), 100);
        assert!(one.iter().all(|(ts, _)| !(50_000..=149_000).contains(ts)));
        let values = db.snapshot().label_values("n", &[], TimeRange::ALL, 0).unwrap();
        assert_eq!(values, ["0", "1"]);
    };
    check(&db);
    assert!(all(&before).values().all(|samples| samples.len() == 200), "old snapshots never change");
    drop((before, db));
    let db = open(&dir);
    check(&db);
    assert_eq!(db.blocks()[0].stats.num_tombstones, 2);
    db.clean_tombstones().unwrap();
    assert_eq!(db.blocks()[0].stats.num_tombstones, 0);
    check(&db);
    db.cut_head().unwrap();
    check(&db);
}

#[test]
fn late_samples_within_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retention_ms: None, out_of_order_window_ms: 2 * HOUR, ..Options::default() };
    let open = || Db::open(dir.path(), options.clone()).unwrap();
    let db = open();
    for step in [1, 3, 5, 60, 120, 180, 240] {
        append(&db, "m", 2, step * 60_000, step as f64);
    }
    let mut batch = db.appender();
    let series = batch.series(&labels("m", 0)).unwrap();
    assert_eq!(batch.append(series, 60_000 + 1, 0.0), Err(AppendError::TooOld));
    for step in [150, 130, 140, 200] {
        assert_eq!(batch.append(series, step * 60_000, step as f64), Ok(()));
    }
    let other = batch.series(&labels("late", 0)).unwrap();
    assert_eq!(batch.append(other, 125 * 60_000, 1.0), Ok(()));
    let before = db.snapshot();
    assert_eq!(batch.commit().unwrap(), 5);
    let mut batch = db.appender();
    assert_eq!(batch.append(series, 150 * 60_000, 150.0), Ok(()), "a repetition");
    assert_eq!(batch.append(series, 150 * 60_000, 1.0), Err(AppendError::Duplicate));
    assert_eq!(batch.commit().unwrap(), 0);
    let check = |db: &Db| {
        let content = all(&db.snapshot());
        let times: Vec<i64> = content[r#"m{job="test", n="0"}"#].iter().map(|(ts, _)| ts / 60_000).collect();
        assert_eq!(times, [1, 3, 5, 60, 120, 130, 140, 150, 180, 200, 240]);
        assert_eq!(content[r#"late{job="test", n="0"}"#].len(), 1);
    };
    check(&db);
    assert_eq!(all(&before).len(), 2, "an older snapshot does not see them");
    drop((before, db));
    let db = open();
    check(&db);
    db.cut_head().unwrap();
    check(&db);
    assert!(db.blocks().iter().any(|block| !block.compaction.hints.is_empty()));
    let wbl: u64 = std::fs::read_dir(dir.path().join("wbl"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(wbl, 0);
    drop(db);
    let db = open();
    check(&db);
    db.maintain(0).unwrap();
    check(&db);
    let blocks = db.blocks();
    assert!(blocks.windows(2).all(|pair| pair[0].max_time <= pair[1].min_time), "merged by compaction");
}

#[test]
fn deleted_samples_stay_deleted_when_nothing_of_the_newest_block_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    append(&db, "m", 2, HOUR, 1.0);
    db.cut_head().unwrap();
    append(&db, "m", 2, 3 * HOUR, 2.0);
    db.delete(&[], TimeRange::new(0, 2 * HOUR)).unwrap();
    db.clean_tombstones().unwrap();
    db.maintain(0).unwrap();
    let before = all(&db.snapshot());
    assert!(before.values().all(|samples| samples.len() == 1));
    drop(db);
    let db = open(&dir);
    assert_eq!(all(&db.snapshot()), before);
    // Once another block tells where the head begins, the empty one goes.
    db.cut_head().unwrap();
    db.clean_tombstones().unwrap();
    assert_eq!(db.blocks().len(), 1);
    assert_eq!(all(&db.snapshot()), before);
    drop(db);
    assert_eq!(all(&open(&dir).snapshot()), before);
}

#[test]
fn of_two_late_samples_of_one_time_the_first_counts() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retention_ms: None, out_of_order_window_ms: 2 * HOUR, ..Options::default() };
    let open = || Db::open(dir.path(), options.clone()).unwrap();
    let mut db = open();
    append(&db, "m", 1, HOUR, 0.0);
    append(&db, "m", 1, 2 * HOUR, 0.0);
    append(&db, "m", 1, HOUR + HOUR / 2, 1.0);
    db.cut_head().unwrap();
    // The first is in a block now, and the head does not know of it.
    append(&db, "m", 1, 2 * HOUR + 1, 0.0);
    append(&db, "m", 1, HOUR + HOUR / 2, 2.0);
    let check = |db: &Db| {
        let content = all(&db.snapshot());
        let samples = &content[r#"m{job="test", n="0"}"#];
        assert_eq!(samples.len(), 4);
        assert_eq!(samples[1], (HOUR + HOUR / 2, 1.0_f64.to_bits()));
    };
    check(&db);
    drop(db);
    db = open();
    check(&db);
}

#[test]
fn the_oldest_blocks_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retention_ms: None, retention_bytes: Some(150_000), ..Options::default() };
    let db = Db::open(dir.path(), options).unwrap();
    for step in 0..(60 * 60) {
        append(&db, "m", 10, step * 60_000, (step * 7919 % 1000) as f64);
        if step % 20 == 0 {
            db.maintain(0).unwrap();
        }
    }
    let stats = db.stats();
    assert!(stats.blocks > 0);
    assert!(stats.blocks_bytes + stats.wal_bytes < 170_000, "{stats:?}");
    assert!(all(&db.snapshot()).values().all(|samples| samples.last().unwrap().0 == 3599 * 60_000));
}

#[test]
fn labels_and_matchers() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let mut batch = db.appender();
    for (name, code) in [("http", "200"), ("http", "404"), ("http", ""), ("up", ""), ("grpc", "500")] {
        let series = batch.series(&Labels::from_pairs([("__name__", name), ("code", code)])).unwrap();
        batch.append(series, 1000, 1.0).unwrap();
    }
    batch.commit().unwrap();
    for cut in [false, true] {
        if cut {
            db.cut_head().unwrap();
        }
        let snapshot = db.snapshot();
        let select = |op, name: &str, value: &str| -> Vec<String> {
            let matcher = Matcher::new(name, op, value).unwrap();
            read(&snapshot, &[matcher], TimeRange::ALL).into_keys().collect()
        };
        assert_eq!(
            select(MatchOp::Equal, "__name__", "http"),
            ["http", r#"http{code="200"}"#, r#"http{code="404"}"#]
        );
        assert_eq!(select(MatchOp::Equal, "code", ""), ["http", "up"]);
        assert_eq!(select(MatchOp::NotEqual, "code", "").len(), 3);
        assert_eq!(select(MatchOp::NotEqual, "code", "200").len(), 4);
        assert_eq!(select(MatchOp::Regex, "code", "4..|500").len(), 2);
        assert_eq!(select(MatchOp::Regex, "code", "200|404").len(), 2);
        assert_eq!(select(MatchOp::Regex, "code", ".*").len(), 5);
        assert_eq!(select(MatchOp::Regex, "code", ".+").len(), 3);
        assert_eq!(select(MatchOp::Regex, "code", "|200").len(), 3);
        assert_eq!(select(MatchOp::NotRegex, "code", "4.*").len(), 4);
        assert_eq!(select(MatchOp::NotRegex, "code", "200|404").len(), 3);
        assert_eq!(select(MatchOp::NotRegex, "code", ".*"), [""; 0]);
        assert_eq!(select(MatchOp::Equal, "nothing", "x"), [""; 0]);
        let names = snapshot.label_names(&[], TimeRange::ALL, 0).unwrap();
        assert_eq!(names, ["__name__", "code"]);
        let up = [Matcher::equal("__name__", "up")];
        assert_eq!(snapshot.label_names(&up, TimeRange::ALL, 0).unwrap(), ["__name__"]);
        assert_eq!(snapshot.label_values("code", &[], TimeRange::ALL, 2).unwrap(), ["200", "404"]);
        let http = [Matcher::equal("__name__", "http")];
        assert_eq!(snapshot.label_values("code", &http, TimeRange::ALL, 0).unwrap(), ["200", "404"]);
        assert!(snapshot.label_values("code", &[], TimeRange::new(0, 999), 0).unwrap().is_empty());
    }
}

/// Few series with many values, and many series with few: values are found from either side, in the head and in
/// a block.
#[test]
fn values_are_those_of_the_selected_series() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options { retention_ms: None, ..Options::default() }).unwrap();
    let mut appender = db.appender();
    for n in 0..500 {
        let labels = [("__name__", "a".to_owned()), ("n", n.to_string()), ("third", (n % 3).to_string())];
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .filter(|(name, _)| n != 7 || *name != "n");
        let series = appender.series(&Labels::from_pairs(labels)).unwrap();
        appender.append(series, 1_000, 1.0).unwrap();
    }
    appender.commit().unwrap();
    for in_block in [false, true] {
        if in_block {
            db.cut_head().unwrap();
        }
        let snapshot = db.snapshot();
        let values = |name: &str, op, value: &str, of: &str| {
            let matchers = [Matcher::new(name, op, value).unwrap()];
            snapshot.label_values(of, &matchers, TimeRange::ALL, 0).unwrap()
        };
        assert_eq!(values("n", MatchOp::Regex, "1|2|400", "n"), ["1", "2", "400"]);
        assert_eq!(values("third", MatchOp::Equal, "1", "third"), ["1"]);
        let mut wanted: Vec<String> =
            (0..500).filter(|n| n % 3 == 1 && *n != 7).map(|n| n.to_string()).collect();
        wanted.sort();
        assert_eq!(values("third", MatchOp::Equal, "1", "n"), wanted);
        assert_eq!(values("n", MatchOp::Regex, "1|2|400", "third"), ["1", "2"]);
        assert_eq!(values("n", MatchOp::Equal, "", "n"), [""; 0]);
        assert_eq!(values("n", MatchOp::Equal, "1", "none"), [""; 0]);
    }
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let second = Db::open(dir.path(), Options::default());
    assert!(matches!(second, Err(OpenError::Locked(path)) if path.ends_with("lock")));
    let _snapshot = db.snapshot();
    db.close().unwrap();
    open(&dir);
}

#[test]
fn the_limit_refuses_only_new_series() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { series_max: Some(2), wal_sync_interval: Duration::ZERO, ..Options::default() };
    let db = Db::open(dir.path(), options).unwrap();
    append(&db, "m", 2, 1000, 1.0);
    let mut batch = db.appender();
    assert_eq!(batch.series(&labels("m", 2)), Err(AppendError::SeriesLimit));
    assert!(batch.series(&labels("m", 1)).is_ok());
    assert_eq!(db.stats().series_refused, 1);
}

#[test]
fn a_snapshot_that_is_never_dropped_does_not_keep_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    append(&db, "m", 3, 0, 1.0);
    let old = db.snapshot();
    assert_eq!(all(&old).len(), 3);
    for step in 1..60 {
        append(&db, "m", 3, step * 600_000, 1.0);
        db.maintain(step * 600_000).unwrap();
    }
    let selection = model::Selection::new(&[], TimeRange::ALL);
    assert!(old.select(&selection).is_err(), "the head did not wait for ever");
    assert!(db.stats().head_min_ts.unwrap() > 4 * HOUR);
    assert!(all(&db.snapshot()).values().all(|samples| samples.len() == 60));
}

#[test]
fn many_series_are_sorted_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let mut batch = db.appender();
    for n in 0..20_000u64 {
        let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let labels = Labels::from_pairs([("__name__", "m"), ("n", &scattered.to_string())]);
        let series = batch.series(&labels).unwrap();
        batch.append(series, 1, 1.0).unwrap();
    }
    batch.commit().unwrap();
    // Reading checks the order.
    assert_eq!(all(&db.snapshot()).len(), 20_000);
}

#[test]
fn a_range_that_ends_before_it_starts_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options { retention_ms: None, ..Options::default() }).unwrap();
    let mut appender = db.appender();
    let series = appender.series(&Labels::from_pairs([("__name__", "a")])).unwrap();
    (1..=3).for_each(|n| appender.append(series, n * 1_000, 1.0).unwrap());
    appender.commit().unwrap();
    for in_block in [false, true] {
        if in_block {
            db.cut_head().unwrap();
        }
        let before = super::reading::all(&db.snapshot());
        db.delete(&[Matcher::equal("__name__", "a")], TimeRange::new(2_500, 1_500)).unwrap();
        assert_eq!(super::reading::all(&db.snapshot()), before);
        assert_eq!(db.clean_tombstones().unwrap().blocks_written, 0);
    }
}

/// A batch in no order, and a restart that sees the log of it.
#[test]
fn samples_of_one_batch_that_do_not_ascend_are_late_or_left_out_also_after_a_restart() {
    for window in [0, 3_000] {
        let options = || Options { out_of_order_window_ms: window, ..Options::default() };
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options()).unwrap();
        for base in [100_000, 110_000] {
            let mut batch = db.appender();
            for n in 0..3 {
                let series = batch.series(&Labels::from_pairs([("n", &n.to_string())])).unwrap();
                // In order, late, late again with another value, twice the same time, in order.
                for (at, after) in [100i64, 50, 50, 100, 200].into_iter().enumerate() {
                    batch.append(series, base + after, at as f64).unwrap();
                }
            }
            let stored = if window > 0 { 3 } else { 2 };
            assert_eq!(batch.commit().unwrap(), 3 * stored);
        }
        let expected: Vec<(i64, u64)> = [100_000, 110_000]
            .into_iter()
            .flat_map(|base| [(base + 50, 1), (base + 100, 0), (base + 200, 4)])
            .filter(|(_, at)| window > 0 || *at != 1)
            .map(|(ts, at)| (ts, f64::from(at).to_bits()))
            .collect();
        let before = all(&db.snapshot());
        assert!(before.values().all(|samples| *samples == expected), "{before:?}");
        drop(db);
        let db = Db::open(dir.path(), options()).unwrap();
        assert_eq!(all(&db.snapshot()), before);
        assert_eq!(db.stats().samples_out_of_order, 0);
    }
}

#[test]
fn selections_of_the_same_series_have_the_same_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let append = |job: &str, ts: i64| {
        let mut batch = db.appender();
        let series = batch.series(&Labels::from_pairs([("__name__", "up"), ("job", job)])).unwrap();
        batch.append(series, ts, 1.0).unwrap();
        batch.commit().unwrap();
    };
    let fingerprint = |from: i64| {
        let (matchers, snapshot) = ([Matcher::equal("__name__", "up")], db.snapshot());
        let selection = model::Selection::new(&matchers, TimeRange::new(from, i64::MAX));
        snapshot.select_unordered(&selection).unwrap().fingerprint().unwrap()
    };
    append("a", 1_000);
    append("b", 1_000);
    let both = fingerprint(0);
    append("b", 2_000);
    assert_eq!(fingerprint(0), both, "samples make no difference");
    assert_ne!(fingerprint(2_000), both, "one of them");
    append("c", 2_000);
    assert_ne!(fingerprint(0), both, "and another one");
}
