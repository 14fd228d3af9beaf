//! Where samples go: into the database, or to somebody who wants only the newest of them.

use model::{HistogramValue, Labels, Timestamp};
use tsdb::{AppendError, Appender, CommitError, Exemplar, Metadata, SeriesRef};

/// Takes the samples of all pages instead of the database. Staleness markers are samples too
/// ([`model::is_stale_nan`]).
pub trait Sink: Send + Sync {
    /// Begins a page, or the end of some series. Pages are begun on several threads.
    fn page(&self) -> Box<dyn SinkPage + '_>;
}

/// The samples of one page.
pub trait SinkPage {
    /// The reference of a series, under which its samples come from now on. Never 0; what is not wanted has one too.
    fn series(&mut self, labels: &Labels) -> SeriesRef;

    /// Takes a sample. False if the reference is not known any more: it is asked for anew then, and the page begins once
    /// more.
    fn append(&mut self, series: SeriesRef, ts: Timestamp, value: f64) -> bool;
}

/// Writes one page. Which of both it is, is a branch per sample that is always taken the same way.
#[expect(clippy::large_enum_variant, reason = "one is on the stack for the length of a page")]
pub(crate) enum Writer<'a> {
    Db(Appender<'a>),
    /// And how many samples it has taken.
    Sink(Box<dyn SinkPage + 'a>, usize),
}

impl Writer<'_> {
    pub(crate) fn series(&mut self, labels: &Labels) -> Result<SeriesRef, AppendError> {
        match self {
            Self::Db(appender) => appender.series(labels),
            Self::Sink(page, _) => Ok(page.series(labels)),
        }
    }

    pub(crate) fn append(&mut self, series: SeriesRef, ts: Timestamp, value: f64) -> Result<(), AppendError> {
        self.append_started(series, (ts, 0), value)
    }

    pub(crate) fn append_started(
        &mut self,
        series: SeriesRef,
        (ts, start): (Timestamp, Timestamp),
        value: f64,
    ) -> Result<(), AppendError> {
        match self {
            Self::Db(appender) => appender.append_started(series, (ts, start), value),
            Self::Sink(page, samples) => {
                *samples += 1;
                page.append(series, ts, value).then_some(()).ok_or(AppendError::UnknownSeries)
            }
        }
    }

    /// Sinks have no use for histograms.
    pub(crate) fn append_histogram_started(
        &mut self,
        series: SeriesRef,
        times: (Timestamp, Timestamp),
        histogram: &HistogramValue,
    ) -> Result<(), AppendError> {
        match self {
            Self::Db(appender) => appender.append_histogram_started(series, times, histogram),
            Self::Sink(..) => Ok(()),
        }
    }

    pub(crate) fn append_exemplar(
        &mut self,
        series: SeriesRef,
        exemplar: &Exemplar,
    ) -> Result<(), AppendError> {
        match self {
            Self::Db(appender) => appender.append_exemplar(series, exemplar),
            Self::Sink(..) => Ok(()),
        }
    }

    pub(crate) fn metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError> {
        match self {
            Self::Db(appender) => appender.metadata(series, metadata),
            Self::Sink(..) => Ok(()),
        }
    }

    /// Ends the page; returns the number of samples.
    pub(crate) fn commit(self) -> Result<usize, CommitError> {
        match self {
            Self::Db(appender) => appender.commit(),
            Self::Sink(_, samples) => Ok(samples),
        }
    }
}
