//! Trying rules: what they make of the series that a store has, before anybody depends on it.

use k8s::ResourceKind;
use model::{METRIC_NAME, Matcher, Querier, StorageError, Timestamp};
use promql::Engine;

use super::rules::{AdapterRules, Kinds, Rule};
use super::values::{Found, Missing, Question, View, Wanted};
use super::{Resolved, present, with};
use crate::quantity;
use crate::selector::LabelSelector;

/// Objects whose values are tried.
const OBJECTS_MAX: usize = 3;

/// What a rule makes of the series that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Where the rule stands in the file: `rules[0]`.
    pub rule: String,
    /// Its line.
    pub line: u64,
    /// Its selector.
    pub series_query: String,
    /// Names of the series that the selector fits, with the metric that each becomes; none if the rule does not
    /// want it.
    pub series: Vec<(String, Option<String>)>,
    /// What the API has of it.
    pub paths: Vec<TrialPath>,
    /// What is probably not meant.
    pub warnings: Vec<String>,
}

/// One path of the API, tried with objects that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialPath {
    /// The path.
    pub path: String,
    /// The query that is asked.
    pub query: String,
    /// The values, or why there is none.
    pub values: Result<Vec<TrialValue>, String>,
}

/// A value as the API gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialValue {
    /// The object, or the labels of an external metric.
    pub of: String,
    /// The quantity.
    pub value: String,
    /// When it was measured.
    pub timestamp: String,
}

impl From<Found> for TrialValue {
    fn from(found: Found) -> Self {
        let of = if found.object.is_empty() { found.labels.to_string() } else { found.object };
        Self { of, value: found.quantity, timestamp: quantity::time(found.ts) }
    }
}

impl AdapterRules {
    /// Tries all rules against a store as of `now`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn try_all(
        &self,
        engine: &Engine,
        querier: &dyn Querier,
        now: Timestamp,
    ) -> Result<Vec<Trial>, StorageError> {
        let resolved = Resolved::new(self.clone(), Kinds(ResourceKind::usual()));
        let view = View { engine, querier, now };
        let mut out = Vec::new();
        for (at, rule) in self.custom.iter().enumerate() {
            let mut trial = trial(view, rule)?;
            resolved.try_custom(view, at, &mut trial)?;
            out.push(trial);
        }
        for rule in &self.external {
            let mut trial = trial(view, rule)?;
            resolved.try_external(view, rule, &mut trial)?;
            out.push(trial);
        }
        Ok(out)
    }
}

fn trial(view: View<'_>, rule: &Rule) -> Result<Trial, StorageError> {
    let recent = Resolved::recent(view.now);
    let names = view.querier.label_values(METRIC_NAME, &rule.matchers, recent, 0)?;
    let series: Vec<_> = names
        .into_iter()
        .map(|name| (rule.metric_name(&name), name))
        .map(|(metric, name)| (name, metric))
        .collect();
    let mut warnings = Vec::new();
    if series.is_empty() {
        warnings.push("seriesQuery fits no series of the last 10 minutes".to_owned());
    } else if series.iter().all(|(_, metric)| metric.is_none()) {
        warnings
            .push("seriesFilters or name.matches leave out every series that seriesQuery fits".to_owned());
    }
    let mut metrics: Vec<&String> = series.iter().filter_map(|(_, metric)| metric.as_ref()).collect();
    metrics.sort_unstable();
    for twice in metrics.windows(2).filter(|pair| pair[0] == pair[1]) {
        warnings.push(format!("several series become {:?}: the last one by name is asked", twice[0]));
    }
    warnings.dedup();
    Ok(Trial {
        rule: rule.path.clone(),
        line: rule.line,
        series_query: rule.series_query.clone(),
        series,
        paths: Vec::new(),
        warnings,
    })
}

fn values(outcome: Result<Vec<Found>, Missing>) -> Result<Result<Vec<TrialValue>, String>, StorageError> {
    Ok(match outcome {
        Ok(found) => Ok(found.into_iter().map(TrialValue::from).collect()),
        Err(Missing::Absent(what) | Missing::Query(what)) => Err(what),
        Err(Missing::Selector(error)) => Err(error.0),
        Err(Missing::Storage(error)) => return Err(error),
    })
}

fn asked(question: Result<Question, Missing>) -> Result<Result<String, String>, StorageError> {
    Ok(match question {
        Ok(question) => Ok(question.text),
        Err(Missing::Storage(error)) => return Err(error),
        Err(Missing::Absent(what) | Missing::Query(what)) => Err(what),
        Err(Missing::Selector(error)) => Err(error.0),
    })
}

impl Resolved {
    fn try_custom(&self, view: View<'_>, at: usize, trial: &mut Trial) -> Result<(), StorageError> {
        let (rule, labels) = (&self.rules.custom[at], &self.custom[at]);
        let paths = self.paths(view.querier, rule, labels, view.now)?;
        if paths.is_empty() && trial.series.iter().any(|(_, metric)| metric.is_some()) {
            trial
                .warnings
                .push("no series has labels that resources maps to objects and their namespace".to_owned());
        }
        let everything = LabelSelector::default();
        for (series, kind, listed) in paths {
            let label = |resource: &str, group: &str| {
                labels
                    .iter()
                    .find(|(_, kind)| kind.resource == resource && kind.group == group)
                    .map(|(label, _)| label.as_str())
            };
            let Some(object) = label(&kind.resource, &kind.group) else { continue };
            let mut matchers = with(&rule.matchers, [Matcher::equal(METRIC_NAME, &series), present(object)]);
            let mut namespace = None;
            if kind.namespaced {
                let Some(within) = label("namespaces", "") else { continue };
                let found = view.querier.label_values(within, &matchers, Self::recent(view.now), 2)?;
                namespace = found.into_iter().find(|value| !value.is_empty());
                matchers.extend(namespace.iter().map(|value| Matcher::equal(within, value)));
            }
            let names = view.querier.label_values(object, &matchers, Self::recent(view.now), OBJECTS_MAX)?;
            let metric = listed.name.split_once('/').map_or("", |(_, metric)| metric);
            let who = if names.len() > 1 { "*" } else { names.first().map_or("*", String::as_str) };
            let root = "/apis/custom.metrics.k8s.io/v1beta2";
            let path = match &namespace {
                Some(namespace) => {
                    format!("{root}/namespaces/{namespace}/{}/{who}/{metric}", kind.qualified())
                }
                None if kind.resource == "namespaces" => {
                    format!("{root}/namespaces/{}/metrics/{metric}", names.first().map_or("", String::as_str))
                }
                None => format!("{root}/{}/{who}/{metric}", kind.qualified()),
            };
            let namespace = namespace.as_deref();
            let wanted = Wanted { kind: &kind, namespace, names: &names, metric, selector: &everything };
            let (query, values) = match asked(self.question(view, wanted).map(|(question, _)| question))? {
                Ok(query) => (query, values(self.values(view, wanted))?),
                Err(what) => (String::new(), Err(what)),
            };
            trial.paths.push(TrialPath { path, query, values });
        }
        Ok(())
    }

    fn try_external(&self, view: View<'_>, rule: &Rule, trial: &mut Trial) -> Result<(), StorageError> {
        let everything = LabelSelector::default();
        let mut metrics: Vec<&String> =
            trial.series.iter().filter_map(|(_, metric)| metric.as_ref()).collect();
        metrics.dedup();
        let label = self.namespace_label(rule);
        let mut paths = Vec::new();
        for metric in metrics {
            let found = view.querier.label_values(&label, &rule.matchers, Self::recent(view.now), 2)?;
            let namespace =
                found.into_iter().find(|value| !value.is_empty()).unwrap_or_else(|| "default".to_owned());
            let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}");
            let question = self.external_question(view, &namespace, metric, &everything);
            let (query, values) = match asked(question)? {
                Ok(query) => (query, values(self.external_values(view, &namespace, metric, &everything))?),
                Err(what) => (String::new(), Err(what)),
            };
            paths.push(TrialPath { path, query, values });
        }
        trial.paths = paths;
        Ok(())
    }

    fn namespace_label(&self, rule: &Rule) -> String {
        let at = self.rules.external.iter().position(|other| other.path == rule.path);
        let labels = at.map_or(&[][..], |at| &self.external[at]);
        let named = labels.iter().find(|(_, kind)| kind.resource == "namespaces");
        named.map_or_else(|| "namespace".to_owned(), |(label, _)| label.clone())
    }
}
