//! Label names, label values and series, straight from the index.

use std::collections::BTreeSet;

use axum::extract::{Path, State as Shared};
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use model::{Labels, Matcher, Querier, Selection, StorageError, TimeRange};

use crate::State;
use crate::envelope::{ApiError, success_with, truncated};
use crate::json::{push_labels, push_quoted};
use crate::params::{Params, unescape_label_name};
use crate::reading::Reading;

/// The union of what `read` gives for each selector, or for no selector at all.
pub(crate) fn union(
    selectors: &[Vec<Matcher>],
    mut read: impl FnMut(&[Matcher]) -> Result<Vec<String>, StorageError>,
) -> Result<Vec<String>, StorageError> {
    match selectors {
        [] => read(&[]),
        [one] => read(one),
        many => {
            let mut all = BTreeSet::new();
            for selector in many {
                all.extend(read(selector)?);
            }
            Ok(all.into_iter().collect())
        }
    }
}

fn answer(
    (mut values, mut warnings): (Vec<String>, Vec<String>),
    limit: usize,
    note: Option<String>,
) -> Response {
    warnings.extend(note);
    if limit > 0 && values.len() > limit {
        values.truncate(limit);
        warnings.push(truncated());
    }
    success_with(&values, &warnings)
}

/// One more than the limit, so that a cut can be told from an exact fit.
fn probe(limit: usize) -> usize {
    if limit == 0 { 0 } else { limit.saturating_add(1) }
}

pub(crate) async fn names(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let (range, limit, selectors) = (params.range()?, params.limit()?, params.selectors()?);
    let note = state.history_note();
    let names = Reading::new(&state, &params)?.read(move |querier| {
        union(&selectors, |matchers| querier.label_names(matchers, range, probe(limit)))
    });
    Ok(answer(names.await?, limit, note))
}

pub(crate) async fn values(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = unescape_label_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {name:?}")));
    }
    let (range, limit, selectors) = (params.range()?, params.limit()?, params.selectors()?);
    let note = state.history_note();
    let mut warnings = Vec::from_iter(note);
    let read = move |querier: &dyn Querier| values_json(querier, &name, &selectors, (range, limit));
    let ((body, cut), lacks) = Reading::new(&state, &params)?.read(read).await?;
    warnings.extend(lacks);
    warnings.extend(cut.then(truncated));
    Ok(list(body, &warnings))
}

/// The answer up to the last value, and whether the limit cut the list.
fn values_json(
    querier: &dyn Querier,
    name: &str,
    selectors: &[Vec<Matcher>],
    (range, limit): (TimeRange, usize),
) -> Result<(String, bool), StorageError> {
    let mut out = String::from(LIST);
    let (mut count, mut cut) = (0, false);
    let mut write = |value: &str| {
        cut = limit > 0 && count == limit;
        if cut {
            return false;
        }
        if count > 0 {
            out.push(',');
        }
        push_quoted(&mut out, value);
        count += 1;
        true
    };
    let visit = |matchers: &[Matcher], write: &mut dyn FnMut(&str) -> bool| {
        querier.visit_label_values(name, matchers, range, probe(limit), write)
    };
    match selectors {
        [] => visit(&[], &mut write)?,
        [one] => visit(one, &mut write)?,
        many => {
            let mut all = Vec::new();
            for selector in many {
                visit(selector, &mut |value| {
                    all.push(value.to_owned());
                    true
                })?;
            }
            // Each selector's are in order, which this makes use of.
            all.sort();
            all.dedup();
            all.iter().all(|value| write(value));
        }
    }
    Ok((out, cut))
}

/// How an answer that is a list begins.
const LIST: &str = "{\"status\":\"success\",\"data\":[";

/// The answer that `out` begins, with warnings.
fn list(mut out: String, warnings: &[String]) -> Response {
    out.push(']');
    if let (false, Ok(warnings)) = (warnings.is_empty(), serde_json::to_string(warnings)) {
        out.push_str(",\"warnings\":");
        out.push_str(&warnings);
    }
    out.push('}');
    ([(header::CONTENT_TYPE, "application/json")], out).into_response()
}

pub(crate) async fn series(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let selectors = params.required_selectors()?;
    let (range, limit) = (params.range()?, params.limit()?);
    let mut warnings = Vec::from_iter(state.history_note());
    let read = move |querier: &dyn Querier| series_json(querier, &selectors, range, limit);
    let ((body, cut), lacks) = Reading::new(&state, &params)?.read(read).await?;
    warnings.extend(lacks);
    warnings.extend(cut.then(truncated));
    Ok(list(body, &warnings))
}

/// The answer up to the last label set, and whether the limit cut the list.
fn series_json(
    querier: &dyn Querier,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    limit: usize,
) -> Result<(String, bool), StorageError> {
    let mut out = String::from(LIST);
    let mut count = 0;
    let mut write = |labels: &Labels| {
        if limit > 0 && count == limit {
            return false;
        }
        if count > 0 {
            out.push(',');
        }
        push_labels(&mut out, labels);
        count += 1;
        true
    };
    let mut cut = false;
    if let [matchers] = selectors {
        let set = querier.select(&Selection::new(matchers, range))?;
        cut = (0..set.len()).any(|index| !write(&set.labels(index)));
    } else {
        let mut all = BTreeSet::new();
        for matchers in selectors {
            let set = querier.select(&Selection::new(matchers, range))?;
            all.extend((0..set.len()).map(|index| set.labels(index)));
        }
        cut |= all.iter().any(|labels| !write(labels));
    }
    Ok((out, cut))
}
