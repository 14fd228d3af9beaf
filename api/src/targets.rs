//! What is scraped: targets, pools, and what pages say about their metrics.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State as Shared;
use axum::http::Uri;
use axum::response::Response;
use model::{Labels, Matcher, Timestamp};
use scraper::status::FamilyMetadata;
use scraper::{TargetStatus, relabel};
use serde::Serialize;
use serde_json::{Value, json};

use crate::envelope::{ApiError, ErrorKind, success};
use crate::params::{Params, invalid};
use crate::{Options, State};

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
    global_url: String,
    last_error: &'a str,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
}

impl<'a> Target<'a> {
    fn new(target: &'a TargetStatus, options: &Options) -> Self {
        Self {
            discovered_labels: object(&target.discovered_labels),
            labels: object(&target.labels),
            scrape_pool: &target.pool,
            scrape_url: &target.url,
            global_url: global_url(&target.url, options),
            last_error: target.last_error.as_deref().unwrap_or_default(),
            last_scrape: rfc3339(target.last_scrape),
            last_scrape_duration: target.last_duration_s,
            health: target.health.as_str(),
            scrape_interval: model::duration::format_ms(target.interval_ms),
            scrape_timeout: model::duration::format_ms(target.timeout_ms),
        }
    }
}

/// The URL as others may reach it: a target on this machine is known by the name of the external URL, and this
/// server itself by all of it but the path.
fn global_url(url: &str, options: &Options) -> String {
    let parse = |text: &str| text.parse::<Uri>().ok();
    let (Some(target), Some(external)) = (parse(url), parse(&options.external_url)) else {
        return url.to_owned();
    };
    let is_local = matches!(target.host(), Some("127.0.0.1" | "localhost" | "0.0.0.0" | "[::1]" | "[::]"));
    let (Some(host), Some(path), true) = (external.host(), target.path_and_query(), is_local) else {
        return url.to_owned();
    };
    if target.port_u16() == Some(options.port) {
        let (scheme, authority) = (external.scheme_str(), external.authority());
        return format!(
            "{}://{}{path}",
            scheme.unwrap_or("http"),
            authority.map_or(host, |all| all.as_str())
        );
    }
    let port = target.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{host}{port}{path}", target.scheme_str().unwrap_or("http"))
}

pub(crate) async fn targets(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let targets = state.running()?.scraper.targets();
    let (active, dropped) = match params.get("state").map(str::to_ascii_lowercase).as_deref() {
        Some("active") => (true, false),
        Some("dropped") => (false, true),
        None | Some("" | "any") => (true, true),
        // As there: of no other state there are any.
        Some(_) => (false, false),
    };
    let pool = params.get("scrapePool");
    let wanted = |name: &str| pool.is_none_or(|pool| pool == name);
    let active_targets: Vec<Target<'_>> = targets
        .active
        .iter()
        .filter(|target| active && wanted(&target.pool))
        .map(|target| Target::new(target, state.options()))
        .collect();
    let dropped_targets: Vec<Value> = targets
        .dropped
        .iter()
        .filter(|target| dropped && wanted(&target.pool))
        .map(|target| json!({"discoveredLabels": object(&target.discovered_labels), "scrapePool": target.pool}))
        .collect();
    let counts: BTreeMap<&str, u64> = targets
        .dropped_counts
        .iter()
        .filter(|_| dropped)
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    Ok(success(&json!({
        "activeTargets": active_targets,
        "droppedTargets": dropped_targets,
        // Go's empty map.
        "droppedTargetCounts": dropped.then_some(counts),
    })))
}

pub(crate) async fn scrape_pools(Shared(state): Shared<State>) -> Result<Response, ApiError> {
    let pools: BTreeSet<String> =
        state.running()?.scraper.pools().into_iter().map(|pool| pool.name).collect();
    Ok(success(&json!({"scrapePools": pools})))
}

/// `scrape_pools/config`: a job as it is configured.
pub(crate) async fn pool_config(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let Some(name) = params.get("scrapePool").filter(|name| !name.is_empty()) else {
        return Err(ApiError::bad_data("no scrapePool parameter provided".to_owned()));
    };
    let config = state.0.config.read().map(|config| config.jobs.get(name).cloned()).unwrap_or_default();
    match config {
        Some(yaml) => Ok(success(&json!({"yaml": yaml}))),
        None => {
            let what = format!("error retrieving scrape config: scrape pool {name:?} is not configured");
            Err(ApiError::bad_data(what))
        }
    }
}

/// `targets/relabel_steps`: what each rule of a job makes of a target's labels.
pub(crate) async fn relabel_steps(
    Shared(state): Shared<State>,
    params: Params,
) -> Result<Response, ApiError> {
    let given = |name: &str| {
        let text = params.get(name).filter(|text| !text.is_empty());
        text.ok_or_else(|| ApiError::bad_data(format!("no {name} parameter provided")))
    };
    let (pool, text) = (given("scrapePool")?, given("labels")?);
    let labels: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|error| invalid("labels", &error.to_string()))?;
    let Some(rules) = state.running()?.scraper.relabel_rules(pool) else {
        return Err(ApiError::new(ErrorKind::NotFound, format!("scrape pool {pool:?} is not configured")));
    };
    let mut builder = Labels::from_pairs(&labels).to_builder();
    let mut steps = Vec::with_capacity(rules.len());
    for rule in &rules {
        let keep = relabel::apply(std::slice::from_ref(rule), &mut builder);
        let output = if keep { object(&builder.clone().build()) } else { BTreeMap::new() };
        steps.push(json!({"rule": rule_json(rule), "output": output, "keep": keep}));
        if !keep {
            break;
        }
    }
    Ok(success(&json!({"steps": steps})))
}

/// A rule with its defaults; what it has no use for is left out.
fn rule_json(rule: &relabel::Rule) -> Value {
    let spec = rule.spec();
    let mut out = json!({
        "action": spec.action.as_str(),
        "regex": spec.regex.as_deref().unwrap_or("(.*)"),
        "replacement": spec.replacement.as_deref().unwrap_or("$1"),
        "separator": spec.separator.as_deref().unwrap_or(";"),
    });
    if !spec.source_labels.is_empty() {
        out["source_labels"] = json!(spec.source_labels);
    }
    if !spec.target_label.is_empty() {
        out["target_label"] = json!(spec.target_label);
    }
    if spec.modulus > 0 {
        out["modulus"] = json!(spec.modulus);
    }
    out
}

/// `metadata`: what the targets say about each metric, the same answer counted once.
pub(crate) async fn metadata(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let (limit, per_metric) = (number(&params, "limit")?, number(&params, "limit_per_metric")?);
    let only = params.get("metric");
    let mut families: BTreeMap<String, Vec<FamilyMetadata>> = BTreeMap::new();
    for target in state.running()?.scraper.metadata() {
        for family in target.families {
            if only.is_some_and(|only| only != family.family) {
                continue;
            }
            let known = families.entry(family.family.clone()).or_default();
            if !known.contains(&family) && per_metric.is_none_or(|most| most == 0 || known.len() < most) {
                known.push(family);
            }
        }
    }
    let shown = families.into_iter().take(limit.unwrap_or(usize::MAX));
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
    let limit = number(&params, "limit")?;
    let matchers = match params.get("match_target") {
        Some(text) => crate::params::selector(text).map_err(|error| invalid("match_target", &error))?,
        None => Vec::new(),
    };
    let metric = params.get("metric");
    let mut rows = Vec::new();
    for target in state.running()?.scraper.metadata() {
        // The limit is looked at between targets: none is shown in part.
        if limit.is_some_and(|limit| rows.len() >= limit) {
            break;
        }
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
    Ok(success(&rows))
}

/// A limit; a negative number is none.
fn number(params: &Params, name: &str) -> Result<Option<usize>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let limit: i64 = text.parse().map_err(|_| ApiError::bad_data(format!("{name} must be a number")))?;
    Ok(usize::try_from(limit).ok())
}
