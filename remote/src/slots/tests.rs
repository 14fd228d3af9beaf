use std::collections::BTreeSet;

use model::{Labels, Timestamp};
use proptest::prelude::*;

use super::*;

fn places(count: usize) -> Vec<Place> {
    (0..count)
        .map(|at| Place { name: format!("s{at}"), url: format!("http://127.0.0.1:{}", 9000 + at) })
        .collect()
}

fn owners(map: &SlotMap, slot: u16) -> BTreeSet<usize> {
    let owners = map.holders(slot).iter().filter(|holder| holder.is_written() && !holder.leaving);
    owners.map(|holder| holder.shard).collect()
}

fn loads(map: &SlotMap) -> Vec<usize> {
    let mut loads = vec![0; map.shards().len()];
    (0..SLOTS).flat_map(|slot| owners(map, slot)).for_each(|shard| loads[shard] += 1);
    loads
}

#[test]
fn slots_are_the_same_for_ever() {
    let of = |pairs: &[(&str, &str)]| slot_of(&Labels::from_pairs(pairs.iter().copied()));
    let pod = of(&[("__name__", "a"), ("namespace", "n"), ("pod", "p"), ("container", "c")]);
    assert_eq!(pod, of(&[("namespace", "n"), ("pod", "p"), ("node", "x")]));
    let key = b"\x01\x01\0\0\0n\x01\0\0\0p";
    assert_eq!(u64::from(pod), xxh3_64(key) % 16_384);
    assert_eq!(of(&[("__name__", "a"), ("x", "1"), ("le", "5")]), of(&[("__name__", "b"), ("x", "1")]));
    let key = b"\0\x01\0\0\0x\x01\0\0\x001";
    assert_eq!(u64::from(of(&[("x", "1")])), xxh3_64(key) % 16_384);
    // Golden: changing these moves every series of every installation.
    assert_eq!((pod, of(&[("x", "1")]), of(&[])), GOLDEN);
}

const GOLDEN: (u16, u16, u16) = (14_072, 10_474, 11_483);

#[test]
fn where_a_label_ends_is_part_of_the_key() {
    let of = |pairs: &[(&str, &str)]| slot_of(&Labels::from_pairs(pairs.iter().copied()));
    let keys: BTreeSet<u16> = [
        of(&[("a", "bc"), ("d", "e")]),
        of(&[("a", "b"), ("cd", "e")]),
        of(&[("ab", "c"), ("d", "e")]),
        of(&[("namespace", "ab"), ("pod", "c")]),
        of(&[("namespace", "a"), ("pod", "bc")]),
    ]
    .into();
    assert_eq!(keys.len(), 5);
}

#[test]
fn wrong_maps_name_the_field() {
    let good = SlotMap::first(places(3), places(1), 2).unwrap();
    assert_eq!(SlotMap::parse(&good.to_json()).as_ref(), Ok(&good));
    let change =
        |from: &str, to: &str| SlotMap::parse(&good.to_json().replace(from, to)).unwrap_err().to_string();
    for (from, to, part) in [
        ("\"replication\": 2", "\"replication\": 4", "replication: 4"),
        ("\"replication\": 2", "\"replication\": 1", "holders of slot 0: 2 are written to"),
        ("\"shard\": \"s2\"", "\"shard\": \"s9\"", "].shard: \"s9\" is not among"),
        ("\"name\": \"s1\"", "\"name\": \"../s1\"", "shards[1].name: \"../s1\""),
        ("\"name\": \"s1\"", "\"name\": \"s0\"", "shards[1].name: \"s0\" is there twice"),
        ("http://127.0.0.1:9002", "ftp://x", "shards[2].url"),
        ("\"last\": 16383", "\"last\": 16382", "slot 16383 and those behind it"),
        ("\"last\": 16383", "\"last\": 16384", "it does not go from"),
        ("\"epoch\": 1", "\"epoch\": 1, \"color\": 2", "unknown field `color`"),
        ("\"epoch\": 1", "\"epoch\": -1", "line 2"),
    ] {
        let error = change(from, to);
        assert!(error.contains(part), "{error}");
    }
    let error = SlotMap::read("/nonexistent/map.json".as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/map.json: "), "{error}");
}

#[test]
fn places_change_and_slots_do_not() {
    let map = SlotMap::first(places(3), places(1), 2).unwrap();
    assert_eq!(map.with_places(&places(3), places(1)).unwrap(), None);
    let mut elsewhere = places(2);
    elsewhere[1].url = "http://10.0.0.1:9090".to_owned();
    let moved = map.with_places(&elsewhere, places(2)).unwrap().unwrap();
    assert_eq!((moved.epoch(), moved.routers().len(), moved.shards().len()), (2, 2, 3), "s2 stays");
    assert_eq!((&moved.shards()[1].url, &moved.shards()[2]), (&elsewhere[1].url, &map.shards()[2]));
    assert!((0..SLOTS).all(|slot| moved.holders(slot) == map.holders(slot)));
    elsewhere[1].url = "nowhere".to_owned();
    assert!(map.with_places(&elsewhere, places(1)).is_err());
}

#[test]
fn a_move_goes_through_its_steps() {
    let first = SlotMap::first(places(2), Vec::new(), 1).unwrap();
    let third = Place { name: "new".to_owned(), url: "http://127.0.0.1:1".to_owned() };
    let adding = first.with_shard(third.clone(), 1_000).unwrap();
    assert!(adding.is_moving());
    assert_eq!(adding.epoch(), 2);
    assert_eq!(adding.with_shard(third, 5).unwrap_err(), MoveError::Moving);
    let moved: Vec<u16> = (0..SLOTS).filter(|slot| adding.writers(*slot).len() == 2).collect();
    assert_eq!(moved.len(), 16_384 / 3);
    assert_eq!(adding.finished(1_500, 600).unwrap_err(), MoveError::TooEarly(1_600));
    let added = adding.finished(1_600, 600).unwrap();
    for slot in &moved {
        let holders = added.holders(*slot);
        assert_eq!((holders[0].until, holders[1].from, holders[1].shard), (1_000, 1_000, 2));
        assert_eq!(added.writers(*slot), [2]);
    }
    let settled = added.forgotten(1_000).unwrap();
    assert!(moved.iter().all(|slot| *settled.holders(*slot) == [Holder::always(2)]));
    let removing = settled.without_shard("s0", 5_000).unwrap();
    let removed = removing.finished(9_000, 0).unwrap();
    assert_eq!(removed.shards().len(), 3);
    assert_eq!(loads(&removed)[0], 0);
    let gone = removed.forgotten(5_000).unwrap();
    assert_eq!(gone.shards().iter().map(|shard| shard.name.as_str()).collect::<Vec<_>>(), ["s1", "new"]);
    assert!(matches!(gone.without_shard("s0", 1), Err(MoveError::NoShard(_))));
    assert!(matches!(
        SlotMap::first(places(2), Vec::new(), 2).unwrap().without_shard("s0", 1),
        Err(MoveError::Map(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Shards come and go at random: every slot keeps its number of owners, loads stay even, and nothing
    /// moves that need not.
    #[test]
    fn moves_are_minimal_and_even(count in 1usize..9, replication in 1usize..4, steps in prop::collection::vec(any::<u8>(), 1..6)) {
        let replication = replication.min(count);
        let mut map = SlotMap::first(places(count), Vec::new(), replication).unwrap();
        let (mut now, mut born) = (0, count);
        for step in steps {
            now += 1_000;
            let before = map.clone();
            let names: Vec<String> = map.shards().iter().map(|shard| shard.name.clone()).collect();
            let next = if step % 2 == 0 || names.len() <= replication {
                born += 1;
                map.with_shard(Place { name: format!("n{born}"), url: format!("http://h{born}") }, now)
            } else {
                map.without_shard(&names[usize::from(step) % names.len()], now)
            }
            .unwrap();
            prop_assert!(SlotMap::parse(&next.to_json()).as_ref() == Ok(&next));
            let mut moved = 0;
            for slot in 0..SLOTS {
                let (old, new) = (owners(&before, slot), owners(&next, slot));
                prop_assert_eq!(new.len(), replication);
                moved += new.difference(&old).count();
                // Whoever was written to still is.
                prop_assert!(before.writers(slot).iter().all(|shard| next.writers(slot).contains(shard)));
            }
            let least = if next.shards().len() > before.shards().len() {
                usize::from(SLOTS) * replication / next.shards().len()
            } else {
                loads(&before)[usize::from(step) % names.len()]
            };
            prop_assert!(moved <= least, "{moved} moved, {least} must");
            map = next.finished(now + 10, 5).unwrap().forgotten(Timestamp::MAX).unwrap();
            let loads = loads(&map);
            let (low, high) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            prop_assert!(high - low <= 2_000 && *low > 0, "{loads:?}");
        }
    }

    #[test]
    fn sets_of_slots_read_back(slots in prop::collection::btree_set(0..SLOTS, 0..50)) {
        let set: SlotSet = slots.iter().copied().collect();
        prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), slots.clone());
        prop_assert_eq!(set.len(), slots.len());
        prop_assert_eq!(SlotSet::from_bytes(&set.to_bytes()), Some(set));
    }

    #[test]
    fn any_text_is_a_map_or_an_error(text in ".{0,200}") {
        let _ = SlotMap::parse(&text);
    }
}
