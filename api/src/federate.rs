//! `/federate`: the newest sample of each chosen series, for another server to scrape.

use std::collections::BTreeSet;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::{
    Labels, METRIC_NAME, Matcher, Querier, Samples, Selection, StorageError, TimeRange, Timestamp, float,
};

use crate::State;
use crate::params::{Params, selector};
use crate::reading::Reading;

/// The exposition format's version that is written.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8";

pub(crate) async fn federate(Shared(state): Shared<State>, params: Params) -> Response {
    let Ok(running) = state.running() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response();
    };
    let mut selectors = Vec::new();
    for text in params.all("match[]") {
        match selector(text) {
            Ok(matchers) => selectors.push(matchers),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        }
    }
    let (reading, end) = (Reading::strict(running), state.now());
    let range = TimeRange::new(end.saturating_sub(state.options().engine.options().lookback_ms), end);
    let external = state.options().external_labels.clone();
    let page = tokio::task::spawn_blocking(move || {
        reading.on(|querier| page(querier, &selectors, range, &external))
    });
    match page.await {
        Ok(Ok(page)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The samples that the page shows: sorted by name and labels, each series once.
fn newest(
    querier: &dyn Querier,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
) -> Result<BTreeSet<(String, Labels, Timestamp, u64)>, StorageError> {
    let mut found = BTreeSet::new();
    let mut samples = Samples::default();
    for matchers in selectors {
        let set = querier.select(&Selection::new(matchers, range))?;
        for index in 0..set.len() {
            set.samples(index, range, &mut samples)?;
            let (Some(ts), Some(value)) = (samples.ts.last(), samples.values.last()) else { continue };
            // Native histograms have no place in the text format.
            let histogram_is_newer = samples.histogram_ts.last().is_some_and(|other| other > ts);
            if model::is_stale_nan(*value) || histogram_is_newer {
                continue;
            }
            let labels = set.labels(index);
            let name = labels.metric_name().unwrap_or_default().to_owned();
            found.insert((name, labels, *ts, value.to_bits()));
        }
    }
    Ok(found)
}

fn page(
    querier: &dyn Querier,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    external: &Labels,
) -> Result<String, StorageError> {
    let mut page = String::new();
    let mut family = None;
    for (name, labels, ts, bits) in newest(querier, selectors, range)? {
        if name.is_empty() {
            continue;
        }
        if family.as_ref() != Some(&name) {
            page.push_str("# TYPE ");
            push_name(&mut page, &name);
            page.push_str(" untyped\n");
        }
        push_series(&mut page, &name, &labels, external);
        page.push_str(&format!(" {} {ts}\n", float::format_general(f64::from_bits(bits))));
        family = Some(name);
    }
    Ok(page)
}

/// A metric name; one that needs quotes gets them.
fn push_name(page: &mut String, name: &str) {
    if model::is_legacy_metric_name(name) {
        page.push_str(name);
    } else {
        push_quoted(page, name);
    }
}

fn push_series(page: &mut String, name: &str, labels: &Labels, external: &Labels) {
    let legacy = model::is_legacy_metric_name(name);
    if legacy {
        page.push_str(name);
    }
    page.push('{');
    let mut first = legacy;
    if !legacy {
        push_quoted(page, name);
    }
    let own = labels.iter().filter(|(label, _)| *label != METRIC_NAME);
    let absent = |label: &str| labels.get(label).is_none();
    let added = external.iter().filter(|(label, _)| absent(label));
    let instance = (absent("instance") && external.get("instance").is_none()).then_some(("instance", ""));
    for (label, value) in own.chain(added).chain(instance) {
        if !first {
            page.push(',');
        }
        first = false;
        if model::is_legacy_label_name(label) {
            page.push_str(label);
        } else {
            push_quoted(page, label);
        }
        page.push('=');
        push_quoted(page, value);
    }
    page.push('}');
}

fn push_quoted(page: &mut String, text: &str) {
    page.push('"');
    for c in text.chars() {
        match c {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            c => page.push(c),
        }
    }
    page.push('"');
}
