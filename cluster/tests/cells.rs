//! Queries over shards have the answers of one store, whoever fails and whatever moves, or say what they lack.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    dead_code,
    unreachable_pub,
    reason = "a test may, and some parts are other tests'"
)]

#[path = "support/cell.rs"]
mod cell;
#[path = "../../promql/tests/support/generate.rs"]
mod generate;
#[path = "../../promql/tests/support/storage.rs"]
mod storage;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use cell::{cell, deal, places, query};
use generate::Random;
use model::{Exemplar, Labels, Querier as _, Samples, TimeRange};
use promql::{
    Engine, EngineOptions, Expr, Outcome, ParseOptions, QueryError, QueryOptions, QueryValue, parse,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use remote::router::Backlog;
use remote::slots::{Place, SlotMap, slot_of};
use storage::Memory;

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::new(EngineOptions { workers: 1, ..EngineOptions::default() }));

const TIMES: (i64, i64, i64) = (60_000, 560_000, 50_000);

fn alone(store: &dyn model::Querier, expr: &Expr) -> Result<Outcome, QueryError> {
    ENGINE.range(store, expr, TIMES.0, TIMES.1, TIMES.2, &QueryOptions::default())
}

/// Values by series and time, histograms as text with their numbers rounded.
fn points(outcome: &Outcome) -> BTreeMap<(Labels, i64), (f64, String)> {
    let QueryValue::Matrix(matrix) = &outcome.value else { panic!("no matrix") };
    let mut out = BTreeMap::new();
    for series in matrix {
        for sample in series.samples.iter() {
            let value = match sample.value {
                model::Value::Float(value) => (value, String::new()),
                model::Value::Histogram(h) => {
                    let rounded: Vec<String> =
                        h.positive.iter().chain(&h.negative).map(|bucket| format!("{bucket:.6e}")).collect();
                    (h.sum, format!("{} {:.9e} {:?} {rounded:?}", h.schema, h.count, h.positive_spans))
                }
            };
            out.insert((series.labels.clone(), sample.ts), value);
        }
    }
    out
}

fn close(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-12 * (1.0 + a.abs().max(b.abs()))
}

fn same(text: &str, got: &Result<Outcome, QueryError>, want: &Result<Outcome, QueryError>) {
    match (got, want) {
        (Ok(got), Ok(want)) => {
            let (values, wanted) = (points(got), points(want));
            assert_eq!(values.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{text}");
            for (key, (value, histogram)) in &values {
                let (wanted, wanted_histogram) = &wanted[key];
                assert!(close(*value, *wanted), "{text}\n{key:?}: {value}, want {wanted}");
                assert_eq!(histogram, wanted_histogram, "{text}\n{key:?}");
            }
            let sorted = |texts: &[String]| {
                let mut texts = texts.to_vec();
                texts.sort();
                texts
            };
            assert_eq!(sorted(&got.warnings), sorted(&want.warnings), "{text}");
            assert_eq!(sorted(&got.infos), sorted(&want.infos), "{text}");
        }
        (Err(_), Err(_)) => {}
        // Series that labels were taken from can become equal without any shard seeing both.
        (Ok(_), Err(error)) if text.contains("label_") && error.to_string().contains("same labelset") => {}
        _ => panic!("{text}\n{got:?}\n{want:?}"),
    }
}

/// A map of some shards, perhaps in the middle or at the end of a move at 300 s.
fn map(random: &mut Random) -> SlotMap {
    let shards = 1 + random.below(5) as usize;
    let replication = 1 + random.below(shards.min(3) as u64) as usize;
    let map = SlotMap::first(places("s", shards), places("r", 1), replication).unwrap();
    let fresh = Place { name: "fresh".to_owned(), url: "http://fresh".to_owned() };
    match random.below(5) {
        0 => map.with_shard(fresh, 300_000).unwrap(),
        1 => map.with_shard(fresh, 300_000).unwrap().finished(400_000, 0).unwrap(),
        2 if shards > replication => map.without_shard("s0", 300_000).unwrap().finished(400_000, 0).unwrap(),
        _ => map,
    }
}

fn question(random: &mut Random) -> String {
    // Which series these take where several would do is up to their order.
    let is_free = |text: &str| ["topk", "bottomk", "limitk"].iter().any(|word| text.contains(word));
    let inner = std::iter::repeat_with(|| generate::anything(random, 2)).find(|text| !is_free(text));
    let inner = inner.unwrap_or_default();
    let grouping = random.one_of(&["", "by (x)", "by (y)", "by (__name__)", "without (x)", "by (x, y)"]);
    match random.below(10) {
        0 => inner,
        at @ 1..=6 => {
            let op = ["sum", "avg", "count", "min", "max", "group"][at as usize - 1];
            format!("{op} {grouping} ({inner})")
        }
        7 => format!("sum {grouping} (rate(a[2m])) / avg {grouping} (b)"),
        // Ties are broken by the order of series, which functions over several names do not keep.
        8 => format!("topk {grouping} (2, {})", random.one_of(&["a", "b", "rate(a[2m])", "a + b"])),
        _ => format!("bottomk {grouping} (1, a * 1.7)"),
    }
}

fn config() -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    ProptestConfig {
        cases: number("PYROMETER_PROPERTY_CASES").unwrap_or(400),
        rng_seed: RngSeed::Fixed(u64::from(number("PYROMETER_PROPERTY_SEED").unwrap_or(1))),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// What shards evaluate, and what is put together from their series, is what one store answers.
    #[test]
    fn push_down_and_merging_and_one_store_agree(seed: u64) {
        let mut random = if seed % 2 == 0 { Random::new(seed) } else { Random::repeating(seed) };
        let mut store = generate::store(&mut random);
        generate::add_histograms(&mut store, &mut random);
        let map = map(&mut random);
        let shards = deal(&map, &store.0).into_iter().map(|(name, series)| (name, Memory(series))).collect();
        let replication = map.replication();
        let (cell, world) = cell(map, shards, EngineOptions::default());
        let text = question(&mut random);
        let expr = parse(&text, &ParseOptions::experimental()).unwrap();
        let want = alone(&store, &expr);
        same(&text, &query(&cell, &ENGINE, (&text, &expr), TIMES, true), &want);
        let view = cell.view(true, Duration::from_secs(1)).unwrap();
        same(&text, &alone(&view, &expr), &want);
        // One less than there are copies may fail.
        if replication > 1 && !world.lock().unwrap().map.holders(0).iter().any(|holder| !holder.is_written()) {
            let name = format!("s{}", random.below(2));
            world.lock().unwrap().down.insert(name);
            let got = query(&cell, &ENGINE, (&text, &expr), TIMES, false);
            if got.as_ref().is_ok_and(|got| got.warnings.iter().any(|text| text.contains("not complete"))) {
                // In the middle of a move the new owner has not got everything yet.
                let map = cell.map();
                prop_assert!(map.shards().iter().any(|shard| shard.name == "fresh"), "{:?}", got);
            } else {
                same(&text, &got, &want);
            }
        }
    }
}

fn store() -> Memory {
    let mut store = Memory::default();
    for at in 0..200 {
        let pod = format!("p{at}");
        let labels = Labels::from_pairs([("__name__", "x"), ("namespace", "n"), ("pod", pod.as_str())]);
        let mut samples = Samples::default();
        (0..40).for_each(|step| samples.push_float(step * 15_000, f64::from(at) + step as f64));
        store.0.insert(labels, samples);
    }
    store
}

fn memories(map: &SlotMap, store: &Memory) -> BTreeMap<String, Memory> {
    deal(map, &store.0).into_iter().map(|(name, series)| (name, Memory(series))).collect()
}

fn ask(cell: &std::sync::Arc<cluster::Cell>, text: &str, strict: bool) -> Result<Outcome, QueryError> {
    let expr = parse(text, &ParseOptions::default()).unwrap();
    query(cell, &ENGINE, (text, &expr), TIMES, strict)
}

const TEXTS: [&str; 3] = ["sum(rate(x[2m]))", "x", "count_values(\"v\", x) and on () sum(x)"];

#[test]
fn without_a_copy_the_answer_names_the_shard_or_is_an_error() {
    let store = store();
    let map = SlotMap::first(places("s", 3), places("r", 1), 1).unwrap();
    let (cell, world) = cell(map.clone(), memories(&map, &store), EngineOptions::default());
    for text in TEXTS {
        assert!(ask(&cell, text, false).unwrap().warnings.is_empty());
    }
    world.lock().unwrap().down.insert("s1".to_owned());
    for text in TEXTS {
        let outcome = ask(&cell, text, false).unwrap();
        let wanted = "the answer is not complete: shard s1 does not answer: down";
        assert!(outcome.warnings.iter().any(|warning| warning == wanted), "{text}: {:?}", outcome.warnings);
        let error = ask(&cell, text, true).unwrap_err();
        assert!(matches!(&error, QueryError::Storage(_)) && error.to_string() == wanted, "{text}: {error}");
    }
    let view = cell.view(false, Duration::from_secs(1)).unwrap();
    view.label_values("pod", &[], TimeRange::ALL, 0).unwrap();
    assert_eq!(view.warnings().len(), 1);
}

#[test]
fn samples_that_wait_in_a_router_are_read_elsewhere_or_missed_aloud() {
    let store = store();
    let backlog = Backlog { shard: "s0".to_owned(), oldest: 100_000, newest: 200_000 };
    for replication in [1, 2] {
        let map = SlotMap::first(places("s", 3), places("r", 1), replication).unwrap();
        let mut shards = memories(&map, &store);
        // What waits is not in the shard.
        for samples in shards.get_mut("s0").unwrap().0.values_mut() {
            let mut late = samples.clone();
            cell::retain(samples, TimeRange::new(0, 99_999));
            cell::retain(&mut late, TimeRange::new(200_001, 600_000));
            samples.ts.extend(late.ts);
            samples.values.extend(late.values);
        }
        let (cell, world) = cell(map, shards, EngineOptions::default());
        world.lock().unwrap().backlogs.push(backlog.clone());
        for text in TEXTS {
            let outcome = ask(&cell, text, false).unwrap();
            if replication == 1 {
                let wanted = "the answer is not complete: shard s0 has not yet got all samples";
                assert!(outcome.warnings.contains(&wanted.to_owned()), "{:?}", outcome.warnings);
            } else {
                let expr = parse(text, &ParseOptions::default()).unwrap();
                same(text, &Ok(outcome), &alone(&store, &expr));
            }
        }
        // Of other times nothing is missing.
        let expr = parse("sum(x)", &ParseOptions::default()).unwrap();
        let late = (550_000, 550_000, 0);
        assert!(query(&cell, &ENGINE, ("sum(x)", &expr), late, true).is_ok());
        world.lock().unwrap().routers_down = true;
        let outcome = ask(&cell, "sum(x)", false).unwrap();
        assert!(outcome.warnings[0].contains("router r0 does not answer"), "{:?}", outcome.warnings);
        assert!(ask(&cell, "sum(x)", true).is_err());
    }
}

#[test]
fn a_querier_with_an_old_map_reads_the_new_one() {
    let store = store();
    let map = SlotMap::first(places("s", 2), Vec::new(), 1).unwrap();
    let (cell, world) = cell(map.clone(), memories(&map, &store), EngineOptions::default());
    let fresh = Place { name: "fresh".to_owned(), url: "http://fresh".to_owned() };
    let next = map.with_shard(fresh, 0).unwrap().finished(1, 0).unwrap().forgotten(1).unwrap();
    {
        let mut world = world.lock().unwrap();
        world.shards = memories(&next, &store);
        world.epoch = next.epoch();
        world.map = next;
    }
    for text in TEXTS {
        let expr = parse(text, &ParseOptions::default()).unwrap();
        same(text, &ask(&cell, text, true), &alone(&store, &expr));
    }
    assert_eq!(cell.map().epoch(), 4);
    // One that nobody can read yet.
    world.lock().unwrap().epoch = 9;
    let error = ask(&cell, "sum(x)", false).unwrap_err();
    assert!(error.to_string().contains("newer slot map"), "{error}");
}

#[test]
fn a_question_about_one_pod_goes_to_one_shard() {
    let store = store();
    let map = SlotMap::first(places("s", 5), Vec::new(), 1).unwrap();
    let (cell, world) = cell(map.clone(), memories(&map, &store), EngineOptions::default());
    let outcome = ask(&cell, "x{namespace=\"n\",pod=\"p7\"}", true).unwrap();
    assert_eq!(points(&outcome).len(), 11);
    let labels = Labels::from_pairs([("namespace", "n"), ("pod", "p7")]);
    let owner = &map.shards()[map.writers(slot_of(&labels))[0]].name;
    assert_eq!(world.lock().unwrap().asked, [(owner.clone(), 1)].into());
}

#[test]
fn sums_of_shards_lose_no_more_than_one_sum() {
    let mut store = Memory::default();
    for (at, value) in [1e100, 1.0, -1e100, 1.0, 5e-324, 3.0].into_iter().enumerate() {
        let mut samples = Samples::default();
        samples.push_float(60_000, value);
        store.0.insert(Labels::from_pairs([("__name__", "x".to_owned()), ("at", at.to_string())]), samples);
    }
    let map = SlotMap::first(places("s", 5), Vec::new(), 1).unwrap();
    let (cell, _) = cell(map.clone(), memories(&map, &store), EngineOptions::default());
    for text in ["sum(x)", "avg(x)"] {
        let expr = parse(text, &ParseOptions::default()).unwrap();
        let got = points(&query(&cell, &ENGINE, (text, &expr), (60_000, 60_001, 1), true).unwrap());
        let want = if text == "sum(x)" { 5.0 } else { 5.0 / 6.0 };
        assert!(got.values().all(|(value, _)| close(*value, want)), "{text}: {got:?}");
    }
    assert!(cell.parts_pushed() == 2 && cell.bytes_moved() > 0);
}

#[test]
fn exemplars_are_those_that_any_copy_has_once_each() {
    let store = store();
    let map = SlotMap::first(places("s", 3), Vec::new(), 2).unwrap();
    let (cell, world) = cell(map.clone(), memories(&map, &store), EngineOptions::default());
    let series = |name| Labels::from_pairs([("__name__", name)]);
    let exemplar = |ts, value| Exemplar { labels: Labels::from_pairs([("trace", "t")]), ts, value };
    world.lock().unwrap().exemplars = BTreeMap::from([
        ("s0".to_owned(), vec![(series("b"), vec![exemplar(2, 1.0), exemplar(3, f64::NAN)])]),
        ("s1".to_owned(), vec![(series("a"), vec![exemplar(5, 1.0)]), (series("b"), vec![exemplar(1, 1.0)])]),
        (
            "s2".to_owned(),
            vec![(series("b"), vec![exemplar(2, 1.0), exemplar(2, 2.0), exemplar(3, f64::NAN)])],
        ),
    ]);
    let ask = |strict| {
        let view = cell.view(strict, Duration::from_secs(1)).unwrap();
        let found = view.exemplars(&[Vec::new()], TimeRange::ALL);
        let shown = |all: Vec<(Labels, Vec<Exemplar>)>| -> Vec<(String, Vec<(i64, String)>)> {
            let pairs = |own: Vec<Exemplar>| own.iter().map(|one| (one.ts, one.value.to_string())).collect();
            all.into_iter().map(|(labels, own)| (labels.to_string(), pairs(own))).collect()
        };
        found.map(|all| (shown(all), view.warnings()))
    };
    let pair = |ts, value: &str| (ts, value.to_owned());
    let (found, warnings) = ask(true).unwrap();
    let all = vec![pair(1, "1"), pair(2, "1"), pair(2, "2"), pair(3, "NaN")];
    assert_eq!(found.iter().map(|(_, own)| own.clone()).collect::<Vec<_>>(), [vec![pair(5, "1")], all]);
    assert!(warnings.is_empty(), "{warnings:?}");
    // One is not needed where each slot has two; without two, the answer says whom it lacks.
    world.lock().unwrap().down.insert("s1".to_owned());
    assert_eq!(ask(true).unwrap().0.len(), 1);
    world.lock().unwrap().down.insert("s2".to_owned());
    let (found, warnings) = ask(false).unwrap();
    assert!(found.len() == 1 && warnings.concat().contains("shard s2 does not answer"), "{warnings:?}");
    assert!(ask(true).is_err());
}
