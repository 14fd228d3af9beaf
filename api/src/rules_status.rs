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
}

impl Wanted {
    fn new(params: &Params) -> Result<Self, ApiError> {
        let all = |name| params.all(name).filter(|v| !v.is_empty()).map(str::to_owned).collect();
        let alerting = match params.get("type").map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("alert") => Some(true),
            Some("record") => Some(false),
            Some(other) => return Err(invalid("type", &format!("not supported value {other:?}"))),
        };
        let with_alerts = match params.get("exclude_alerts") {
            None | Some("false" | "0") => true,
            Some("true" | "1") => false,
            Some(other) => return Err(invalid("exclude_alerts", &format!("{other:?} is no truth value"))),
        };
        Ok(Self {
            alerting,
            names: all("rule_name[]"),
            groups: all("rule_group[]"),
            files: all("file[]"),
            selectors: params.selectors()?,
            with_alerts,
        })
    }

    fn group(&self, group: &GroupStatus) -> bool {
        let listed = |list: &[String], text: &str| list.is_empty() || list.iter().any(|item| item == text);
        listed(&self.groups, &group.name) && listed(&self.files, &group.file)
    }

    /// Whether some rules of a group may be left out.
    fn filters_rules(&self) -> bool {
        self.alerting.is_some() || !self.names.is_empty() || !self.selectors.is_empty()
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
    let groups = state.running()?.rules.groups();
    let shown = groups.iter().filter(|group| wanted.group(group)).filter_map(|group| {
        let rules = group.rules.iter().filter(|rule| wanted.rule(rule));
        let rules: Vec<Value> = rules.map(|one| rule(one, wanted.with_alerts)).collect();
        // A filter that leaves nothing of a group leaves out the group.
        (!rules.is_empty() || !wanted.filters_rules()).then(|| {
            json!({
                "name": group.name,
                "file": group.file,
                "interval": group.interval_ms as f64 / 1000.0,
                "limit": group.limit,
                "evaluationTime": group.evaluation_time_s,
                "lastEvaluation": rfc3339(group.last_evaluation),
                "rules": rules,
            })
        })
    });
    Ok(success(&json!({"groups": shown.collect::<Vec<_>>()})))
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
    let alerts: Vec<Value> = alerting.alerts.iter().map(alert).collect();
    value["alerts"] = json!(if with_alerts { alerts } else { Vec::new() });
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
