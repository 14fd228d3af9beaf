//! OTLP metrics, in: what OpenTelemetry's SDKs and collectors send.
//!
//! Points become samples as the OpenTelemetry specification ("Prometheus and OpenMetrics Compatibility")
//! and Prometheus' own receiver say: names with units, `job` and `instance` from `service.*`, the other
//! attributes of a resource as a series `target_info`, histograms as buckets, sum and count, exponential
//! ones as native histograms. Deltas are refused: a sum needs all that came before.

mod message;
mod names;
mod series;

use std::sync::Arc;

use model::{HistogramValue, Labels, Timestamp};
use tsdb::{AppendError, Appender, Db, Exemplar, SeriesRef};

pub use names::Translation;

use message::Request;

/// Which attributes of a resource become labels of all its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promote {
    /// These.
    Only(Vec<String>),
    /// All but these.
    AllBut(Vec<String>),
}

/// How metrics become series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which attributes of the resource are labels of all series.
    pub promote: Promote,
    /// How names are formed.
    pub translation: Translation,
    /// Keep `service.name`, `service.namespace` and `service.instance.id` in `target_info`.
    pub keep_identifying: bool,
    /// Histograms become native ones with custom buckets.
    pub histograms_to_custom: bool,
    /// Name, version and attributes of the instrumentation scope become labels.
    pub promote_scope: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            promote: Promote::Only(Vec::new()),
            translation: Translation::default(),
            keep_identifying: false,
            histograms_to_custom: false,
            promote_scope: false,
        }
    }
}

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

/// Why a request was not, or not wholly, taken.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// Not a request: 400.
    #[error("{0}")]
    Malformed(String),
    /// Some of it was refused and would be again; the rest is stored: 400.
    #[error("{refused} refused, {stored} stored; the first: {first}")]
    Partial {
        /// How many samples or metrics were refused.
        refused: u64,
        /// How many samples were stored.
        stored: u64,
        /// Why the first was.
        first: String,
    },
    /// The store could not write; nothing is stored: 500.
    #[error("{0}")]
    Storage(String),
}

/// One sample on its way to the store.
pub(crate) struct Point {
    labels: Labels,
    ts: Timestamp,
    value: PointValue,
    exemplars: Vec<Exemplar>,
}

/// Its value.
pub(crate) enum PointValue {
    Float(f64),
    Histogram(HistogramValue),
}

/// Takes requests into a store.
pub struct Receiver {
    db: Arc<Db>,
    options: Options,
}

impl Receiver {
    /// Writes into `db`.
    #[must_use]
    pub fn new(db: Arc<Db>, options: Options) -> Self {
        Self { db, options }
    }

    /// Stores the metrics of one request.
    ///
    /// # Errors
    /// See [`OtlpError`]. After [`OtlpError::Partial`] everything that could be stored is.
    pub fn receive(&self, format: Format, body: &[u8]) -> Result<(), OtlpError> {
        let malformed = |error: String| OtlpError::Malformed(error);
        let request = match format {
            Format::Protobuf => Request::of_protobuf(body).map_err(|error| malformed(error.to_string()))?,
            Format::Json => serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?,
        };
        let mut batch = Batch { appender: self.db.appender(), stored: 0, refused: 0, first: None };
        series::each_point(&self.options, &request, &mut |point| match point {
            Ok(point) => batch.append(&point),
            Err(what) => batch.refuse(what),
        });
        batch.finish()
    }
}

/// The state of one request.
struct Batch<'d> {
    appender: Appender<'d>,
    stored: u64,
    refused: u64,
    first: Option<String>,
}

impl Batch<'_> {
    fn append(&mut self, point: &Point) {
        let outcome = self.appender.series(&point.labels).and_then(|series| self.put(series, point));
        match outcome {
            Ok(()) => self.stored += 1,
            Err(error) => self.refuse(format!("{}: {error}", point.labels)),
        }
    }

    fn put(&mut self, series: SeriesRef, point: &Point) -> Result<(), AppendError> {
        match &point.value {
            PointValue::Float(value) => self.appender.append(series, point.ts, *value)?,
            PointValue::Histogram(value) => self.appender.append_histogram(series, point.ts, value)?,
        }
        for exemplar in &point.exemplars {
            // An exemplar that comes late is no loss of samples.
            let _ = self.appender.append_exemplar(series, exemplar);
        }
        Ok(())
    }

    fn refuse(&mut self, what: String) {
        self.refused += 1;
        self.first.get_or_insert(what);
    }

    fn finish(self) -> Result<(), OtlpError> {
        self.appender.commit().map_err(|error| OtlpError::Storage(error.to_string()))?;
        match self.first {
            None => Ok(()),
            Some(first) => Err(OtlpError::Partial { refused: self.refused, stored: self.stored, first }),
        }
    }
}

#[cfg(test)]
mod tests;
