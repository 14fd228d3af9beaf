//! Instant and range queries.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::Response;
use model::{QueryCancelled, Timestamp};
use promql::{Expr, Outcome, QueryError, QueryOptions, ValueType};
use serde_json::{Value, json};

use crate::envelope::{ApiError, ErrorKind, success};
use crate::params::{Params, invalid};
use crate::query_log::{Client, Entry, Origin};
use crate::reading::{Reading, Times};
use crate::{State, json};

/// More points per series than this are refused: 11,000 is one a minute over a week.
const POINTS_MAX: i64 = 11_000;

pub(crate) async fn instant(
    Shared(state): Shared<State>,
    client: Client,
    params: Params,
) -> Result<Response, ApiError> {
    let at = params.time("time")?.unwrap_or_else(|| state.now());
    run(state, &client, &params, Times { start: at, end: at, step_ms: 0 }).await
}

pub(crate) async fn range(
    Shared(state): Shared<State>,
    client: Client,
    params: Params,
) -> Result<Response, ApiError> {
    let (start, end) = (params.required_time("start")?, params.required_time("end")?);
    if end < start {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    let step_ms = params.duration_ms("step")?;
    let step_ms = step_ms.ok_or_else(|| invalid("step", "cannot parse \"\" to a valid duration"))?;
    if step_ms <= 0 {
        let what = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(invalid("step", what));
    }
    if end.saturating_sub(start) / step_ms > POINTS_MAX {
        let what = "exceeded maximum resolution of 11,000 points per timeseries. \
                    Try decreasing the query resolution (?step=XX)";
        return Err(ApiError::bad_data(what.to_owned()));
    }
    run(state, &client, &params, Times { start, end, step_ms }).await
}

/// Sets its flag when the handler is dropped, which is what happens when the client hangs up.
struct CancelOnDrop(Arc<QueryCancelled>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

async fn run(state: State, client: &Client, params: &Params, times: Times) -> Result<Response, ApiError> {
    let expr = parse(&state, params)?;
    if times.step_ms > 0 && !matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector) {
        let kind = expr.value_type().documented();
        let what =
            format!("invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector");
        return Err(invalid("query", &what));
    }
    let limit = params.limit()?;
    let lookback_ms = params.lookback_ms()?;
    let timeout = params.duration_ms("timeout")?.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs()));
    let detail = Detail::of(params.get("stats"));
    let is_logged = state.query_log().is_on();
    let with_costs = is_logged || detail != Detail::None;
    let text = params.get("query").unwrap_or_default();
    let place = state.active_queries().and_then(|queries| queries.begin(text, state.now() / 1000));
    let reading = Reading::new(&state, params)?;
    // Asked before the snapshot is taken: what comes back meanwhile is one note too many.
    let note = state.history_note();
    let engine = Arc::clone(&state.options().engine);
    let cancel = CancelOnDrop(Arc::new(QueryCancelled::new()));
    let (cancelled, asked) = (Arc::clone(&cancel.0), text.to_owned());
    let evaluation = state.evaluators().run(move || {
        let options = QueryOptions { lookback_ms, cancelled: Some(&*cancelled), timeout, limit, with_costs };
        // The query is under way until it has ended, whether somebody still waits for it or not.
        let _place = place;
        reading.evaluate(&engine, (&asked, &expr), times, &options)
    });
    let outcome = evaluation
        .await
        .ok_or_else(|| ApiError::new(ErrorKind::Internal, "the query ended abnormally".to_owned()))?;
    drop(cancel);
    if is_logged {
        let path = if times.step_ms == 0 { "/api/v1/query" } else { "/api/v1/query_range" };
        log(&state, text, times, outcome.as_ref(), Origin::Request { client, path });
    }
    let mut outcome = outcome?;
    outcome.warnings.extend(note);
    let stats = (detail != Detail::None).then(|| stats_json(&outcome, times, detail, text).to_string());
    Ok(json::respond(outcome, stats))
}

/// Notes a query that has ended in the query log.
fn log(state: &State, query: &str, times: Times, result: Result<&Outcome, &QueryError>, origin: Origin<'_>) {
    let (error, stats) = match result {
        Ok(outcome) => (None, stats_json(outcome, times, Detail::Totals, query)),
        Err(error) => (Some(error.to_string()), json!({})),
    };
    let Times { start, end, step_ms } = times;
    state.query_log().write(&Entry { now: state.now(), query, start, end, step_ms, error, stats, origin });
}

/// Queries of rules go to the query log too.
impl rules::Observer for State {
    fn wants_costs(&self) -> bool {
        self.query_log().is_on()
    }

    fn ended(&self, query: &rules::EndedQuery<'_>) {
        if self.query_log().is_on() {
            let origin = Origin::Group { file: &query.group.file, name: &query.group.name };
            let times = Times { start: query.at, end: query.at, step_ms: 0 };
            log(self, &query.expr.to_string(), times, query.result, origin);
        }
    }
}

pub(crate) fn parse(state: &State, params: &Params) -> Result<Expr, ApiError> {
    let text = params.get("query").unwrap_or_default();
    promql::parse(text, &state.options().grammar).map_err(|error| invalid("query", &error.to_string()))
}

/// How much of a query's cost is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    None,
    Totals,
    /// By step and by node too.
    All,
}

impl Detail {
    /// What the parameter `stats` asks for.
    fn of(text: Option<&str>) -> Self {
        match text {
            None | Some("") => Self::None,
            Some("all") => Self::All,
            Some(_) => Self::Totals,
        }
    }
}

/// What a query cost. `nodes` is ours, the rest is Prometheus' form.
fn stats_json(outcome: &Outcome, times: Times, detail: Detail, query: &str) -> Value {
    let stats = &outcome.stats;
    let (queued, elapsed) = (stats.queued.as_secs_f64(), stats.elapsed.as_secs_f64());
    let costs = outcome.costs.clone().unwrap_or_default();
    let mut samples = json!({
        "totalQueryableSamples": costs.samples_per_step.iter().sum::<u64>(),
        "samplesRead": stats.samples,
        "peakSamples": stats.samples_peak,
    });
    let mut out = json!({
        "timings": {
            "evalTotalTime": elapsed, "resultSortTime": 0, "queryPreparationTime": 0, "innerEvalTime": elapsed,
            "execQueueTime": queued, "execTotalTime": queued + elapsed,
        },
    });
    if detail == Detail::All {
        let steps = (times.start..).step_by(usize::try_from(times.step_ms.max(1)).unwrap_or(1));
        let per_step = steps.zip(&costs.samples_per_step).map(|(ts, samples)| json!([seconds(ts), samples]));
        samples["totalQueryableSamplesPerStep"] = per_step.collect();
        let node = |node: &promql::NodeStats| {
            json!({
                "expr": query.get(node.span.start..node.span.end), "series": node.series,
                "samples": node.samples, "bytes": node.bytes, "seconds": node.elapsed.as_secs_f64(),
            })
        };
        out["nodes"] = costs.nodes.iter().map(node).collect();
    }
    out["samples"] = samples;
    out
}

/// Seconds as a JSON number; whole ones without a fraction.
#[expect(clippy::cast_precision_loss, reason = "milliseconds in seconds, as floats")]
fn seconds(ms: Timestamp) -> Value {
    if ms % 1000 == 0 { json!(ms / 1000) } else { json!(ms as f64 / 1000.0) }
}

pub(crate) async fn format(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    Ok(success(&parse(&state, &params)?.pretty()))
}

pub(crate) async fn tree(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let expr = parse(&state, &params)?;
    Ok(expr.with_stack(|| success(&crate::ast::tree(&expr))))
}
