//! What the text formats share: names, labels, floats.

use std::borrow::Cow;

use super::protobuf::raw;
use super::wire::Malformed;
use super::{MetricType, ParseError};

/// One label of a series, unescaped.
pub type LabelPair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// How the two families of text formats differ inside braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// White space between tokens, line feeds in strings, commas optional.
    Classic,
    /// None of that.
    OpenMetrics,
}

/// Whether a byte of text can be part of a bare name; a digit cannot be its first.
fn is_name_byte(byte: u8, colon: bool) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (colon && byte == b':')
}

/// The end of the bare name at `at`; `at` itself if there is none.
pub(super) fn bare_name(body: &[u8], at: usize, colon: bool) -> usize {
    if body.get(at).is_none_or(u8::is_ascii_digit) {
        return at;
    }
    let length = body[at..].iter().position(|&byte| !is_name_byte(byte, colon));
    length.map_or(body.len(), |length| at + length)
}

/// The end of the quoted string at `at`, behind its closing quote.
pub(super) fn quoted(body: &[u8], at: usize, line_feeds: bool) -> Option<usize> {
    if body.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match *body.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => {
                // An escaped line feed does not end the string either, but is not of OpenMetrics.
                if !line_feeds && body.get(at + 1) == Some(&b'\n') {
                    return None;
                }
                at += 2;
            }
            b'\n' if !line_feeds => return None,
            _ => at += 1,
        }
    }
}

fn skip_blanks(body: &[u8], at: usize) -> usize {
    let length = body[at..].iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    length.map_or(body.len(), |length| at + length)
}

/// Where the tokens of a label set go. Names and values come as they stand, quotes included.
pub(super) trait Sink<'a> {
    fn metric_name(&mut self, quoted: &'a [u8]) -> Result<(), &'static str>;
    fn label(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), &'static str>;
}

/// Checks that what is in quotes is UTF-8, and that there is at most one metric name.
struct Check {
    named: bool,
}

impl Check {
    fn utf8(bytes: &[u8], what: &'static str) -> Result<(), &'static str> {
        if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() { Ok(()) } else { Err(what) }
    }
}

impl<'a> Sink<'a> for Check {
    fn metric_name(&mut self, quoted: &'a [u8]) -> Result<(), &'static str> {
        if std::mem::replace(&mut self.named, true) {
            return Err("metric name already set");
        }
        if quoted.len() <= 2 {
            return Err("metric name is empty");
        }
        Self::utf8(quoted, "invalid UTF-8 metric name")
    }

    fn label(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), &'static str> {
        Self::utf8(name, "invalid UTF-8 label name")?;
        Self::utf8(value, "invalid UTF-8 label value")
    }
}

/// Walks a label set from its opening brace; returns the end, behind the closing one. `names` says
/// whether a quoted metric name may stand in it.
pub(super) fn walk_labels<'a>(
    body: &'a [u8],
    open: usize,
    dialect: Dialect,
    names: bool,
    sink: &mut impl Sink<'a>,
) -> Result<usize, ParseError> {
    let classic = dialect == Dialect::Classic;
    let blanks = |at: usize| if classic { skip_blanks(body, at) } else { at };
    let mut at = blanks(open + 1);
    loop {
        let fail = |at, what| Err(ParseError::at(body, at, what));
        if body.get(at) == Some(&b'}') {
            return Ok(at + 1);
        }
        let is_quoted = body.get(at) == Some(&b'"');
        let name_end = if is_quoted { quoted(body, at, classic) } else { Some(bare_name(body, at, false)) };
        let Some(name_end) = name_end.filter(|&end| end > at) else {
            return fail(at, "expected label name");
        };
        let name = &body[at..name_end];
        let next = blanks(name_end);
        match body.get(next) {
            Some(b',') if is_quoted && names => {
                sink.metric_name(name).map_err(|what| ParseError::at(body, at, what))?;
                at = blanks(next + 1);
                continue;
            }
            Some(b'}') if is_quoted && names => {
                sink.metric_name(name).map_err(|what| ParseError::at(body, at, what))?;
                return Ok(next + 1);
            }
            Some(b'=') => {}
            _ => return fail(next, "expected equal"),
        }
        let value_at = blanks(next + 1);
        let Some(value_end) = quoted(body, value_at, classic) else {
            return fail(value_at, "expected label value");
        };
        let value = &body[value_at..value_end];
        sink.label(name, value).map_err(|what| ParseError::at(body, value_at, what))?;
        at = blanks(value_end);
        match body.get(at) {
            Some(b',') => at = blanks(at + 1),
            Some(b'}') => {}
            _ if classic => {}
            _ => return fail(at, "expected comma or brace close"),
        }
    }
}

/// Checks the series at `at` and returns the end of the bytes that name it.
pub(super) fn series_end(body: &[u8], at: usize, dialect: Dialect) -> Result<usize, ParseError> {
    let name_end = bare_name(body, at, true);
    let mut check = Check { named: name_end > at };
    let open = if dialect == Dialect::Classic { skip_blanks(body, name_end) } else { name_end };
    if body.get(open) != Some(&b'{') {
        return if check.named {
            Ok(name_end)
        } else {
            Err(ParseError::at(body, at, "expected a valid start token"))
        };
    }
    let end = walk_labels(body, open, dialect, true, &mut check)?;
    if check.named { Ok(end) } else { Err(ParseError::at(body, at, "metric name not set")) }
}

/// Checks the label set of an exemplar and returns its end.
pub(super) fn exemplar_end(body: &[u8], open: usize) -> Result<usize, ParseError> {
    walk_labels(body, open, Dialect::OpenMetrics, false, &mut Check { named: true })
}

/// Collects what is found, unescaped.
struct Collect<'a, 'b> {
    out: &'b mut Vec<LabelPair<'a>>,
    metric_type: MetricType,
}

impl<'a> Sink<'a> for Collect<'a, '_> {
    fn metric_name(&mut self, quoted: &'a [u8]) -> Result<(), &'static str> {
        self.out
            .push((Cow::Borrowed(model::METRIC_NAME), unquote(quoted).ok_or("invalid UTF-8 metric name")?));
        Ok(())
    }

    fn label(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), &'static str> {
        let name = unquote(name).ok_or("invalid UTF-8 label name")?;
        let value = unquote(value).ok_or("invalid UTF-8 label value")?;
        let value = canonical(&name, value, self.metric_type);
        self.out.push((name, value));
        Ok(())
    }
}

/// The value of a label; `le` of a histogram and `quantile` of a summary in their one form.
pub(super) fn canonical<'a>(name: &str, value: Cow<'a, str>, metric_type: MetricType) -> Cow<'a, str> {
    let is_float = match metric_type {
        MetricType::Histogram => name == "le",
        MetricType::Summary => name == "quantile",
        _ => false,
    };
    match is_float.then(|| model::float::parse(&value)).flatten() {
        Some(number) => Cow::Owned(model::float::format_open_metrics(number)),
        None => value,
    }
}

/// Takes the bytes that name a series apart: appends its labels to `out` in the order of the page, the
/// metric name first where it stands first. A name may occur twice and a value be empty.
/// `le` of a histogram and `quantile` of a summary come in canonical form.
///
/// # Errors
/// The bytes name no series; those of a [`super::Sample`] do.
pub fn series_labels<'a>(
    series: &'a [u8],
    metric_type: MetricType,
    out: &mut Vec<LabelPair<'a>>,
) -> Result<(), ParseError> {
    let fail = |what| ParseError::at(series, 0, what);
    if raw::is_raw(series) {
        return raw::labels(series, metric_type, out).map_err(|Malformed| fail("malformed labels"));
    }
    // Blanks in front of a bare name belong to it, as in Prometheus.
    let start = skip_blanks(series, 0);
    let name_end = bare_name(series, start, true);
    if name_end > start {
        let name = std::str::from_utf8(&series[..name_end]).map_err(|_| fail("invalid UTF-8 metric name"))?;
        out.push((Cow::Borrowed(model::METRIC_NAME), Cow::Borrowed(name)));
    }
    let open = skip_blanks(series, name_end);
    if series.get(open) == Some(&b'{') {
        // What OpenMetrics forbids was refused before; the classic dialect reads the rest alike.
        walk_labels(series, open, Dialect::Classic, true, &mut Collect { out, metric_type })?;
    }
    Ok(())
}

/// A name or value without its quotes and escapes. A bare name is returned as it is.
pub(super) fn unquote(text: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(text).ok()?;
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return Some(Cow::Borrowed(text));
    };
    Some(unescape(inner, true))
}

/// Undoes `\\`, `\n` and, with `quotes`, `\"`; any other backslash stands for itself.
fn unescape(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (c, taken) = match rest.as_bytes().get(at + 1) {
            Some(b'\\') => ('\\', 2),
            Some(b'n') => ('\n', 2),
            Some(b'"') if quotes => ('"', 2),
            _ => ('\\', 1),
        };
        out.push(c);
        rest = &rest[at + taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The text of a help line without its escapes.
#[must_use]
pub fn unescape_help(help: &str, format: super::Format) -> Cow<'_, str> {
    use super::Format;
    match format {
        Format::Text004 | Format::Text100 => unescape(help, false),
        Format::OpenMetrics001 | Format::OpenMetrics100 => unescape(help, true),
        Format::Protobuf => Cow::Borrowed(help),
    }
}

/// NaN as Prometheus stores one that was scraped, so that it is not mistaken for a staleness marker.
const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;

/// The float at `at` and its end. The caller checks that a token ends there.
pub(super) fn float(body: &[u8], at: usize) -> Result<(f64, usize), ParseError> {
    let fail = |what| Err(ParseError::at(body, at, what));
    let Ok((value, length)) = fast_float2::parse_partial::<f64, _>(&body[at..]) else {
        return fail("expected a float");
    };
    if length == 0 {
        return fail("expected a float");
    }
    if value.is_finite() {
        return Ok((value, at + length));
    }
    let token = &body[at..at + length];
    if value.is_nan() {
        let signed = matches!(token.first(), Some(b'+' | b'-'));
        return if signed { fail("expected a float") } else { Ok((f64::from_bits(NORMAL_NAN), at + length)) };
    }
    if token.iter().any(u8::is_ascii_digit) { fail("float out of range") } else { Ok((value, at + length)) }
}

/// The end of the blanks at `at`.
pub(super) fn blanks_end(body: &[u8], at: usize) -> usize {
    skip_blanks(body, at)
}
