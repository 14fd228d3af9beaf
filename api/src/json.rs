//! Query results as JSON, written in pieces.
//!
//! Arithmetic: a sample `[1795236744.123,"0.25"]` is 20 to 40 bytes of text. A million of them is
//! 30 MB, which is never held: series are serialized one after the other into pieces of about
//! [`PIECE_BYTES`], each freed once it is sent, while the columns behind them are dropped as the
//! writer passes. A series of many points is cut over several pieces. Numbers are written by `itoa` and `zmij` straight into the piece.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use model::{FloatHistogram, Labels, Samples, Timestamp, Value, float};
use promql::{MatrixSeries, Outcome, QueryValue, VectorSample};

/// At most so many warnings, and so many infos, are listed; the rest is counted.
const NOTES_MAX: usize = 10;

/// A piece is sent once it is at least this long.
const PIECE_BYTES: usize = 64 << 10;
/// What the last thing written may take beyond: a run of points, in nearly all cases. Pieces seldom grow.
const SLACK_BYTES: usize = 4 << 10;
/// Points that are written before the piece's length is looked at.
const RUN: usize = 64;

/// The answer to a query, with what follows the result (`stats`) already serialized.
pub(crate) fn respond(outcome: Outcome, stats: Option<String>) -> Response {
    let pieces = Pieces::new(outcome, stats);
    let body = Body::from_stream(futures::stream::iter(pieces.map(Ok::<_, std::convert::Infallible>)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// What is left to be written.
enum Rest {
    Vector(std::vec::IntoIter<VectorSample>),
    Matrix(std::vec::IntoIter<MatrixSeries>),
    Tail,
    Nothing,
}

/// A series of a matrix that is being written.
struct Open {
    samples: Samples,
    /// How many of its floats, and of its histograms, have been.
    floats: usize,
    histograms: usize,
}

pub(crate) struct Pieces {
    rest: Rest,
    open: Option<Open>,
    first: bool,
    /// What closes the envelope.
    tail: String,
    piece: String,
    clock: Clock,
}

impl Pieces {
    pub(crate) fn new(outcome: Outcome, stats: Option<String>) -> Self {
        let mut tail = String::new();
        if let Some(stats) = stats {
            tail.push_str(",\"stats\":");
            tail.push_str(&stats);
        }
        tail.push('}');
        for (key, notes) in [("warnings", &outcome.warnings), ("infos", &outcome.infos)] {
            if !notes.is_empty() {
                let mut listed: Vec<String> = notes.iter().take(NOTES_MAX).map(|note| quote(note)).collect();
                if notes.len() > NOTES_MAX {
                    let kind = key.trim_end_matches('s');
                    listed
                        .push(quote(&format!("{} more {kind} annotations omitted", notes.len() - NOTES_MAX)));
                }
                tail.push_str(&format!(",\"{key}\":[{}]", listed.join(",")));
            }
        }
        tail.push('}');
        let mut piece = String::with_capacity(PIECE_BYTES + SLACK_BYTES);
        piece.push_str("{\"status\":\"success\",\"data\":{\"resultType\":\"");
        let rest = match outcome.value {
            QueryValue::Scalar { ts, value } => {
                piece.push_str("scalar\",\"result\":");
                push_float_point(&mut piece, ts, value);
                Rest::Tail
            }
            QueryValue::String { ts, text } => {
                piece.push_str("string\",\"result\":[");
                push_seconds(&mut piece, ts);
                piece.push(',');
                push_quoted(&mut piece, &text);
                piece.push(']');
                Rest::Tail
            }
            QueryValue::Vector(samples) => {
                piece.push_str("vector\",\"result\":[");
                Rest::Vector(samples.into_iter())
            }
            QueryValue::Matrix(series) => {
                piece.push_str("matrix\",\"result\":[");
                Rest::Matrix(series.into_iter())
            }
        };
        Self { rest, open: None, first: true, tail, piece, clock: Clock::default() }
    }

    fn push_separator(&mut self) {
        if !self.first {
            self.piece.push(',');
        }
        self.first = false;
    }

    /// Writes one element of the result, or a part of it; false if there is none left.
    fn push_next(&mut self) -> bool {
        if let Some(open) = &mut self.open {
            if !open.push_run(&mut self.piece, &mut self.clock) {
                self.open = None;
            }
            return true;
        }
        match &mut self.rest {
            Rest::Vector(samples) => match samples.next() {
                Some(sample) => {
                    self.push_separator();
                    push_vector_sample(&mut self.piece, &sample);
                }
                None => self.close_list(),
            },
            Rest::Matrix(series) => match series.next() {
                Some(series) => {
                    self.push_separator();
                    self.piece.push_str("{\"metric\":");
                    push_labels(&mut self.piece, &series.labels);
                    self.open = Some(Open { samples: series.samples, floats: 0, histograms: 0 });
                }
                None => self.close_list(),
            },
            Rest::Tail => {
                self.piece.push_str(&self.tail);
                self.rest = Rest::Nothing;
            }
            Rest::Nothing => return false,
        }
        true
    }

    fn close_list(&mut self) {
        self.piece.push(']');
        self.rest = Rest::Tail;
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.piece.capacity() == 0 {
            self.piece.reserve(PIECE_BYTES + SLACK_BYTES);
        }
        while self.piece.len() < PIECE_BYTES && self.push_next() {}
        if self.piece.is_empty() {
            return None;
        }
        Some(Bytes::from(std::mem::take(&mut self.piece)))
    }
}

fn push_vector_sample(out: &mut String, sample: &VectorSample) {
    out.push_str("{\"metric\":");
    push_labels(out, &sample.labels);
    match &sample.value {
        Value::Float(value) => {
            out.push_str(",\"value\":");
            push_float_point(out, sample.ts, *value);
        }
        Value::Histogram(histogram) => {
            out.push_str(",\"histogram\":");
            push_histogram_point(out, sample.ts, histogram);
        }
    }
    out.push('}');
}

impl Open {
    /// Writes some more points; false once the series is closed.
    fn push_run(&mut self, out: &mut String, clock: &mut Clock) -> bool {
        let Samples { ts, values, histogram_ts, histograms, .. } = &self.samples;
        if self.floats < ts.len() {
            let end = ts.len().min(self.floats + RUN);
            for at in self.floats..end {
                out.push_str(if at == 0 { ",\"values\":[[" } else { ",[" });
                clock.push(out, ts[at]);
                float::push_json(out, values[at]);
                out.push_str("\"]");
            }
            self.floats = end;
            if end == ts.len() {
                out.push(']');
            }
            return true;
        }
        if let Some(ts) = histogram_ts.get(self.histograms) {
            out.push_str(if self.histograms == 0 { ",\"histograms\":[" } else { "," });
            push_histogram_point(out, *ts, &histograms[self.histograms]);
            self.histograms += 1;
            if self.histograms == histogram_ts.len() {
                out.push(']');
            }
            return true;
        }
        out.push('}');
        false
    }
}

/// `{"name":"value",...}`
pub(crate) fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_quoted(out, name);
        out.push(':');
        push_quoted(out, value);
    }
    out.push('}');
}

fn push_float_point(out: &mut String, ts: Timestamp, value: f64) {
    out.push('[');
    push_seconds(out, ts);
    out.push_str(",\"");
    float::push_json(out, value);
    out.push_str("\"]");
}

fn push_histogram_point(out: &mut String, ts: Timestamp, histogram: &Arc<FloatHistogram>) {
    out.push('[');
    push_seconds(out, ts);
    out.push_str(",{\"count\":\"");
    float::push_json(out, histogram.count);
    out.push_str("\",\"sum\":\"");
    float::push_json(out, histogram.sum);
    out.push('"');
    let mut opened = false;
    for mut bucket in promql::buckets(histogram) {
        let is_zero_bucket = bucket.lower == -bucket.upper;
        // As in Prometheus, a zero bucket shows only if it counts upwards, and hides what it covers.
        if is_zero_bucket && (bucket.count < 0.0 || bucket.count.is_nan()) {
            continue;
        }
        let zero = histogram.zero_threshold;
        if !is_zero_bucket && bucket.lower > 0.0 {
            bucket.lower = bucket.lower.max(zero);
        } else if !is_zero_bucket && bucket.upper < 0.0 {
            bucket.upper = bucket.upper.min(-zero);
        }
        out.push_str(if opened { "," } else { ",\"buckets\":[" });
        opened = true;
        let rule = match (is_zero_bucket || bucket.lower < 0.0, is_zero_bucket || bucket.upper > 0.0) {
            (false, true) => '0',
            (true, false) => '1',
            (false, false) => '2',
            (true, true) => '3',
        };
        out.push('[');
        out.push(rule);
        for bound in [bucket.lower, bucket.upper, bucket.count] {
            out.push_str(",\"");
            float::push_json(out, bound);
            out.push('"');
        }
        out.push(']');
    }
    if opened {
        out.push(']');
    }
    out.push_str("}]");
}

/// The text of timestamps in a row of points, which share all but the last two digits of their seconds with the one
/// before: two copies and two digits, half of what formatting two numbers takes.
struct Clock {
    hundreds: u64,
    fraction: u64,
    /// The digits of the hundreds.
    before: String,
    /// What comes behind the seconds, up to the value.
    behind: String,
}

impl Default for Clock {
    fn default() -> Self {
        Self { hundreds: 0, fraction: 0, before: String::new(), behind: BEHIND_TIME.to_owned() }
    }
}

/// Between the time of a point and its value.
const BEHIND_TIME: &str = ",\"";

impl Clock {
    /// Appends a time, and what follows it.
    fn push(&mut self, out: &mut String, ts: Timestamp) {
        let ms = ts.unsigned_abs();
        let (hundreds, seconds, fraction) = (ms / 100_000, ms / 1000 % 100, ms % 1000);
        if ts < 0 || hundreds == 0 {
            push_seconds(out, ts);
            out.push_str(BEHIND_TIME);
            return;
        }
        if hundreds != self.hundreds {
            self.hundreds = hundreds;
            self.before.clear();
            self.before.push_str(itoa::Buffer::new().format(hundreds));
        }
        if fraction != self.fraction {
            self.fraction = fraction;
            self.behind.clear();
            push_fraction(&mut self.behind, fraction);
            self.behind.push_str(BEHIND_TIME);
        }
        out.push_str(&self.before);
        // A hundred more has both digits behind its one.
        out.push_str(&itoa::Buffer::new().format(100 + seconds)[1..]);
        out.push_str(&self.behind);
    }
}

/// Seconds as a JSON number: whole, or with exactly three decimals.
fn push_seconds(out: &mut String, ts: Timestamp) {
    if ts < 0 {
        out.push('-');
    }
    let ms = ts.unsigned_abs();
    out.push_str(itoa::Buffer::new().format(ms / 1000));
    push_fraction(out, ms % 1000);
}

/// Milliseconds behind the seconds, if there are any.
fn push_fraction(out: &mut String, fraction: u64) {
    if fraction > 0 {
        // A thousand more has the digits of the fraction, zeros and all, behind its one.
        let mut digits = itoa::Buffer::new();
        out.push('.');
        out.push_str(&digits.format(1000 + fraction)[1..]);
    }
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// A JSON string.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    if is_plain(text.as_bytes()) {
        out.push_str(text);
    } else {
        push_escaped(out, text);
    }
    out.push('"');
}

/// Whether nothing is to be escaped, eight bytes at a time: some 3 ns for a label.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    // The high bit of each byte that is below `0x20`, or zero once it is compared; bytes from 0x80 on never are.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & (ONES << 7);
    let is_special = |word: u64| {
        let (quote, backslash) = (word ^ (ONES * u64::from(b'"')), word ^ (ONES * u64::from(b'\\')));
        below(word, 0x20) | below(quote, 1) | below(backslash, 1) != 0
    };
    let (words, rest) = text.as_chunks::<8>();
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    !words.iter().any(|word| is_special(u64::from_le_bytes(*word))) && rest.iter().all(plain)
}

fn push_escaped(out: &mut String, text: &str) {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte => out.push_str(&format!("\\u{byte:04x}")),
        }
    }
    out.push_str(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(outcome: Outcome) -> String {
        let bytes: Vec<u8> = Pieces::new(outcome, None).flatten().collect();
        String::from_utf8(bytes).unwrap()
    }

    fn outcome(value: QueryValue) -> Outcome {
        Outcome {
            value,
            warnings: Vec::new(),
            infos: Vec::new(),
            stats: promql::Stats::default(),
            costs: None,
        }
    }

    #[test]
    fn shapes() {
        assert_eq!(
            text(outcome(QueryValue::Scalar { ts: 1500, value: 1.0 })),
            r#"{"status":"success","data":{"resultType":"scalar","result":[1.500,"1"]}}"#
        );
        let labels = Labels::from_pairs([("__name__", "up"), ("a", "x\"\n\u{1}")]);
        let sample = VectorSample { labels, ts: 60_000, value: Value::Float(f64::INFINITY) };
        let mut vector = outcome(QueryValue::Vector(vec![sample.clone(), sample]));
        vector.warnings.push("w".into());
        let one = r#"{"metric":{"__name__":"up","a":"x\"\n\u0001"},"value":[60,"+Inf"]}"#;
        let expected = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{one},{one}]}},"warnings":["w"]}}"#
        );
        assert_eq!(text(vector), expected);
        assert_eq!(
            text(outcome(QueryValue::Matrix(Vec::new()))),
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#
        );
    }

    #[test]
    fn many_notes_are_counted() {
        let mut noted = outcome(QueryValue::Vector(Vec::new()));
        noted.infos = (0..12).map(|number| format!("note {number}")).collect();
        let whole: serde_json::Value = serde_json::from_str(&text(noted)).unwrap();
        assert_eq!(whole["infos"].as_array().unwrap().len(), 11);
        assert_eq!(whole["infos"][10], "2 more info annotations omitted");
    }

    #[test]
    fn a_large_answer_comes_in_pieces() {
        let mut samples = Samples::default();
        (0..11_000).for_each(|i| samples.push_float(i * 1000, 0.5));
        let series = MatrixSeries { labels: Labels::empty(), samples };
        let matrix = outcome(QueryValue::Matrix(vec![series; 50]));
        let pieces: Vec<Bytes> = Pieces::new(matrix, None).collect();
        // Also a single series comes in more than one.
        assert!(pieces.len() > 100);
        assert!(pieces.iter().all(|piece| piece.len() < PIECE_BYTES + SLACK_BYTES));
        let whole: serde_json::Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(whole["data"]["result"][49]["values"][1999], serde_json::json!([1999, "0.5"]));
    }

    proptest! {
        #[test]
        fn strings_read_back(input: String) {
            prop_assert_eq!(serde_json::from_str::<String>(&quote(&input)).unwrap(), input);
        }

        #[test]
        fn a_row_of_times_is_as_each_alone(
            start in -300_000i64..2_000_000_000_000,
            steps in prop::collection::vec(prop_oneof![Just(0i64), Just(15_000), 1..200_000i64], 1..50),
        ) {
            let (mut ts, mut clock) = (start, Clock::default());
            for step in steps {
                ts += step;
                let (mut row, mut alone) = (String::new(), String::new());
                clock.push(&mut row, ts);
                push_seconds(&mut alone, ts);
                prop_assert_eq!(row, alone + BEHIND_TIME);
            }
        }

        #[test]
        fn seconds_read_back(ts in -10_000_000_000_000i64..10_000_000_000_000) {
            let mut out = String::new();
            push_seconds(&mut out, ts);
            prop_assert!((out.parse::<f64>().unwrap() * 1000.0 - ts as f64).abs() < 0.01);
        }
    }
}
