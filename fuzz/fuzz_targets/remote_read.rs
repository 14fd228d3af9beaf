//! Any remote-read request is read or refused, compressed or not; so are the frames of any streamed answer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (raw, bytes) = input;
    let body = if raw { bytes.to_vec() } else { snap::raw::Encoder::new().compress_vec(bytes).expect("it compresses") };
    let mut frames = remote::read::Frames::default();
    frames.push(bytes);
    while let Ok(Some(series)) = frames.take() {
        for one in series {
            let _ = one.decode(model::TimeRange::ALL, &mut model::Samples::default());
        }
    }
    if let Ok(request) = remote::read::parse(&body) {
        assert!(request.queries.iter().all(|query| query.range.start <= query.range.end));
    }
});
