//! Values of metrics: which rule makes a metric, the query that it makes, and what comes of it.

use std::collections::{BTreeSet, HashMap};

use k8s::ResourceKind;
use model::{METRIC_NAME, Matcher, Querier, StorageError, TimeRange, Timestamp, Value};
use promql::{Engine, Expr, ParseOptions, QueryOptions, QueryValue, VectorSample};

use super::reading::{Reading, moments, readings, window_ms};
use super::rules::{QueryRefused, Rule, Subject, query};
use super::{Resolved, absence, present, with};
use crate::quantity;
use crate::selector::{LabelSelector, SelectorError};

/// How far back a metric is looked for that does not exist now, to say why.
const BACK_MS: i64 = 86_400_000;

/// Whose value of which metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) kind: &'a ResourceKind,
    /// None for objects of the whole cluster.
    pub(crate) namespace: Option<&'a str>,
    pub(crate) names: &'a [String],
    pub(crate) metric: &'a str,
    pub(crate) selector: &'a LabelSelector,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Of a metric of objects, the object; else empty.
    pub(crate) object: String,
    /// Of an external metric.
    pub(crate) labels: model::Labels,
    pub(crate) value: f64,
    /// The value as a quantity.
    pub(crate) quantity: String,
    pub(crate) ts: Timestamp,
    pub(crate) window_ms: Option<i64>,
}

/// Why there is no value.
#[derive(Debug)]
pub(crate) enum Missing {
    /// There is none; the reason.
    Absent(String),
    /// The request's selector cannot be used.
    Selector(SelectorError),
    /// The rule's query cannot be made or evaluated.
    Query(String),
    /// The store cannot be read.
    Storage(StorageError),
}

impl From<StorageError> for Missing {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A store at one time, and the engine to ask it with.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) querier: &'a dyn Querier,
    pub(crate) now: Timestamp,
}

/// A query ready to be asked.
pub(crate) struct Question {
    /// Where its rule stands in the file.
    pub(crate) rule: String,
    pub(crate) text: String,
    expr: Expr,
    readings: Vec<Reading>,
}

impl Question {
    fn new(
        rule: &Rule,
        series: &str,
        subject: Subject<'_>,
        selector: &LabelSelector,
    ) -> Result<Self, Missing> {
        let text =
            query(&rule.query, series, subject, selector, &rule.replacements).map_err(
                |refused| match refused {
                    QueryRefused::Selector(error) => Missing::Selector(error),
                    QueryRefused::Template(what) => {
                        Missing::Query(format!("{}.metricsQuery: {what}", rule.path))
                    }
                },
            )?;
        Self::of_text(&rule.path, text)
    }

    pub(crate) fn of_text(rule: &str, text: String) -> Result<Self, Missing> {
        let options = ParseOptions { experimental_functions: true, ..ParseOptions::default() };
        let expr = promql::parse(&text, &options)
            .map_err(|error| Missing::Query(format!("{rule} asks {text:?}: {error}")))?;
        Ok(Self { rule: rule.to_owned(), readings: readings(&expr), text, expr })
    }

    /// The rows of the answer.
    pub(crate) fn rows(&self, view: View<'_>) -> Result<Vec<VectorSample>, Missing> {
        let failed = |what: String| Missing::Query(format!("{} asks {:?}: {what}", self.rule, self.text));
        let outcome = view.engine.instant(view.querier, &self.expr, view.now, &QueryOptions::default());
        match outcome.map_err(|error| failed(error.to_string()))?.value {
            QueryValue::Vector(rows) => Ok(rows),
            QueryValue::Scalar { ts, value } => {
                Ok(vec![VectorSample { labels: model::Labels::empty(), ts, value: Value::Float(value) }])
            }
            _ => Err(failed("the answer is no vector".to_owned())),
        }
    }

    pub(crate) fn moments(
        &self,
        view: View<'_>,
        labels: &[String],
    ) -> Result<super::reading::Moments, StorageError> {
        let lookback_ms = view.engine.options().lookback_ms;
        moments(view.querier, &self.readings, labels, view.now, lookback_ms)
    }

    /// Why there is no value.
    pub(crate) fn absence(&self, view: View<'_>) -> Result<String, StorageError> {
        absence::reason(view.querier, &self.readings, view.now, view.engine.options().lookback_ms)
    }
}

/// A value as a number and as a quantity, or why it is none.
pub(crate) fn number(value: &Value) -> Result<(f64, String), String> {
    let Value::Float(value) = value else { return Err("its value is a histogram".to_owned()) };
    match quantity::decimal(*value) {
        Some(text) => Ok((*value, text)),
        None => Err(format!("its value is {}, which is no quantity", model::float::format_fixed(*value))),
    }
}

impl Resolved {
    /// The kind of a resource as it stands in a path: `pods`, `deployments.apps`.
    pub(crate) fn kind(&self, resource: &str) -> Option<ResourceKind> {
        let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
        let of_rules = || {
            let mut all = self.custom.iter().flatten().map(|(_, kind)| kind);
            all.find(|kind| kind.group == group && (kind.resource == name || kind.singular == name)).cloned()
        };
        self.kinds.find(group, name).cloned().or_else(of_rules)
    }

    /// Labels of a rule that name the object and its namespace.
    fn labels(&self, at: usize, kind: &ResourceKind) -> Option<(&str, Option<&str>)> {
        let label = |wanted: &dyn Fn(&ResourceKind) -> bool| {
            self.custom[at].iter().find(|(_, kind)| wanted(kind)).map(|(label, _)| label.as_str())
        };
        let object = label(&|other| other.group == kind.group && other.resource == kind.resource)?;
        if !kind.namespaced {
            return Some((object, None));
        }
        let namespace = label(&|other| other.group.is_empty() && other.resource == "namespaces")?;
        Some((object, Some(namespace)))
    }

    /// The query that answers a request: that of the last rule that makes the metric of a series that is there now.
    pub(crate) fn question(&self, view: View<'_>, wanted: Wanted<'_>) -> Result<(Question, String), Missing> {
        let rules = self.rules.custom.iter().enumerate().rev();
        for (at, rule) in rules.clone() {
            let Some((object, namespace)) = self.labels(at, wanted.kind) else { continue };
            let series = self.series(view.querier, (false, at), wanted.metric, view.now)?;
            if let Some(series) = having(view, rule, &series, object, Self::recent(view.now))? {
                return Ok((ask(rule, series, object, namespace, wanted)?, object.to_owned()));
            }
        }
        // Not now, but perhaps before.
        let back = TimeRange::new(view.now - BACK_MS, view.now);
        for (at, rule) in rules {
            let Some((object, namespace)) = self.labels(at, wanted.kind) else { continue };
            let names = view.querier.label_values(METRIC_NAME, &rule.matchers, back, 0)?;
            let series: Vec<String> = names
                .into_iter()
                .filter(|name| rule.metric_name(name).as_deref() == Some(wanted.metric))
                .collect();
            if let Some(series) = having(view, rule, &series, object, back)? {
                return Ok((ask(rule, series, object, namespace, wanted)?, object.to_owned()));
            }
        }
        let hours = BACK_MS / 3_600_000;
        Err(Missing::Absent(format!("no rule makes it of any series of the last {hours} hours")))
    }

    /// Values of those of the wanted objects that have one; [`Missing::Absent`] if none has.
    ///
    /// Several values for one object are an error. prometheus-adapter takes one of them, whichever the answer has last, so the
    /// same rule may scale by another series after a restart; and a sum would be wrong for every gauge.
    pub(crate) fn values(&self, view: View<'_>, wanted: Wanted<'_>) -> Result<Vec<Found>, Missing> {
        if wanted.names.is_empty() {
            return Err(Missing::Absent("the selector fits no object".to_owned()));
        }
        let (question, label) = self.question(view, wanted)?;
        let rows = question.rows(view)?;
        let names: HashMap<&str, ()> = wanted.names.iter().map(|name| (name.as_str(), ())).collect();
        let (mut found, mut refused, mut nameless) = (Vec::new(), None, false);
        let mut seen = BTreeSet::new();
        let moments = question.moments(view, std::slice::from_ref(&label))?;
        for row in &rows {
            let object = row.labels.get(&label).unwrap_or_default();
            nameless |= object.is_empty();
            if !names.contains_key(object) {
                continue;
            }
            if !seen.insert(object.to_owned()) {
                let what = format!("several values for {object:?}: the query must group by <<.GroupBy>>");
                return Err(Missing::Query(format!("{} asks {:?}: {what}", question.rule, question.text)));
            }
            match number(&row.value) {
                Ok((value, quantity)) => found.push(Found {
                    object: object.to_owned(),
                    labels: model::Labels::empty(),
                    value,
                    quantity,
                    ts: moments.of([object]).unwrap_or(row.ts),
                    window_ms: window_ms(&question.readings),
                }),
                Err(what) => refused = Some(what),
            }
        }
        found.sort_by(|a, b| a.object.cmp(&b.object));
        if found.is_empty() {
            let reason = match refused {
                Some(what) => what,
                None if nameless => {
                    format!("{} asks {:?}, whose answer has no label {label}", question.rule, question.text)
                }
                None => question.absence(view)?,
            };
            return Err(Missing::Absent(reason));
        }
        Ok(found)
    }

    /// The query for an external metric.
    pub(crate) fn external_question(
        &self,
        view: View<'_>,
        namespace: &str,
        metric: &str,
        selector: &LabelSelector,
    ) -> Result<Question, Missing> {
        let rules = self.rules.external.iter().enumerate().rev();
        let back = TimeRange::new(view.now - BACK_MS, view.now);
        for recent in [true, false] {
            for (at, rule) in rules.clone() {
                let series = if recent {
                    self.series(view.querier, (true, at), metric, view.now)?
                } else {
                    let names = view.querier.label_values(METRIC_NAME, &rule.matchers, back, 0)?;
                    names
                        .into_iter()
                        .filter(|name| rule.metric_name(name).as_deref() == Some(metric))
                        .collect()
                };
                let Some(series) = series.last() else { continue };
                let named = self.external[at].iter().find(|(_, kind)| kind.resource == "namespaces");
                let label = named.map_or("namespace", |(label, _)| label.as_str());
                let namespace = (rule.namespaced && !namespace.is_empty()).then_some((label, namespace));
                return Question::new(
                    rule,
                    series,
                    Subject { object: None, namespace, group_by: &[] },
                    selector,
                );
            }
        }
        let hours = BACK_MS / 3_600_000;
        Err(Missing::Absent(format!("no rule makes it of any series of the last {hours} hours")))
    }

    /// All values of an external metric. One that is none makes the whole an error: the autoscaler adds them up.
    pub(crate) fn external_values(
        &self,
        view: View<'_>,
        namespace: &str,
        metric: &str,
        selector: &LabelSelector,
    ) -> Result<Vec<Found>, Missing> {
        let question = self.external_question(view, namespace, metric, selector)?;
        let rows = question.rows(view)?;
        if rows.is_empty() {
            return Err(Missing::Absent(question.absence(view)?));
        }
        let labels: BTreeSet<&str> =
            rows.iter().flat_map(|row| row.labels.iter()).map(|(name, _)| name).collect();
        let labels: Vec<String> = labels.into_iter().map(str::to_owned).collect();
        let moments = question.moments(view, &labels)?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let (value, quantity) =
                number(&row.value).map_err(|what| Missing::Absent(format!("of {}, {what}", row.labels)))?;
            let key = labels.iter().map(|label| row.labels.get(label).unwrap_or_default());
            let ts = moments.of(key).unwrap_or(row.ts);
            let window_ms = window_ms(&question.readings);
            found.push(Found { object: String::new(), labels: row.labels, value, quantity, ts, window_ms });
        }
        Ok(found)
    }
}

/// The last of some series that has a label.
fn having<'a>(
    view: View<'_>,
    rule: &Rule,
    series: &'a [String],
    label: &str,
    range: TimeRange,
) -> Result<Option<&'a str>, StorageError> {
    for series in series.iter().rev() {
        let more = [Matcher::equal(METRIC_NAME, series), present(label)];
        if !view.querier.label_values(METRIC_NAME, &with(&rule.matchers, more), range, 1)?.is_empty() {
            return Ok(Some(series));
        }
    }
    Ok(None)
}

fn ask(
    rule: &Rule,
    series: &str,
    object: &str,
    namespace: Option<&str>,
    wanted: Wanted<'_>,
) -> Result<Question, Missing> {
    let subject = Subject {
        object: Some((object, wanted.names)),
        namespace: namespace.zip(wanted.namespace),
        group_by: &[],
    };
    Question::new(rule, series, subject, wanted.selector)
}
