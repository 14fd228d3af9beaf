//! Metrics of objects and of the world outside, by rules in prometheus-adapter's format, evaluated over the store at
//! request time.
//!
//! Better than the adapter on purpose: there is no relist, so that a metric is there as soon as its first sample is;
//! timestamps are those of samples and windows those of queries; an absent value is an error with its reason, and so is
//! NaN, where the adapter says 0; label values of a request are meant literally, never as patterns; a query that
//! gives one object several values is refused, where the adapter takes the last one.

mod absence;
mod file;
mod reading;
pub(crate) mod resource;
mod rules;
mod template;
mod trial;
pub(crate) mod values;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use k8s::ResourceKind;
use model::{METRIC_NAME, MatchOp, Matcher, Querier, StorageError, TimeRange, Timestamp};
use promql::Engine;

pub use file::{FileError, parse};
pub use rules::{AdapterRules, Rule};
pub use trial::{Trial, TrialPath, TrialValue};

use rules::Kinds;

/// A series without a sample for this long is not listed as a metric.
const LISTED_MS: i64 = 600_000;
/// Names of series are looked up anew after this time, or at once if one is missed.
const NAMES_AGE_MAX_MS: i64 = 15_000;

/// Rules in force, with the engine that evaluates their queries.
pub struct Adapter {
    engine: Arc<Engine>,
    current: RwLock<Arc<Resolved>>,
}

/// Rules with the kinds of objects that their labels name.
pub(crate) struct Resolved {
    pub(crate) rules: AdapterRules,
    pub(crate) kinds: Kinds,
    /// Labels and what they name, of each custom and each external rule.
    custom: Vec<Vec<(String, ResourceKind)>>,
    external: Vec<Vec<(String, ResourceKind)>>,
    names: Mutex<HashMap<(bool, usize), (Timestamp, Names)>>,
}

/// Metrics with the series that they come from, ascending.
type Names = Arc<BTreeMap<String, Vec<String>>>;

/// A metric that exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    /// `pods/http_requests`, or `queue_depth` for an external one.
    pub(crate) name: String,
    pub(crate) namespaced: bool,
}

impl Adapter {
    /// An adapter without rules.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        let resolved = Resolved::new(AdapterRules::default(), Kinds(ResourceKind::usual()));
        Self { engine, current: RwLock::new(Arc::new(resolved)) }
    }

    /// Puts rules into force.
    pub fn set_rules(&self, rules: AdapterRules) {
        let kinds = self.current().kinds.clone();
        self.replace(Resolved::new(rules, kinds));
    }

    /// Says which kinds of objects there are besides the usual ones.
    pub fn set_kinds(&self, kinds: Vec<ResourceKind>) {
        let current = self.current();
        if kinds != current.kinds.0 {
            self.replace(Resolved::new(current.rules.clone(), Kinds(kinds)));
        }
    }

    fn replace(&self, resolved: Resolved) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(resolved);
    }

    pub(crate) fn current(&self) -> Arc<Resolved> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// `name != ""`
fn present(name: &str) -> Matcher {
    // A comparison without a pattern cannot be refused.
    Matcher::new(name, MatchOp::NotEqual, "").unwrap_or_else(|_| Matcher::equal(name, ""))
}

fn with(matchers: &[Matcher], more: impl IntoIterator<Item = Matcher>) -> Vec<Matcher> {
    matchers.iter().cloned().chain(more).collect()
}

impl Resolved {
    fn new(rules: AdapterRules, kinds: Kinds) -> Self {
        let labels = |rules: &[Rule]| rules.iter().map(|rule| rule.labelling.resolve(&kinds)).collect();
        let (custom, external) = (labels(&rules.custom), labels(&rules.external));
        Self { custom, external, rules, kinds, names: Mutex::default() }
    }

    fn recent(now: Timestamp) -> TimeRange {
        TimeRange::new(now - LISTED_MS, now)
    }

    /// The metrics of a rule, from the names in the index.
    fn names(&self, querier: &dyn Querier, rule: &Rule, now: Timestamp) -> Result<Names, StorageError> {
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for series in querier.label_values(METRIC_NAME, &rule.matchers, Self::recent(now), 0)? {
            if let Some(metric) = rule.metric_name(&series) {
                out.entry(metric).or_default().push(series);
            }
        }
        Ok(Arc::new(out))
    }

    /// The series of one metric of a rule. What was found lately is good enough for a metric that is in it.
    fn series(
        &self,
        querier: &dyn Querier,
        (external, at): (bool, usize),
        metric: &str,
        now: Timestamp,
    ) -> Result<Vec<String>, StorageError> {
        let known = self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&(external, at)).cloned();
        if let Some((then, names)) = known
            && (0..NAMES_AGE_MAX_MS).contains(&(now - then))
            && let Some(series) = names.get(metric)
        {
            return Ok(series.clone());
        }
        let rule = &(if external { &self.rules.external } else { &self.rules.custom })[at];
        let names = self.names(querier, rule, now)?;
        let series = names.get(metric).cloned().unwrap_or_default();
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert((external, at), (now, names));
        Ok(series)
    }

    /// The metrics of objects that exist now.
    pub(crate) fn list_custom(
        &self,
        querier: &dyn Querier,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StorageError> {
        let mut out = std::collections::BTreeSet::new();
        for (rule, labels) in self.rules.custom.iter().zip(&self.custom) {
            out.extend(self.paths(querier, rule, labels, now)?.into_iter().map(|(_, _, listed)| listed));
        }
        Ok(out.into_iter().collect())
    }

    /// Series, label of the object, and what it is listed as, of all metrics of a rule.
    fn paths(
        &self,
        querier: &dyn Querier,
        rule: &Rule,
        labels: &[(String, ResourceKind)],
        now: Timestamp,
    ) -> Result<Vec<(String, ResourceKind, Listed)>, StorageError> {
        let mut out = Vec::new();
        let having =
            |matchers: Vec<Matcher>| querier.label_values(METRIC_NAME, &matchers, Self::recent(now), 0);
        let namespace =
            labels.iter().find(|(_, kind)| kind.group.is_empty() && kind.resource == "namespaces");
        // Only labels that the rule's series have at all are looked at one by one.
        let used = querier.label_names(&rule.matchers, Self::recent(now), 0)?;
        for (label, kind) in labels.iter().filter(|(label, _)| used.binary_search(label).is_ok()) {
            // Without a label for the namespace nobody could ask for it.
            if kind.namespaced && namespace.is_none() {
                continue;
            }
            let namespaced = kind.namespaced.then_some(()).and(namespace);
            let more = std::iter::once(present(label)).chain(namespaced.map(|(label, _)| present(label)));
            for series in having(with(&rule.matchers, more))? {
                let Some(metric) = rule.metric_name(&series) else { continue };
                let name = format!("{}/{metric}", kind.qualified());
                out.push((series, kind.clone(), Listed { name, namespaced: kind.namespaced }));
            }
        }
        Ok(out)
    }

    /// The external metrics that exist now.
    pub(crate) fn list_external(
        &self,
        querier: &dyn Querier,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StorageError> {
        let mut out = std::collections::BTreeSet::new();
        for rule in &self.rules.external {
            let names = self.names(querier, rule, now)?;
            out.extend(names.keys().map(|name| Listed { name: name.clone(), namespaced: true }));
        }
        Ok(out.into_iter().collect())
    }
}
