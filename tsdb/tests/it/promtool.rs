//! What we write, as Prometheus' own tool reads it.

use std::path::Path;
use std::process::Command;

use model::Labels;
use tsdb::{Db, Options};

/// Runs promtool; `None` where it is not installed.
fn promtool(arguments: &[&str], dir: &Path) -> Option<String> {
    let output = match Command::new("promtool").args(arguments).arg(dir).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "promtool: {error}");
            eprintln!("SKIPPED: promtool: {error}");
            return None;
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    Some(text(&output.stdout))
}

fn fill(db: &Db, steps: i64) {
    for step in 0..steps {
        let mut batch = db.appender();
        for n in 0..50 {
            let labels = Labels::from_pairs([
                ("__name__", "requests_total"),
                ("instance", &format!("host-{n}")),
                ("zone", ["a", "b"][n % 2]),
            ]);
            let series = batch.series(&labels).unwrap();
            batch.append(series, 1_700_000_000_000 + step * 15_000, (step * n as i64) as f64).unwrap();
        }
        batch.commit().unwrap();
    }
}

#[test]
fn promtool_reads_our_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options { retention_ms: None, ..Options::default() }).unwrap();
    fill(&db, 1000);
    db.cut_head().unwrap();
    let blocks = db.blocks();
    drop(db);
    let Some(list) = promtool(&["tsdb", "list"], dir.path()) else { return };
    for block in &blocks {
        assert!(list.contains(&block.ulid.to_string()), "{list}");
    }
    let dump = promtool(&["tsdb", "dump"], dir.path()).unwrap();
    assert_eq!(dump.lines().count(), 50 * 1000);
    assert!(dump.contains(r#"{__name__="requests_total", instance="host-7", zone="b"} 6993 1700014985000"#));
    let analysis = promtool(&["tsdb", "analyze"], dir.path()).unwrap();
    assert!(analysis.contains("Series: 50"), "{analysis}");
}

#[test]
fn promtool_reads_our_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options { retention_ms: None, ..Options::default() }).unwrap();
    fill(&db, 300);
    drop(db);
    let Some(dump) = promtool(&["tsdb", "dump"], dir.path()) else { return };
    assert_eq!(dump.lines().count(), 50 * 300);
}
