//! Runs the shared scripts.
//!
//! `PYROMETER_PROMQLTEST_DIR` names another folder of scripts; `PYROMETER_PROMQLTEST_FILE` one file, for
//! which a line `{"line":N,"ok":bool}` is printed for each case.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test may"
)]

#[path = "promqltest/check.rs"]
mod check;
#[path = "promqltest/load.rs"]
mod load;
#[path = "promqltest/script.rs"]
mod script;
#[path = "support/storage.rs"]
mod storage;
mod support;
#[path = "promqltest/variants.rs"]
mod variants;

use std::path::Path;

use promql::{Engine, EngineOptions, Features, Limits, ParseOptions, QueryError, QueryOptions};
use script::{Command, Eval};
use storage::Memory;

/// Scripts in which the metric name is dropped only at the end.
const DELAYED: [&str; 4] = ["histograms", "name_label_dropping", "native_histograms", "type_and_unit"];

fn engine(name: &str, workers: usize) -> Engine {
    Engine::new(EngineOptions {
        limits: Limits { samples_max: 10_000, ..Limits::default() },
        features: Features {
            delayed_name_removal: DELAYED.contains(&name),
            start_timestamps: name == "start_timestamps",
        },
        workers,
        ..EngineOptions::default()
    })
}

fn ask(engine: &Engine, store: &Memory, eval: &Eval) -> Result<promql::Outcome, QueryError> {
    let expr = promql::parse(&eval.query, &ParseOptions::experimental())
        .map_err(|error| QueryError::Execution(error.to_string()))?;
    if eval.step_ms == 0 {
        engine.instant(store, &expr, eval.start_ms, &QueryOptions::default())
    } else {
        engine.range(store, &expr, eval.start_ms, eval.end_ms, eval.step_ms, &QueryOptions::default())
    }
}

/// The outcome of each case of a file: its line, and what is wrong.
fn run(path: &Path, workers: usize) -> Vec<(usize, Result<(), String>)> {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let engine = engine(name, workers);
    let mut store = Memory::default();
    let mut out = Vec::new();
    for command in script::read(&text) {
        match command {
            Command::Clear => store.0.clear(),
            Command::Load { step_ms, lines, with_custom_buckets } => {
                load::load(&mut store, step_ms, &lines, with_custom_buckets);
            }
            Command::Eval(eval) => {
                let verdict = check::check(&eval, &ask(&engine, &store, &eval))
                    .and_then(|()| variants::check(&engine, &store, &eval))
                    .map_err(|fault| format!("{}: {fault}", eval.query));
                out.push((eval.line, verdict));
            }
        }
    }
    out
}

#[test]
fn scripts() {
    if let Some(file) = std::env::var_os("PYROMETER_PROMQLTEST_FILE") {
        for (line, verdict) in run(Path::new(&file), 0) {
            println!("{{\"line\":{line},\"ok\":{}}}", verdict.is_ok());
        }
        return;
    }
    let Some(folder) = support::shared("PYROMETER_PROMQLTEST_DIR", "promqltest") else { return };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    files.sort();
    let (mut total, mut passed, mut failures) = (0, 0, Vec::new());
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let verdicts = run(&path, 2);
        let ok = verdicts.iter().filter(|(_, verdict)| verdict.is_ok()).count();
        eprintln!("{name}: {ok} of {}", verdicts.len());
        total += verdicts.len();
        passed += ok;
        let faults = verdicts.into_iter().filter_map(|(line, verdict)| Some((line, verdict.err()?)));
        failures.extend(faults.map(|(line, fault)| format!("{name}:{line}: {fault}")));
    }
    eprintln!("all: {passed} of {total}");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
