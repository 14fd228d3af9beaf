//! Series that are computed one at a time.
//!
//! Everything between a selector and an aggregation is a [`Source`]: it knows the labels of its
//! series at once, and computes the column of any of them on demand. So an aggregation holds its
//! accumulators and a batch of columns, never all series.

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME, Samples};

use super::Evaluator;
use super::column::Column;
use crate::engine::QueryError;
use crate::limits::{Account, Desk};

/// What one worker uses from series to series.
pub(crate) struct Scratch<'a> {
    pub(crate) samples: Samples,
    pub(crate) desk: Desk<'a>,
}

impl<'a> Scratch<'a> {
    pub(crate) fn new(account: &'a Account<'a>) -> Self {
        Self { samples: Samples::default(), desk: Desk::new(account) }
    }
}

/// A series with its values.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    /// The metric name does not belong to it any more, but has not been removed yet.
    pub(crate) drop_name: bool,
    pub(crate) column: Column,
}

/// Series that can be computed one at a time, by several workers.
pub(crate) trait Source: Sync {
    /// The number of series.
    fn len(&self) -> usize;

    /// Calls `visit` with the labels of series `at`, ascending.
    fn visit_labels(&self, at: usize, visit: &mut dyn FnMut(&str, &str));

    /// Calls `visit` with those labels of series `at` that are among `names`, both ascending.
    fn visit_some_labels(&self, at: usize, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        let mut wanted = names.iter().peekable();
        self.visit_labels(at, &mut |name, value| {
            while wanted.next_if(|wanted| wanted.as_str() < name).is_some() {}
            if wanted.next_if(|wanted| *wanted == name).is_some() {
                visit(name, value);
            }
        });
    }

    /// The labels of series `at`.
    fn labels(&self, at: usize) -> Labels;

    /// Whether the name of series `at` is to be removed at the end of the query.
    fn drop_name(&self, at: usize) -> bool;

    /// Computes the values of series `at` into `out`, which is reset first.
    fn compute(&self, at: usize, scratch: &mut Scratch<'_>, out: &mut Column) -> Result<(), QueryError>;

    /// Whether no two series differ only in their metric names.
    fn names_unique(&self) -> bool;
}

/// A source on the heap.
pub(crate) type BoxSource<'a> = Box<dyn Source + 'a>;

/// Series that are all there already, and whose memory is booked until they go.
pub(crate) struct Ready<'a> {
    pub(crate) series: Vec<Series>,
    pub(crate) evaluator: &'a Evaluator<'a>,
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        self.evaluator.release(&self.series);
    }
}

impl Source for Ready<'_> {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn visit_labels(&self, at: usize, visit: &mut dyn FnMut(&str, &str)) {
        for (name, value) in &self.series[at].labels {
            visit(name, value);
        }
    }

    fn labels(&self, at: usize) -> Labels {
        self.series[at].labels.clone()
    }

    fn drop_name(&self, at: usize) -> bool {
        self.series[at].drop_name
    }

    fn compute(&self, at: usize, _: &mut Scratch<'_>, out: &mut Column) -> Result<(), QueryError> {
        out.copy_from(&self.series[at].column);
        Ok(())
    }

    fn names_unique(&self) -> bool {
        have_one_name(self.series.iter().map(|series| &series.labels), self.evaluator.account())
    }
}

/// What a mapping does to the metric name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// Keeps it.
    Keep,
    /// Removes it now.
    Drop,
    /// Marks it for removal at the end of the query.
    Mark,
}

/// Changes a column in place.
pub(crate) type ColumnMap<'a> = Box<dyn Fn(&mut Column) + Sync + 'a>;

/// A source whose columns are changed one by one.
pub(crate) struct Mapped<'a> {
    pub(crate) inner: BoxSource<'a>,
    pub(crate) name: NameRule,
    pub(crate) map: ColumnMap<'a>,
}

/// Labels that describe the name.
pub(crate) const DESCRIPTIONS: [&str; 2] = ["__type__", "__unit__"];

/// Whether a label goes when the name goes: the name itself, and what describes it.
pub(crate) fn goes_with_name(label: &str) -> bool {
    label.starts_with("__") && (label == METRIC_NAME || DESCRIPTIONS.contains(&label))
}

impl Source for Mapped<'_> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn visit_labels(&self, at: usize, visit: &mut dyn FnMut(&str, &str)) {
        if self.name == NameRule::Drop {
            self.inner.visit_labels(at, &mut |name, value| {
                if !goes_with_name(name) {
                    visit(name, value);
                }
            });
        } else {
            self.inner.visit_labels(at, visit);
        }
    }

    fn visit_some_labels(&self, at: usize, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        let drops = self.name == NameRule::Drop;
        self.inner.visit_some_labels(at, names, &mut |name, value| {
            if !drops || !goes_with_name(name) {
                visit(name, value);
            }
        });
    }

    fn labels(&self, at: usize) -> Labels {
        let labels = self.inner.labels(at);
        if self.name == NameRule::Drop { labels.filtered(|name| !goes_with_name(name)) } else { labels }
    }

    fn drop_name(&self, at: usize) -> bool {
        self.name == NameRule::Mark || self.inner.drop_name(at)
    }

    fn compute(&self, at: usize, scratch: &mut Scratch<'_>, out: &mut Column) -> Result<(), QueryError> {
        self.inner.compute(at, scratch, out)?;
        (self.map)(out);
        Ok(())
    }

    fn names_unique(&self) -> bool {
        self.inner.names_unique()
    }
}

/// Whether all label sets agree in the labels that go with the name. Where nobody waits for the answer, there is none.
pub(crate) fn have_one_name<'l>(mut all: impl Iterator<Item = &'l Labels>, account: &Account<'_>) -> bool {
    fn names(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
        labels.iter().filter(|(name, _)| goes_with_name(name))
    }
    let Some(first) = all.next() else { return true };
    all.all(|labels| !account.is_cancelled() && names(labels).eq(names(first)))
}

/// The error of two series that have become one.
pub(crate) fn same_labelset() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// Joins series of equal labels whose values do not overlap in time.
pub(crate) fn join_equal(series: Vec<Series>, account: &Account<'_>) -> Result<Vec<Series>, QueryError> {
    let mut seen: HashMap<Labels, usize> = HashMap::with_capacity(series.len());
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    for item in account.watched(series) {
        let item = item?;
        match seen.get(&item.labels) {
            Some(at) => {
                if !out[*at].column.merge(&item.column) {
                    return Err(same_labelset());
                }
            }
            None => {
                seen.insert(item.labels.clone(), out.len());
                out.push(item);
            }
        }
    }
    Ok(out)
}
