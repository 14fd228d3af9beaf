//! Any bytes are a spool segment, as far as they are, or an error; records that are read are written the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use remote::router::{decode_segment, encode};

fuzz_target!(|bytes: &[u8]| {
    let whole = [b"PYSPOOL1\0\0\0\0\0\0\0\0".as_slice(), bytes].concat();
    let _ = decode_segment(bytes);
    let (records, rest) = decode_segment(&whole).expect("it begins as it must");
    let mut again = Vec::new();
    records.iter().for_each(|record| encode(record, &mut again).expect("it was that small"));
    assert_eq!(again, whole[16..whole.len() - rest]);
});
