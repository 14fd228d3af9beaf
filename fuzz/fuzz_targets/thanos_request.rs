//! Any bytes are answered as a request of the StoreAPI, or refused.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    thanos::fuzzing::answer(data);
});
