//! Pods that are gone, in the pages of kubelets.
//!
//! A pod's own targets end with it. But its kubelet's pages speak of it too, and the next of them may be half a minute
//! away. Nothing is kept for that: which series speak of a pod is asked of the store's index once it is gone, 50 to 100
//! of them in some ten microseconds, and only the targets that they came from look through their caches, 5,000 entries
//! in 25 microseconds. An index beside the cache would cost 4 bytes for each of its series, a fifth of what it takes,
//! and would be read as seldom.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Labels, Matcher, Querier as _, Selection, TimeRange, Timestamp};

use super::task::{Inbox, Shared};
use crate::discovery::Source;

/// Series without a sample for so long have ended already.
const RECENT_MS: i64 = 10 * 60_000;

/// The targets of nodes, by the labels `job` and `instance` of their series.
pub(super) type Nodes = HashMap<(String, String), Inbox>;

/// Ends the series of pods, given by `namespace/name`, that came from these targets. Blocks for a moment.
pub(super) fn end_series(pods: &[Source], nodes: &Nodes, shared: &Arc<Shared>) {
    let mut ended: HashMap<(String, String), Vec<Labels>> = HashMap::new();
    for pod in pods {
        for labels in series_of(pod, shared) {
            let label = |name: &str| labels.get(name).unwrap_or_default().to_owned();
            let from = (label("job"), label("instance"));
            if nodes.contains_key(&from) {
                ended.entry(from).or_default().push(labels);
            }
        }
    }
    for (from, series) in ended {
        if let Some(inbox) = nodes.get(&from) {
            inbox.end(series);
        }
    }
}

fn series_of(pod: &str, shared: &Arc<Shared>) -> Vec<Labels> {
    let Some((namespace, name)) = pod.split_once('/') else { return Vec::new() };
    let matchers = [Matcher::equal("namespace", namespace), Matcher::equal("pod", name)];
    let now = shared.now();
    let range = TimeRange { start: now.saturating_sub(RECENT_MS), end: Timestamp::MAX };
    let snapshot = shared.store.db.snapshot();
    match snapshot.select_unordered(&Selection::new(&matchers, range)) {
        Ok(set) => (0..set.len()).map(|at| set.labels(at)).collect(),
        Err(error) => {
            tracing::warn!(pod, %error, "the series of a pod that is gone end with the next scrape");
            Vec::new()
        }
    }
}
