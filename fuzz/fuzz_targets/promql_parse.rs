//! Any text is read or refused; what is read prints to a text that reads back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use promql::{ParseOptions, parse};

fuzz_target!(|text: &str| {
    let options = ParseOptions::experimental();
    let Ok(expr) = parse(text, &options) else { return };
    let again = parse(&expr.to_string(), &options).expect("the canonical form is read");
    assert_eq!(again, expr);
    let pretty = parse(&expr.pretty(), &options).expect("the pretty form is read");
    assert_eq!(pretty, expr);
});
