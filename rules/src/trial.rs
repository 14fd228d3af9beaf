//! Rules evaluated at times of the caller's choice, in order and at once: for unit tests of rule files,
//! and for filling in what a new rule would have written.

use std::sync::Arc;

use model::Timestamp;

use crate::group::GroupState;
use crate::query::Environment;
use crate::status::{AlertStatus, Health};
use crate::{Options, StartError};

/// Groups of rules without tasks, clocks and Alertmanagers.
pub struct Trial {
    env: Environment,
    groups: Vec<GroupState>,
}

impl Trial {
    /// The groups of `options`, in their order. Nothing is known of alerts before.
    ///
    /// # Errors
    /// The groups cannot be run.
    pub fn new(options: &Options) -> Result<Self, StartError> {
        crate::check_groups(&options.groups)?;
        let state = |group: &crate::Group| {
            let interval_ms = group.interval_ms.unwrap_or(options.evaluation_interval_ms);
            let query_offset_ms = group.query_offset_ms.unwrap_or(options.query_offset_ms);
            GroupState::new(Arc::new(group.clone()), (interval_ms, query_offset_ms), false)
        };
        let groups = options.groups.iter().map(state).collect();
        Ok(Self { env: crate::environment(options), groups })
    }

    /// Evaluates all rules at `ts`, group after group. Returns what went wrong: rules and reasons.
    pub fn evaluate(&mut self, ts: Timestamp) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for group in &mut self.groups {
            group.evaluate(&self.env, ts);
            let live = group.live.lock();
            let failed = live.rules.iter().filter(|rule| rule.health == Health::Err);
            faults
                .extend(failed.map(|rule| (rule.name.clone(), rule.last_error.clone().unwrap_or_default())));
        }
        faults
    }

    /// The pending and firing alerts of all rules of this name.
    #[must_use]
    pub fn alerts(&self, name: &str) -> Vec<AlertStatus> {
        let mut found = Vec::new();
        for group in &self.groups {
            let live = group.live.lock();
            let rules = live.rules.iter().filter(|rule| rule.name == name);
            found
                .extend(rules.filter_map(|rule| rule.alerting.as_ref()).flat_map(|rule| rule.alerts.clone()));
        }
        found
    }
}
