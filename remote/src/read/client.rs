//! Remote read, asked: samples of other servers, chunks if they give them.
//!
//! Sources: the remote read documentation, and `storage/remote` of Prometheus for what is asked when.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use model::{
    FloatHistogram, HistogramValue, Labels, MatchOp, Matcher, QueryCancelled, Samples, TimeRange, Timestamp,
};
use tsdb::MalformedChunk;

use super::frames::{ChunkedSeries, Frames};
use super::{ReadError, ReadQuery, ReadRequest, request};
use crate::receive::histogram;
use crate::receive::request::{Fault, Item, TimeSeries, Version};
use crate::send::{Transport, add_headers, text_of, with_causes};
use crate::wire::{Fields, WireError};

/// What one answer may have, as it comes and decompressed.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// So often it is looked whether anybody still waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A server that is asked for samples.
#[derive(Clone)]
pub struct Endpoint {
    /// What it is called in warnings.
    pub name: String,
    /// Where it takes requests.
    pub url: String,
    /// What carries requests.
    pub transport: Transport,
    /// Headers beside those of the protocol.
    pub headers: HeaderMap,
    /// An answer that takes longer is none.
    pub timeout: Duration,
    /// It is asked only for what has all of these as conditions.
    pub required: Labels,
    /// Whether it is asked also for the time that the local store covers.
    pub recent: bool,
    /// Labels that its series have beside ours: conditions when it is asked, and taken off what it answers.
    pub external_labels: Labels,
}

/// A series as it came.
pub(super) struct Fetched {
    pub(super) labels: Labels,
    data: Data,
}

enum Data {
    Chunks(ChunkedSeries),
    Columns(Samples),
}

impl Fetched {
    /// Appends its samples in `range` to `into`, in the order of its chunks.
    pub(super) fn decode(&self, range: TimeRange, into: &mut Samples) -> Result<(), MalformedChunk> {
        match &self.data {
            Data::Chunks(series) => series.decode(range, into),
            Data::Columns(samples) => {
                let inside = |ts: Timestamp| range.start <= ts && ts <= range.end;
                for (ts, value) in samples.ts.iter().zip(&samples.values).filter(|(ts, _)| inside(**ts)) {
                    into.push_float(*ts, *value);
                }
                let histograms = samples.histogram_ts.iter().zip(&samples.histograms);
                for (ts, histogram) in histograms.filter(|(ts, _)| inside(**ts)) {
                    into.push_histogram(*ts, Arc::clone(histogram));
                }
                Ok(())
            }
        }
    }
}

impl Endpoint {
    /// What it is to be asked, and the labels to take off its answer; none if it has nothing to do with the question.
    pub(super) fn question(
        &self,
        (matchers, range): (&[Matcher], TimeRange),
        local_from: Timestamp,
    ) -> Option<(ReadQuery, Vec<String>)> {
        let has = |name: &str, value: &str| {
            matchers.iter().any(|one| one.op == MatchOp::Equal && *one.name == *name && *one.value == *value)
        };
        if !self.required.iter().all(|(name, value)| has(name, value)) {
            return None;
        }
        let mut range = range;
        if !self.recent {
            if range.start > local_from {
                return None;
            }
            range.end = range.end.min(local_from);
        }
        let mut matchers = matchers.to_vec();
        let mut added = Vec::new();
        for (name, value) in &self.external_labels {
            if !matchers.iter().any(|one| *one.name == *name) {
                matchers.push(Matcher::equal(name, value));
                added.push(name.to_owned());
            }
        }
        Some((ReadQuery { range, matchers }, added))
    }

    /// Asks, and takes the labels in `added` off what is answered.
    pub(super) async fn fetch(
        &self,
        (query, added): (ReadQuery, Vec<String>),
        cancelled: Option<&QueryCancelled>,
    ) -> Result<Vec<Fetched>, String> {
        let asked = tokio::time::timeout(self.timeout, self.ask(query));
        let all = tokio::select! {
            all = asked => all.unwrap_or_else(|_| Err(format!("no whole answer within {:?}", self.timeout))),
            () = until_cancelled(cancelled) => return Ok(Vec::new()),
        };
        let mut all = all.map_err(|why| format!("remote read from {:?}: {why}", self.name))?;
        if !added.is_empty() {
            for series in &mut all {
                let mut builder = series.labels.to_builder();
                for name in &added {
                    builder.remove(name);
                }
                series.labels = builder.build();
            }
        }
        Ok(all)
    }

    async fn ask(&self, query: ReadQuery) -> Result<Vec<Fetched>, String> {
        let body = request(&ReadRequest { queries: vec![query], streamed: true });
        let request = Request::post(&self.url)
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("Accept-Encoding", "snappy")
            .header("X-Prometheus-Remote-Read-Version", "0.1.0")
            .header("User-Agent", concat!("Pyrometer/", env!("CARGO_PKG_VERSION")));
        let request = add_headers(request, &self.headers).body(body.into());
        let mut answer = (self.transport)(request.map_err(|error| error.to_string())?).await?;
        let status = answer.status();
        if !status.is_success() {
            let text = text_of(answer.into_body()).await;
            return Err(format!("{status}: {}", text.lines().next().unwrap_or_default()));
        }
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/x-streamed-protobuf") {
            return streamed(&mut answer).await;
        }
        if !kind.starts_with("application/x-protobuf") {
            return Err(format!("an answer of the type {kind:?}"));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = next(&mut answer).await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(too_long());
            }
        }
        samples(&bytes).map_err(|error| error.to_string())
    }
}

async fn until_cancelled(cancelled: Option<&QueryCancelled>) {
    let Some(cancelled) = cancelled else { return std::future::pending().await };
    while !cancelled.is_set() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn too_long() -> String {
    format!("an answer of more than {ANSWER_BYTES_MAX} bytes")
}

/// The body of an answer under way.
type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

async fn next(answer: &mut Answer) -> Result<Option<Bytes>, String> {
    while let Some(frame) = answer.body_mut().frame().await {
        if let Ok(data) = frame.map_err(|error| with_causes(&error))?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Frames of chunks, until the end.
async fn streamed(answer: &mut Answer) -> Result<Vec<Fetched>, String> {
    let (mut frames, mut all, mut bytes) = (Frames::default(), Vec::<ChunkedSeries>::new(), 0);
    while let Some(piece) = next(answer).await? {
        bytes += piece.len();
        if bytes > ANSWER_BYTES_MAX {
            return Err(too_long());
        }
        frames.push(&piece);
        while let Some(more) = frames.take().map_err(|error| error.to_string())? {
            for series in more {
                match all.last_mut() {
                    // A series of many chunks goes on in further frames.
                    Some(last) if last.labels == series.labels => last.absorb(series),
                    _ => all.push(series),
                }
            }
        }
    }
    if !frames.is_at_end() {
        return Err("the answer ends within a frame".to_owned());
    }
    let fetched =
        |series: ChunkedSeries| Fetched { labels: series.labels.clone(), data: Data::Chunks(series) };
    Ok(all.into_iter().map(fetched).collect())
}

/// `ReadResponse{results = 1: QueryResult{timeseries = 1}}`, compressed.
///
/// # Errors
/// It is none.
pub(super) fn samples(body: &[u8]) -> Result<Vec<Fetched>, ReadError> {
    let malformed = |error: snap::Error| ReadError::Malformed(format!("decompressing: {error}"));
    let length = snap::raw::decompress_len(body).map_err(malformed)?;
    if length > ANSWER_BYTES_MAX {
        return Err(ReadError::Malformed(too_long()));
    }
    let message = snap::raw::Decoder::new().decompress_vec(body).map_err(malformed)?;
    let mut all = Vec::new();
    let mut results = Fields::new(&message);
    while let Some((number, content)) = results.next()? {
        if number != 1 {
            continue;
        }
        let mut result = Fields::new(content.bytes()?);
        while let Some((number, content)) = result.next()? {
            if number == 1 {
                all.push(series(content.bytes()?)?);
            }
        }
    }
    Ok(all)
}

fn in_floats(value: HistogramValue) -> FloatHistogram {
    match value {
        HistogramValue::Int(histogram) => histogram.to_float(),
        HistogramValue::Float(histogram) => histogram,
    }
}

/// A `TimeSeries` of 1.0.
fn series(message: &[u8]) -> Result<Fetched, ReadError> {
    let series = TimeSeries { message, version: Version::V1 };
    let labels = series.labels().map(Labels::from_pairs).map_err(ReadError::from)?;
    let mut samples = Samples::default();
    let mut fault = None;
    series.visit(|item| {
        match item {
            Item::Sample(sample) => samples.push_float(sample.ts, sample.value),
            Item::Histogram(bytes) => match histogram::read(bytes) {
                Ok(((ts, _), value)) => samples.push_histogram(ts, Arc::new(in_floats(value))),
                Err(Fault::Message(error)) => return Err(error),
                Err(Fault::Series(what)) => fault = Some(what),
            },
            Item::Exemplar(_) => {}
        }
        Ok::<(), WireError>(())
    })?;
    match fault {
        Some(what) => Err(ReadError::Malformed(format!("{labels}: {what}"))),
        None => Ok(Fetched { labels, data: Data::Columns(samples) }),
    }
}
