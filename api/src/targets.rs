//! What is scraped: targets, pools, and what pages say about their metrics.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State as Shared;
use axum::response::Response;
use model::{Labels, Matcher, Timestamp};
use scraper::TargetStatus;
use scraper::status::FamilyMetadata;
use serde::Serialize;
use serde_json::{Value, json};

use crate::State;
use crate::envelope::{ApiError, success};
use crate::params::{Params, invalid};

/// A label set as a JSON object.
pub(crate) fn object(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A time with all its digits: RFC 3339 in UTC. Of what has not happened yet, Go's zero time.
pub(crate) fn rfc3339(ts: Option<Timestamp>) -> String {
    let ts = ts.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    ts.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |ts| ts.to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target<'a> {
    discovered_labels: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    scrape_pool: &'a str,
    scrape_url: &'a str,
    global_url: &'a str,
    last_error: &'a str,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
}

impl<'a> From<&'a TargetStatus> for Target<'a> {
    fn from(target: &'a TargetStatus) -> Self {
        Self {
            discovered_labels: object(&target.discovered_labels),
            labels: object(&target.labels),
            scrape_pool: &target.pool,
            scrape_url: &target.url,
            global_url: &target.url,
            last_error: target.last_error.as_deref().unwrap_or_default(),
            last_scrape: rfc3339(target.last_scrape),
            last_scrape_duration: target.last_duration_s,
            health: target.health.as_str(),
            scrape_interval: model::duration::format_ms(target.interval_ms),
            scrape_timeout: model::duration::format_ms(target.timeout_ms),
        }
    }
}

pub(crate) async fn targets(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let targets = state.running()?.scraper.targets();
    let (active, dropped) = match params.get("state").map(str::to_ascii_lowercase).as_deref() {
        Some("active") => (true, false),
        Some("dropped") => (false, true),
        None | Some("any") => (true, true),
        Some(other) => return Err(invalid("state", &format!("{other:?} is none of active, dropped, any"))),
    };
    let pool = params.get("scrapePool");
    let wanted = |name: &str| pool.is_none_or(|pool| pool == name);
    let active_targets: Vec<Target<'_>> =
        targets.active.iter().filter(|target| active && wanted(&target.pool)).map(Target::from).collect();
    let dropped_targets: Vec<Value> = targets
        .dropped
        .iter()
        .filter(|target| dropped && wanted(&target.pool))
        .map(|target| json!({"discoveredLabels": object(&target.discovered_labels), "scrapePool": target.pool}))
        .collect();
    let counts: BTreeMap<&str, u64> = targets
        .dropped_counts
        .iter()
        .filter(|(name, _)| dropped && wanted(name))
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    Ok(success(&json!({
        "activeTargets": active_targets,
        "droppedTargets": dropped_targets,
        "droppedTargetCounts": counts,
    })))
}

pub(crate) async fn scrape_pools(Shared(state): Shared<State>) -> Result<Response, ApiError> {
    let targets = state.running()?.scraper.targets();
    let active = targets.active.into_iter().map(|target| target.pool);
    let pools: BTreeSet<String> =
        active.chain(targets.dropped_counts.into_iter().map(|(pool, _)| pool)).collect();
    Ok(success(&json!({"scrapePools": pools})))
}

/// `metadata`: what the targets say about each metric, the same answer counted once.
pub(crate) async fn metadata(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let (limit, per_metric) = (params.limit()?, number(&params, "limit_per_metric")?);
    let only = params.get("metric");
    let mut families: BTreeMap<String, Vec<FamilyMetadata>> = BTreeMap::new();
    for target in state.running()?.scraper.metadata() {
        for family in target.families {
            if only.is_some_and(|only| only != family.family) {
                continue;
            }
            let known = families.entry(family.family.clone()).or_default();
            if !known.contains(&family) && (per_metric == 0 || known.len() < per_metric) {
                known.push(family);
            }
        }
    }
    let shown = families.into_iter().take(if limit == 0 { usize::MAX } else { limit });
    let data: BTreeMap<String, Vec<Value>> = shown
        .map(|(name, families)| {
            let entry =
                |f: &FamilyMetadata| json!({"type": f.metric_type.as_str(), "unit": f.unit, "help": f.help});
            (name, families.iter().map(entry).collect())
        })
        .collect();
    Ok(success(&data))
}

/// `targets/metadata`: what each target says, target by target.
pub(crate) async fn target_metadata(
    Shared(state): Shared<State>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let matchers = match params.get("match_target") {
        Some(text) => crate::params::selector(text).map_err(|error| invalid("match_target", &error))?,
        None => Vec::new(),
    };
    let metric = params.get("metric");
    let mut rows = Vec::new();
    for target in state.running()?.scraper.metadata() {
        let matches =
            |matcher: &Matcher| matcher.matches(target.labels.get(&matcher.name).unwrap_or_default());
        if !matchers.iter().all(matches) {
            continue;
        }
        let labels = object(&target.labels);
        for family in
            target.families.iter().filter(|family| metric.is_none_or(|metric| metric == family.family))
        {
            let mut row = json!({
                "target": labels, "type": family.metric_type.as_str(), "help": family.help, "unit": family.unit,
            });
            if metric.is_none() {
                row["metric"] = json!(family.family);
            }
            rows.push(row);
        }
    }
    if limit > 0 {
        rows.truncate(limit);
    }
    Ok(success(&rows))
}

fn number(params: &Params, name: &str) -> Result<usize, ApiError> {
    let Some(text) = params.get(name) else { return Ok(0) };
    text.parse().map_err(|_| invalid(name, &format!("{text:?} is not a non-negative whole number")))
}
