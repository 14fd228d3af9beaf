//! List, then watch, for ever.

use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;

use crate::client::{Client, Error, Object, Query};

/// Objects of one answer: enough to be quick, few enough that an answer of large pods stays at some megabytes.
const PAGE: &str = "250";
/// How long the server is asked to keep a watch open.
const WATCH: Duration = Duration::from_secs(290);
/// A watch that ends sooner is followed by a pause.
const WATCH_MIN: Duration = Duration::from_secs(1);
/// A watch that is silent for longer than that is broken.
const SILENCE: Duration = Duration::from_secs(320);
/// How long one page of a list may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Attempts are spaced from the first to the second of these.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// An event larger than this is not an object: the server's own limit on objects is 3 MiB.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// What happened.
pub(crate) enum Change<T> {
    /// A listing begins.
    Listing,
    /// An object is new or different.
    Put(T),
    /// An object is gone.
    Gone(String),
    /// The listing is complete: what it did not show is gone.
    Listed,
}

/// Follows the objects of a query until `sink` says that it has had enough.
pub(crate) async fn follow<T: Object>(
    client: Client,
    query: Query,
    mut sink: impl FnMut(Change<T>) -> bool + Send,
) {
    let mut version = None;
    let mut pause = PAUSE_MIN;
    loop {
        let began = tokio::time::Instant::now();
        let is_watch = version.is_some();
        let outcome = match version.take() {
            None => list(&client, &query, &mut sink).await,
            Some(from) => watch(&client, &query, from, &mut sink).await,
        };
        match outcome {
            Ok(Next::Stop) => return,
            Ok(Next::From(next)) => {
                pause = PAUSE_MIN;
                version = Some(next);
                // A server that ends watches as soon as they begin is not asked without a pause.
                if is_watch && began.elapsed() < WATCH_MIN {
                    tokio::time::sleep(PAUSE_MIN + jitter(PAUSE_MIN)).await;
                }
            }
            // The list begins anew, at once the first time.
            Err((_, error)) if error.is_expired() && pause == PAUSE_MIN => pause *= 2,
            Err((from, error)) => {
                tracing::warn!(resource = T::RESOURCE, %error, "the API server cannot be followed; trying again");
                version = from.filter(|_| !error.is_expired());
                tokio::time::sleep(pause + jitter(pause)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Up to half of `pause`, so that many clients do not come back at once.
fn jitter(pause: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(0) % 512;
    pause * u32::try_from(random).unwrap_or(0) / 1024
}

enum Next {
    Stop,
    From(String),
}

/// A failure, and the version from which a watch can go on nevertheless.
type Failure = (Option<String>, Error);

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Object"))]
struct List<T> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default, deserialize_with = "crate::meta::nullable")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    token: String,
}

async fn list<T: Object>(
    client: &Client,
    query: &Query,
    sink: &mut impl FnMut(Change<T>) -> bool,
) -> Result<Next, Failure> {
    if !sink(Change::Listing) {
        return Ok(Next::Stop);
    }
    let mut token = String::new();
    loop {
        let path = query.path::<T>(&[("limit", PAGE), ("continue", &token)]);
        let page = tokio::time::timeout(PATIENCE, client.page::<T, List<T>>(&path)).await;
        let page = page.unwrap_or_else(|_| Err(Error::Failed("the list takes too long".to_owned())));
        let page = page.map_err(|error| (None, error))?;
        for object in page.items {
            if !sink(Change::Put(stripped(object).0)) {
                return Ok(Next::Stop);
            }
        }
        token = page.metadata.token;
        if token.is_empty() {
            let go_on = sink(Change::Listed);
            return Ok(if go_on { Next::From(page.metadata.resource_version) } else { Next::Stop });
        }
    }
}

/// The object as it is kept, and its version.
fn stripped<T: Object>(mut object: T) -> (T, String) {
    let version = std::mem::take(&mut object.meta_mut().resource_version);
    (object, version)
}

/// An event; what its object is depends on its kind.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

/// What a failing server says.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: ListMeta,
}

async fn watch<T: Object>(
    client: &Client,
    query: &Query,
    from: String,
    sink: &mut impl FnMut(Change<T>) -> bool,
) -> Result<Next, Failure> {
    let seconds = WATCH.as_secs().to_string();
    let path = query.path::<T>(&[
        ("watch", "1"),
        ("allowWatchBookmarks", "true"),
        ("resourceVersion", &from),
        ("timeoutSeconds", &seconds),
    ]);
    let answer = tokio::time::timeout(PATIENCE, client.events::<T>(&path)).await;
    let answer = answer.unwrap_or_else(|_| Err(Error::Failed("the watch takes too long".to_owned())));
    let answer = answer.map_err(|error| (Some(from.clone()), error))?;
    if !answer.status().is_success() {
        let code = answer.status().as_u16();
        return Err((Some(from), refused(code, answer.into_body()).await));
    }
    let mut lines = Lines { stream: answer.into_body().into_data_stream(), pending: Vec::new(), searched: 0 };
    let mut version = from;
    loop {
        let line = tokio::time::timeout(SILENCE, lines.next()).await;
        let line = line.unwrap_or_else(|_| Err(Error::Failed("the watch is silent".to_owned())));
        let Some(line) = line.map_err(|error| (Some(version.clone()), error))? else {
            return Ok(Next::From(version));
        };
        match take(&line, sink).map_err(|error| (Some(version.clone()), error))? {
            Some(next) => version = next,
            None => return Ok(Next::Stop),
        }
    }
}

/// Takes over one event; returns the version it stands for, or nothing if the sink has had enough.
fn take<T: Object>(line: &[u8], sink: &mut impl FnMut(Change<T>) -> bool) -> Result<Option<String>, Error> {
    let bad = |error: serde_json::Error| Error::Failed(format!("event: {error}"));
    let event: Event<'_> = serde_json::from_slice(line).map_err(bad)?;
    let text = event.object.get();
    let object = || serde_json::from_str::<T>(text).map(stripped).map_err(bad);
    let (change, version) = match event.kind.as_ref() {
        "ADDED" | "MODIFIED" => {
            let (object, version) = object()?;
            (Change::Put(object), version)
        }
        "DELETED" => {
            let (object, version) = object()?;
            (Change::Gone(object.meta().key()), version)
        }
        "BOOKMARK" => {
            let bookmark: Bookmark = serde_json::from_str(text).map_err(bad)?;
            return Ok(Some(bookmark.metadata.resource_version));
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(text).map_err(bad)?;
            return Err(Error::Refused { code: status.code, message: status.message });
        }
        other => return Err(Error::Failed(format!("event of unknown type {other:?}"))),
    };
    Ok(sink(change).then_some(version))
}

/// The failure in the server's words.
async fn refused(code: u16, body: Body) -> Error {
    let mut text = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(Ok(bytes)) = stream.next().await {
        text.extend_from_slice(&bytes);
        if text.len() > 64 << 10 {
            break;
        }
    }
    let message = serde_json::from_slice(&text).map(|status: Status| status.message);
    Error::Refused { code, message: message.unwrap_or_else(|_| String::from_utf8_lossy(&text).into_owned()) }
}

/// Lines of a body.
struct Lines<S> {
    stream: S,
    pending: Vec<u8>,
    /// So many bytes of it hold no line end.
    searched: usize,
}

impl<S, B, E> Lines<S>
where
    S: futures::Stream<Item = Result<B, E>> + Unpin,
    B: AsRef<[u8]>,
    E: std::fmt::Display,
{
    /// The next line that is not empty; nothing at the end of the body.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(at) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                self.searched = 0;
                line.pop();
                if !line.is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.pending.len();
            if self.searched > EVENT_BYTES_MAX {
                return Err(Error::Failed("an event is too large".to_owned()));
            }
            match self.stream.next().await {
                Some(Ok(bytes)) => self.pending.extend_from_slice(bytes.as_ref()),
                // Servers and proxies end watches in many ways; what was cut short comes again.
                Some(Err(error)) => return Err(Error::Failed(format!("the watch broke off: {error}"))),
                None => return Ok(None),
            }
        }
    }
}
