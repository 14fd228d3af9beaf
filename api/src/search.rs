//! Searching the names of metrics and labels, and the values of a label, while somebody types.
//!
//! Source: the search endpoints of Prometheus' HTTP API documentation. The answer is JSON lines: batches of
//! results, then a line that says how it ended. All of it is computed before the first line is sent, since a
//! result that is ranked cannot be sent sooner, so no error comes in the middle.

mod score;

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use model::{METRIC_NAME, Matcher, Querier, StorageError, TimeRange};
use scraper::status::FamilyMetadata;
use serde_json::{Map, Value, json};

use crate::State;
use crate::envelope::{ApiError, ErrorKind};
use crate::params::Params;
use crate::reading::Reading;
use score::{Algorithm, Search};

/// Terms of one request; each is compared with every value.
const TERMS_MAX: usize = 32;
/// Results, and results of a line, if the request does not say.
const DEFAULT_COUNT: usize = 100;
/// How far back is searched if the request does not say.
const DEFAULT_RANGE_MS: i64 = 3_600_000;

pub(crate) async fn metric_names(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let request = Request::read(&state, &params)?;
    let with_metadata = boolean(&params, "include_metadata", false)?;
    let found = request.run(&state, Reading::new(&state, &params)?, |querier, matchers, range| {
        querier.label_values(METRIC_NAME, matchers, range, 0)
    });
    let mut found = found.await?;
    if with_metadata {
        add_metadata(&state, &mut found.results)?;
    }
    Ok(request.answer(&found, "name"))
}

pub(crate) async fn label_names(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let request = Request::read(&state, &params)?;
    let found = request
        .run(&state, Reading::new(&state, &params)?, |querier, matchers, range| {
            querier.label_names(matchers, range, 0)
        })
        .await?;
    Ok(request.answer(&found, "name"))
}

pub(crate) async fn label_values(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let request = Request::read(&state, &params)?;
    let Some(label) = params.get("label").filter(|label| !label.is_empty()).map(str::to_owned) else {
        return Err(bad("label parameter is required"));
    };
    let found = request.run(&state, Reading::new(&state, &params)?, move |querier, matchers, range| {
        querier.label_values(&label, matchers, range, 0)
    });
    Ok(request.answer(&found.await?, "value"))
}

fn bad(what: impl Display) -> ApiError {
    ApiError::bad_data(what.to_string())
}

/// A parameter that is a number or a truth value; `what` it must be.
fn parsed<T: FromStr>(params: &Params, name: &str, what: &str) -> Result<Option<T>, ApiError> {
    let Some(text) = params.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| bad(format!("invalid {name} {text:?}: must be {what}")))
}

fn boolean(params: &Params, name: &str, default: bool) -> Result<bool, ApiError> {
    match params.get(name) {
        None | Some("") => Ok(default),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(text) => Err(bad(format!("invalid {name} {text:?}: must be boolean"))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
    /// The best first.
    Score,
}

/// What all searches may ask.
struct Request {
    selectors: Vec<Vec<Matcher>>,
    range: TimeRange,
    search: Option<Search>,
    order: Order,
    with_score: bool,
    limit: usize,
    batch: usize,
}

/// A value with its score.
type Scored = (String, f64);

/// Results on their way out.
struct Found {
    results: Vec<(Scored, Map<String, Value>)>,
    has_more: bool,
    notes: Vec<String>,
}

impl Request {
    fn read(state: &State, params: &Params) -> Result<Self, ApiError> {
        let limit_max = state.options().search_limit_max;
        let Some(limit_max) = limit_max else {
            return Err(ApiError::new(ErrorKind::Disabled, "search API disabled".to_owned()));
        };
        let limit_max = if limit_max == 0 { usize::MAX } else { limit_max };
        let now = state.now();
        let start = params.time("start")?.unwrap_or(now - DEFAULT_RANGE_MS);
        let end = params.time("end")?.unwrap_or(now);
        if end < start {
            return Err(bad("end timestamp must not be before start timestamp"));
        }
        let search = search(params)?;
        let positive = |name: &str, default: usize| match parsed(params, name, "a positive integer")? {
            None => Ok(default),
            Some(0) => Err(bad(format!("invalid {name} \"0\": must be a positive integer"))),
            Some(count) => Ok(count),
        };
        let limit: usize = positive("limit", DEFAULT_COUNT.min(limit_max))?;
        if limit > limit_max {
            let what = "exceeds the configured maximum";
            return Err(bad(format!("limit {limit} {what} ({limit_max}, see --web.search.max-limit)")));
        }
        Ok(Self {
            selectors: params.selectors()?,
            range: TimeRange::new(start, end),
            order: order(params, search.is_some())?,
            search,
            with_score: boolean(params, "include_score", false)?,
            limit,
            batch: positive("batch_size", DEFAULT_COUNT)?,
        })
    }

    /// Ranks what `list` gives for each selector.
    async fn run(
        &self,
        state: &State,
        reading: Reading,
        list: impl Fn(&dyn Querier, &[Matcher], TimeRange) -> Result<Vec<String>, StorageError> + Send + 'static,
    ) -> Result<Found, ApiError> {
        let (selectors, range) = (self.selectors.clone(), self.range);
        let mut notes = Vec::from_iter(state.history_note());
        let read = move |querier: &dyn Querier| {
            crate::labels::union(&selectors, |matchers| list(querier, matchers, range))
        };
        let (listed, lacks) = reading.read(read).await?;
        notes.extend(lacks);
        let scored = |value: String| {
            let score = self.search.as_ref().map_or(Some(1.0), |search| search.score(&value))?;
            Some((value, score))
        };
        let mut results: Vec<Scored> = listed.into_iter().filter_map(scored).collect();
        match self.order {
            Order::Ascending => results.sort_unstable_by(|one, other| one.0.cmp(&other.0)),
            Order::Descending => results.sort_unstable_by(|one, other| other.0.cmp(&one.0)),
            Order::Score => {
                results.sort_unstable_by(|one, other| {
                    other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0))
                });
            }
        }
        let has_more = results.len() > self.limit;
        results.truncate(self.limit);
        Ok(Found {
            results: results.into_iter().map(|scored| (scored, Map::new())).collect(),
            has_more,
            notes,
        })
    }

    fn answer(&self, found: &Found, key: &str) -> Response {
        let line = |((value, score), more): &(Scored, Map<String, Value>)| {
            let mut line = more.clone();
            line.insert(key.to_owned(), json!(value));
            if self.with_score {
                line.insert("score".to_owned(), json!(score));
            }
            Value::Object(line)
        };
        let mut batches: Vec<Vec<Value>> =
            found.results.chunks(self.batch).map(|batch| batch.iter().map(line).collect()).collect();
        if batches.is_empty() {
            // So that a reader always has a line with results.
            batches.push(Vec::new());
        }
        let mut body: String =
            batches.into_iter().map(|batch| format!("{}\n", json!({"results": batch}))).collect();
        let mut trailer = json!({"status": "success", "has_more": found.has_more});
        if !found.notes.is_empty() {
            trailer["warnings"] = json!(found.notes);
        }
        body.push_str(&format!("{trailer}\n"));
        ([(header::CONTENT_TYPE, "application/x-ndjson; charset=utf-8")], body).into_response()
    }
}

/// What is searched for; nothing if every term is empty.
fn search(params: &Params) -> Result<Option<Search>, ApiError> {
    let terms: Vec<&str> = params.all("search[]").collect();
    if terms.len() > TERMS_MAX {
        let what = format!("too many search[] terms: got {}, maximum is {TERMS_MAX}", terms.len());
        return Err(bad(what));
    }
    let threshold = parsed::<u32>(params, "fuzz_threshold", "0-100")?.unwrap_or(0);
    if threshold > 100 {
        return Err(bad(format!("invalid fuzz_threshold \"{threshold}\": must be 0-100")));
    }
    let algorithm = match params.get("fuzz_alg") {
        None | Some("" | "subsequence") => Algorithm::Subsequence,
        Some("jarowinkler") => Algorithm::JaroWinkler,
        Some(other) => {
            let known = "must be one of [subsequence jarowinkler]";
            return Err(bad(format!("unsupported fuzz_alg {other:?}: {known}")));
        }
    };
    let case_sensitive = boolean(params, "case_sensitive", true)?;
    Ok(Search::new(&terms, f64::from(threshold) / 100.0, algorithm, case_sensitive))
}

fn order(params: &Params, is_ranked: bool) -> Result<Order, ApiError> {
    let text = |name| params.get(name).unwrap_or("");
    match (text("sort_by"), text("sort_dir")) {
        ("" | "alpha", "") | ("alpha", "asc") => Ok(Order::Ascending),
        ("alpha", "dsc") => Ok(Order::Descending),
        ("score", "") if is_ranked => Ok(Order::Score),
        ("score", "") => Err(bad("sort_by=score requires search[] to be set")),
        ("score", _) => Err(bad("sort_dir is not supported for sort_by=score")),
        ("", _) => Err(bad("sort_dir is only valid when sort_by is set")),
        ("alpha", other) => Err(bad(format!("invalid sort_dir {other:?}: must be \"asc\" or \"dsc\""))),
        (other, _) => Err(bad(format!("invalid sort_by {other:?}: must be one of [alpha score]"))),
    }
}

/// Adds what targets say of the metrics; of several answers the first.
fn add_metadata(state: &State, results: &mut [(Scored, Map<String, Value>)]) -> Result<(), ApiError> {
    let mut families: HashMap<String, FamilyMetadata> = HashMap::new();
    for target in state.running()?.scraper.metadata() {
        for family in target.families {
            families.entry(family.family.clone()).or_insert(family);
        }
    }
    for ((name, _), more) in results {
        let Some(family) = families.get(name.as_str()) else { continue };
        for (key, text) in
            [("type", family.metric_type.as_str()), ("help", &family.help), ("unit", &family.unit)]
        {
            if !text.is_empty() {
                more.insert(key.to_owned(), json!(text));
            }
        }
    }
    Ok(())
}
