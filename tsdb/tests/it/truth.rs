//! Directories that Prometheus left behind, against what Prometheus says is in them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use model::{Labels, Querier, Samples, Selection, TimeRange};
use serde_json::Value;
use tsdb::{Db, Options};

use super::sha256;

/// The directory with recorded data. Skips loudly where it is absent, except in CI.
fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("PYROMETER_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let data = root.join("data");
    if data.is_dir() {
        return Some(data);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is absent; set PYROMETER_SHARED", data.display());
    eprintln!("SKIPPED: {} is absent; set PYROMETER_SHARED", data.display());
    None
}

/// Unpacks a `.tar.zst` of plain files and directories.
fn unpack(archive: &Path, to: &Path) {
    let tar = zstd::stream::decode_all(std::fs::File::open(archive).unwrap()).unwrap();
    let mut rest = tar.as_slice();
    while let Some((header, body)) = rest.split_first_chunk::<512>() {
        if header[0] == 0 {
            break;
        }
        let text = |range: std::ops::Range<usize>| {
            let field = std::str::from_utf8(&header[range]).unwrap();
            field.split('\0').next().unwrap_or_default().trim().to_owned()
        };
        let path = to.join(text(0..100));
        let bytes = usize::from_str_radix(&text(124..136), 8).unwrap();
        if header[156] == b'5' {
            std::fs::create_dir_all(&path).unwrap();
        } else {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &body[..bytes]).unwrap();
        }
        rest = &body[bytes.next_multiple_of(512)..];
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            // Not a copy of the file's mode: the original may be read-only.
            std::fs::write(&target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn truth(path: &Path) -> (Value, BTreeMap<Labels, Value>) {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let totals = lines.next().unwrap();
    let series = lines.map(|line| {
        let pairs = line["labels"].as_object().unwrap().iter();
        (Labels::from_pairs(pairs.map(|(name, value)| (name, value.as_str().unwrap()))), line)
    });
    (totals, series.collect())
}

/// What is asserted of one series, in the words of the truth files.
fn describe(samples: &Samples) -> Value {
    let floats: Vec<(i64, f64)> = samples
        .ts
        .iter()
        .copied()
        .zip(samples.values.iter().copied())
        .filter(|&(_, value)| !model::is_stale_nan(value))
        .collect();
    let histograms: Vec<_> =
        samples.histogram_ts.iter().zip(&samples.histograms).filter(|(_, h)| !h.is_stale()).collect();
    let mut bytes = Vec::new();
    for (ts, value) in &floats {
        bytes.extend_from_slice(&ts.to_le_bytes());
        if value.is_nan() {
            bytes.extend_from_slice(b"NaN");
        } else {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    let times = floats.iter().map(|float| float.0).chain(histograms.iter().map(|(ts, _)| **ts));
    let digest = sha256::hex(&bytes)[..24].to_owned();
    let mut out = serde_json::json!({
        "floats": floats.len(),
        "histograms": histograms.len(),
        "first_ms": times.clone().min(),
        "last_ms": times.max(),
    });
    if let Some((_, last)) = floats.last() {
        out["floats_sha256"] = digest.into();
        out["last_value"] = model::float::format_fixed(*last).into();
    }
    if let Some((_, last)) = histograms.last() {
        let text = |value| model::float::format_fixed(value);
        // As the API lists them: from the most negative bucket to the most positive, empty ones left out.
        let zero = std::iter::once(&last.zero_count);
        let buckets = last.negative.iter().rev().chain(zero).chain(&last.positive);
        let buckets: Vec<String> = buckets.filter(|&&count| count != 0.0).map(|&count| text(count)).collect();
        out["last_histogram"] =
            serde_json::json!({ "count": text(last.count), "sum": text(last.sum), "buckets": buckets });
    }
    out
}

fn check(db: &Db, truth_path: &Path) {
    let (totals, mut expected) = truth(truth_path);
    let snapshot = db.snapshot();
    let set = snapshot.select(&Selection::new(&[], TimeRange::ALL)).unwrap();
    let mut samples = Samples::default();
    let mut found = [0u64; 3];
    for index in 0..set.len() {
        let labels = set.labels(index);
        set.samples(index, TimeRange::ALL, &mut samples).unwrap();
        let actual = describe(&samples);
        let (floats, histograms) =
            (actual["floats"].as_u64().unwrap(), actual["histograms"].as_u64().unwrap());
        if floats + histograms == 0 {
            continue; // only staleness markers, which the recorded API does not show
        }
        found = [found[0] + 1, found[1] + floats, found[2] + histograms];
        let Some(expected) = expected.remove(&labels) else { unreachable!("{labels} was invented") };
        for key in ["floats", "histograms", "first_ms", "last_ms", "floats_sha256"] {
            if key != "floats_sha256" || floats > 0 {
                assert_eq!(actual[key], expected[key], "{key} of {labels}");
            }
        }
        let buckets = expected["last_histogram"]["buckets"].as_array();
        let buckets: Option<Vec<&str>> =
            buckets.map(|buckets| buckets.iter().map(|bucket| bucket[3].as_str().unwrap()).collect());
        if let Some(buckets) = buckets {
            assert_eq!(actual["last_histogram"]["buckets"], serde_json::json!(buckets), "{labels}");
        }
        for key in ["count", "sum"] {
            let number = |value: &Value| value["last_histogram"][key].as_str().map(str::to_owned);
            let parse = |text: Option<String>| text.and_then(|text| model::float::parse(&text));
            let (actual, expected) = (parse(number(&actual)), parse(number(&expected)));
            assert_eq!(actual.map(f64::to_bits), expected.map(f64::to_bits), "{key} of the last of {labels}");
        }
    }
    assert!(expected.is_empty(), "lost: {:?}", expected.keys().take(5).collect::<Vec<_>>());
    let totals = ["series", "float_samples", "histogram_samples"].map(|key| totals[key].as_u64().unwrap());
    assert_eq!(found, totals);
}

fn options() -> Options {
    Options { retention_ms: None, ..Options::default() }
}

#[test]
fn a_block_reads_as_prometheus_reads_it() {
    let Some(data) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&data.join("tsdb-blocks"), dir.path());
    let db = Db::open(dir.path(), options()).unwrap();
    check(&db, &data.join("tsdb-blocks-truth.jsonl.gz"));
}

/// Opens what a killed Prometheus left; then again after our own log was added, after everything was
/// mapped, and after everything was cut into a block.
fn recover(name: &str) {
    let Some(data) = shared() else { return };
    let set = data.join("wal-crash").join(name);
    let truth = set.join("truth.jsonl.gz");
    let dir = tempfile::tempdir().unwrap();
    unpack(&set.join("data.tar.zst"), dir.path());
    let open = || Db::open(dir.path(), options()).unwrap();
    let db = open();
    check(&db, &truth);
    let mapped = std::fs::read_dir(dir.path().join("chunks_head")).unwrap().count();
    assert_eq!(mapped, if name == "checkpoint" { 2 } else { 1 }, "good files of mapped chunks are kept");
    drop(db);
    let db = open();
    check(&db, &truth);
    db.maintain(0).unwrap();
    check(&db, &truth);
    drop(db);
    let db = open();
    check(&db, &truth);
    db.cut_head().unwrap();
    check(&db, &truth);
    drop(db);
    check(&open(), &truth);
}

#[test]
fn a_log_of_one_segment_recovers() {
    recover("plain");
}

#[test]
fn a_log_with_checkpoint_and_mapped_chunks_recovers() {
    recover("checkpoint");
}

#[test]
fn a_torn_log_recovers() {
    recover("torn");
}

#[test]
fn a_damaged_log_recovers_up_to_the_damage() {
    recover("corrupt");
}
