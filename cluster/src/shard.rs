//! The shard's side: answers questions of queriers from its own store.

use std::time::Duration;

use model::{Exemplar, Labels, Matcher, Querier, QueryCancelled, Samples, Selection, TimeRange};
use promql::{Engine, ParseOptions, QueryError, QueryOptions, QueryValue, Sums};
use remote::slots::SlotSet;

use crate::filter::Filtered;
use crate::wire::{Answer, Ask, Part, TableWriter};

/// An expression that is to be evaluated over some slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evaluation<'a> {
    pub(crate) slots: &'a SlotSet,
    pub(crate) sums: bool,
    pub(crate) range: TimeRange,
    pub(crate) step_ms: i64,
    pub(crate) lookback_ms: i64,
    pub(crate) timeout_ms: u64,
    pub(crate) text: &'a str,
}

/// Finds the exemplars of a time of the series that fulfil all matchers of one list.
pub type FindExemplars<'a> = &'a dyn Fn(&[Vec<Matcher>], TimeRange) -> Vec<(Labels, Vec<Exemplar>)>;

/// Answers a question. Blocks for as long as the store and the engine need.
#[must_use]
pub fn answer(
    engine: &Engine,
    (querier, exemplars): (&dyn Querier, FindExemplars<'_>),
    ask: &Ask,
    cancelled: Option<&QueryCancelled>,
) -> Vec<u8> {
    let outcome = match ask {
        Ask::Select { slots, range, matchers } => select(querier, slots, *range, matchers, cancelled),
        Ask::Names { range, limit, matchers } => querier
            .label_names(matchers, *range, *limit)
            .map(|names| Answer::Texts(names).encode())
            .map_err(Into::into),
        Ask::Values { name, range, limit, matchers } => querier
            .label_values(name, matchers, *range, *limit)
            .map(|values| Answer::Texts(values).encode())
            .map_err(Into::into),
        Ask::Evaluate { slots, sums, range, step_ms, lookback_ms, timeout_ms, text } => {
            let (sums, range, step_ms) = (*sums, *range, *step_ms);
            let (lookback_ms, timeout_ms) = (*lookback_ms, *timeout_ms);
            let asked = Evaluation { slots, sums, range, step_ms, lookback_ms, timeout_ms, text };
            evaluate(engine, querier, &asked, cancelled)
        }
        Ask::Exemplars { range, selectors } => Ok(Answer::Exemplars(exemplars(selectors, *range)).encode()),
    };
    outcome.unwrap_or_else(|error| match error {
        QueryError::Storage(error) => Answer::StoreError(error.to_string()).encode(),
        error => Answer::QueryError(error.to_string()).encode(),
    })
}

fn too_long() -> QueryError {
    QueryError::Execution(format!(
        "a shard's part of the answer is longer than {} bytes; ask for less, or aggregate",
        crate::wire::ANSWER_BYTES_MAX / 2
    ))
}

fn select(
    querier: &dyn Querier,
    slots: &SlotSet,
    range: TimeRange,
    matchers: &[Matcher],
    cancelled: Option<&QueryCancelled>,
) -> Result<Vec<u8>, QueryError> {
    let filtered = Filtered::new(querier, slots);
    let set = filtered.select(&Selection::new(matchers, range))?;
    let (mut table, mut samples) = (TableWriter::default(), Samples::default());
    for at in 0..set.len() {
        if at % 1024 == 0 && cancelled.is_some_and(QueryCancelled::is_set) {
            return Err(QueryError::Cancelled);
        }
        set.samples(at, range, &mut samples)?;
        if !samples.is_empty() && !table.push(Part::Values, &set.labels(at), &samples) {
            return Err(too_long());
        }
    }
    Ok(table.finish(&[], &[]))
}

/// Evaluates over the slots that are asked for; the answer is a message.
pub(crate) fn evaluate(
    engine: &Engine,
    querier: &dyn Querier,
    asked: &Evaluation<'_>,
    cancelled: Option<&QueryCancelled>,
) -> Result<Vec<u8>, QueryError> {
    // Whatever the querier's flags allowed has been judged there.
    let expr = promql::parse(asked.text, &ParseOptions::experimental())
        .map_err(|error| QueryError::Execution(error.to_string()))?;
    let options = QueryOptions {
        lookback_ms: Some(asked.lookback_ms),
        timeout: Some(Duration::from_millis(asked.timeout_ms)),
        cancelled,
        ..QueryOptions::default()
    };
    let filtered = Filtered::new(querier, asked.slots);
    let TimeRange { start, end } = asked.range;
    if asked.sums {
        return write_sums(&engine.sums(&filtered, &expr, (start, end), asked.step_ms, &options)?);
    }
    let outcome = if asked.step_ms == 0 {
        engine.instant(&filtered, &expr, start, &options)?
    } else {
        engine.range(&filtered, &expr, start, end, asked.step_ms, &options)?
    };
    let mut table = TableWriter::default();
    let mut fits = true;
    match outcome.value {
        QueryValue::Vector(vector) => {
            let mut samples = Samples::default();
            for sample in vector {
                samples.clear();
                match sample.value {
                    model::Value::Float(value) => samples.push_float(sample.ts, value),
                    model::Value::Histogram(histogram) => samples.push_histogram(sample.ts, histogram),
                }
                fits &= table.push(Part::Values, &sample.labels, &samples);
            }
        }
        QueryValue::Matrix(matrix) => {
            for series in matrix {
                fits &= table.push(Part::Values, &series.labels, &series.samples);
            }
        }
        QueryValue::Scalar { .. } | QueryValue::String { .. } => {
            return Err(QueryError::Execution("a shard evaluates vectors only".to_owned()));
        }
    }
    if fits { Ok(table.finish(&outcome.warnings, &outcome.infos)) } else { Err(too_long()) }
}

fn write_sums(sums: &Sums) -> Result<Vec<u8>, QueryError> {
    let mut table = TableWriter::default();
    let mut fits = true;
    let mut push = |part, labels: &Labels, samples: &Samples| {
        fits &= samples.is_empty() || table.push(part, labels, samples);
    };
    for group in &sums.groups {
        push(Part::Values, &group.labels, &group.floats);
        push(Part::Values, &group.labels, &group.histograms);
        push(Part::Values, &group.labels, &group.misfits);
        push(Part::Compensation, &group.labels, &group.compensation);
        push(Part::Counts, &group.labels, &group.counts);
    }
    if fits { Ok(table.finish(&sums.warnings, &sums.infos)) } else { Err(too_long()) }
}
