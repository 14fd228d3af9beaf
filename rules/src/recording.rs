//! Recording rules: results become series of the rule's name.

use std::collections::HashSet;

use model::{Labels, Timestamp, Value};

use crate::query::{Environment, RuleError};
use crate::rule::{Group, Rule};

/// The series of a recording rule at one time.
pub(crate) fn evaluate(
    env: &Environment,
    group: &Group,
    rule: &Rule,
    at: Timestamp,
) -> Result<Vec<(Labels, Value)>, RuleError> {
    let samples = env.query(group, &rule.expr, at)?;
    let mut seen = HashSet::with_capacity(samples.len());
    let mut results = Vec::with_capacity(samples.len());
    for sample in samples {
        let mut labels = sample.labels.to_builder();
        labels.set(model::METRIC_NAME, &rule.name);
        for (name, value) in &rule.labels {
            labels.set(name, value);
        }
        let labels = labels.build();
        if !seen.insert(labels.clone()) {
            return Err(RuleError::Duplicate("rule"));
        }
        results.push((labels, sample.value));
    }
    let limit = group.limit;
    if limit > 0 && results.len() > limit {
        return Err(RuleError::Limit { limit, found: results.len(), what: "series" });
    }
    Ok(results)
}
