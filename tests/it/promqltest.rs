//! The shared PromQL scripts once more, with every sample stored by and read back from the real store.
//!
//! Reader and checks are those of the `promql` crate's own tests; here `Memory`, which they fill, is
//! backed by a data directory. `PYROMETER_PROMQLTEST_DIR` names another folder of scripts.

#![allow(unreachable_pub, clippy::cast_possible_truncation, reason = "shared with another test executable")]

use std::path::{Path, PathBuf};

use promql::{Engine, EngineOptions, Features, Limits, ParseOptions, QueryError, QueryOptions};

#[path = "../../promql/tests/promqltest/check.rs"]
mod check;
#[path = "../../promql/tests/promqltest/load.rs"]
mod load;
#[path = "../../promql/tests/promqltest/script.rs"]
mod script;
#[path = "../../promql/tests/promqltest/variants.rs"]
mod variants;

/// What the loader fills and the engine reads.
mod storage {
    use std::collections::BTreeMap;

    use model::{HistogramValue, Labels, Matcher, Querier, Samples, Selection, SeriesSet, StorageError};
    use model::{TimeRange, Value};
    use tsdb::{Db, FloatChunks, Options, Snapshot};

    /// Series as loaded, and a view of the store that holds the same.
    #[derive(Default)]
    pub struct Memory(pub BTreeMap<Labels, Samples>, Option<(Snapshot, Db, tempfile::TempDir)>);

    impl Memory {
        /// Stores everything anew, in order of time, half of it in a block.
        pub fn store(&mut self) {
            let dir = tempfile::tempdir().unwrap();
            // Files without start times show that the usual encoding gives the same.
            let keeps_starts =
                |column: &Samples| !(column.start_ts.is_empty() && column.histogram_start_ts.is_empty());
            let keeps_starts = self.0.values().any(keeps_starts);
            let options = Options {
                wal_sync_interval: std::time::Duration::MAX,
                float_chunks: if keeps_starts { FloatChunks::Xor2 } else { FloatChunks::Xor },
                ..Options::default()
            };
            let db = Db::open(dir.path(), options).unwrap();
            let mut samples = Vec::new();
            for (labels, column) in &self.0 {
                let own: Vec<_> = column.iter().collect();
                // A script that gives a series twice means the later one.
                let last = own.chunk_by(|a, b| a.ts == b.ts).filter_map(<[_]>::last);
                let start = |times: &[i64], starts: &[i64], ts: i64| {
                    let at = times.iter().rposition(|other| *other == ts);
                    at.and_then(|at| starts.get(at).copied()).unwrap_or(0)
                };
                samples.extend(last.map(|sample| {
                    let start = match sample.value {
                        Value::Float(_) => start(&column.ts, &column.start_ts, sample.ts),
                        Value::Histogram(_) => {
                            start(&column.histogram_ts, &column.histogram_start_ts, sample.ts)
                        }
                    };
                    (sample.clone(), start, labels)
                }));
            }
            samples.sort_by_key(|(sample, ..)| sample.ts);
            for (at, batch) in samples.chunk_by(|a, b| a.0.ts == b.0.ts).enumerate() {
                let mut appender = db.appender();
                for (sample, start, labels) in batch {
                    let when = (sample.ts, *start);
                    let series = appender.series(labels).unwrap();
                    match &sample.value {
                        Value::Float(value) => appender.append_started(series, when, *value).unwrap(),
                        Value::Histogram(histogram) => {
                            let histogram = HistogramValue::Float(histogram.as_ref().clone());
                            appender
                                .append_histogram_started(series, when, &histogram)
                                .unwrap_or_else(|error| panic!("{labels}: {error}: {histogram:?}"));
                        }
                    }
                }
                appender.commit().unwrap();
                if at == 20 {
                    db.cut_head().unwrap();
                }
            }
            self.1 = Some((db.snapshot(), db, dir));
        }

        fn snapshot(&self) -> &Snapshot {
            &self.1.as_ref().unwrap().0
        }
    }

    impl Querier for Memory {
        fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
            self.snapshot().select(selection)
        }

        fn label_names(
            &self,
            matchers: &[Matcher],
            range: TimeRange,
            limit: usize,
        ) -> Result<Vec<String>, StorageError> {
            self.snapshot().label_names(matchers, range, limit)
        }

        fn label_values(
            &self,
            name: &str,
            matchers: &[Matcher],
            range: TimeRange,
            limit: usize,
        ) -> Result<Vec<String>, StorageError> {
            self.snapshot().label_values(name, matchers, range, limit)
        }
    }
}

use script::{Command, Eval};
use storage::Memory;

/// Scripts in which the metric name is dropped only at the end.
const DELAYED: [&str; 4] = ["histograms", "name_label_dropping", "native_histograms", "type_and_unit"];

fn ask(engine: &Engine, store: &Memory, eval: &Eval) -> Result<promql::Outcome, QueryError> {
    let expr = promql::parse(&eval.query, &ParseOptions::experimental())
        .map_err(|error| QueryError::Execution(error.to_string()))?;
    let options = QueryOptions::default();
    if eval.step_ms == 0 {
        engine.instant(store, &expr, eval.start_ms, &options)
    } else {
        engine.range(store, &expr, eval.start_ms, eval.end_ms, eval.step_ms, &options)
    }
}

/// Cases and faults of a file.
fn run(path: &Path) -> (usize, Vec<String>) {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let engine = Engine::new(EngineOptions {
        limits: Limits { samples_max: 10_000, ..Limits::default() },
        features: Features {
            delayed_name_removal: DELAYED.contains(&name.as_str()),
            start_timestamps: name == "start_timestamps",
        },
        ..EngineOptions::default()
    });
    let mut store = Memory::default();
    store.store();
    let (mut cases, mut faults) = (0, Vec::new());
    for command in script::read(&std::fs::read_to_string(path).unwrap()) {
        match command {
            Command::Clear => store.0.clear(),
            Command::Load { step_ms, lines, with_custom_buckets } => {
                load::load(&mut store, step_ms, &lines, with_custom_buckets);
            }
            Command::Eval(eval) => {
                cases += 1;
                let verdict = check::check(&eval, &ask(&engine, &store, &eval))
                    .and_then(|()| variants::check(&engine, &store, &eval));
                faults.extend(
                    verdict.err().map(|fault| format!("{name}:{}: {}: {fault}", eval.line, eval.query)),
                );
                continue;
            }
        }
        store.store();
    }
    (cases, faults)
}

#[test]
fn scripts_pass_on_the_real_store() {
    let shared = std::env::var_os("PYROMETER_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let folder =
        std::env::var_os("PYROMETER_PROMQLTEST_DIR").map_or_else(|| shared.join("promqltest"), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", folder.display());
        eprintln!("SKIPPED: {} is missing", folder.display());
        return;
    };
    let (mut cases, mut faults) = (0, Vec::new());
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|extension| extension == "test") {
            let (count, found) = run(&path);
            cases += count;
            faults.extend(found);
        }
    }
    println!("{} of {cases} cases pass", cases - faults.len());
    assert!(faults.is_empty(), "{} of {cases} cases fail:\n{}", faults.len(), faults.join("\n"));
}
