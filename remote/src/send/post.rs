//! A shard: requests of some series, one after the other, until each is taken or refused for good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use model::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tsdb::Position;

use super::batch::{Batch, Press};
use super::{Answering, Counters, Destination, Transport};
use crate::receive::{Protocol, Written};

/// Requests that are not done, by number, each with the place in the log before it.
pub(super) type Open = Arc<Mutex<BTreeMap<u64, Position>>>;

/// Memory of requests that are done.
pub(super) type Spaces = Arc<Mutex<Vec<Vec<u8>>>>;

/// So many are kept.
const SPACES_MAX: usize = 16;

pub(super) struct Shard {
    pub(super) destination: Arc<Destination>,
    pub(super) counters: Arc<Counters>,
    pub(super) open: Open,
}

/// How it ended with a request, and what the receiver says that it stored.
pub(super) enum Outcome {
    Taken(Option<Written>),
    /// Sending it again makes no sense.
    Refused(String, Option<Written>),
}

/// How an attempt ended.
enum Attempt {
    Done(Outcome),
    /// It may be taken later, and not before this time if the receiver said so.
    Failed(String, Option<Duration>),
}

impl Shard {
    pub(super) async fn run(self, mut queue: mpsc::Receiver<(u64, Batch)>, spaces: Spaces) {
        let mut press = Press::default();
        while let Some((number, mut batch)) = queue.recv().await {
            let began = Instant::now();
            let body = batch.body(&mut press);
            self.send(&batch, body).await;
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.counters.busy.fetch_add(took, Ordering::Relaxed);
            self.counters.pending.fetch_sub(batch.len(), Ordering::Relaxed);
            self.open.lock().remove(&number);
            let mut spaces = spaces.lock();
            if spaces.len() < SPACES_MAX {
                spaces.push(batch.into_space());
            }
        }
    }

    async fn send(&self, batch: &Batch, body: Bytes) {
        let counters = &self.counters;
        let bytes = body.len() as u64;
        let (outcome, all) = (self.deliver(body, (&counters.retried, batch.len())).await, batch.counts());
        let (written, why) = match outcome {
            Outcome::Taken(written) => {
                counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                counters.newest_sent.fetch_max(batch.newest, Ordering::Relaxed);
                match self.destination.protocol {
                    Protocol::V1 => (all, None),
                    Protocol::V2 => confirmed(all, written),
                }
            }
            Outcome::Refused(why, written) => (written.unwrap_or_default(), Some(why)),
        };
        let least = |all: u64, written: u64| all.min(written);
        let samples = least(all.samples, written.samples);
        let histograms = least(all.histograms, written.histograms);
        let exemplars = least(all.exemplars, written.exemplars);
        counters.samples.fetch_add(samples, Ordering::Relaxed);
        counters.histograms.fetch_add(histograms, Ordering::Relaxed);
        counters.exemplars.fetch_add(exemplars, Ordering::Relaxed);
        let failed = all.all() - samples - histograms - exemplars;
        if failed > 0 {
            counters.failed.fetch_add(failed, Ordering::Relaxed);
            tracing::error!(
                destination = %self.destination.name, samples = all.all(), failed,
                "remote write: refused for good: {}", why.unwrap_or_default()
            );
        }
    }

    /// Sends a request until it is taken or refused for good; counts `items` for each time that it is sent again.
    pub(super) async fn deliver(&self, body: Bytes, (retried, items): (&AtomicU64, u64)) -> Outcome {
        let counters = &self.counters;
        let mut pause = self.destination.queue.backoff_min;
        let mut attempt = 0u32;
        loop {
            match self.post(body.clone(), attempt).await {
                Attempt::Done(outcome) => {
                    if matches!(outcome, Outcome::Taken(_)) {
                        counters.failing.store(false, Ordering::Relaxed);
                    }
                    return outcome;
                }
                Attempt::Failed(why, wait) => {
                    counters.failing.store(true, Ordering::Relaxed);
                    retried.fetch_add(items, Ordering::Relaxed);
                    // An outage is told at its beginning, and then ever less often.
                    if attempt == 0 || attempt.is_power_of_two() {
                        tracing::warn!(destination = %self.destination.name, attempt, "remote write: {why}");
                    }
                    tokio::time::sleep(wait.unwrap_or(pause)).await;
                    pause = (pause * 2).min(self.destination.queue.backoff_max);
                    attempt = attempt.saturating_add(1);
                }
            }
        }
    }

    async fn post(&self, body: Bytes, attempt: u32) -> Attempt {
        let destination = &self.destination;
        let (content_type, version) = match destination.protocol {
            Protocol::V1 => ("application/x-protobuf", "0.1.0"),
            Protocol::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let mut request = Request::post(&destination.url)
            .header("Content-Type", content_type)
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", version)
            .header("User-Agent", concat!("Pyrometer/", env!("CARGO_PKG_VERSION")));
        if attempt > 0 {
            request = request.header("Retry-Attempt", attempt);
        }
        request = add_headers(request, &destination.headers);
        let exchange = async {
            let request = request.body(body).map_err(|error| error.to_string())?;
            let (head, body) = (destination.transport)(request).await?.into_parts();
            Ok::<_, String>((head, text_of(body).await))
        };
        let (head, text) = match tokio::time::timeout(destination.timeout, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Attempt::Failed(error, None),
            Err(_) => return Attempt::Failed(format!("no answer within {:?}", destination.timeout), None),
        };
        let (status, written) = (head.status, Written::of_headers(&head.headers));
        if status.is_success() {
            return Attempt::Done(Outcome::Taken(written));
        }
        let wait = retry_after(&head.headers, (destination.now)());
        let why = format!("{status}: {}", text.lines().next().unwrap_or_default());
        let passes = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS && destination.queue.retry_on_429;
        if passes { Attempt::Failed(why, wait) } else { Attempt::Done(Outcome::Refused(why, written)) }
    }
}

/// What a receiver of 2.0 has stored of a request that it took. One that says nothing, or nothing stored, has not
/// understood it: so does a receiver of 1.0 that does not look at the content type.
fn confirmed(all: Written, written: Option<Written>) -> (Written, Option<String>) {
    let Some(written) = written.filter(|written| written.all() > 0 || all.all() == 0) else {
        let why = "it was taken, but by the answer's headers nothing of it was stored: the receiver may only know \
                   prometheus.WriteRequest";
        return (Written::default(), Some(why.to_owned()));
    };
    (written, Some("the receiver has stored fewer".to_owned()))
}

/// Requests carried by a client as it is.
#[must_use]
pub fn carry_by(client: reqwest::Client) -> Transport {
    Arc::new(move |request| {
        let client = client.clone();
        Box::pin(async move {
            let request = request.try_into().map_err(|error: reqwest::Error| error.to_string())?;
            let answer = client.execute(request).await.map_err(|error| with_causes(&error.without_url()))?;
            let answer = Response::<reqwest::Body>::from(answer);
            Ok(answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
        }) as Answering
    })
}

/// Adds headers to those of a request.
pub(crate) fn add_headers(
    mut request: http::request::Builder,
    headers: &HeaderMap,
) -> http::request::Builder {
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
}

/// An answer's text, as far as it is of use in a message.
pub(crate) async fn text_of(mut body: UnsyncBoxBody<Bytes, std::io::Error>) -> String {
    const BYTES_MAX: usize = 64 << 10;
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref().filter(|data| text.len() + data.len() <= BYTES_MAX) {
            text.extend_from_slice(data);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// An error with what lies behind it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// `Retry-After`, in seconds or as a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    date.checked_sub(Duration::from_millis(u64::try_from(now).ok()?))
}
