//! Any text is a slot map or an error; what is read is written and read back, and moves of it are maps.

#![no_main]

use libfuzzer_sys::fuzz_target;
use remote::slots::{Place, SlotMap};

fuzz_target!(|text: &str| {
    let Ok(map) = SlotMap::parse(text) else { return };
    assert_eq!(SlotMap::parse(&map.to_json()).as_ref(), Ok(&map));
    let fresh = Place { name: "fresh".into(), url: "http://fresh".into() };
    if let Ok(next) = map.with_shard(fresh, 1_000) {
        assert!(next.epoch() > map.epoch());
        let _ = next.finished(i64::MAX, 0);
    }
    let _ = map.forgotten(1_000);
});
