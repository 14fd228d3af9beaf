//! A process on the real disk, killed again and again while it appends, maps, cuts and reads its history.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use model::Labels;
use tsdb::{Db, Options};

use super::reading::all;

const SERIES: i64 = 50;
/// Where the child finds its directory, and its first step.
const DIR: &str = "KILLED_STORE_DIR";
const FROM: &str = "KILLED_STORE_FROM";

fn options() -> Options {
    Options {
        retention_ms: None,
        block_range_ms: 200_000,
        wal_segment_bytes_max: 100_000,
        ..Options::default()
    }
}

fn labels(n: i64) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())])
}

/// Appends until it is killed, and says what is committed. Without a directory it does nothing.
#[test]
fn child() {
    let (Some(dir), Ok(from)) = (std::env::var_os(DIR), std::env::var(FROM)) else { return };
    let from: i64 = from.parse().unwrap();
    let db = Db::open_at_once(Path::new(&dir), options(), &mut |_| {}).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| db.attach_history(&mut |_| {}).unwrap());
        // Nobody lives on when the parent is gone.
        for step in from..from + 20_000 {
            let mut batch = db.appender();
            for n in 0..SERIES {
                let series = batch.series(&labels(n)).unwrap();
                batch.append(series, step * 1_000, (step * n) as f64).unwrap();
            }
            batch.commit().unwrap();
            // The test harness writes to the same place.
            println!("\ncommitted {step}");
            std::io::stdout().flush().unwrap();
            if step % 20 == 0 {
                db.maintain(step * 1_000).unwrap();
            }
        }
    });
}

#[test]
fn a_killed_process_has_lost_nothing_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    // First and last step of each run that were committed for sure.
    let (mut runs, mut from) = (Vec::new(), 1_i64);
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--nocapture"])
            .env(DIR, dir.path())
            .env(FROM, from.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines.filter_map(|line| line.strip_prefix("committed ")?.parse::<i64>().ok()).last()
        });
        std::thread::sleep(Duration::from_millis(40 + round * 67 % 300));
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(last) = reader.join().unwrap() {
            runs.push((from, last));
            // What was committed without a word may be there, too.
            from = last + 100;
        }
        // Every other time, the next child reads the history that the one before has not finished with.
        if round % 2 == 0 {
            continue;
        }
        let db = Db::open(dir.path(), options()).unwrap();
        let content = all(&db.snapshot());
        for n in 0..SERIES {
            let samples: BTreeMap<i64, u64> =
                content.get(&labels(n).to_string()).into_iter().flatten().copied().collect();
            for step in runs.iter().flat_map(|&(first, last)| first..=last) {
                let expected = ((step * n) as f64).to_bits();
                assert_eq!(samples.get(&(step * 1_000)), Some(&expected), "series {n}, step {step}");
            }
        }
    }
    assert!(runs.iter().map(|(first, last)| last - first).sum::<i64>() > 0, "{runs:?}");
}
