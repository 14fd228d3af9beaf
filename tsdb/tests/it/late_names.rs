//! The log of late samples names series as the other log does. Whatever happens to names, late samples stay.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Matcher, TimeRange};
use tsdb::disk::memory::{Faults, Memory};
use tsdb::{Db, Options};

use super::reading::{Content, all};

fn labels(n: u8) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())])
}

fn options() -> Options {
    Options {
        retention_ms: None,
        out_of_order_window_ms: 3_000,
        block_range_ms: 2_000,
        // Nothing is synced that is not asked for.
        wal_sync_interval: Duration::MAX,
        wal_segment_bytes_max: 33_000,
        ..Options::default()
    }
}

fn open_at_once(disk: &Memory) -> Db {
    let disk = Arc::new(disk.clone());
    Db::open_at_once_on(disk, Path::new("/data"), options(), &mut |_| {}).unwrap()
}

fn open(disk: &Memory) -> Db {
    let db = open_at_once(disk);
    db.attach_history(&mut |_| {}).unwrap();
    db
}

fn commit(db: &Db, n: u8, ts: i64) {
    let mut batch = db.appender();
    let series = batch.series(&labels(n)).unwrap();
    batch.append(series, ts, ts as f64).unwrap();
    batch.commit().unwrap();
}

/// A store that was closed well, with a late sample of each of two series.
fn with_late_samples() -> Memory {
    let disk = Memory::new();
    let db = open(&disk);
    for n in 0..2 {
        commit(&db, n, 1_000_000);
        commit(&db, n, 999_500);
    }
    db.close().unwrap();
    disk
}

/// The disk after the machine has stopped, with all that was not synced gone.
fn power_cut(disk: &Memory, db: Db) -> Memory {
    disk.set_faults(Faults { operations: Some(0), ..Faults::default() });
    drop(db);
    // The names of files that were synced stay, and of their bytes those that were: zeros are in place of the others.
    disk.after_power_cut(&mut || 0)
}

fn times(content: &Content, n: u8) -> Vec<i64> {
    let samples = content.get(&labels(n).to_string());
    samples.map(|samples| samples.iter().map(|(ts, _)| *ts).collect()).unwrap_or_default()
}

#[test]
fn a_power_cut_leaves_those_that_were_logged_anew_under_a_name_of_this_run() {
    let disk = with_late_samples();
    let db = open_at_once(&disk);
    commit(&db, 0, 1_000_100);
    db.attach_history(&mut |_| {}).unwrap();
    // Any deletion writes that log anew. This one finds nothing, so that the other log is not synced for it.
    db.delete(&[Matcher::equal("n", "2")], TimeRange::ALL).unwrap();
    let disk = power_cut(&disk, db);
    let content = all(&open(&disk).snapshot());
    for n in 0..2 {
        assert_eq!(times(&content, n)[..2], [999_500, 1_000_000]);
    }
}

#[test]
fn a_series_of_late_samples_only_keeps_them_under_a_new_name() {
    let disk = Memory::new();
    let db = open(&disk);
    commit(&db, 1, 1_000_000);
    commit(&db, 1, 999_500);
    // A block ends there, so that what comes is late for a series that has nothing.
    commit(&db, 1, 1_002_000);
    db.cut_head().unwrap();
    commit(&db, 0, 1_001_000);
    commit(&db, 1, 1_001_000);
    db.close().unwrap();
    let db = open_at_once(&disk);
    let mut batch = db.appender();
    batch.series(&labels(0)).unwrap();
    drop(batch);
    db.attach_history(&mut |_| {}).unwrap();
    assert_eq!(times(&all(&db.snapshot()), 0), [1_001_000]);
    db.delete(&[Matcher::equal("n", "1")], TimeRange::new(1_000_900, 1_001_100)).unwrap();
    let disk = power_cut(&disk, db);
    let content = all(&open(&disk).snapshot());
    assert_eq!(times(&content, 0), [1_001_000]);
    assert_eq!(times(&content, 1), [999_500, 1_000_000, 1_002_000]);
}

/// The log is shortened before late samples are in blocks, and the machine stops between the two.
#[test]
fn a_log_that_is_shortened_keeps_the_names_that_late_samples_use() {
    let lived = (0..2_000).any(|operations| {
        let disk = with_late_samples();
        let db = open_at_once(&disk);
        commit(&db, 0, 1_000_100);
        commit(&db, 1, 1_000_100);
        db.attach_history(&mut |_| {}).unwrap();
        // Segments, for a checkpoint.
        for step in 0..3_000 {
            commit(&db, 2, 1_000_200 + step);
        }
        for n in 0..2 {
            commit(&db, n, 1_008_000);
        }
        db.sync().unwrap();
        disk.set_faults(Faults { operations: Some(operations), ..Faults::default() });
        let whole = (0..6).all(|_| db.maintain(0).is_ok());
        drop(db);
        let disk = disk.after_kill();
        let content = all(&open(&disk).snapshot());
        for n in 0..2 {
            let there = times(&content, n);
            assert_eq!(there, [999_500, 1_000_000, 1_000_100, 1_008_000], "after {operations} operations");
        }
        whole
    });
    assert!(lived, "maintenance never came to its end");
}
