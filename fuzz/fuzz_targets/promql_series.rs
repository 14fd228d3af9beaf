//! Any description of a series is read or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Repetitions ask for memory on purpose; long counts are left out.
    if !text.split('x').any(|part| part.bytes().take_while(u8::is_ascii_digit).count() > 3) {
        let _ = promql::series::parse(text);
    }
});
