//! How an engine reads a store.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Labels, LabelsBuffer, Matcher, Samples, TimeRange, Timestamp};

/// Which series, over which time.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// Conditions, all of which must hold.
    pub matchers: &'a [Matcher],
    /// Series with no sample in here may be left out (and should be, where that is cheap).
    pub range: TimeRange,
    /// Selecting ends with [`StorageError::Cancelled`] soon after this is set.
    pub cancelled: Option<&'a QueryCancelled>,
}

impl<'a> Selection<'a> {
    /// Series that fulfil all `matchers` in `range`.
    #[must_use]
    pub fn new(matchers: &'a [Matcher], range: TimeRange) -> Self {
        Self { matchers, range, cancelled: None }
    }

    /// The same, for as long as `cancelled` is not set.
    #[must_use]
    pub fn until(self, cancelled: Option<&'a QueryCancelled>) -> Self {
        Self { cancelled, ..self }
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`StorageError::Cancelled`].
    pub fn check(&self) -> Result<(), StorageError> {
        let cancelled = self.cancelled.is_some_and(QueryCancelled::is_set);
        if cancelled { Err(StorageError::Cancelled) } else { Ok(()) }
    }
}

/// A failure to read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Bytes on disk are not what they must be.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it, and which series and time are lost.
        what: String,
    },
    /// The operating system refused a read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that could not be read.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A part of the data is somewhere that cannot be reached.
    #[error("{0}")]
    Unavailable(String),
    /// The caller gave up.
    #[error("query cancelled")]
    Cancelled,
}

/// A consistent view of a store: it sees whole commits, and never changes while it lives.
pub trait Querier: Send + Sync {
    /// The series that fulfil all matchers, in ascending order of labels.
    ///
    /// # Errors
    /// The index cannot be read.
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError>;

    /// The same series in any order that is always the same for the same store. Where the order does not
    /// matter, sorting by labels would be the larger part of the work.
    ///
    /// # Errors
    /// The index cannot be read.
    fn select_unordered(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        self.select(selection)
    }

    /// The names of all labels of the series that fulfil `matchers` and have samples in `range`, in
    /// ascending order, at most `limit` of them (0: all).
    ///
    /// # Errors
    /// The index cannot be read.
    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError>;

    /// The values of label `name` over the series that fulfil `matchers` and have samples in `range`,
    /// in ascending order, at most `limit` of them (0: all).
    ///
    /// # Errors
    /// The index cannot be read.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError>;

    /// Calls `visit` with each of [`Querier::label_values`] in that order, until it returns false. There may be a
    /// million: where they can be shown in place, they are not copied.
    ///
    /// # Errors
    /// The index cannot be read. That may be known only when some values were visited.
    fn visit_label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        visit: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), StorageError> {
        self.label_values(name, matchers, range, limit)?.iter().all(|value| visit(value));
        Ok(())
    }
}

/// Selected series, addressed by position, so that workers can share them out.
///
/// An implementation keeps only references (8 bytes a series or so); labels and samples are
/// produced on demand.
pub trait SeriesSet: Send + Sync {
    /// The number of series.
    fn len(&self) -> usize;

    /// Whether there are no series.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with each label of series `index`, in ascending order of names. This is how
    /// group keys and join signatures are computed without building a label set.
    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str));

    /// The labels of series `index`.
    fn labels(&self, index: usize) -> Labels {
        let mut labels = LabelsBuffer::default();
        self.visit_labels(index, &mut |name, value| labels.push(name, value));
        labels.to_labels()
    }

    /// Calls `visit` with those labels of series `index` that are among `names`, which ascend, in ascending
    /// order of names. A store that keeps values apart from names need not look at the others.
    fn visit_some_labels(&self, index: usize, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        let mut wanted = names.iter().peekable();
        self.visit_labels(index, &mut |name, value| {
            while wanted.next_if(|wanted| wanted.as_str() < name).is_some() {}
            if wanted.next_if(|wanted| *wanted == name).is_some() {
                visit(name, value);
            }
        });
    }

    /// Whether a series may have a label `name`.
    fn may_have_label(&self, name: &str) -> bool {
        (0..self.len()).any(|index| {
            let mut found = false;
            self.visit_labels(index, &mut |other, _| found |= other == name);
            found
        })
    }

    /// A number that another selection of the same store has only if its series are these, in this order: what was found
    /// out about their labels need not be found out again. None where telling that would be no cheaper.
    fn fingerprint(&self) -> Option<u64> {
        None
    }

    /// The newest float of series `index`, if the store has it at hand without reading its chunks, and the
    /// series has no newer sample of any kind.
    fn newest_float(&self, _index: usize) -> Option<(Timestamp, f64)> {
        None
    }

    /// Clears `into` and fills it with the samples of series `index` in `range`.
    ///
    /// # Errors
    /// A chunk cannot be read.
    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError>;
}

/// A flag by which whoever started a query says that nobody waits for it any more.
#[derive(Debug, Default)]
pub struct QueryCancelled(AtomicBool);

impl QueryCancelled {
    /// A flag that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Sets the flag.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
