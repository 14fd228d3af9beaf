//! Any text as a file of adapter rules is taken, and then names metrics and makes queries, or is refused with a message.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use metrics_api::adapter;

static ENGINE: LazyLock<promql::Engine> = LazyLock::new(|| promql::Engine::new(promql::EngineOptions::default()));

/// A store in which every rule finds a series.
struct One(model::Labels, model::Samples);

impl model::SeriesSet for One {
    fn len(&self) -> usize {
        1
    }

    fn visit_labels(&self, _: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.0.iter().for_each(|(name, value)| visit(name, value));
    }

    fn samples(&self, _: usize, _: model::TimeRange, into: &mut model::Samples) -> Result<(), model::StorageError> {
        *into = self.1.clone();
        Ok(())
    }
}

struct Store;

fn one() -> One {
    let labels = [("__name__", "http_requests_total"), ("namespace", "ns"), ("pod", "p"), ("node", "n")];
    let mut samples = model::Samples::default();
    samples.push_float(NOW - 15_000, 1.0);
    samples.push_float(NOW - 1_000, 2.5);
    One(model::Labels::from_pairs(labels), samples)
}

const NOW: i64 = 1_795_236_760_000;

impl model::Querier for Store {
    fn select(&self, _: &model::Selection<'_>) -> Result<Box<dyn model::SeriesSet + '_>, model::StorageError> {
        Ok(Box::new(one()))
    }

    fn label_names(&self, _: &[model::Matcher], _: model::TimeRange, _: usize) -> Result<Vec<String>, model::StorageError> {
        Ok(one().0.iter().map(|(name, _)| name.to_owned()).collect())
    }

    fn label_values(
        &self,
        name: &str,
        _: &[model::Matcher],
        _: model::TimeRange,
        _: usize,
    ) -> Result<Vec<String>, model::StorageError> {
        Ok(one().0.get(name).map(str::to_owned).into_iter().collect())
    }
}

fuzz_target!(|text: &str| {
    match adapter::parse(text) {
        Ok(rules) => {
            for rule in rules.custom.iter().chain(&rules.external) {
                assert!(rule.metric_name("http_requests_total").is_none_or(|name| !name.is_empty()));
            }
            for trial in rules.try_all(&ENGINE, &Store, NOW).expect("the store can be read") {
                for path in trial.paths {
                    assert!(path.values.is_ok_and(|values| !values.is_empty()) || !path.path.is_empty());
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
