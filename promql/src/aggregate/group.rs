//! Which series belong together.

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME};

use crate::ast::Aggregate;
use crate::eval::source::Source;

/// The groups seen so far. A group is found by the text of its labels, which is put together in a
/// reused buffer; its label set is built once.
pub(super) struct Groups {
    without: bool,
    /// Ascending and unique.
    grouping: Vec<String>,
    index: HashMap<String, usize>,
    labels: Vec<(Labels, bool)>,
    key: String,
}

impl Groups {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        let mut grouping = aggregate.grouping.clone();
        grouping.sort_unstable();
        grouping.dedup();
        Self {
            without: aggregate.without,
            grouping,
            index: HashMap::new(),
            labels: Vec::new(),
            key: String::new(),
        }
    }

    fn keeps(&self, name: &str) -> bool {
        let listed = self.grouping.binary_search_by(|label| label.as_str().cmp(name)).is_ok();
        if self.without { !listed && name != METRIC_NAME } else { listed }
    }

    /// The group of a series; new groups are numbered in order of appearance.
    pub(super) fn of(&mut self, source: &dyn Source, series: usize) -> usize {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        if self.without || !self.grouping.is_empty() {
            source.visit_labels(series, &mut |name, value| {
                if self.keeps(name) {
                    // No label holds the separator: it is no character of text.
                    key.push_str(name);
                    key.push('\0');
                    key.push_str(value);
                    key.push('\0');
                }
            });
        }
        let found = self.index.get(&key).copied();
        if let Some(at) = found {
            // One member that has lost its name is enough.
            let (labels, drop_name) = &mut self.labels[at];
            *drop_name |= source.drop_name(series) && labels.metric_name().is_some();
        }
        let group = found.unwrap_or_else(|| {
            let labels = source.labels(series).filtered(|name| self.keeps(name));
            // A name that is kept only to be removed at the end is still to be removed.
            let drop_name = source.drop_name(series) && labels.metric_name().is_some();
            self.labels.push((labels, drop_name));
            self.index.insert(key.clone(), self.labels.len() - 1);
            self.labels.len() - 1
        });
        self.key = key;
        group
    }

    /// The labels of all groups, and whether their names are to be removed at the end.
    pub(super) fn into_labels(self) -> Vec<(Labels, bool)> {
        self.labels
    }
}
