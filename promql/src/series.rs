//! The notation of series in tests: `metric{label="value"} 1 2+3x4 _ stale {{sum:1 count:2}}`.

mod histogram;

use model::{FloatHistogram, Labels, MatchOp};

use crate::ast::{Position, Span};
use crate::histogram as algebra;
use crate::parse::{ParseError, ParseErrorKind, parse_selector};

/// A series and its values, one a step.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesDescription {
    /// Which series.
    pub labels: Labels,
    /// Its values.
    pub values: Vec<SeriesValue>,
}

/// What stands at one step.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesValue {
    /// No sample: `_`.
    Omitted,
    /// A staleness marker: `stale`.
    Stale,
    /// A number.
    Float(f64),
    /// A native histogram, and whether its reset hint was spelled out.
    Histogram(Box<FloatHistogram>, bool),
}

/// More values than this in one description are refused.
const VALUES_MAX: usize = 10_000_000;

/// Reads a series and its values.
///
/// # Errors
/// The first mistake in the text.
pub fn parse(text: &str) -> Result<SeriesDescription, ParseError> {
    let (labels, rest) = parse_metric(text)?;
    let values = Values { text, at: text.len() - rest.len() }.all()?;
    Ok(SeriesDescription { labels, values })
}

/// Reads a metric at the start of `text`; returns the rest of the text too.
///
/// # Errors
/// The first mistake in the text.
pub fn parse_metric(text: &str) -> Result<(Labels, &str), ParseError> {
    let end = metric_end(text).ok_or_else(|| error(text, 0, text.len(), "unterminated series".to_owned()))?;
    let selector = parse_selector(&text[..end])?;
    for matcher in &selector.matchers {
        if matcher.op != MatchOp::Equal {
            return Err(error(text, 0, end, "only \"=\" may stand between label and value".to_owned()));
        }
    }
    let labels = Labels::from_pairs(selector.matchers.iter().map(|m| (&*m.name, &*m.value)));
    Ok((labels, &text[end..]))
}

/// Where the metric ends: after its closing brace, or at the first blank outside braces.
fn metric_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(q) if c == '\\' && q != '`' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' | '`' => quote = Some(c),
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                '@' if depth == 0 => return Some(at),
                c if c.is_whitespace() && depth == 0 => {
                    // A brace may follow after blanks, unless it opens a histogram.
                    let rest = text[at..].trim_start();
                    if !rest.starts_with('{') || rest.starts_with("{{") {
                        return Some(at);
                    }
                }
                _ => {}
            },
        }
    }
    (depth == 0 && quote.is_none()).then_some(text.len())
}

fn error(text: &str, start: usize, end: usize, message: String) -> ParseError {
    let span = Span { start, end };
    ParseError { span, position: Position::of(text, start), kind: ParseErrorKind::Syntax, message }
}

struct Values<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Values<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn all(mut self) -> Result<Vec<SeriesValue>, ParseError> {
        let mut out = Vec::new();
        loop {
            self.blanks();
            if self.rest().is_empty() {
                return Ok(out);
            }
            self.item(&mut out)?;
            if !self.rest().is_empty() && !self.rest().starts_with([' ', '\t']) {
                return Err(self.unexpected());
            }
        }
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn unexpected(&self) -> ParseError {
        match self.rest().chars().next() {
            Some(c) => {
                let message = format!("unexpected \"{c}\" in series values");
                error(self.text, self.at, self.at + c.len_utf8(), message)
            }
            None => {
                let message = "unexpected end of input in series values".to_owned();
                error(self.text, self.at, self.at, message)
            }
        }
    }

    fn eat(&mut self, prefix: &str) -> bool {
        let hit = self.rest().starts_with(prefix);
        self.at += if hit { prefix.len() } else { 0 };
        hit
    }

    fn item(&mut self, out: &mut Vec<SeriesValue>) -> Result<(), ParseError> {
        let start = self.at;
        if self.eat("_") {
            // `_xN` stands for N omissions, `_` for one.
            let count = if self.eat("x") { self.count()? } else { 1 };
            return self.extend(out, count, start, |_| Ok(SeriesValue::Omitted));
        }
        if self.eat("stale") {
            let count = if self.eat("x") { self.count()? + 1 } else { 1 };
            return self.extend(out, count, start, |_| Ok(SeriesValue::Stale));
        }
        if self.rest().starts_with("{{") {
            return self.histograms(out);
        }
        let value = self.number()?;
        if self.eat("x") {
            let count = self.count()? + 1;
            return self.extend(out, count, start, |_| Ok(SeriesValue::Float(value)));
        }
        let step = if self.rest().starts_with(['+', '-']) { Some(self.number()?) } else { None };
        let Some(step) = step else {
            out.push(SeriesValue::Float(value));
            return Ok(());
        };
        if !self.eat("x") {
            return Err(self.unexpected());
        }
        let count = self.count()? + 1;
        let mut next = value;
        self.extend(out, count, start, |at| {
            if at > 0 {
                next += step;
            }
            Ok(SeriesValue::Float(next))
        })
    }

    fn histograms(&mut self, out: &mut Vec<SeriesValue>) -> Result<(), ParseError> {
        let start = self.at;
        let (first, hinted) = self.histogram()?;
        if self.eat("x") {
            let count = self.count()? + 1;
            return self
                .extend(out, count, start, |_| Ok(SeriesValue::Histogram(Box::new(first.clone()), hinted)));
        }
        let sign = self.rest().starts_with(['+', '-']).then(|| self.rest().starts_with('+'));
        let Some(plus) = sign else {
            out.push(SeriesValue::Histogram(Box::new(first), hinted));
            return Ok(());
        };
        self.at += 1;
        let (step, _) = self.histogram()?;
        if !self.eat("x") {
            return Err(self.unexpected());
        }
        let count = self.count()? + 1;
        let end = self.at;
        let text = self.text;
        let mut next = first.clone();
        self.extend(out, count, start, |at| {
            if at > 0 {
                next = histogram::stepped(&next, &step, plus).map_err(|m| error(text, end - 1, end, m))?;
                next.reset_hint = first.reset_hint;
            }
            Ok(SeriesValue::Histogram(Box::new(next.clone()), hinted))
        })
    }

    /// A histogram between double braces, and whether its reset hint was spelled out.
    fn histogram(&mut self) -> Result<(FloatHistogram, bool), ParseError> {
        let start = self.at;
        let body = self.rest().strip_prefix("{{").and_then(|rest| rest.split_once("}}"));
        let Some((body, _)) = body else { return Err(self.unexpected()) };
        self.at += body.len() + 4;
        histogram::read(body)
            .map_err(|(at, message)| error(self.text, start + 2 + at, start + 2 + body.len(), message))
    }

    fn extend(
        &self,
        out: &mut Vec<SeriesValue>,
        count: usize,
        start: usize,
        mut value: impl FnMut(usize) -> Result<SeriesValue, ParseError>,
    ) -> Result<(), ParseError> {
        if out.len().saturating_add(count) > VALUES_MAX {
            return Err(error(self.text, start, self.at, "too many values".to_owned()));
        }
        for at in 0..count {
            out.push(value(at)?);
        }
        Ok(())
    }

    fn count(&mut self) -> Result<usize, ParseError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let count = self.rest()[..digits].parse().map_err(|_| self.unexpected())?;
        self.at += digits;
        Ok(count)
    }

    /// A number, perhaps with a sign.
    fn number(&mut self) -> Result<f64, ParseError> {
        let length = number_length(self.rest());
        let value = read_number(&self.rest()[..length]).ok_or_else(|| self.unexpected())?;
        self.at += length;
        Ok(value)
    }
}

/// How many bytes at the start of `text` belong to a number.
fn number_length(text: &str) -> usize {
    let sign = usize::from(text.starts_with(['+', '-']));
    let body = &text[sign..];
    let word = body.bytes().take_while(u8::is_ascii_alphabetic).count();
    if word >= 3 && ["inf", "nan"].iter().any(|known| body[..3].eq_ignore_ascii_case(known)) {
        return sign + 3;
    }
    if body.starts_with("0x") || body.starts_with("0X") {
        let digits = body[2..].bytes().take_while(u8::is_ascii_hexdigit).count();
        // `0x10` is a zero and ten more; only a letter shows that a number of base 16 is meant.
        if body[2..2 + digits].bytes().any(|b| b.is_ascii_alphabetic()) {
            return sign + 2 + digits;
        }
    }
    let mut length = 0;
    let bytes = body.as_bytes();
    while let Some(byte) = bytes.get(length) {
        let exponent = length > 0 && matches!(bytes[length - 1], b'e' | b'E');
        let part = byte.is_ascii_digit()
            || *byte == b'.'
            || matches!(byte, b'e' | b'E') && length > 0
            || matches!(byte, b'+' | b'-') && exponent;
        if !part {
            break;
        }
        length += 1;
    }
    sign + length
}

fn read_number(text: &str) -> Option<f64> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(body) => (-1.0, body),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(hex) = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        #[expect(clippy::cast_precision_loss, reason = "the nearest float is meant")]
        return i64::from_str_radix(hex, 16).ok().map(|value| sign * value as f64);
    }
    body.parse::<f64>().ok().map(|value| sign * value)
}

/// `a + b` or `a - b`, which tests use to count up.
fn combined(a: &FloatHistogram, b: &FloatHistogram, plus: bool) -> Option<FloatHistogram> {
    let combined = if plus { algebra::add(a, b) } else { algebra::subtract(a, b) };
    combined.ok().map(|combined| combined.histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(text: &str) -> Vec<f64> {
        let series = parse(text).unwrap_or_else(|error| unreachable!("{text}: {error}"));
        series
            .values
            .iter()
            .map(|value| match value {
                SeriesValue::Float(value) => *value,
                _ => f64::INFINITY,
            })
            .collect()
    }

    #[test]
    fn numbers_count_up_and_down() {
        assert_eq!(floats("m 1 -1 -3-10x2 7"), [1.0, -1.0, -3.0, -13.0, -23.0, 7.0]);
        assert_eq!(floats(r#"m{a="b c"} 1x2 0x1f+1e1x1"#), [1.0, 1.0, 1.0, 31.0, 41.0]);
        assert_eq!(floats("m -Inf"), [f64::NEG_INFINITY]);
        for bad in ["m 1+1", "m 1 2x", "m 1-2 3", "m{a=\"b} 1", "m {{sum:1", "m{a!=\"b\"} 1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn gaps_and_markers() {
        use SeriesValue::{Omitted, Stale};
        assert_eq!(parse("m _x2 stale _").unwrap().values, [Omitted, Omitted, Stale, Omitted]);
    }
}
