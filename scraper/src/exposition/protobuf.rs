//! Delimited `io.prometheus.client.MetricFamily` messages.
//!
//! The labels of a metric stand in front of its value, as encoders write fields in the order of their numbers. They are
//! stepped over and handed on as they are ([`raw`]): a known series costs a copy of some 200 bytes, and only a new one
//! has its labels read. That is 0.1 us a sample where rendering names as text took 0.5 us and more.

mod metric;
pub(super) mod raw;

use std::borrow::Cow;
use std::ops::Range;

use model::{HistogramValue, ResetHint};

use super::wire::{Malformed, Reader, zigzag};
use super::{Event, Exemplar, HistogramSample, MetricType, ParseError, ParseOptions, Sample};
use metric::{Classic, Metric, Points};
use raw::Extra;

/// One page. Names of series are put together one metric at a time.
pub(super) struct Protobuf<'a> {
    rest: Reader<'a>,
    options: ParseOptions,
    /// The number of the message, from 1.
    message: usize,
    family: Family<'a>,
    stage: Stage,
    /// Metrics of the family that are still to be read.
    metrics: Reader<'a>,
    /// What the current metric consists of, and how far it has been handed out.
    queue: Vec<Pending>,
    handed: usize,
    /// The texts of `queue`.
    scratch: Vec<u8>,
    /// Native histogram of the current metric, with its examples.
    native: Option<(HistogramValue, Vec<Example>)>,
}

/// Where in the scratch the labels of an exemplar are, its value, and its time.
type Example = (Range<usize>, f64, Option<i64>);

#[derive(Clone, Copy, Debug, Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    unit: &'a str,
    metric_type: MetricType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Help,
    Type,
    Unit,
    Metrics,
}

#[derive(Debug)]
struct Pending {
    series: Range<usize>,
    /// `None` for the native histogram.
    value: Option<f64>,
    ts: Option<i64>,
    start_ts: Option<i64>,
    exemplar: Option<Example>,
}

impl<'a> Protobuf<'a> {
    pub(super) fn new(body: &'a [u8], options: ParseOptions) -> Self {
        Self {
            rest: Reader(body),
            options,
            message: 0,
            family: Family::default(),
            stage: Stage::Metrics,
            metrics: Reader(&[]),
            queue: Vec::new(),
            handed: 0,
            scratch: Vec::new(),
            native: None,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Event<'_>>, ParseError> {
        match self.advance() {
            Ok(true) => Ok(Some(self.event())),
            Ok(false) => Ok(None),
            Err(Malformed) => {
                let what = "malformed MetricFamily message";
                Err(ParseError { line: self.message, what, near: self.family.name.to_owned() })
            }
        }
    }

    /// Moves until there is something to hand out; false at the end.
    fn advance(&mut self) -> Result<bool, Malformed> {
        loop {
            if self.stage == Stage::Unit && self.family.unit.is_empty() {
                self.stage = Stage::Metrics;
            }
            if self.stage != Stage::Metrics || self.handed < self.queue.len() {
                return Ok(true);
            }
            if !self.read_metric()? && !self.read_family()? {
                return Ok(false);
            }
        }
    }

    /// What [`Self::advance`] has moved to.
    fn event(&mut self) -> Event<'_> {
        let family = Cow::Borrowed(self.family.name);
        let metric_type = self.family.metric_type;
        match self.stage {
            Stage::Help => {
                self.stage = Stage::Type;
                return Event::Help { family, help: self.family.help };
            }
            Stage::Type => {
                self.stage = Stage::Unit;
                return Event::Type { family, metric_type };
            }
            Stage::Unit => {
                self.stage = Stage::Metrics;
                return Event::Unit { family, unit: self.family.unit };
            }
            Stage::Metrics => {}
        }
        self.handed += 1;
        let pending = &self.queue[self.handed - 1];
        let series = &self.scratch[pending.series.clone()];
        let (ts, start_ts) = (pending.ts, pending.start_ts);
        match (pending.value, self.native.take()) {
            (None, Some((value, examples))) => {
                let exemplars = examples.iter().map(|example| exemplar_in(&self.scratch, example)).collect();
                Event::Histogram(Box::new(HistogramSample {
                    series,
                    metric_type,
                    value,
                    ts,
                    start_ts,
                    exemplars,
                }))
            }
            (value, native) => {
                self.native = native;
                let exemplar = pending.exemplar.as_ref().map(|example| exemplar_in(&self.scratch, example));
                let value = value.unwrap_or_default();
                Event::Sample(Sample { series, metric_type, value, ts, start_ts, exemplar })
            }
        }
    }

    /// Reads the head of the next family that has metrics; false at the end of the page.
    fn read_family(&mut self) -> Result<bool, Malformed> {
        loop {
            if self.rest.0.is_empty() {
                return Ok(false);
            }
            self.message += 1;
            let length = self.rest.varint()?;
            let message = Reader(self.rest.take(length)?);
            let mut family = Family { metric_type: MetricType::Counter, ..Family::default() };
            let (mut reader, mut metrics) = (message, false);
            while let Some((number, field)) = reader.field()? {
                match number {
                    1 => family.name = field.text()?,
                    2 => family.help = field.text()?,
                    3 => family.metric_type = metric_type(field.unsigned()?)?,
                    4 => metrics = true,
                    5 => family.unit = field.text()?,
                    _ => {}
                }
            }
            self.family = family;
            if family.name.is_empty() {
                return Err(Malformed);
            }
            if metrics {
                self.metrics = message;
                self.stage = Stage::Help;
                return Ok(true);
            }
        }
    }

    /// Takes the next metric of the family apart; false if there is none.
    fn read_metric(&mut self) -> Result<bool, Malformed> {
        self.queue.clear();
        self.scratch.clear();
        self.handed = 0;
        while let Some((number, field)) = self.metrics.field()? {
            if number == 4 {
                let metric = Metric::read(field.bytes()?)?;
                self.queue_metric(&metric)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn queue_metric(&mut self, metric: &Metric<'a>) -> Result<(), Malformed> {
        match &metric.points {
            Points::None => {}
            Points::Single { value, exemplar } => {
                self.queue_one(metric, "", Extra::None, *value);
                self.queue_exemplar(exemplar.as_ref());
            }
            Points::Summary { count, sum, quantiles } => {
                self.queue_one(metric, "_count", Extra::None, number(*count));
                self.queue_one(metric, "_sum", Extra::None, *sum);
                for (quantile, value) in quantiles {
                    self.queue_one(metric, "", Extra::Quantile(*quantile), *value);
                }
            }
            Points::Histogram { classic, native, exemplars } => {
                let take_native = self.options.native_histograms && native.is_some();
                if take_native && let Some(native) = native {
                    let gauge = self.family.metric_type == MetricType::GaugeHistogram;
                    let hint = if gauge { ResetHint::Gauge } else { ResetHint::Unknown };
                    let value = native.decode(hint)?;
                    self.queue_one(metric, "", Extra::None, 0.0);
                    if let Some(pending) = self.queue.last_mut() {
                        pending.value = None;
                    }
                    // Without examples of its own, those of the classic buckets are the histogram's.
                    let of_buckets = classic.buckets.iter().filter_map(|bucket| bucket.exemplar.as_ref());
                    let own = exemplars.iter().chain(of_buckets.filter(|_| exemplars.is_empty()));
                    let timed = own.filter(|exemplar| exemplar.ts.is_some());
                    let examples = timed.map(|exemplar| self.push_exemplar(exemplar)).collect();
                    self.native = Some((value, examples));
                }
                if !take_native || (self.options.always_classic && !classic.buckets.is_empty()) {
                    self.queue_classic(metric, classic);
                }
            }
        }
        Ok(())
    }

    fn queue_classic(&mut self, metric: &Metric<'a>, classic: &Classic<'a>) {
        self.queue_one(metric, "_count", Extra::None, classic.count);
        self.queue_one(metric, "_sum", Extra::None, classic.sum);
        let mut closed = false;
        for bucket in &classic.buckets {
            self.queue_one(metric, "_bucket", Extra::Le(bucket.upper_bound), bucket.count);
            closed |= bucket.upper_bound == f64::INFINITY;
            self.queue_exemplar(bucket.exemplar.as_ref());
        }
        if !closed {
            self.queue_one(metric, "_bucket", Extra::Le(f64::INFINITY), classic.count);
        }
    }

    /// Gives what was queued last its example.
    fn queue_exemplar(&mut self, exemplar: Option<&metric::RawExemplar<'a>>) {
        let example = exemplar.map(|exemplar| self.push_exemplar(exemplar));
        if let Some(pending) = self.queue.last_mut() {
            pending.exemplar = example;
        }
    }

    /// Queues a float of the series with the name's `suffix` and one more label.
    fn queue_one(&mut self, metric: &Metric<'a>, suffix: &str, extra: Extra, value: f64) {
        let start = self.scratch.len();
        raw::push(&mut self.scratch, (self.family.name, suffix), extra, &metric.labels);
        self.queue.push(Pending {
            series: start..self.scratch.len(),
            value: Some(value),
            ts: metric.ts,
            start_ts: metric.start_ts.filter(|_| self.options.start_times),
            exemplar: None,
        });
    }

    fn push_exemplar(&mut self, exemplar: &metric::RawExemplar<'a>) -> Example {
        let start = self.scratch.len();
        raw::push(&mut self.scratch, ("", ""), Extra::None, exemplar.message);
        (start..self.scratch.len(), exemplar.value, exemplar.ts)
    }
}

fn exemplar_in<'a>(scratch: &'a [u8], (labels, value, ts): &Example) -> Exemplar<'a> {
    Exemplar { labels: &scratch[labels.clone()], value: *value, ts: *ts }
}

fn metric_type(number: u64) -> Result<MetricType, Malformed> {
    Ok(match number {
        0 => MetricType::Counter,
        1 => MetricType::Gauge,
        2 => MetricType::Summary,
        3 => MetricType::Unknown,
        4 => MetricType::Histogram,
        5 => MetricType::GaugeHistogram,
        _ => return Err(Malformed),
    })
}

#[expect(clippy::cast_precision_loss, reason = "samples are floats")]
fn number(count: u64) -> f64 {
    count as f64
}
