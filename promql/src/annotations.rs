//! Warnings and infos: answers that come with a remark.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::ast::{Expr, Position, Span};

/// More distinct remarks than this are not kept.
const KEPT_MAX: usize = 1000;

/// Whom a remark concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// The place that is shown.
    pub(crate) at: Position,
    /// What makes the remark.
    pub(crate) node: Span,
}

impl Site {
    /// A remark that `node` makes about `part` of it; parentheses are looked through.
    pub(crate) fn new(node: &Expr, part: &Expr) -> Self {
        Self { at: part.unwrapped().position, node: node.span }
    }

    /// Ascends in the order in which parts of a query are evaluated: from the left to the right, and what is
    /// inside before what is around it.
    fn order(&self) -> (usize, Reverse<usize>, Position) {
        (self.node.end, Reverse(self.node.start), self.at)
    }
}

/// The remarks on one query, collected by all its workers. Kept in order of their text, so that
/// the order does not depend on who came first. What is said at several places is said once, as
/// in Prometheus: at the one that is evaluated last.
#[derive(Debug, Default)]
pub(crate) struct Annotations {
    warnings: Mutex<BTreeMap<String, Site>>,
    infos: Mutex<BTreeMap<String, Site>>,
}

impl Annotations {
    pub(crate) fn warn(&self, site: Site, text: &str) {
        insert(&self.warnings, text, site);
    }

    pub(crate) fn info(&self, site: Site, text: &str) {
        insert(&self.infos, text, site);
    }

    /// The texts: warnings, infos.
    pub(crate) fn into_texts(self) -> (Vec<String>, Vec<String>) {
        let texts = |kind: &str, remarks: BTreeMap<String, Site>| {
            remarks.into_iter().map(|(text, site)| format!("PromQL {kind}: {text} ({})", site.at)).collect()
        };
        (texts("warning", self.warnings.into_inner()), texts("info", self.infos.into_inner()))
    }
}

fn insert(remarks: &Mutex<BTreeMap<String, Site>>, text: &str, site: Site) {
    let mut remarks = remarks.lock();
    if let Some(known) = remarks.get_mut(text) {
        if known.order() < site.order() {
            *known = site;
        }
    } else if remarks.len() < KEPT_MAX {
        remarks.insert(text.to_owned(), site);
    }
}

/// ` for metric name "x"`, as many remarks end; empty without a name.
pub(crate) fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", crate::text::Quote(name)) }
}
