//! Any remote-write message of either version is stored or refused, compressed or not.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use remote::receive::{Compression, Encoding, Protocol, Receiver};
use tsdb::disk::memory::Memory;
use tsdb::{Db, Options};

static RECEIVER: LazyLock<Receiver> = LazyLock::new(|| {
    let options = Options { series_max: Some(1000), ..Options::default() };
    let disk = Arc::new(Memory::new());
    let db = Db::open_on(disk, "/data".as_ref(), options, &mut |_| {}).expect("an empty directory opens");
    Receiver::new(Arc::new(db), [1, 2])
});

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (second, raw, bytes) = input;
    let protocol = if second { Protocol::V2 } else { Protocol::V1 };
    let body = if raw { bytes.to_vec() } else { snap::raw::Encoder::new().compress_vec(bytes).expect("it compresses") };
    let _ = RECEIVER.receive(Encoding { protocol, compression: Compression::Snappy }, &body);
});
