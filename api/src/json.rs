//! Query results as JSON, written in pieces.
//!
//! Arithmetic: a sample `[1795236744.123,"0.25"]` is 20 to 40 bytes of text. A million of them is
//! 30 MB, which is never held: series are serialized one after the other into pieces of about
//! [`PIECE_BYTES`], each freed once it is sent, while the columns behind them are dropped as the
//! writer passes. A series of many points is cut over several pieces. What repeats from one to the next (names of labels,
//! times) is kept as text; numbers are written by `itoa` and `zmij`.

mod piece;

use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use model::{FloatHistogram, Labels, Samples, Timestamp, Value};
use promql::{MatrixSeries, Outcome, QueryValue, VectorSample};

use piece::{Piece, Text};

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
    piece: Piece,
    clock: Clock,
    frame: Frame,
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
        let mut piece = Piece::with_capacity(PIECE_BYTES + SLACK_BYTES);
        piece.push_text("{\"status\":\"success\",\"data\":{\"resultType\":\"");
        let rest = match outcome.value {
            QueryValue::Scalar { ts, value } => {
                piece.push_text("scalar\",\"result\":");
                push_float_point(&mut piece, ts, value);
                Rest::Tail
            }
            QueryValue::String { ts, text } => {
                piece.push_text("string\",\"result\":[");
                push_seconds(&mut piece, ts);
                piece.push(b",");
                push_quoted(&mut piece, &text);
                piece.push(b"]");
                Rest::Tail
            }
            QueryValue::Vector(samples) => {
                piece.push_text("vector\",\"result\":[");
                Rest::Vector(samples.into_iter())
            }
            QueryValue::Matrix(series) => {
                piece.push_text("matrix\",\"result\":[");
                Rest::Matrix(series.into_iter())
            }
        };
        Self { rest, open: None, first: true, tail, piece, clock: Clock::default(), frame: Frame::default() }
    }

    fn push_separator(&mut self) {
        if !self.first {
            self.piece.push(b",");
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
                    self.frame.push(&mut self.piece, &sample);
                }
                None => self.close_list(),
            },
            Rest::Matrix(series) => match series.next() {
                Some(series) => {
                    self.push_separator();
                    self.frame.push_labels(&mut self.piece, &series.labels);
                    self.open = Some(Open { samples: series.samples, floats: 0, histograms: 0 });
                }
                None => self.close_list(),
            },
            Rest::Tail => {
                self.piece.push_text(&self.tail);
                self.rest = Rest::Nothing;
            }
            Rest::Nothing => return false,
        }
        true
    }

    fn close_list(&mut self) {
        self.piece.push(b"]");
        self.rest = Rest::Tail;
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.piece.len() < PIECE_BYTES && self.push_next() {}
        if self.piece.len() == 0 {
            return None;
        }
        let room = if matches!(self.rest, Rest::Nothing) { 0 } else { PIECE_BYTES + SLACK_BYTES };
        Some(Bytes::from(std::mem::replace(&mut self.piece, Piece::with_capacity(room)).into_bytes()))
    }
}

/// What vector samples have in common.
#[derive(Default)]
struct Frame {
    /// By position: the name of a label, and what stands between the value before it and its own.
    names: Vec<(String, String)>,
    /// Between the labels and the value, at this time.
    ts: Option<Timestamp>,
    behind: String,
}

impl Frame {
    /// An element of a vector.
    fn push(&mut self, out: &mut Piece, sample: &VectorSample) {
        self.push_labels(out, &sample.labels);
        match &sample.value {
            Value::Float(value) => {
                if self.ts != Some(sample.ts) {
                    self.ts = Some(sample.ts);
                    let mut behind = Piece::default();
                    behind.push_text(",\"value\":[");
                    push_seconds(&mut behind, sample.ts);
                    behind.push_text(",\"");
                    self.behind = String::from_utf8_lossy(&behind.into_bytes()).into_owned();
                }
                out.push_text(&self.behind);
                out.push_number(*value);
                out.push(b"\"]}");
            }
            Value::Histogram(histogram) => {
                out.push_text(",\"histogram\":");
                push_histogram_point(out, sample.ts, histogram);
                out.push(b"}");
            }
        }
    }

    /// The begin of an element: `{"metric":{"name":"value",...}`.
    fn push_labels(&mut self, out: &mut Piece, labels: &Labels) {
        if labels.is_empty() {
            return out.push(b"{\"metric\":{}");
        }
        for (at, (name, value)) in labels.iter().enumerate() {
            match self.names.get(at) {
                Some((known, text)) if known == name => out.push_text(text),
                _ => {
                    let before = if at == 0 { "{\"metric\":{" } else { "\"," };
                    let text = format!("{before}{}:\"", quote(name));
                    out.push_text(&text);
                    self.names.truncate(at);
                    self.names.push((name.to_owned(), text));
                }
            }
            push_inside(out, value);
        }
        out.push(b"\"}");
    }
}

impl Open {
    /// Writes some more points; false once the series is closed.
    fn push_run(&mut self, out: &mut Piece, clock: &mut Clock) -> bool {
        let Samples { ts, values, histogram_ts, histograms, .. } = &self.samples;
        if self.floats < ts.len() {
            let end = ts.len().min(self.floats + RUN);
            if self.floats == 0 {
                out.push_text(",\"values\":[[");
                push_seconds(out, ts[0]);
                out.push(b",\"");
                out.push_number(values[0]);
            }
            let rest = self.floats.max(1)..end;
            for (ts, value) in ts[rest.clone()].iter().zip(&values[rest]) {
                clock.push(out, *ts);
                out.push_number(*value);
            }
            self.floats = end;
            if end == ts.len() {
                out.push(b"\"]]");
            }
            return true;
        }
        if let Some(ts) = histogram_ts.get(self.histograms) {
            out.push_text(if self.histograms == 0 { ",\"histograms\":[" } else { "," });
            push_histogram_point(out, *ts, &histograms[self.histograms]);
            self.histograms += 1;
            if self.histograms == histogram_ts.len() {
                out.push(b"]");
            }
            return true;
        }
        out.push(b"}");
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

fn push_float_point(out: &mut Piece, ts: Timestamp, value: f64) {
    out.push(b"[");
    push_seconds(out, ts);
    out.push_text(",\"");
    out.push_number(value);
    out.push_text("\"]");
}

fn push_histogram_point(out: &mut Piece, ts: Timestamp, histogram: &Arc<FloatHistogram>) {
    out.push(b"[");
    push_seconds(out, ts);
    out.push_text(",{\"count\":\"");
    out.push_number(histogram.count);
    out.push_text("\",\"sum\":\"");
    out.push_number(histogram.sum);
    out.push(b"\"");
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
        out.push_text(if opened { "," } else { ",\"buckets\":[" });
        opened = true;
        let rule = match (is_zero_bucket || bucket.lower < 0.0, is_zero_bucket || bucket.upper > 0.0) {
            (false, true) => "0",
            (true, false) => "1",
            (false, false) => "2",
            (true, true) => "3",
        };
        out.push(b"[");
        out.push_text(rule);
        for bound in [bucket.lower, bucket.upper, bucket.count] {
            out.push_text(",\"");
            out.push_number(bound);
            out.push(b"\"");
        }
        out.push(b"]");
    }
    if opened {
        out.push(b"]");
    }
    out.push_text("}]");
}

/// The text around timestamps in a row of points, which share all but the last two digits of their seconds with the one
/// before: two copies and two digits, half of what formatting two numbers takes.
struct Clock {
    hundreds: u64,
    fraction: u64,
    /// The end of the point before, and the digits of the hundreds.
    before: [u8; 24],
    before_length: usize,
    /// What comes behind the seconds, up to the value.
    behind: [u8; 8],
    behind_length: usize,
}

/// Between a point and the next.
const BETWEEN: &str = "\"],[";

impl Default for Clock {
    fn default() -> Self {
        let behind = *b",\"      ";
        Self { hundreds: 0, fraction: 0, before: [0; 24], before_length: 0, behind, behind_length: 2 }
    }
}

impl Clock {
    /// Ends a point and begins the next, up to its value.
    #[inline]
    fn push(&mut self, out: &mut Piece, ts: Timestamp) {
        let ms = ts.unsigned_abs();
        let (hundreds, seconds, fraction) = (ms / 100_000, ms / 1000 % 100, ms % 1000);
        if ts < 0 || hundreds == 0 {
            out.push_text(BETWEEN);
            push_seconds(out, ts);
            out.push(b",\"");
            return;
        }
        if hundreds != self.hundreds {
            self.hundreds = hundreds;
            self.before_length = fill(&mut self.before, &[BETWEEN, itoa::Buffer::new().format(hundreds)]);
        }
        if fraction != self.fraction {
            self.fraction = fraction;
            let mut digits = itoa::Buffer::new();
            let text = if fraction > 0 {
                [".", &digits.format(1000 + fraction)[1..], ",\""]
            } else {
                ["", "", ",\""]
            };
            self.behind_length = fill(&mut self.behind, &text);
        }
        out.push_start(&self.before, self.before_length);
        out.push_start(&PAIRS[usize::try_from(seconds).unwrap_or(0)], 2);
        out.push_start(&self.behind, self.behind_length);
    }
}

/// The digits of the numbers below a hundred.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number: u8 = 0;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    pairs
};

/// Writes texts one after the other at the start of `into`, where they fit; how long they are.
fn fill(into: &mut [u8], texts: &[&str]) -> usize {
    let mut length = 0;
    for (to, from) in into.iter_mut().zip(texts.iter().flat_map(|text| text.bytes())) {
        *to = from;
        length += 1;
    }
    length
}

/// Seconds as a JSON number: whole, or with exactly three decimals.
fn push_seconds(out: &mut Piece, ts: Timestamp) {
    if ts < 0 {
        out.push(b"-");
    }
    let ms = ts.unsigned_abs();
    out.push_text(itoa::Buffer::new().format(ms / 1000));
    let fraction = ms % 1000;
    if fraction > 0 {
        // A thousand more has the digits of the fraction, zeros and all, behind its one.
        let mut digits = itoa::Buffer::new();
        out.push(b".");
        out.push_text(&digits.format(1000 + fraction)[1..]);
    }
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// A JSON string.
pub(crate) fn push_quoted(out: &mut impl Text, text: &str) {
    out.push_text("\"");
    push_inside(out, text);
    out.push_text("\"");
}

/// What stands between the quotes of a JSON string.
#[inline]
fn push_inside(out: &mut impl Text, text: &str) {
    if is_plain(text.as_bytes()) {
        out.push_text(text);
    } else {
        push_escaped(out, text);
    }
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

fn push_escaped(out: &mut impl Text, text: &str) {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_text(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_text("\\\""),
            b'\\' => out.push_text("\\\\"),
            b'\n' => out.push_text("\\n"),
            b'\r' => out.push_text("\\r"),
            b'\t' => out.push_text("\\t"),
            byte => out.push_text(&format!("\\u{byte:04x}")),
        }
    }
    out.push_text(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use model::float;

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

    /// Label sets one after the other, so that what is kept of one is used for the next.
    fn label_sets() -> impl Strategy<Value = Vec<Labels>> {
        let pair = (prop_oneof!["[abc]", "[a\"\\\\ü]{1,40}"], "[x-z\"\\\\\n\u{1}é]{1,40}");
        let labels = prop::collection::btree_map(pair.0, pair.1, 0..5).prop_map(Labels::from_pairs);
        prop::collection::vec(labels, 1..8)
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            any::<u64>().prop_map(f64::from_bits),
            (-20i32..25, -2_000_000i64..2_000_000).prop_map(|(e, m)| m as f64 * 10f64.powi(-e)),
            (any::<i32>(), 0i32..7).prop_map(|(m, decimals)| f64::from(m) / 10f64.powi(decimals)),
            (0u64..1 << 53).prop_map(|whole| whole as f64),
            prop::sample::select(vec![
                0.0,
                -0.0,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                1e-6,
                1e-7,
                1e21,
                1e15,
                0.0005,
                999_999_999_999.999
            ]),
        ]
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
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// As the model writes them, whole and short ones too, and as short as those of another algorithm.
        #[test]
        fn numbers_are_those_of_go(value in number()) {
            let mut out = Piece::default();
            out.push_number(value);
            let text = String::from_utf8(out.into_bytes()).unwrap();
            let mut wanted = String::new();
            float::push_json(&mut wanted, value);
            prop_assert_eq!(&text, &wanted);
            if value.is_finite() {
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
                let plain = value == 0.0 || (1e-6..1e21).contains(&value.abs());
                let oracle = if plain { format!("{value}") } else { format!("{value:e}") };
                let digits = |text: &str| text.split('e').next().unwrap_or("").trim_end_matches(".0").to_owned();
                // Of two that are as near, Go has the even one, and the oracle the larger.
                prop_assert_eq!(digits(&text).len(), digits(&oracle).len());
                prop_assert_eq!(text.contains('e'), !plain);
            }
        }
    }

    proptest! {
        #[test]
        fn elements_read_back(sets in label_sets(), value in number(), step in 0i64..100_000) {
            let sample = |(at, labels): (usize, &Labels)| {
                VectorSample { labels: labels.clone(), ts: at as i64 / 2 * step, value: Value::Float(value) }
            };
            let vector = outcome(QueryValue::Vector(sets.iter().enumerate().map(sample).collect()));
            let whole: serde_json::Value = serde_json::from_str(&text(vector)).unwrap();
            let series = |labels: &Labels| {
                let mut samples = Samples::default();
                (0..3).for_each(|at| samples.push_float(at * step, value));
                MatrixSeries { labels: labels.clone(), samples }
            };
            let matrix = outcome(QueryValue::Matrix(sets.iter().map(series).collect()));
            let matrix: serde_json::Value = serde_json::from_str(&text(matrix)).unwrap();
            for (at, labels) in sets.iter().enumerate() {
                let wanted: serde_json::Map<_, _> =
                    labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
                for whole in [&whole, &matrix] {
                    prop_assert_eq!(whole["data"]["result"][at]["metric"].as_object(), Some(&wanted));
                }
                let ts = whole["data"]["result"][at]["value"][0].as_f64().unwrap() * 1000.0;
                prop_assert!((ts - (at as i64 / 2 * step) as f64).abs() < 0.01);
            }
        }

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
                let (mut row, mut alone) = (Piece::default(), Piece::default());
                clock.push(&mut row, ts);
                alone.push_text(BETWEEN);
                push_seconds(&mut alone, ts);
                alone.push_text(",\"");
                prop_assert_eq!(row.into_bytes(), alone.into_bytes());
            }
        }

        #[test]
        fn seconds_read_back(ts in -10_000_000_000_000i64..10_000_000_000_000) {
            let mut out = Piece::default();
            push_seconds(&mut out, ts);
            let out = String::from_utf8(out.into_bytes()).unwrap();
            prop_assert!((out.parse::<f64>().unwrap() * 1000.0 - ts as f64).abs() < 0.01);
        }
    }
}
