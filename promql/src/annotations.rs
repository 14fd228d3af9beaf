//! Warnings and infos: answers that come with a remark.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::ast::Position;

/// More distinct remarks than this are not kept.
const KEPT_MAX: usize = 1000;

/// The remarks on one query, collected by all its workers. Kept in order of their text, so that
/// the order does not depend on who came first.
#[derive(Debug, Default)]
pub(crate) struct Annotations {
    warnings: Mutex<BTreeSet<String>>,
    infos: Mutex<BTreeSet<String>>,
}

impl Annotations {
    pub(crate) fn warn(&self, at: Position, text: &str) {
        insert(&self.warnings, format!("PromQL warning: {text} ({at})"));
    }

    pub(crate) fn info(&self, at: Position, text: &str) {
        insert(&self.infos, format!("PromQL info: {text} ({at})"));
    }

    /// The texts: warnings, infos.
    pub(crate) fn into_texts(self) -> (Vec<String>, Vec<String>) {
        (self.warnings.into_inner().into_iter().collect(), self.infos.into_inner().into_iter().collect())
    }
}

fn insert(set: &Mutex<BTreeSet<String>>, text: String) {
    let mut set = set.lock();
    if set.len() < KEPT_MAX {
        set.insert(text);
    }
}

/// ` for metric name "x"`, as many remarks end; empty without a name.
pub(crate) fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", crate::text::Quote(name)) }
}
