//! The classic text format, 0.0.4 and 1.0.0.

use std::borrow::Cow;

use super::lexis::{self, Dialect, blanks_end, float, series_end};
use super::{Event, MetricType, ParseError, Sample};

pub(super) struct Text<'a> {
    body: &'a [u8],
    at: usize,
    metric_type: MetricType,
}

impl<'a> Text<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0, metric_type: MetricType::Unknown }
    }

    pub(super) fn next(
        &mut self,
        predict: &mut impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<Event<'a>>, ParseError> {
        let body = self.body;
        loop {
            let line = self.at;
            match body.get(line) {
                None => return Ok(None),
                Some(b'\n') => {
                    self.at += 1;
                    continue;
                }
                Some(b'#') => return self.comment(line).map(Some),
                Some(_) => {}
            }
            if let Some(length) = predict(&body[line..]) {
                return self.value(line, line + length).map(Some);
            }
            let start = blanks_end(body, line);
            match body.get(start) {
                None => return Ok(None),
                Some(b'\n') => self.at = start + 1,
                Some(b'#') => return self.comment(start).map(Some),
                Some(_) => {
                    let end = series_end(body, start, Dialect::Classic)?;
                    return self.value(line, end).map(Some);
                }
            }
        }
    }

    /// The rest of a line whose series is `body[start..end]`: value and timestamp.
    fn value(&mut self, start: usize, end: usize) -> Result<Event<'a>, ParseError> {
        let body = self.body;
        let value_at = blanks_end(body, end);
        if matches!(body.get(value_at), None | Some(b'\n')) {
            return Err(ParseError::at(body, value_at, "expected value after metric"));
        }
        let (value, value_end) = float(body, value_at)?;
        let mut at = blanks_end(body, value_end);
        let mut ts = None;
        if let Some(byte) = body.get(at).filter(|&&byte| byte != b'\n') {
            if at == value_end || !byte.is_ascii_digit() {
                return Err(ParseError::at(body, value_end, "expected timestamp or new record"));
            }
            let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = std::str::from_utf8(&body[at..at + digits]).ok().and_then(|text| text.parse().ok());
            ts = Some(number.ok_or_else(|| ParseError::at(body, at, "timestamp out of range"))?);
            at = blanks_end(body, at + digits);
            if !matches!(body.get(at), None | Some(b'\n')) {
                return Err(ParseError::at(body, at, "expected next entry after timestamp"));
            }
        }
        self.at = at + 1;
        Ok(Event::Sample(Sample {
            series: &body[start..end],
            metric_type: self.metric_type,
            value,
            ts,
            start_ts: None,
            exemplar: None,
        }))
    }

    /// A line whose `#` is at `start`.
    fn comment(&mut self, start: usize) -> Result<Event<'a>, ParseError> {
        let body = self.body;
        let end =
            body[start..].iter().position(|&byte| byte == b'\n').map_or(body.len(), |length| start + length);
        self.at = end + 1;
        let comment = Ok(Event::Comment(&body[start..end]));
        let word = blanks_end(body, start + 1);
        let keyword = body.get(word..word + 4).filter(|_| word > start + 1 && word + 4 < end);
        let blank = matches!(body.get(word + 4), Some(b' ' | b'\t'));
        let is_help = match keyword {
            Some(b"HELP") if blank => true,
            Some(b"TYPE") if blank => false,
            _ => return comment,
        };
        let name_at = blanks_end(body, word + 4);
        let name_end = match body.get(name_at) {
            Some(b'"') => lexis::quoted(body, name_at, true),
            _ => Some(lexis::bare_name(body, name_at, true)),
        };
        let Some(name_end) = name_end.filter(|&name_end| name_end > name_at && name_end <= end) else {
            return Err(ParseError::at(body, name_at, "expected metric name after HELP or TYPE"));
        };
        let family = lexis::unquote(&body[name_at..name_end])
            .ok_or_else(|| ParseError::at(body, name_at, "invalid UTF-8 metric name"))?;
        // One byte separates the name from the text.
        let text = body.get(name_end + 1..end).unwrap_or_default();
        if is_help { self.help(family, text, name_end) } else { self.metric_type(family, text, name_end) }
    }

    fn help(&mut self, family: Cow<'a, str>, text: &'a [u8], at: usize) -> Result<Event<'a>, ParseError> {
        let help = std::str::from_utf8(text)
            .map_err(|_| ParseError::at(self.body, at, "help text is not a valid utf8 string"))?;
        Ok(Event::Help { family, help })
    }

    fn metric_type(&mut self, family: Cow<'a, str>, text: &[u8], at: usize) -> Result<Event<'a>, ParseError> {
        self.metric_type = match text {
            b"counter" => MetricType::Counter,
            b"gauge" => MetricType::Gauge,
            b"histogram" => MetricType::Histogram,
            b"summary" => MetricType::Summary,
            b"untyped" => MetricType::Unknown,
            _ => return Err(ParseError::at(self.body, at, "invalid metric type")),
        };
        Ok(Event::Type { family, metric_type: self.metric_type })
    }
}
