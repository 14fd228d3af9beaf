//! Any page in any format is read to its end or refused, the same whether or not series are predicted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scraper::exposition::{Format, ParseOptions, Parser};

const FORMATS: [Format; 5] =
    [Format::Text004, Format::Text100, Format::OpenMetrics001, Format::OpenMetrics100, Format::Protobuf];

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, page) = input;
    let options = ParseOptions {
        start_times: choice & 0x10 != 0,
        native_histograms: choice & 0x20 != 0,
        always_classic: choice & 0x40 != 0,
    };
    let mut parser = Parser::new(page, FORMATS[usize::from(choice & 7) % FORMATS.len()], options);
    // Each entry takes at least a byte of the page, and a protobuf histogram few hundred entries a byte.
    let mut entries = 0usize;
    while let Ok(Some(_)) = parser.next(&mut |_| None) {
        entries += 1;
        assert!(entries <= 1000 * (page.len() + 1), "the parser does not come to an end");
    }
});
