//! OpenMetrics text, 0.0.1 and 1.0.0.

use std::borrow::Cow;

use super::lexis::{self, Dialect, exemplar_end, float, series_end};
use super::{Event, Exemplar, MetricType, ParseError, Sample};

const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

#[derive(Clone)]
pub(super) struct OpenMetrics<'a> {
    body: &'a [u8],
    at: usize,
    metric_type: MetricType,
}

impl<'a> OpenMetrics<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0, metric_type: MetricType::Unknown }
    }

    pub(super) fn next(
        &mut self,
        predict: &mut impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<Event<'a>>, ParseError> {
        let (body, line) = (self.body, self.at);
        match body.get(line) {
            None => Err(self.fail(line, "data does not end with # EOF")),
            Some(b'#') => self.descriptor(line),
            Some(_) => {
                let end = match predict(&body[line..]) {
                    Some(length) => line + length,
                    None => series_end(body, line, Dialect::OpenMetrics)?,
                };
                self.value(line, end).map(Some)
            }
        }
    }

    fn fail(&self, at: usize, what: &'static str) -> ParseError {
        ParseError::at(self.body, at, what)
    }

    /// The float behind one blank at `at`, and the end of its token.
    fn number(&self, at: usize, what: &'static str) -> Result<(f64, usize), ParseError> {
        if self.body.get(at) != Some(&b' ') || matches!(self.body.get(at + 1), None | Some(b' ' | b'\n')) {
            return Err(self.fail(at, what));
        }
        let (value, end) = float(self.body, at + 1)?;
        if matches!(self.body.get(end), Some(b' ' | b'\n')) {
            Ok((value, end))
        } else {
            Err(self.fail(at, what))
        }
    }

    /// Seconds behind one blank at `at`, as milliseconds.
    fn timestamp(&self, at: usize) -> Result<(i64, usize), ParseError> {
        let (seconds, end) = self.number(at, "expected timestamp")?;
        let ms = seconds * 1_000.0;
        // The first float beyond is 2^63, just above the largest timestamp.
        if !(-TWO_TO_63..TWO_TO_63).contains(&ms) {
            return Err(self.fail(at, "invalid timestamp"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "in range; the fraction is dropped, as in Prometheus"
        )]
        let ms = ms as i64;
        Ok((ms, end))
    }

    /// The rest of a line whose series is `body[start..end]`: value, timestamp, exemplar.
    fn value(&mut self, start: usize, end: usize) -> Result<Event<'a>, ParseError> {
        let body = self.body;
        let (value, mut at) = self.number(end, "expected value after metric")?;
        let (mut ts, mut exemplar) = (None, None);
        if body.get(at) == Some(&b' ') && body.get(at + 1) != Some(&b'#') {
            let (ms, end) = self.timestamp(at)?;
            (ts, at) = (Some(ms), end);
        }
        if body.get(at..at + 4) == Some(b" # {") {
            let end = exemplar_end(body, at + 3)?;
            let labels = &body[at + 3..end];
            let (value, mut end) = self.number(end, "expected value after exemplar labels")?;
            let mut ts = None;
            if body.get(end) == Some(&b' ') {
                let (ms, ts_end) = self.timestamp(end)?;
                (ts, end) = (Some(ms), ts_end);
            }
            exemplar = Some(Exemplar { labels, value, ts });
            at = end;
        }
        if body.get(at) != Some(&b'\n') {
            return Err(self.fail(at, "expected next entry"));
        }
        self.at = at + 1;
        let series = &body[start..end];
        Ok(Event::Sample(Sample {
            series,
            metric_type: self.metric_type,
            value,
            ts,
            start_ts: None,
            exemplar,
        }))
    }

    /// A line that begins with `#`.
    fn descriptor(&mut self, line: usize) -> Result<Option<Event<'a>>, ParseError> {
        let body = self.body;
        let rest = &body[line..];
        if rest.starts_with(b"# EOF") {
            return match &rest[5..] {
                b"" | b"\n" => {
                    self.at = body.len();
                    Ok(None)
                }
                _ => Err(self.fail(line, "unexpected data after # EOF")),
            };
        }
        let keyword = rest.get(..7).unwrap_or_default();
        if !matches!(keyword, b"# HELP " | b"# TYPE " | b"# UNIT ") {
            return Err(self.fail(line, "expected a valid start token"));
        }
        let name_at = line + 7;
        let name_end = match body.get(name_at) {
            Some(b'"') => lexis::quoted(body, name_at, false),
            _ => Some(lexis::bare_name(body, name_at, true)),
        };
        let Some(name_end) = name_end.filter(|&name_end| name_end > name_at) else {
            return Err(self.fail(name_at, "expected metric name after HELP, TYPE or UNIT"));
        };
        let family = lexis::unquote(&body[name_at..name_end])
            .ok_or_else(|| self.fail(name_at, "invalid UTF-8 metric name"))?;
        if body.get(name_end) != Some(&b' ') {
            return Err(self.fail(name_end, "expected text in HELP, TYPE or UNIT"));
        }
        let Some(length) = body[name_end..].iter().position(|&byte| byte == b'\n') else {
            return Err(self.fail(name_end, "expected a line feed"));
        };
        self.at = name_end + length + 1;
        let text = std::str::from_utf8(&body[name_end + 1..name_end + length])
            .map_err(|_| self.fail(name_end, "text is not a valid utf8 string"))?;
        let event = match keyword {
            b"# HELP " => Event::Help { family, help: text },
            b"# TYPE " => {
                self.metric_type =
                    metric_type(text).ok_or_else(|| self.fail(name_end, "invalid metric type"))?;
                Event::Type { family, metric_type: self.metric_type }
            }
            _ => self.unit(family, text, line)?,
        };
        Ok(Some(event))
    }

    fn unit(&self, family: Cow<'a, str>, unit: &'a str, line: usize) -> Result<Event<'a>, ParseError> {
        let stem = family.strip_suffix(unit).filter(|stem| stem.ends_with('_'));
        if stem.is_none() && !unit.is_empty() {
            return Err(self.fail(line, "unit is not a suffix of the metric's name"));
        }
        Ok(Event::Unit { family, unit })
    }
}

fn metric_type(text: &str) -> Option<MetricType> {
    Some(match text {
        "counter" => MetricType::Counter,
        "gauge" => MetricType::Gauge,
        "histogram" => MetricType::Histogram,
        "gaugehistogram" => MetricType::GaugeHistogram,
        "summary" => MetricType::Summary,
        "info" => MetricType::Info,
        "stateset" => MetricType::StateSet,
        "unknown" => MetricType::Unknown,
        _ => return None,
    })
}
