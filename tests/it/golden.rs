//! Recorded requests against a recorded block, with the answers of Prometheus 3.14's engine.
//!
//! `PYROMETER_GOLDEN_DIR` names another folder of the same kind: blocks in `tsdb-blocks/`, requests with
//! their answers in `tsdb-blocks-expected.jsonl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use model::{Labels, MatchOp, Matcher, TimeRange};
use remote::read::ReadQuery;
use remote::receive::Compression;
use serde_json::Value;

use crate::answers::difference;
use crate::process::{Server, escape, get};
use crate::remote_write::snappy;
use crate::shards::{Cell, post};

fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("PYROMETER_GOLDEN_DIR").map(PathBuf::from);
    let shared = std::env::var_os("PYROMETER_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let folder = given.unwrap_or_else(|| shared.join("data"));
    if folder.join("tsdb-blocks-expected.jsonl").exists() {
        return Some(folder);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} has no golden answers", folder.display());
    eprintln!("SKIPPED: {} has no golden answers", folder.display());
    None
}

/// A folder for a server, with a copy of the blocks.
fn copied(folder: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let copied = Command::new("cp").arg("-r").arg(folder.join("tsdb-blocks")).arg(&data).status().unwrap();
    assert!(copied.success());
    dir
}

/// Puts all recorded requests to the server at `url`.
fn ask(folder: &Path, url: &str) {
    let lines = std::fs::read_to_string(folder.join("tsdb-blocks-expected.jsonl")).unwrap();
    let (mut right, mut wrong) = (0, Vec::new());
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let parameters = case["params"].as_object().unwrap().iter();
        let query: Vec<String> =
            parameters.map(|(k, v)| format!("{k}={}", escape(v.as_str().unwrap()))).collect();
        let (status, body) =
            get(&format!("{url}{}?{}", case["path"].as_str().unwrap(), query.join("&")), &[]);
        let ours: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        match fault(&case, status, &ours) {
            None => right += 1,
            Some(fault) => wrong.push(format!("{}: {fault}", case["params"])),
        }
    }
    println!("{right} of {} recorded answers", right + wrong.len());
    assert!(wrong.is_empty(), "{right} right, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_recorded_answer_is_given() {
    let Some(folder) = folder() else { return };
    let dir = copied(&folder);
    let server = Server::start(dir.path(), &["--kubernetes=off"]);
    server.wait_for_history();
    ask(&folder, &server.url);
}

/// The samples of the recorded blocks, sent to a router in the order of their times.
fn send(folder: &Path, router: &str) {
    let dir = copied(folder);
    let db = tsdb::Db::open(&dir.path().join("data"), tsdb::Options::default()).unwrap();
    let (first, last) = (db.blocks()[0].min_time, db.blocks().last().unwrap().max_time);
    for start in (first..last).step_by(30_000) {
        let range = TimeRange::new(start, start + 29_999);
        let query =
            ReadQuery { range, matchers: vec![Matcher::new("__name__", MatchOp::NotEqual, "").unwrap()] };
        let answer = remote::read::answer(&db.snapshot(), &[query], &Labels::empty(), 0).unwrap();
        // An answer of one result is that result in a field; and it is, but for its name, a WriteRequest.
        let mut message = Vec::new();
        Compression::Snappy.decompress_into(&answer, 1 << 28, &mut message).unwrap();
        let head = 2 + message[1..].iter().take_while(|byte| **byte >= 0x80).count();
        let (status, told) = post(router, &snappy(&message[head..])).unwrap();
        assert_eq!(status, 204, "{told}");
    }
}

#[test]
fn a_querier_gives_every_recorded_answer_also_while_slots_move() {
    let Some(folder) = folder() else { return };
    for (shards, replication) in [(5, 1), (3, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let mut cell = Cell::start(dir.path(), shards, 1, replication);
        send(&folder, &cell.routers[0].address);
        cell.until_drained();
        ask(&folder, &cell.querier.url());
        if replication == 2 {
            cell.add_shard(dir.path());
            ask(&folder, &cell.querier.url());
            // One copy of each slot is enough.
            cell.shards[0].kill();
            ask(&folder, &cell.querier.url());
        }
    }
}

/// What is wrong with our answer, if anything is.
fn fault(case: &Value, status: u16, ours: &Value) -> Option<String> {
    let theirs = &case["response"];
    if u64::from(status) != case["http_status"].as_u64().unwrap() {
        return Some(format!("status {status} for {}: {}", case["http_status"], ours["error"]));
    }
    if status != 200 {
        return (ours["errorType"] != theirs["errorType"])
            .then(|| format!("errorType {}", ours["errorType"]));
    }
    for notes in ["warnings", "infos"] {
        if ours[notes].is_null() != theirs[notes].is_null() {
            return Some(format!("{notes}: {} for {}", ours[notes], theirs[notes]));
        }
    }
    if ours["data"]["resultType"] != theirs["data"]["resultType"] {
        return Some(format!("type {}", ours["data"]["resultType"]));
    }
    let (mut ours, mut theirs) = (ours["data"]["result"].clone(), theirs["data"]["result"].clone());
    let query = case["params"]["query"].as_str().unwrap();
    let is_ordered = ["sort", "topk", "bottomk"].iter().any(|prefix| query.starts_with(prefix));
    for rows in [&mut ours, &mut theirs].into_iter().filter_map(Value::as_array_mut) {
        if !is_ordered && rows.first().is_some_and(Value::is_object) {
            rows.sort_by_key(|row| row["metric"].to_string());
        }
    }
    difference(&ours, &theirs, 1e-9)
}
