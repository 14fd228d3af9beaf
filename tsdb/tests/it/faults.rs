//! One fault at a time, and what the caller is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Querier, Samples, Selection, TimeRange};
use tsdb::disk::memory::{Faults, Memory};
use tsdb::{CommitError, Db, OpenError, Options};

use super::reading::all;

const DIR: &str = "/data";

fn open(disk: &Memory, wal_sync_interval: Duration) -> Result<Db, OpenError> {
    let options = Options { wal_sync_interval, retention_ms: None, ..Options::default() };
    Db::open_on(Arc::new(disk.clone()), Path::new(DIR), options, &mut |_| {})
}

fn append(db: &Db, ts: i64) -> Result<usize, CommitError> {
    let mut batch = db.appender();
    for n in 0..50 {
        let labels = Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())]);
        let series = batch.series(&labels).unwrap();
        batch.append(series, ts, (ts % 7) as f64).unwrap();
    }
    batch.commit()
}

fn samples_each(db: &Db) -> usize {
    let content = all(&db.snapshot());
    let mut lengths: Vec<usize> = content.values().map(Vec::len).collect();
    lengths.dedup();
    assert!(lengths.len() <= 1, "a commit is there in part");
    lengths.first().copied().unwrap_or(0)
}

#[test]
fn a_failed_sync_refuses_everything_until_a_restart() {
    let disk = Memory::new();
    let db = open(&disk, Duration::ZERO).unwrap();
    append(&db, 1000).unwrap();
    disk.set_faults(Faults { fail_sync: true, ..Faults::default() });
    let error = append(&db, 2000).unwrap_err();
    assert_eq!(error.path, PathBuf::from("/data/wal/00000000"));
    assert_eq!(samples_each(&db), 1, "what was not acknowledged is not shown");
    // The disk is well again, but nobody knows what the failed sync has lost.
    assert!(append(&db, 3000).is_err());
    assert!(db.sync().is_err(), "what a failed sync has lost is not durable by the next one");
    drop(db);
    let db = open(&disk, Duration::ZERO).unwrap();
    append(&db, 4000).unwrap();
    assert!(samples_each(&db) >= 2);
}

/// What a write that failed must not leave behind.
fn has_debris(disk: &Memory) -> bool {
    disk.files().iter().any(|(path, _)| path.to_string_lossy().contains(".tmp"))
}

#[test]
fn a_full_disk_refuses_commits_where_none_may_wait_and_goes_on_by_itself() {
    let disk = Memory::new();
    let options = Options {
        wal_sync_interval: Duration::MAX,
        retention_ms: None,
        backlog_bytes_max: 0,
        ..Options::default()
    };
    let open_it =
        || Db::open_on(Arc::new(disk.clone()), Path::new(DIR), options.clone(), &mut |_| {}).unwrap();
    let db = open_it();
    append(&db, 1000).unwrap();
    disk.set_faults(Faults { space_bytes: Some(100), ..Faults::default() });
    for ts in [2000, 3000] {
        let error = append(&db, ts).unwrap_err();
        assert!(error.is_full(), "{error}");
    }
    assert!(db.cut_head().is_err());
    assert!(!has_debris(&disk), "a full disk must not get fuller");
    assert_eq!(samples_each(&db), 1);
    disk.set_faults(Faults::default());
    append(&db, 4000).unwrap();
    assert_eq!(samples_each(&db), 2);
    drop(db);
    let db = open_it();
    assert_eq!(samples_each(&db), 2);
    db.cut_head().unwrap();
    assert_eq!(samples_each(&db), 2);
}

#[test]
fn on_a_full_disk_samples_are_visible_and_become_durable_when_there_is_space() {
    for interval in [Duration::ZERO, Duration::MAX] {
        let disk = Memory::new();
        let db = open(&disk, interval).unwrap();
        append(&db, 1000).unwrap();
        disk.set_faults(Faults { space_bytes: Some(100), ..Faults::default() });
        for ts in [2000, 3000, 4000] {
            append(&db, ts).unwrap();
        }
        assert_eq!(samples_each(&db), 4);
        assert_eq!(db.stats().samples_not_durable, 150);
        assert!(db.sync().unwrap_err().is_full(), "nobody is told that they are durable");
        // What has to be in the log behind them has to wait, too.
        assert!(db.delete(&[], TimeRange::new(0, 1000)).unwrap_err().is_full());
        assert_eq!(samples_each(&db), 4);
        // A crash now loses them, and only them.
        let crashed = disk.after_kill();
        assert_eq!(samples_each(&open(&crashed, interval).unwrap()), 1);
        disk.set_faults(Faults::default());
        append(&db, 5000).unwrap();
        assert_eq!(db.stats().samples_not_durable, 0);
        let killed = disk.after_kill();
        assert_eq!(samples_each(&open(&killed, interval).unwrap()), 5);
    }
}

#[test]
fn what_waits_for_space_is_written_by_a_sync_by_maintenance_and_at_the_end() {
    type Means = fn(Db) -> Option<Db>;
    let means: [Means; 3] = [
        |db| db.sync().ok().map(|()| db),
        |db| db.maintain(0).ok().map(|_| db),
        |db| db.close().ok().and(None),
    ];
    for by in means {
        let disk = Memory::new();
        let db = open(&disk, Duration::MAX).unwrap();
        disk.set_faults(Faults { space_bytes: Some(0), ..Faults::default() });
        append(&db, 1000).unwrap();
        append(&db, 2000).unwrap();
        db.maintain(0).unwrap();
        assert_eq!(db.stats().samples_not_durable, 100, "maintenance goes on without them");
        disk.set_faults(Faults::default());
        let db = by(db);
        assert!(db.is_none_or(|db| db.stats().samples_not_durable == 0));
        assert_eq!(samples_each(&open(&disk.after_kill(), Duration::MAX).unwrap()), 2);
    }
}

#[test]
fn more_commits_than_may_wait_are_refused_and_the_others_are_kept() {
    let disk = Memory::new();
    let options = Options { backlog_bytes_max: 5_000, retention_ms: None, ..Options::default() };
    let db = Db::open_on(Arc::new(disk.clone()), Path::new(DIR), options, &mut |_| {}).unwrap();
    append(&db, 1000).unwrap();
    disk.set_faults(Faults { space_bytes: Some(0), ..Faults::default() });
    let (mut kept, mut refused) = (1, 0);
    for ts in 2..20 {
        match append(&db, ts * 1000) {
            Ok(_) => kept += 1,
            Err(error) => {
                assert!(error.is_full() && error.to_string().contains("bytes of commits wait"), "{error}");
                refused += 1;
            }
        }
        assert_eq!(samples_each(&db), kept);
    }
    assert!(kept > 3 && refused > 3, "{kept} kept, {refused} refused");
    // There is space for a part only: that part is written.
    disk.set_faults(Faults { space_bytes: Some(1_000), ..Faults::default() });
    assert!(db.sync().is_err());
    let left = db.stats().samples_not_durable;
    assert!(left > 0 && left < (kept as u64 - 1) * 50, "{left}");
    disk.set_faults(Faults::default());
    db.sync().unwrap();
    assert_eq!(samples_each(&open(&disk.after_kill(), Duration::MAX).unwrap()), kept);
}

#[test]
fn on_a_full_disk_nothing_is_left_half_written() {
    let disk = Memory::new();
    let options = Options {
        block_range_ms: 20_000,
        wal_segment_bytes_max: 33_000,
        out_of_order_window_ms: 10_000,
        ..Options::default()
    };
    let db = Db::open_on(Arc::new(disk.clone()), Path::new(DIR), options, &mut |_| {}).unwrap();
    for ts in 0..100 {
        append(&db, ts * 500).unwrap();
    }
    db.maintain(0).unwrap();
    db.delete(&[], TimeRange::new(3_000, 4_000)).unwrap();
    let before = all(&db.snapshot());
    for space in [0, 50, 500, 2_000, 5_000] {
        for attempt in [
            |db: &Db| db.cut_head().map(drop),
            |db: &Db| db.clean_tombstones().map(drop),
            |db: &Db| db.copy_to(Path::new("/copy"), true),
            |db: &Db| db.delete(&[], TimeRange::new(1_000, 1_100)),
        ] {
            disk.set_faults(Faults { space_bytes: Some(space), ..Faults::default() });
            if attempt(&db).is_ok() {
                continue;
            }
            assert!(!has_debris(&disk), "{space} bytes of space: {:?}", disk.files());
            assert!(disk.files().iter().all(|(path, _)| !path.starts_with("/copy")), "{space}");
        }
    }
    disk.set_faults(Faults::default());
    db.cut_head().unwrap();
    db.copy_to(Path::new("/copy"), true).unwrap();
    let after = all(&db.snapshot());
    assert_eq!(after.len(), before.len());
}

#[test]
fn on_a_full_disk_old_blocks_still_go() {
    let disk = Memory::new();
    let options = Options { block_range_ms: 10_000, retention_ms: Some(15_000), ..Options::default() };
    let db = Db::open_on(Arc::new(disk.clone()), Path::new(DIR), options, &mut |_| {}).unwrap();
    for ts in 0..40 {
        append(&db, ts * 1_000).unwrap();
    }
    db.cut_head().unwrap();
    assert_eq!(db.blocks().len(), 4);
    append(&db, 41_000).unwrap();
    disk.set_faults(Faults { space_bytes: Some(0), ..Faults::default() });
    append(&db, 51_000).unwrap();
    assert!(db.maintain(51_000).unwrap_err().is_full(), "a full chunk cannot leave memory");
    assert_eq!(db.blocks().len(), 2);
}

fn with_block() -> (Memory, PathBuf) {
    let disk = Memory::new();
    let db = open(&disk, Duration::MAX).unwrap();
    for step in 0..100 {
        append(&db, step * 1000).unwrap();
    }
    db.cut_head().unwrap();
    let block = Path::new(DIR).join(db.blocks()[0].ulid.to_string());
    (disk, block)
}

#[test]
fn a_damaged_chunk_is_named_with_what_is_lost() {
    let (disk, block) = with_block();
    disk.flip_bit(&block.join("chunks/000001"), 8 * 40);
    let db = open(&disk, Duration::MAX).unwrap();
    let snapshot = db.snapshot();
    let set = snapshot.select(&Selection::new(&[], TimeRange::ALL)).unwrap();
    let mut samples = Samples::default();
    let errors: Vec<String> = (0..set.len())
        .filter_map(|index| set.samples(index, TimeRange::ALL, &mut samples).err())
        .map(|error| error.to_string())
        .collect();
    let path = block.join("chunks/000001");
    let expected =
        format!(r#"{}: chunk checksum mismatch; lost: m{{n="0"}} from 0 to 99000 ms"#, path.display());
    assert_eq!(errors, [expected], "one series is lost, the other 49 are read");
}

#[test]
fn a_damaged_block_is_put_aside_and_the_store_starts() {
    for file in ["index", "meta.json"] {
        let (disk, block) = with_block();
        disk.flip_bit(&block.join(file), 8 * 10);
        let db = open(&disk, Duration::MAX).unwrap();
        assert_eq!(db.blocks().len(), 0);
        let aside = Path::new("/data/quarantine").join(block.file_name().unwrap());
        assert!(disk.files().iter().any(|(path, _)| path.starts_with(&aside)), "{file}");
        append(&db, 1_000_000).unwrap();
    }
}

#[test]
fn a_scrub_finds_every_flipped_bit_and_puts_blocks_aside() {
    let (disk, block) = with_block();
    let db = open(&disk, Duration::MAX).unwrap();
    assert!(db.scrub(true).unwrap().iter().all(|file| file.damage.is_empty() && !file.quarantined));
    drop(db);
    disk.flip_bit(&block.join("chunks/000001"), 8 * 40);
    let db = open(&disk, Duration::MAX).unwrap();
    disk.flip_bit(Path::new("/data/wal/00000000"), 8 * 20);
    let damaged = |quarantine| -> Vec<_> {
        let report = db.scrub(quarantine).unwrap();
        report.into_iter().filter(|file| !file.damage.is_empty()).map(|file| file.path).collect()
    };
    let both = [block.join("chunks/000001"), "/data/wal/00000000".into()];
    assert_eq!(damaged(false), both);
    assert_eq!(db.blocks().len(), 1);
    assert_eq!(damaged(true), both);
    assert_eq!(db.blocks().len(), 0);
    assert_eq!(damaged(true), both[1..]);
}

#[test]
fn a_log_with_a_gap_keeps_what_is_before_it_and_quarantines_the_rest() {
    let disk = Memory::new();
    for ts in 1..5 {
        let db = open(&disk, Duration::MAX).unwrap();
        append(&db, ts * 1000).unwrap();
    }
    tsdb::disk::Disk::remove_file(&disk, Path::new("/data/wal/00000002")).unwrap();
    let db = open(&disk, Duration::MAX).unwrap();
    assert_eq!(samples_each(&db), 2);
    assert!(disk.files().iter().any(|(path, _)| path.starts_with("/data/quarantine")));
    append(&db, 9000).unwrap();
    drop(db);
    assert_eq!(samples_each(&open(&disk, Duration::MAX).unwrap()), 3);
}
