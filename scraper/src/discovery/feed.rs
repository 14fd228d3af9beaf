//! Groups that are found all at once, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s::Changed;
use parking_lot::Mutex;

use super::{Source, Subscribers};
use crate::config::TargetGroup;

pub(crate) struct Feed {
    groups: Mutex<BTreeMap<Source, Arc<TargetGroup>>>,
    subscribers: Arc<Subscribers>,
}

impl Feed {
    pub(crate) fn new(subscribers: Arc<Subscribers>) -> Self {
        Self { groups: Mutex::default(), subscribers }
    }

    pub(crate) fn sources(&self) -> Vec<Source> {
        self.groups.lock().keys().cloned().collect()
    }

    pub(crate) fn group(&self, source: &str) -> Option<Arc<TargetGroup>> {
        self.groups.lock().get(source).cloned()
    }

    /// Something could not be found out.
    pub(crate) fn fail(&self, mechanism: &str, whom: &str, error: &dyn std::fmt::Display) {
        self.subscribers.fail(mechanism, whom, error);
    }

    /// These are all groups that there are.
    pub(crate) fn replace(&self, groups: Vec<TargetGroup>) {
        let new: BTreeMap<Source, Arc<TargetGroup>> =
            groups.into_iter().map(|group| (Source::from(group.source.as_str()), Arc::new(group))).collect();
        let old = std::mem::replace(&mut *self.groups.lock(), new.clone());
        for (source, group) in &new {
            if old.get(source) != Some(group) {
                self.subscribers.tell(source, Changed::Put);
            }
        }
        for source in old.keys().filter(|source| !new.contains_key(*source)) {
            self.subscribers.tell(source, Changed::Gone);
        }
    }

    /// Replaces those groups whose source begins with `prefix`.
    pub(crate) fn replace_part(&self, prefix: &str, groups: Vec<TargetGroup>) {
        let mut all: Vec<TargetGroup> = {
            let known = self.groups.lock();
            let others = known.iter().filter(|(source, _)| !source.starts_with(prefix));
            others.map(|(_, group)| TargetGroup::clone(group)).collect()
        };
        all.extend(groups);
        self.replace(all);
    }
}
