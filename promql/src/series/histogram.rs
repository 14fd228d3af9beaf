//! Histograms in the notation of tests: `schema:0 sum:1 count:2 buckets:[1 1] offset:-1`.

use model::{FloatHistogram, ResetHint, Span};

use super::{combined, read_number};

/// Where in the body the mistake is, and what it is.
type Mistake = (usize, String);

/// Reads what stands between the double braces, and whether a reset hint was among it.
pub(super) fn read(body: &str) -> Result<(FloatHistogram, bool), Mistake> {
    let mut h = FloatHistogram::default();
    let (mut offset, mut negative_offset, mut hinted) = (0, 0, false);
    let mut at = 0;
    let blank = |at: usize| body[at..].starts_with([' ', '\t']);
    if blank(at) && !body.trim().is_empty() {
        return Err((at, "unexpected space before a histogram descriptor".to_owned()));
    }
    loop {
        at = body.len() - body[at..].trim_start_matches([' ', '\t']).len();
        let rest = &body[at..];
        if rest.is_empty() {
            break;
        }
        let name = &rest[..rest.bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'_').count()];
        let Some(value) = rest[name.len()..].strip_prefix(':') else {
            return Err((at, "missing `:` for histogram descriptor".to_owned()));
        };
        let value_at = at + name.len() + 1;
        let length = value_length(value);
        let text = &value[..length];
        let number =
            || read_number(text).ok_or_else(|| (value_at, format!("bad number {text:?} in histogram")));
        let integer =
            || text.parse::<i32>().map_err(|_| (value_at, format!("bad integer {text:?} in histogram")));
        match name {
            "schema" => h.schema = integer()?,
            "sum" => h.sum = number()?,
            "count" => h.count = number()?,
            "z_bucket" => h.zero_count = number()?,
            "z_bucket_w" => h.zero_threshold = number()?,
            "offset" => offset = integer()?,
            "n_offset" => negative_offset = integer()?,
            "buckets" => h.positive = list(text).map_err(|message| (value_at, message))?,
            "n_buckets" => h.negative = list(text).map_err(|message| (value_at, message))?,
            "custom_values" => h.custom_values = list(text).map_err(|message| (value_at, message))?,
            "counter_reset_hint" => {
                hinted = true;
                h.reset_hint = hint(text).ok_or_else(|| (value_at, format!("bad reset hint {text:?}")))?;
            }
            _ => return Err((at, format!("bad histogram descriptor found: \"{name}\""))),
        }
        at = value_at + length;
        if at < body.len() && !blank(at) {
            return Err((at, "unexpected text after a histogram descriptor".to_owned()));
        }
    }
    h.positive_spans = spans(offset, h.positive.len());
    h.negative_spans = spans(negative_offset, h.negative.len());
    Ok((h, hinted))
}

fn hint(text: &str) -> Option<ResetHint> {
    Some(match text {
        "unknown" => ResetHint::Unknown,
        "reset" => ResetHint::Reset,
        "not_reset" => ResetHint::NotReset,
        "gauge" => ResetHint::Gauge,
        _ => return None,
    })
}

/// How many bytes belong to a value: up to the bracket that closes it, or to the next blank.
fn value_length(text: &str) -> usize {
    if text.starts_with('[') {
        return text.find(']').map_or(text.len(), |end| end + 1);
    }
    text.find([' ', '\t']).unwrap_or(text.len())
}

fn list(text: &str) -> Result<Vec<f64>, String> {
    let body = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let body = body.ok_or_else(|| format!("bad list {text:?} in histogram"))?;
    if body.starts_with([' ', '\t']) {
        return Err("unexpected \" \" in series values".to_owned());
    }
    let number = |text| read_number(text).ok_or_else(|| format!("bad number {text:?} in histogram"));
    body.split([' ', '\t']).filter(|item| !item.is_empty()).map(number).collect()
}

fn spans(offset: i32, length: usize) -> Vec<Span> {
    match u32::try_from(length) {
        Ok(length @ 1..) => vec![Span { offset, length }],
        _ => Vec::new(),
    }
}

/// The next histogram of a series that counts up or down.
pub(super) fn stepped(
    h: &FloatHistogram,
    step: &FloatHistogram,
    plus: bool,
) -> Result<FloatHistogram, String> {
    if step.schema < h.schema {
        return Err(format!(
            "error combining histograms: cannot merge from schema {} to {}",
            step.schema, h.schema
        ));
    }
    combined(h, step, plus).ok_or_else(|| "error combining histograms".to_owned())
}
