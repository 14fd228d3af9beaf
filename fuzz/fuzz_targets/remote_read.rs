//! Any remote-read request is read or refused, compressed or not.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (raw, bytes) = input;
    let body = if raw { bytes.to_vec() } else { snap::raw::Encoder::new().compress_vec(bytes).expect("it compresses") };
    if let Ok(queries) = remote::read::parse(&body) {
        assert!(queries.iter().all(|query| query.range.start <= query.range.end));
    }
});
