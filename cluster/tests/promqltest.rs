//! The shared PromQL scripts through shards: reader and checks are those of the `promql` crate's own tests;
//! here every question is put to a cell of 1, 3 or 5 shards that have each series once or twice, also while a shard that
//! was added takes its slots, and when it has them.
//! `PYROMETER_PROMQLTEST_DIR` names another folder of scripts.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "shared with other test executables"
)]

use std::collections::BTreeMap;
use std::path::Path;

use promql::{Engine, EngineOptions, Features, Limits, ParseOptions, QueryError};
use remote::slots::{Place, SlotMap};

#[path = "support/cell.rs"]
mod cell;
#[path = "../../promql/tests/promqltest/check.rs"]
mod check;
#[path = "../../promql/tests/promqltest/load.rs"]
mod load;
#[path = "../../promql/tests/support/storage.rs"]
mod memory;
#[path = "../../promql/tests/promqltest/script.rs"]
mod script;
#[path = "../../promql/tests/support/mod.rs"]
mod support;
#[path = "../../promql/tests/promqltest/variants.rs"]
mod variants;

/// What the loader fills and the checks read: merged from all shards.
mod storage {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use cluster::Cell;
    use model::{Labels, Matcher, Querier, Samples, Selection, SeriesSet, StorageError, TimeRange};

    /// One shard.
    pub use crate::memory::Memory as Shard;

    #[derive(Default)]
    pub struct Memory(pub BTreeMap<Labels, Samples>, pub Option<Arc<Cell>>);

    impl Memory {
        fn view(&self) -> Result<cluster::View, StorageError> {
            self.1.as_ref().unwrap().view(true, Duration::from_secs(1))
        }
    }

    impl Querier for Memory {
        fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
            let view = self.view()?;
            let set = view.select(selection)?;
            let mut own = Shard::default();
            let mut samples = Samples::default();
            for at in 0..set.len() {
                set.samples(at, TimeRange::ALL, &mut samples)?;
                own.0.insert(set.labels(at), samples.clone());
            }
            Ok(Box::new(Owned(own.0.into_iter().collect())))
        }

        fn label_names(&self, _: &[Matcher], _: TimeRange, _: usize) -> Result<Vec<String>, StorageError> {
            Ok(Vec::new())
        }

        fn label_values(
            &self,
            _: &str,
            _: &[Matcher],
            _: TimeRange,
            _: usize,
        ) -> Result<Vec<String>, StorageError> {
            Ok(Vec::new())
        }
    }

    /// Outlives the view it was read from.
    struct Owned(Vec<(Labels, Samples)>);

    impl SeriesSet for Owned {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
            self.0[index].0.iter().for_each(|(name, value)| visit(name, value));
        }

        fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
            *into = self.0[index].1.clone();
            crate::cell::retain(into, range);
            Ok(())
        }
    }
}

use script::{Command, Eval};
use storage::{Memory, Shard};

/// Scripts in which the metric name is dropped only at the end.
const DELAYED: [&str; 4] = ["histograms", "name_label_dropping", "native_histograms", "type_and_unit"];

/// Scripts in which start timestamps count.
const STARTED: [&str; 1] = ["start_timestamps"];

/// Where the move of slots to one more shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    None,
    /// Samples go to the old owner and to the new one, which has none from before.
    Begun,
    /// What is older has stayed with the old owner, which gets no more.
    Ended,
}

/// In the middle of most scripts.
const MOVED_AT_MS: i64 = 300_000;

/// Shards, copies, and how far a move has come.
const CELLS: [(usize, usize, Move); 9] = [
    (1, 1, Move::None),
    (3, 1, Move::None),
    (5, 1, Move::None),
    (3, 2, Move::None),
    (5, 2, Move::None),
    (3, 1, Move::Begun),
    (3, 1, Move::Ended),
    (3, 2, Move::Begun),
    (3, 2, Move::Ended),
];

fn map((shards, replication, moved): (usize, usize, Move)) -> SlotMap {
    let map = SlotMap::first(cell::places("s", shards), cell::places("r", 1), replication).unwrap();
    let fresh = Place { name: "fresh".to_owned(), url: "http://fresh".to_owned() };
    match moved {
        Move::None => map,
        Move::Begun => map.with_shard(fresh, MOVED_AT_MS).unwrap(),
        Move::Ended => map.with_shard(fresh, MOVED_AT_MS).unwrap().finished(MOVED_AT_MS + 1, 0).unwrap(),
    }
}

fn ask(engine: &Engine, store: &Memory, eval: &Eval) -> Result<promql::Outcome, QueryError> {
    let expr = promql::parse(&eval.query, &ParseOptions::experimental())
        .map_err(|error| QueryError::Execution(error.to_string()))?;
    let times = (eval.start_ms, eval.end_ms, eval.step_ms);
    cell::query(store.1.as_ref().unwrap(), engine, (&eval.query, &expr), times, true)
}

/// A script that gives a series twice means the later one; no store has two samples of one time.
fn keep_last(samples: &mut model::Samples) {
    fn keep<T>(times: &mut Vec<i64>, values: &mut Vec<T>) {
        if !times.is_sorted_by(|a, b| a < b) {
            let last: BTreeMap<i64, T> = times.drain(..).zip(values.drain(..)).collect();
            (*times, *values) = last.into_iter().unzip();
        }
    }
    keep(&mut samples.ts, &mut samples.values);
    keep(&mut samples.histogram_ts, &mut samples.histograms);
}

#[derive(Default)]
struct Tally {
    cases: usize,
    pushed: u64,
    faults: Vec<String>,
}

fn run(path: &Path, shape: (usize, usize, Move), tally: &mut Tally) {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let options = EngineOptions {
        limits: Limits { samples_max: 10_000, ..Limits::default() },
        features: Features {
            delayed_name_removal: DELAYED.contains(&name.as_str()),
            start_timestamps: STARTED.contains(&name.as_str()),
        },
        workers: 1,
        ..EngineOptions::default()
    };
    let engine = Engine::new(options.clone());
    let map = map(shape);
    let mut store = Memory::default();
    let stock = |store: &mut Memory| {
        store.0.values_mut().for_each(keep_last);
        let dealt =
            cell::deal(&map, &store.0).into_iter().map(|(name, series)| (name, Shard(series))).collect();
        store.1 = Some(cell::cell(map.clone(), dealt, options.clone()).0);
    };
    stock(&mut store);
    for command in script::read(&std::fs::read_to_string(path).unwrap()) {
        match command {
            Command::Clear => store.0.clear(),
            Command::Load { step_ms, lines, with_custom_buckets } => {
                load::load(&mut store, step_ms, &lines, with_custom_buckets);
            }
            Command::Eval(eval) => {
                tally.cases += 1;
                let verdict = check::check(&eval, &ask(&engine, &store, &eval));
                // The other ways of asking are asked once, of what is put together from all shards.
                let verdict = verdict.and_then(|()| match shape {
                    (3, 1, Move::None) => variants::check(&engine, &store, &eval),
                    _ => Ok(()),
                });
                let (shards, copies, moved) = shape;
                let at = format!("{name}:{} on {shards} shards, {copies} copies, move {moved:?}", eval.line);
                tally.faults.extend(verdict.err().map(|fault| format!("{at}: {}: {fault}", eval.query)));
                continue;
            }
        }
        tally.pushed += store.1.as_ref().unwrap().parts_pushed();
        stock(&mut store);
    }
    tally.pushed += store.1.as_ref().unwrap().parts_pushed();
}

#[test]
fn scripts_pass_on_shards() {
    let Some(folder) = support::shared("PYROMETER_PROMQLTEST_DIR", "promqltest") else { return };
    let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == "test")).collect();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let run_all = |shape| {
            let mut tally = Tally::default();
            paths.iter().for_each(|path| run(path, shape, &mut tally));
            tally
        };
        let runs: Vec<_> = CELLS.into_iter().map(|shape| scope.spawn(move || run_all(shape))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let cases: usize = tallies.iter().map(|tally| tally.cases).sum();
    let pushed: u64 = tallies.iter().map(|tally| tally.pushed).sum();
    let faults: Vec<String> = tallies.into_iter().flat_map(|tally| tally.faults).collect();
    println!("{} of {cases} cases pass, {pushed} parts were evaluated in shards", cases - faults.len());
    assert!(faults.is_empty(), "{} of {cases} cases fail:\n{}", faults.len(), faults.join("\n"));
    assert!(pushed > 100, "only {pushed} parts were evaluated in shards");
}
