//! Any OTLP request in either encoding is stored or refused.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use remote::otlp::{Format, Options as OtlpOptions, Receiver};
use tsdb::disk::memory::Memory;
use tsdb::{Db, Options};

static RECEIVERS: LazyLock<[Receiver; 2]> = LazyLock::new(|| {
    let options = Options { series_max: Some(1000), ..Options::default() };
    let disk = Arc::new(Memory::new());
    let db = Db::open_on(disk, "/data".as_ref(), options, &mut |_| {}).expect("an empty directory opens");
    let db = Arc::new(db);
    [false, true].map(|custom| {
        let options = OtlpOptions { histograms_to_custom: custom, promote_scope: custom, ..OtlpOptions::default() };
        Receiver::new(Arc::clone(&db), options)
    })
});

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (json, custom, body) = input;
    let format = if json { Format::Json } else { Format::Protobuf };
    let _ = RECEIVERS[usize::from(custom)].receive(format, body);
});
