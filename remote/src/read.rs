//! Remote read: another server asks for raw samples, or is asked.
//!
//! Source: `prometheus/prompb/remote.proto` and the remote read documentation. A request names queries
//! (a range and matchers each) and the kinds of answer it takes; the answer is one message with all
//! samples, compressed with snappy's block format, or a stream of encoded chunks ([`stream`]).

mod client;
mod frames;
#[doc(hidden)]
pub mod fuzzing;
mod merged;
mod stream;

#[cfg(test)]
mod client_tests;

use model::{Labels, MatchOp, Matcher, Querier, Samples, Selection, StorageError, TimeRange};

use crate::message::{push_histogram, push_labels, push_sample};
use crate::receive::request::Fault;
use crate::wire::{Fields, WireError, Writer, packed};

pub use client::Endpoint;
pub use frames::{ChunkedSeries, FrameError, Frames};
pub use merged::{Endpoints, Merged, covered_from};
pub use stream::stream;

/// A decompressed request may have this many bytes.
const REQUEST_BYTES_MAX: usize = 32 << 20;

/// What is asked for, and how it is to be answered.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// What is asked for.
    pub queries: Vec<ReadQuery>,
    /// Whether a stream of chunks is preferred to one message of samples.
    pub streamed: bool,
}

/// One of a request's queries.
#[derive(Clone, Debug)]
pub struct ReadQuery {
    /// The time asked for, both ends included.
    pub range: TimeRange,
    /// Conditions that a series must all fulfil.
    pub matchers: Vec<Matcher>,
}

/// Why a request cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not one.
    #[error("{0}")]
    Malformed(String),
    /// It asks for more than is allowed.
    #[error("exceeded sample limit ({0})")]
    TooManySamples(u64),
    /// The store cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<WireError> for ReadError {
    fn from(error: WireError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Message(error) => error.into(),
            Fault::Series(what) => Self::Malformed(what),
        }
    }
}

/// Reads a request's body.
///
/// # Errors
/// [`ReadError::Malformed`]
pub fn parse(body: &[u8]) -> Result<ReadRequest, ReadError> {
    let malformed = |error: snap::Error| ReadError::Malformed(format!("decompressing: {error}"));
    let length = snap::raw::decompress_len(body).map_err(malformed)?;
    if length > REQUEST_BYTES_MAX {
        let what = format!("the request has {length} bytes, at most {REQUEST_BYTES_MAX} are taken");
        return Err(ReadError::Malformed(what));
    }
    let message = snap::raw::Decoder::new().decompress_vec(body).map_err(malformed)?;
    let (mut queries, mut accepted) = (Vec::new(), Vec::new());
    let mut fields = Fields::new(&message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => queries.push(query(content.bytes()?)?),
            2 => packed(content, &mut accepted, |kind| kind)?,
            _ => {}
        }
    }
    // The first one that is known: 0 are samples, 1 is a stream of chunks. Who names none takes samples.
    let streamed = accepted.into_iter().find(|kind| *kind <= 1) == Some(1);
    Ok(ReadRequest { queries, streamed })
}

/// The body of a request.
#[must_use]
pub fn request(request: &ReadRequest) -> Vec<u8> {
    let mut out = Writer::default();
    for query in &request.queries {
        out.message(1, |message| {
            message.int64(1, query.range.start);
            message.int64(2, query.range.end);
            for matcher in &query.matchers {
                message.message(3, |message| {
                    let op = match matcher.op {
                        MatchOp::Equal => 0,
                        MatchOp::NotEqual => 1,
                        MatchOp::Regex => 2,
                        MatchOp::NotRegex => 3,
                    };
                    message.uint64(1, op);
                    message.bytes(2, matcher.name.as_bytes());
                    message.bytes(3, matcher.value.as_bytes());
                });
            }
        });
    }
    if request.streamed {
        // Preferred; whoever does not know it sends samples.
        out.member_uint64(2, 1);
        out.member_uint64(2, 0);
    }
    // Compressing into a buffer of the size it asks for cannot fail.
    snap::raw::Encoder::new().compress_vec(&out.0).unwrap_or_default()
}

fn query(message: &[u8]) -> Result<ReadQuery, ReadError> {
    let (mut start, mut end, mut matchers) = (0, 0, Vec::new());
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => start = content.int64()?,
            2 => end = content.int64()?,
            3 => matchers.push(matcher(content.bytes()?)?),
            _ => {}
        }
    }
    if end < start {
        return Err(ReadError::Malformed(format!("a query ends at {end}, before it starts at {start}")));
    }
    Ok(ReadQuery { range: TimeRange::new(start, end), matchers })
}

fn matcher(message: &[u8]) -> Result<Matcher, ReadError> {
    let (mut op, mut name, mut value) = (MatchOp::Equal, "", "");
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => {
                op = match content.uint64()? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    other => return Err(ReadError::Malformed(format!("unknown kind of matcher: {other}"))),
                }
            }
            2 => name = content.text()?,
            3 => value = content.text()?,
            _ => {}
        }
    }
    Matcher::new(name, op, value).map_err(|error| ReadError::Malformed(error.to_string()))
}

/// Answers all queries of a request: a compressed `ReadResponse`. Labels of `external` are added to
/// series that lack them, and conditions on them are taken as fulfilled.
///
/// # Errors
/// The store cannot be read, or there are more than `samples_max` samples (0: no limit).
pub fn answer(
    querier: &dyn Querier,
    queries: &[ReadQuery],
    external: &Labels,
    samples_max: u64,
) -> Result<Vec<u8>, ReadError> {
    let mut response = Writer::default();
    let mut budget = Budget { left: if samples_max == 0 { u64::MAX } else { samples_max }, max: samples_max };
    for query in queries {
        let mut outcome = Ok(());
        response.message(1, |result| outcome = push_result(result, querier, query, external, &mut budget));
        outcome?;
    }
    let mut encoder = snap::raw::Encoder::new();
    encoder.compress_vec(&response.0).map_err(|error| ReadError::Malformed(error.to_string()))
}

/// Samples that may still be sent.
struct Budget {
    left: u64,
    max: u64,
}

fn push_result(
    result: &mut Writer,
    querier: &dyn Querier,
    query: &ReadQuery,
    external: &Labels,
    budget: &mut Budget,
) -> Result<(), ReadError> {
    let matchers: Vec<Matcher> = query.matchers.iter().map(|matcher| inside(matcher, external)).collect();
    let set = querier.select(&Selection::new(&matchers, query.range))?;
    let mut samples = Samples::default();
    for index in 0..set.len() {
        set.samples(index, query.range, &mut samples)?;
        if samples.is_empty() {
            continue;
        }
        let count = samples.len() as u64;
        budget.left = budget.left.checked_sub(count).ok_or(ReadError::TooManySamples(budget.max))?;
        let labels = with_external(&set.labels(index), external);
        result.message(1, |series| {
            push_labels(series, &labels);
            for (ts, value) in samples.ts.iter().zip(&samples.values) {
                push_sample(series, 2, (*ts, 0), *value);
            }
            for (ts, histogram) in samples.histogram_ts.iter().zip(&samples.histograms) {
                push_histogram(series, 4, (*ts, 0), histogram);
            }
        });
    }
    Ok(())
}

/// What a condition means for the series as they are stored, without external labels.
fn inside(matcher: &Matcher, external: &Labels) -> Matcher {
    let fulfilled = matcher.op == MatchOp::Equal && external.get(&matcher.name) == Some(&*matcher.value);
    if fulfilled { Matcher::equal(&matcher.name, "") } else { matcher.clone() }
}

/// `labels` with those of `external` whose names it lacks.
fn with_external(labels: &Labels, external: &Labels) -> Labels {
    if external.is_empty() {
        return labels.clone();
    }
    let mut builder = labels.to_builder();
    for (name, value) in external.iter().filter(|(name, _)| labels.get(name).is_none()) {
        builder.set(name, value);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_as_they_were_written() {
        let matcher = |name, op, value| Matcher::new(name, op, value).unwrap();
        let matchers = vec![
            matcher("__name__", MatchOp::Equal, "up"),
            matcher("a", MatchOp::NotEqual, ""),
            matcher("b", MatchOp::Regex, "x|y"),
            matcher("c", MatchOp::NotRegex, ".*z"),
        ];
        for streamed in [false, true] {
            let queries = [(-5, 7), (0, 0)].map(|(start, end)| ReadQuery {
                range: TimeRange::new(start, end),
                matchers: matchers.clone(),
            });
            let read = parse(&request(&ReadRequest { queries: queries.into(), streamed })).unwrap();
            assert_eq!(read.streamed, streamed);
            let ranges: Vec<_> =
                read.queries.iter().map(|query| (query.range.start, query.range.end)).collect();
            assert_eq!(ranges, [(-5, 7), (0, 0)]);
            assert!(read.queries.iter().all(|query| query.matchers == matchers));
        }
    }
}
