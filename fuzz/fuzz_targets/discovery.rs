//! Any bytes as the answer of a name server, as the head and chunks of an HTTP answer, or as a certificate.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| scraper::hostile::read(input.0, input.1));
