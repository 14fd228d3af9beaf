//! A page read against what is known of its target, before anything of it is stored.

use std::collections::BTreeMap;

use model::{HistogramValue, Timestamp};

use crate::cache::{Cache, Changes, NameHasher, Slot};
use crate::config::HistogramOptions;
use crate::custom::{Converted, Converter, exemplar_of};
use crate::exposition::{Event, Format, MetricType, ParseError, ParseOptions, Parser, unescape_help};
use crate::resolution;
use crate::status::FamilyMetadata;

/// No timestamp of its own.
pub(crate) const UNTIMED: Timestamp = Timestamp::MIN;
/// Set in [`Point::place`] for the n-th new series.
const NEW: u32 = 1 << 31;
/// More samples than that are not read from one page, whatever its size: 96 MB of points.
const SAMPLES_MAX: usize = 4_000_000;

/// One sample of a page, in 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    place: u32,
    /// 0, or the number of the histogram from 1.
    histogram: u32,
    ts: Timestamp,
    pub(crate) value: f64,
}

impl Point {
    pub(crate) fn slot(&self) -> Slot {
        if self.place & NEW == 0 { Slot::Known(self.place) } else { Slot::New(self.place & !NEW) }
    }

    /// The timestamp on the page.
    pub(crate) fn ts(&self) -> Option<Timestamp> {
        Some(self.ts).filter(|&ts| ts != UNTIMED)
    }
}

/// A page that follows its format.
#[derive(Debug, Default)]
pub(crate) struct ParsedPage {
    pub(crate) points: Vec<Point>,
    pub(crate) changes: Changes,
    /// The bytes that name each new series, one after the other, and where each ends.
    names: Vec<u8>,
    new: Vec<(usize, MetricType)>,
    histograms: Vec<HistogramValue>,
    /// Examples, each with the number of its point.
    exemplars: Vec<(usize, tsdb::Exemplar)>,
    /// When points began to count, each with the number of its point.
    starts: Vec<(usize, Timestamp)>,
    /// Of all that the page says about its families.
    pub(crate) metadata_hash: u64,
}

impl ParsedPage {
    pub(crate) fn histogram(&self, point: &Point) -> Option<&HistogramValue> {
        self.histograms.get((point.histogram as usize).checked_sub(1)?)
    }

    /// Examples, each with the number of its point; those without a time of their own have that of the
    /// point, if it has one.
    pub(crate) fn exemplars(&self) -> &[(usize, tsdb::Exemplar)] {
        &self.exemplars
    }

    /// When points began to count, as far as the page says, each with the number of its point.
    pub(crate) fn starts(&self) -> &[(usize, Timestamp)] {
        &self.starts
    }

    fn push_start(&mut self, start: Option<Timestamp>) {
        self.starts.extend(start.map(|start| (self.points.len() - 1, start)));
    }

    /// Adds examples of the last point. The store takes those of a series in the order of their times only.
    fn push_exemplars(&mut self, mut exemplars: Vec<tsdb::Exemplar>) {
        exemplars.sort_by(|a, b| {
            a.ts.cmp(&b.ts).then(a.value.total_cmp(&b.value)).then_with(|| a.labels.cmp(&b.labels))
        });
        let at = self.points.len() - 1;
        self.exemplars.extend(exemplars.into_iter().map(|exemplar| (at, exemplar)));
    }

    fn push_converted(&mut self, reading: &mut crate::cache::Reading<'_>, converted: Option<Converted>) {
        let Some(Converted { series, ts, value, exemplars }) = converted else { return };
        let slot = reading.place(&series);
        self.histograms.push(value);
        let number = u32::try_from(self.histograms.len()).unwrap_or(0);
        self.push(slot, &series, MetricType::Histogram, ts).histogram = number;
        self.push_exemplars(exemplars);
    }

    /// The names of the new series with the types of their families.
    pub(crate) fn new_series(&self) -> impl Iterator<Item = (&[u8], MetricType)> {
        let starts = std::iter::once(0).chain(self.new.iter().map(|(end, _)| *end));
        starts.zip(&self.new).map(|(start, (end, metric_type))| (&self.names[start..*end], *metric_type))
    }

    fn push(
        &mut self,
        slot: Slot,
        name: &[u8],
        metric_type: MetricType,
        ts: Option<Timestamp>,
    ) -> &mut Point {
        let place = match slot {
            Slot::Known(at) => at,
            Slot::New(n) => {
                if n as usize == self.new.len() {
                    self.names.extend_from_slice(name);
                    self.new.push((self.names.len(), metric_type));
                }
                n | NEW
            }
        };
        self.points.push(Point { place, histogram: 0, ts: ts.unwrap_or(UNTIMED), value: 0.0 });
        let last = self.points.len() - 1;
        &mut self.points[last]
    }
}

/// Why a page cannot be taken.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PageError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("histogram bucket limit exceeded")]
    Buckets,
    #[error("more than {SAMPLES_MAX} samples on one page")]
    TooManySamples,
}

/// Reads all of a page; its error stands for all of it.
pub(crate) fn read(
    body: &[u8],
    format: Format,
    histograms: HistogramOptions,
    start_times: bool,
    cache: &Cache,
    hasher: &NameHasher,
) -> Result<ParsedPage, PageError> {
    let options = ParseOptions {
        start_times,
        native_histograms: histograms.native,
        always_classic: histograms.always_classic,
    };
    let mut page = ParsedPage { points: Vec::with_capacity(cache.len()), ..ParsedPage::default() };
    let mut reading = cache.read(hasher);
    let mut parser = Parser::new(body, format, options);
    let mut converter = histograms.convert_classic.then(Converter::default);
    // Lines of a histogram that is put together must be seen whole.
    let predicts = converter.is_none();
    while let Some(event) = parser.next(&mut |rest| if predicts { reading.predict(rest) } else { None })? {
        if let Some(converter) = &mut converter
            && convert(converter, &event, (&mut page, &mut reading))
            && !histograms.always_classic
        {
            continue;
        }
        match event {
            Event::Sample(sample) => {
                let slot = reading.place(sample.series);
                page.push(slot, sample.series, sample.metric_type, sample.ts).value = sample.value;
                page.push_start(sample.start_ts);
                if let Some(exemplar) = &sample.exemplar {
                    let at = page.points.len() - 1;
                    page.exemplars.extend(exemplar_of(exemplar, sample.ts).map(|exemplar| (at, exemplar)));
                }
            }
            Event::Histogram(mut histogram) => {
                if !resolution::fit(&mut histogram.value, histograms) {
                    return Err(PageError::Buckets);
                }
                let slot = reading.place(histogram.series);
                page.histograms.push(histogram.value);
                let number = u32::try_from(page.histograms.len()).unwrap_or(0);
                page.push(slot, histogram.series, histogram.metric_type, histogram.ts).histogram = number;
                page.push_start(histogram.start_ts);
                let exemplars = histogram.exemplars.iter();
                page.push_exemplars(exemplars.filter_map(|exemplar| exemplar_of(exemplar, None)).collect());
            }
            Event::Type { family, metric_type } => {
                page.describe(hasher, 1, &family, metric_type.as_str());
            }
            Event::Help { family, help } => page.describe(hasher, 2, &family, help),
            Event::Unit { family, unit } => page.describe(hasher, 3, &family, unit),
            Event::Comment(_) => {}
        }
        if page.points.len() > SAMPLES_MAX {
            return Err(PageError::TooManySamples);
        }
    }
    if let Some(mut converter) = converter {
        page.push_converted(&mut reading, converter.finish());
    }
    page.changes = reading.finish();
    Ok(page)
}

/// Shows an event to the converter; says whether it was a line of a classic histogram.
fn convert(
    converter: &mut Converter,
    event: &Event<'_>,
    (page, reading): (&mut ParsedPage, &mut crate::cache::Reading<'_>),
) -> bool {
    let (is_taken, finished) = match event {
        Event::Sample(sample) => converter.take(sample),
        Event::Type { family, metric_type } => (false, converter.begin_family(family, *metric_type)),
        Event::Histogram(histogram) => {
            converter.note_native(histogram.series);
            (false, converter.finish())
        }
        _ => (false, None),
    };
    page.push_converted(reading, finished);
    is_taken
}

impl ParsedPage {
    fn describe(&mut self, hasher: &NameHasher, kind: u64, family: &str, text: &str) {
        let line = hasher.hash(family.as_bytes()) ^ hasher.hash(text.as_bytes()).rotate_left(17);
        self.metadata_hash =
            (self.metadata_hash.rotate_left(5) ^ line ^ kind).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What a page, which is known to follow its format, says about its families.
pub(crate) fn metadata(body: &[u8], format: Format) -> Vec<FamilyMetadata> {
    let mut families: BTreeMap<String, FamilyMetadata> = BTreeMap::new();
    let mut parser = Parser::new(body, format, ParseOptions::default());
    let of =
        |families: &mut BTreeMap<String, FamilyMetadata>, name: &str, set: &dyn Fn(&mut FamilyMetadata)| {
            let family = families.entry(name.to_owned()).or_insert_with(|| FamilyMetadata {
                family: name.to_owned(),
                metric_type: MetricType::Unknown,
                help: String::new(),
                unit: String::new(),
            });
            set(family);
        };
    while let Ok(Some(event)) = parser.next(&mut |_| None) {
        match event {
            Event::Type { family, metric_type } => {
                of(&mut families, &family, &|it| it.metric_type = metric_type);
            }
            Event::Help { family, help } => {
                let help = unescape_help(help, format);
                of(&mut families, &family, &|it| help.as_ref().clone_into(&mut it.help));
            }
            Event::Unit { family, unit } => of(&mut families, &family, &|it| unit.clone_into(&mut it.unit)),
            _ => {}
        }
    }
    families.into_values().collect()
}
