//! Any bytes are a question to a shard or an answer of one, or an error; what is read is written and read back.

#![no_main]

use cluster::{Answer, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (raw, bytes) = input;
    let sealed = || {
        let frame = zstd::bulk::compress(bytes, 1).expect("it compresses");
        std::iter::once(1).chain(frame).collect()
    };
    let message: Vec<u8> = if raw { bytes.to_vec() } else { sealed() };
    if let Ok(request) = Request::decode(&message) {
        assert_eq!(Request::decode(&request.encode()).as_ref(), Ok(&request));
    }
    if let Ok(answer) = Answer::decode(&message) {
        let again = Answer::decode(&answer.encode()).expect("it was written by ourselves");
        assert_eq!(format!("{again:?}"), format!("{answer:?}"));
    }
});
