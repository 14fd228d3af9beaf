//! What each part of a query costs, for whoever asks: samples at each step, and series, samples, bytes and
//! time of each node.
//!
//! Nothing is counted unless it is asked for. A node that is evaluated as a whole has the time from its
//! start to its end, what is inside included; one that is computed series by series has the time of all
//! workers together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ast::{Expr, Span};
use crate::engine::NodeStats;

/// The accounts of one query.
pub(crate) struct Tally {
    nodes: Vec<Node>,
    /// Samples that the query looks at, by step; those that several windows see count as often.
    steps: Vec<AtomicU64>,
}

struct Node {
    span: Span,
    series: AtomicU64,
    samples: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Tally {
    /// Accounts for the nodes of `expr` over `steps` steps.
    pub(crate) fn new(expr: &Expr, steps: usize) -> Self {
        let mut spans = Vec::new();
        collect(expr, &mut spans);
        let node = |span| Node {
            span,
            series: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
        };
        let nodes = spans.into_iter().map(node).collect();
        Self { nodes, steps: (0..steps).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Adds to the account of the node at `span` what it has cost since `since`.
    pub(crate) fn add(&self, span: Span, since: Instant, (series, samples, bytes): (usize, usize, usize)) {
        let Some(node) = self.nodes.iter().find(|node| node.span == span) else { return };
        let nanoseconds = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        node.series.fetch_add(series as u64, Ordering::Relaxed);
        node.samples.fetch_add(samples as u64, Ordering::Relaxed);
        node.bytes.fetch_max(bytes as u64, Ordering::Relaxed);
        node.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Counts samples that `step` of `of` steps looks at. What is computed once counts at each step.
    pub(crate) fn step(&self, (step, of): (usize, usize), samples: usize) {
        if of == self.steps.len() {
            self.steps[step].fetch_add(samples as u64, Ordering::Relaxed);
        } else {
            for step in &self.steps {
                step.fetch_add(samples as u64, Ordering::Relaxed);
            }
        }
    }

    /// What has been counted by step so far.
    pub(crate) fn steps(&self) -> Vec<u64> {
        self.steps.iter().map(|step| step.load(Ordering::Relaxed)).collect()
    }

    /// Counts `more` samples by step: what was computed once is used again.
    pub(crate) fn steps_again(&self, more: &[u64]) {
        for (step, more) in self.steps.iter().zip(more) {
            step.fetch_add(*more, Ordering::Relaxed);
        }
    }

    /// The samples by step, and the costs of the nodes that had any.
    pub(crate) fn into_parts(self) -> (Vec<u64>, Vec<NodeStats>) {
        let stats = |node: Node| NodeStats {
            span: node.span,
            series: node.series.into_inner(),
            samples: node.samples.into_inner(),
            bytes: node.bytes.into_inner(),
            elapsed: Duration::from_nanos(node.nanoseconds.into_inner()),
        };
        let nodes = self.nodes.into_iter().map(stats).filter(|node| !node.elapsed.is_zero()).collect();
        (self.steps.into_iter().map(AtomicU64::into_inner).collect(), nodes)
    }
}

fn collect(expr: &Expr, out: &mut Vec<Span>) {
    let expr = expr.unwrapped();
    if !out.contains(&expr.span) {
        out.push(expr.span);
    }
    crate::plan::operands(expr).into_iter().for_each(|operand| collect(operand, out));
}
