//! Any answer to a remote read, of samples or of chunks, is read or refused.

#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| remote::read::fuzzing::read_answer(message));
