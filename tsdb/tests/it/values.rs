//! Names and values of labels against what the selected series say, wherever they are.

use std::collections::BTreeSet;

use model::{Labels, MatchOp, Matcher, Querier as _, Selection, TimeRange};
use proptest::prelude::*;
use tsdb::{Db, Options};

/// What happens to a store.
#[derive(Clone, Debug)]
enum Step {
    /// A sample of each of these series.
    Append(Vec<u8>),
    Cut,
    Delete(u8, i64, i64),
    /// The values of a label are put in order.
    Rank(usize),
    Ask(usize, usize, (i64, i64), usize),
}

const NAMES: [&str; 4] = ["__name__", "pod", "namespace", "absent"];

fn series(n: u8) -> Labels {
    let (pod, namespace) = (format!("pod-{}", u32::from(n) * 7919 % 256), format!("n-{}", n % 3));
    let pairs = [("__name__", "cpu"), ("namespace", &*namespace), ("pod", &*pod)];
    Labels::from_pairs(pairs.into_iter().take(if n.is_multiple_of(5) { 2 } else { 3 }))
}

fn selectors() -> Vec<Vec<Matcher>> {
    let matcher = |name, op, value| Matcher::new(name, op, value).unwrap();
    vec![
        vec![],
        vec![Matcher::equal("namespace", "n-1")],
        vec![Matcher::equal("__name__", "cpu"), matcher("pod", MatchOp::Regex, "pod-1.*")],
        vec![matcher("pod", MatchOp::NotEqual, "")],
        vec![matcher("pod", MatchOp::Equal, "")],
        vec![Matcher::equal("pod", "pod-0")],
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let span = (0i64..30, 0i64..30).prop_map(|(a, b)| (a.min(b) * 1000, a.max(b) * 1000));
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Step::Append),
        1 => Just(Step::Cut),
        1 => (0u8..3, span.clone()).prop_map(|(n, (from, to))| Step::Delete(n, from, to)),
        2 => (0..NAMES.len()).prop_map(Step::Rank),
        6 => (0..NAMES.len(), 0usize..6, prop_oneof![Just((i64::MIN, i64::MAX)), span], 0usize..4)
            .prop_map(|(name, selector, span, limit)| Step::Ask(name, selector, span, limit)),
    ]
}

/// Names, and values of `name`, that the selected series say.
fn said(db: &Db, name: &str, matchers: &[Matcher], range: TimeRange) -> [BTreeSet<String>; 2] {
    let snapshot = db.snapshot();
    let set = snapshot.select(&Selection::new(matchers, range)).unwrap();
    let (mut names, mut values) = (BTreeSet::new(), BTreeSet::new());
    for at in 0..set.len() {
        let labels = set.labels(at);
        names.extend(labels.iter().map(|(name, _)| name.to_owned()));
        values.extend(labels.get(name).map(str::to_owned));
    }
    [names, values]
}

fn ask(db: &Db, name: &str, matchers: &[Matcher], range: TimeRange, limit: usize) {
    let snapshot = db.snapshot();
    let found = |limit| {
        let names = snapshot.label_names(matchers, range, limit).unwrap();
        [names, snapshot.label_values(name, matchers, range, limit).unwrap()]
    };
    let (all, most) = (found(0), if limit == 0 { usize::MAX } else { limit });
    let cut = all.clone().map(|texts| texts.into_iter().take(most).collect::<Vec<_>>());
    assert_eq!(found(limit), cut, "{name} over {matchers:?} in {range:?}");
    let said = said(db, name, matchers, range);
    if matchers.is_empty() && range != TimeRange::ALL {
        // Of a block that overlaps the range all names and values count, as in Prometheus.
        let ever = self::said(db, name, matchers, TimeRange::ALL);
        for ((all, said), ever) in all.into_iter().zip(said).zip(ever) {
            assert!(all.is_sorted_by(|a, b| a < b));
            let all = BTreeSet::from_iter(all);
            assert!(all.is_superset(&said) && all.is_subset(&ever), "{name} in {range:?}");
        }
    } else {
        assert_eq!(all, said.map(Vec::from_iter), "{name} over {matchers:?} in {range:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn are_those_of_the_selected_series(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { retention_ms: None, block_range_ms: 10_000, ..Options::default() };
        let db = Db::open(dir.path(), options).unwrap();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Append(numbers) => {
                    now += 1000;
                    let mut batch = db.appender();
                    for n in numbers {
                        let series = batch.series(&series(n)).unwrap();
                        // One sample a step; the second of a series is a duplicate.
                        let _ = batch.append(series, now, f64::from(n));
                    }
                    batch.commit().unwrap();
                }
                Step::Cut => drop(db.cut_head().unwrap()),
                Step::Delete(n, from, to) => {
                    let matchers = [Matcher::equal("namespace", &format!("n-{n}"))];
                    db.delete(&matchers, TimeRange::new(from, to)).unwrap();
                }
                Step::Rank(name) => tsdb::probes::rank(&db, NAMES[name]),
                Step::Ask(name, selector, (from, to), limit) => {
                    ask(&db, NAMES[name], &selectors()[selector], TimeRange::new(from, to), limit);
                }
            }
        }
        for (selector, name) in selectors().iter().zip(NAMES.iter().cycle()) {
            ask(&db, name, selector, TimeRange::ALL, 0);
        }
    }
}
