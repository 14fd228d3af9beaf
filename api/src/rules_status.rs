//! Rules, alerts, and who is told of them.

use axum::extract::State as Shared;
use axum::response::Response;
use model::{Matcher, float};
use rules::{AlertStatus, AlertingStatus, GroupStatus, RuleStatus};
use serde_json::{Value, json};

use crate::State;
use crate::envelope::{ApiError, success};
use crate::params::{Params, invalid};
use crate::targets::{object, rfc3339};

/// What of the rules is asked for.
struct Wanted {
    /// Alerting rules only, or recording rules only.
    alerting: Option<bool>,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    selectors: Vec<Vec<Matcher>>,
    with_alerts: bool,
    page: Option<Page>,
}

/// Groups from one on, at most so many.
struct Page {
    groups_max: usize,
    /// The token of the first group; none for the first of all.
    from: Option<String>,
}

impl Page {
    fn new(params: &Params) -> Result<Option<Self>, ApiError> {
        let (limit, from) = (params.get("group_limit"), params.get("group_next_token"));
        let Some(limit) = limit else {
            if from.is_none() {
                return Ok(None);
            }
            let what = "group_limit needs to be present in order to paginate over the groups";
            return Err(invalid("group_next_token", what));
        };
        let number: i32 = limit.parse().map_err(|error| {
            invalid("group_limit", &format!("group_limit needs to be a valid number: {limit:?}: {error}"))
        })?;
        match usize::try_from(number) {
            Ok(groups_max @ 1..) => Ok(Some(Self { groups_max, from: from.map(str::to_owned) })),
            _ => Err(invalid("group_limit", "group_limit needs to be greater than 0")),
        }
    }
}

/// What names a group among all: its file and its own name, in hexadecimal.
fn token(group: &GroupStatus) -> String {
    format!("{};{}", group.file, group.name).bytes().map(|byte| format!("{byte:02x}")).collect()
}

impl Wanted {
    fn new(params: &Params) -> Result<Self, ApiError> {
        let all = |name| params.all(name).map(str::to_owned).collect();
        let alerting = match params.get("type").map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("alert") => Some(true),
            Some("record") => Some(false),
            Some(other) => return Err(invalid("type", &format!("not supported value {other:?}"))),
        };
        let with_alerts = match params.get("exclude_alerts").map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "f" | "0") => true,
            Some("true" | "t" | "1") => false,
            Some(other) => {
                let what = format!("error converting exclude_alerts: {other:?} is no truth value");
                return Err(invalid("exclude_alerts", &what));
            }
        };
        Ok(Self {
            alerting,
            names: all("rule_name[]"),
            groups: all("rule_group[]"),
            files: all("file[]"),
            selectors: params.selectors()?,
            with_alerts,
            page: Page::new(params)?,
        })
    }

    fn group(&self, group: &GroupStatus) -> bool {
        let listed = |list: &[String], text: &str| list.is_empty() || list.iter().any(|item| item == text);
        listed(&self.groups, &group.name) && listed(&self.files, &group.file)
    }

    fn rule(&self, rule: &RuleStatus) -> bool {
        let matches = |matchers: &Vec<Matcher>| {
            matchers.iter().all(|m| m.matches(rule.labels.get(&*m.name).map_or("", String::as_str)))
        };
        self.alerting.is_none_or(|alerting| alerting == rule.alerting.is_some())
            && (self.names.is_empty() || self.names.contains(&rule.name))
            && (self.selectors.is_empty() || self.selectors.iter().any(matches))
    }
}

pub(crate) async fn rules(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let wanted = Wanted::new(&params)?;
    let mut groups = state.running()?.rules.groups();
    groups.sort_by(|one, other| (&one.file, &one.name).cmp(&(&other.file, &other.name)));
    let (mut groups_max, mut first) = (usize::MAX, 0);
    if let Some(page) = &wanted.page {
        groups_max = page.groups_max;
        if let Some(from) = &page.from {
            let found = groups.iter().position(|group| token(group) == *from);
            let what = format!("invalid group_next_token '{from}'. were rule groups changed?");
            first = found.ok_or_else(|| invalid("group_next_token", &what))?;
        }
    }
    let (mut shown, mut next) = (Vec::new(), None);
    for group in groups[first..].iter().filter(|group| wanted.group(group)) {
        let rules = group.rules.iter().filter(|rule| wanted.rule(rule));
        let rules: Vec<Value> = rules.map(|one| rule(one, wanted.with_alerts)).collect();
        // A group of which nothing is left is left out.
        if rules.is_empty() {
            continue;
        }
        if shown.len() == groups_max {
            next = Some(token(group));
            break;
        }
        shown.push(json!({
            "name": group.name,
            "file": group.file,
            "interval": group.interval_ms as f64 / 1000.0,
            "limit": group.limit,
            "evaluationTime": group.evaluation_time_s,
            "lastEvaluation": rfc3339(group.last_evaluation),
            "rules": rules,
        }));
    }
    let mut data = json!({"groups": shown});
    if let Some(next) = next {
        data["groupNextToken"] = json!(next);
    }
    Ok(success(&data))
}

fn rule(rule: &RuleStatus, with_alerts: bool) -> Value {
    let mut value = json!({
        "name": rule.name,
        "query": rule.query,
        "health": rule.health.as_str(),
        "evaluationTime": rule.evaluation_time_s,
        "lastEvaluation": rfc3339(rule.last_evaluation),
        "type": if rule.alerting.is_some() { "alerting" } else { "recording" },
    });
    if let Some(error) = &rule.last_error {
        value["lastError"] = json!(error);
    }
    match &rule.alerting {
        Some(alerting) => add_alerting(&mut value, rule, alerting, with_alerts),
        None if !rule.labels.is_empty() => value["labels"] = json!(rule.labels),
        None => {}
    }
    value
}

fn add_alerting(value: &mut Value, rule: &RuleStatus, alerting: &AlertingStatus, with_alerts: bool) {
    value["state"] = json!(alerting.state.as_str());
    value["duration"] = json!(alerting.for_ms as f64 / 1000.0);
    value["keepFiringFor"] = json!(alerting.keep_firing_for_ms as f64 / 1000.0);
    value["labels"] = json!(rule.labels);
    value["annotations"] = json!(alerting.annotations);
    let alerts = || alerting.alerts.iter().map(alert).collect::<Vec<_>>();
    value["alerts"] = json!(with_alerts.then(alerts));
}

fn alert(alert: &AlertStatus) -> Value {
    let mut value = json!({
        "labels": object(&alert.labels),
        "annotations": alert.annotations,
        "state": alert.state.as_str(),
        "activeAt": rfc3339(Some(alert.active_at)),
        "value": float::format_scientific(alert.value),
    });
    if let Some(since) = alert.keep_firing_since {
        value["keepFiringSince"] = json!(rfc3339(Some(since)));
    }
    value
}

pub(crate) async fn alerts(Shared(state): Shared<State>) -> Result<Response, ApiError> {
    let alerts = state.running()?.rules.alerts();
    Ok(success(&json!({"alerts": alerts.iter().map(alert).collect::<Vec<_>>()})))
}

pub(crate) async fn alertmanagers(Shared(state): Shared<State>) -> Result<Response, ApiError> {
    let stats = state.running()?.rules.stats();
    let active: Vec<Value> = stats.alertmanagers.iter().map(|one| json!({"url": one.url})).collect();
    let dropped: Vec<Value> = stats.dropped_alertmanagers.iter().map(|url| json!({"url": url})).collect();
    Ok(success(&json!({"activeAlertmanagers": active, "droppedAlertmanagers": dropped})))
}
