use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::TimeRange;
use proptest::prelude::*;
use tsdb::disk::Disk;
use tsdb::disk::memory::{Faults, Memory};

use super::super::*;

fn record(seq: u64, bytes: usize) -> Record {
    let start = i64::try_from(seq).unwrap();
    let body = vec![u8::try_from(seq % 251).unwrap(); bytes];
    Record {
        seq,
        epoch: seq / 10,
        range: TimeRange::new(start, start + 5),
        samples: 2,
        body: Bytes::from(body),
    }
}

fn open(disk: &Arc<Memory>) -> (Spool, u64, Vec<String>) {
    Spool::open(Arc::clone(disk) as Arc<dyn Disk>, Path::new("/spool/s"), 100 << 20).unwrap()
}

fn all(spool: &Spool) -> Vec<Record> {
    let mut out = Vec::new();
    while let Some(record) = spool.front().unwrap() {
        spool.pop(&record).unwrap();
        out.push(record);
    }
    out
}

#[test]
fn records_come_back_in_order_over_several_segments() {
    let disk = Arc::new(Memory::new());
    let (spool, ..) = open(&disk);
    let records: Vec<_> = (1..40).map(|seq| record(seq, 1 << 20)).collect();
    records.iter().for_each(|record| spool.append(record).unwrap());
    assert_eq!(spool.stats().segments, 5);
    assert_eq!(spool.range(), Some(TimeRange::new(1, 44)));
    let (again, last, damage) = open(&Arc::new(disk.after_kill()));
    assert_eq!((last, damage), (39, vec![]));
    assert_eq!(all(&again), records);
    for record in &records[..20] {
        assert_eq!(spool.front().unwrap().as_ref(), Some(record));
        spool.pop(record).unwrap();
    }
    assert!(disk.files().len() < 4, "segments that are done are gone");
    assert_eq!(all(&spool), records[20..]);
    assert_eq!((spool.range(), spool.stats()), (None, SpoolStats::default()));
}

#[test]
fn a_damaged_record_ends_its_segment_and_is_told() {
    let disk = Arc::new(Memory::new());
    let (spool, ..) = open(&disk);
    (1..=3).for_each(|seq| spool.append(&record(seq, 100)).unwrap());
    let path = disk.files()[0].0.clone();
    disk.flip_bit(&path, (16 + 148 + 60) * 8);
    let (again, last, damage) = open(&Arc::new(disk.after_kill()));
    assert_eq!(last, 1);
    assert!(damage[0].contains("the last 296 bytes are no whole record"), "{damage:?}");
    assert_eq!(all(&again), [record(1, 100)]);
    // One that is open notices when it gets there, and goes on behind.
    spool.pop(&spool.front().unwrap().unwrap()).unwrap();
    assert!(matches!(spool.front(), Err(SpoolError::Io { .. })));
    assert_eq!(spool.abandon_front().unwrap().1, 4);
    spool.append(&record(4, 10)).unwrap();
    assert_eq!(all(&spool), [record(4, 10)]);
}

#[test]
fn what_cannot_be_written_is_not_there_and_what_follows_is() {
    let disk = Arc::new(Memory::new());
    let (spool, ..) = open(&disk);
    spool.append(&record(1, 1_000)).unwrap();
    disk.set_faults(Faults { space_bytes: Some(500), ..Faults::default() });
    assert!(matches!(spool.append(&record(2, 1_000)), Err(SpoolError::Io { .. })));
    disk.set_faults(Faults::default());
    spool.append(&record(3, 1_000)).unwrap();
    let (again, ..) = open(&Arc::new(disk.after_kill()));
    assert_eq!(all(&again), [record(1, 1_000), record(3, 1_000)]);
    let (small, ..) = Spool::open(Arc::new(Memory::new()), Path::new("/s"), 100).unwrap();
    assert!(matches!(small.append(&record(1, 200)), Err(SpoolError::Full { .. })));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(seq: u64, epoch: u64, range: (i64, i64), samples: u64, body: Vec<u8>, rest: Vec<u8>) {
        let range = TimeRange::new(range.0, range.1);
        let record = Record { seq, epoch, range, samples, body: body.into() };
        let mut bytes = Vec::new();
        encode(&record, &mut bytes).unwrap();
        let length = bytes.len();
        prop_assert!((0..length).all(|cut| decode(&bytes[..cut]).is_none()));
        bytes.extend(rest);
        prop_assert_eq!(decode(&bytes), Some((record, length)));
    }

    #[test]
    fn any_bytes_are_a_segment_or_an_error(bytes: Vec<u8>) {
        let _ = decode_segment(&bytes);
        let with_magic: Vec<u8> = b"PYSPOOL1".iter().chain(&bytes).copied().collect();
        let _ = decode_segment(&with_magic);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Appends, pops, kills and power cuts at random: what was kept before a sync is there after a power cut,
    /// what was kept at all after a kill, in order; what was popped may come again, nothing else.
    #[test]
    fn crashes_lose_nothing_that_was_promised(steps in prop::collection::vec((0u8..8, 1usize..100_000), 1..30), seed: u64) {
        let mut random = seed | 1;
        let mut next = move || { random ^= random << 13; random ^= random >> 7; random ^= random << 17; random };
        let mut disk = Arc::new(Memory::new());
        let (mut spool, ..) = open(&disk);
        let (mut waiting, mut synced): (VecDeque<Record>, u64) = (VecDeque::new(), 0);
        let mut seq = 0;
        for (step, size) in steps {
            match step {
                0..=3 => {
                    seq += 1;
                    // Now and then one that soon fills a segment.
                    let bytes = if step == 0 { size * 30 } else { size / 50 };
                    spool.append(&record(seq, bytes)).unwrap();
                    waiting.push_back(record(seq, bytes));
                }
                4 => if let Some(front) = spool.front().unwrap() {
                    prop_assert_eq!(Some(&front), waiting.front());
                    spool.pop(&front).unwrap();
                    waiting.pop_front();
                },
                5 => {
                    spool.sync().unwrap();
                    synced = seq;
                }
                _ => {
                    let cut = step == 7;
                    disk = Arc::new(if cut { disk.after_power_cut(&mut next) } else { disk.after_kill() });
                    let last;
                    (spool, last, _) = open(&disk);
                    let mut found = Vec::new();
                    // Looks without popping: a second spool over the same files.
                    let (copy, ..) = open(&Arc::new(disk.after_kill()));
                    found.extend(all(&copy));
                    prop_assert!(found.is_sorted_by_key(|record| record.seq));
                    prop_assert!(found.iter().all(|found| *found == record(found.seq, found.body.len())));
                    let promised = waiting.iter().filter(|record| !cut || record.seq <= synced);
                    for record in promised {
                        prop_assert!(found.contains(record), "{} is lost", record.seq);
                    }
                    seq = seq.max(last);
                    waiting = found.into();
                    synced = waiting.back().map_or(synced, |record| record.seq);
                }
            }
        }
    }
}
