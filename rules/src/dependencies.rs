//! Which rules of a group may be evaluated side by side.
//!
//! A rule that reads what an earlier one writes must see the new samples, and one that reads what a later
//! one writes must see those of the last evaluation: both need their order. So do two rules that write
//! the same series. Everything else is free.

use std::collections::HashSet;

use model::{METRIC_NAME, MatchOp};

use crate::alerting::{SINCE_METRIC, STATE_METRIC};
use crate::rule::{Rule, RuleKind};

/// Rules of a group, by index, in steps: those of one step do not depend on each other.
pub(crate) fn steps(rules: &[Rule]) -> Vec<Vec<usize>> {
    let reads: Vec<Reads> = rules.iter().map(Reads::of).collect();
    let mut steps: Vec<Vec<usize>> = Vec::new();
    let mut at_step = vec![0; rules.len()];
    for later in 0..rules.len() {
        let must_follow = |earlier: usize| {
            reads[later].may_read(&rules[earlier])
                || reads[earlier].may_read(&rules[later])
                || writes_same(&rules[earlier], &rules[later])
        };
        let after = (0..later).filter(|earlier| must_follow(*earlier)).map(|earlier| at_step[earlier] + 1);
        at_step[later] = after.max().unwrap_or(0);
        match steps.get_mut(at_step[later]) {
            Some(step) => step.push(later),
            None => steps.push(vec![later]),
        }
    }
    steps
}

fn writes_same(one: &Rule, other: &Rule) -> bool {
    let is_recording = |rule: &Rule| rule.kind == RuleKind::Recording;
    is_recording(one) == is_recording(other) && one.name == other.name
}

/// The metrics that a rule reads.
enum Reads {
    /// Nobody can tell before it runs.
    Anything,
    /// These.
    Names(HashSet<String>),
}

impl Reads {
    fn of(rule: &Rule) -> Self {
        if let RuleKind::Alerting { annotations, .. } = &rule.kind
            && annotations.values().chain(rule.labels.values()).any(|text| text.contains("query"))
        {
            return Self::Anything;
        }
        // The function reads a metric that the text need not name.
        if rule.query().contains("info(") {
            return Self::Anything;
        }
        let mut names = HashSet::new();
        for selector in rule.expr.selectors() {
            let name = selector.matchers.iter().find(|m| *m.name == *METRIC_NAME && m.op == MatchOp::Equal);
            match name {
                Some(name) => names.insert(name.value.to_string()),
                None => return Self::Anything,
            };
        }
        Self::Names(names)
    }

    fn may_read(&self, rule: &Rule) -> bool {
        match (self, &rule.kind) {
            (Self::Anything, _) => true,
            (Self::Names(names), RuleKind::Recording) => names.contains(&rule.name),
            (Self::Names(names), RuleKind::Alerting { .. }) => {
                [STATE_METRIC, SINCE_METRIC].iter().any(|name| names.contains(*name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps_of(rules: &[&str]) -> Vec<Vec<usize>> {
        let rules: String = rules.iter().map(|rule| format!("  - {rule}\n")).collect();
        let groups = crate::parse(&format!("groups:\n- name: g\n  rules:\n{rules}")).unwrap();
        steps(&groups[0].rules)
    }

    #[test]
    fn rules_that_share_nothing_run_side_by_side() {
        let found =
            steps_of(&["{record: a, expr: x}", "{record: b, expr: sum(y)}", "{alert: C, expr: z > 1}"]);
        assert_eq!(found, [vec![0, 1, 2]]);
    }

    #[test]
    fn a_reader_follows_the_writer_and_a_writer_an_earlier_reader() {
        assert_eq!(
            steps_of(&["{record: a, expr: x}", "{record: b, expr: a + 1}", "{record: c, expr: y}"]),
            [vec![0, 2], vec![1]]
        );
        assert_eq!(steps_of(&["{record: b, expr: a + 1}", "{record: a, expr: x}"]), [[0], [1]]);
    }

    #[test]
    fn whoever_may_read_anything_runs_alone() {
        for rule in [
            "{record: b, expr: 'count({job=\"x\"})'}",
            "{alert: B, expr: x, annotations: {d: '{{ query \"a\" }}'}}",
        ] {
            let found = steps_of(&["{record: a, expr: x}", rule, "{record: c, expr: y}"]);
            assert_eq!(found, [[0], [1], [2]], "{rule}");
        }
    }

    #[test]
    fn alerts_are_series_too() {
        assert_eq!(steps_of(&["{alert: A, expr: x}", "{record: b, expr: 'count(ALERTS)'}"]), [[0], [1]]);
    }

    #[test]
    fn two_writers_of_one_series_keep_their_order() {
        assert_eq!(steps_of(&["{record: a, expr: x}", "{record: a, expr: y}"]), [[0], [1]]);
    }
}
