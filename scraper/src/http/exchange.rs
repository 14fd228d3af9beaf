//! One request and its answer, on a connection that is kept for the next.

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;

use super::chain;
use super::dial::{Dialed, Dialer, Peer};
use super::http1::{self, ReadError};
use super::stream::Stream;

/// HTTP/2 windows: what a server may send before it is read. Small, because one request is under way.
const WINDOW_BYTES: u32 = 256 << 10;

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: &'a [u8],
    /// Bodies of answers with another status are not read.
    pub(crate) wanted: fn(StatusCode) -> bool,
    /// Bytes of the body as they come.
    pub(crate) limit: u64,
}

impl Outgoing<'_> {
    /// A plain `GET`.
    pub(crate) fn get(uri: Uri, headers: HeaderMap, limit: u64) -> Self {
        Self {
            method: Method::GET,
            uri,
            headers,
            body: &[],
            wanted: |status| status == StatusCode::OK,
            limit,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// A file, a certificate or an address cannot be used.
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Failed(String),
    #[error("body size limit exceeded")]
    TooLarge,
}

impl From<ReadError> for ExchangeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLarge => Self::TooLarge,
            other => Self::Failed(chain(&other)),
        }
    }
}

/// An answer's head; its body is where the caller wanted it.
pub(crate) type Answer = Response<()>;

/// The connection to one server, if there is one. Dropping it closes it.
#[derive(Default)]
pub(crate) struct Session {
    connection: Option<Connection>,
}

struct Connection {
    kind: Kind,
    /// Scheme and authority.
    key: String,
    /// Whether a proxy wants the whole URL, and what it wants besides.
    proxy: Option<HeaderMap>,
}

enum Kind {
    One(Stream),
    Two { sender: http2::SendRequest<Full<Bytes>>, _driver: Driver },
}

/// The task that moves HTTP/2 frames.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Sends a request and reads the answer's body into `body`. The connection is used again if it goes to
    /// the same server; one that the server has closed meanwhile is replaced.
    pub(crate) async fn exchange(
        &mut self,
        dialer: &Dialer,
        peer: Peer<'_>,
        outgoing: &Outgoing<'_>,
        body: &mut Vec<u8>,
    ) -> Result<Answer, ExchangeError> {
        let authority = outgoing.uri.authority().map(ToString::to_string).unwrap_or_default();
        let key = format!("{}://{authority}", outgoing.uri.scheme_str().unwrap_or("http"));
        if let Some(mut connection) = self.connection.take_if(|connection| connection.key == key) {
            match connection.exchange(&authority, outgoing, body).await {
                Ok((answer, kept)) => {
                    self.connection = kept.then_some(connection);
                    return Ok(answer);
                }
                Err(Broken::Answer(error)) => return Err(error),
                // A server may close an idle connection at any moment; that is no failure of the target.
                Err(Broken::Idle) => {}
            }
        }
        self.connection = None;
        let dialed = dialer.dial(&outgoing.uri, peer).await?;
        let mut connection = Connection::open(dialed, key).await?;
        match connection.exchange(&authority, outgoing, body).await {
            Ok((answer, kept)) => {
                self.connection = kept.then_some(connection);
                Ok(answer)
            }
            Err(Broken::Answer(error)) => Err(error),
            Err(Broken::Idle) => Err(ExchangeError::Failed("EOF".to_owned())),
        }
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self) {
        self.connection = None;
    }
}

/// What went wrong on a connection.
enum Broken {
    /// It was closed before an answer began.
    Idle,
    Answer(ExchangeError),
}

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Idle,
            ReadError::Io(error) if is_disconnect(&error) => Self::Idle,
            other => Self::Answer(other.into()),
        }
    }
}

fn is_disconnect(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

impl Connection {
    async fn open(dialed: Dialed, key: String) -> Result<Self, ExchangeError> {
        let Dialed { stream, proxy } = dialed;
        if !stream.is_http2() {
            return Ok(Self { kind: Kind::One(stream), key, proxy });
        }
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        builder.max_header_list_size(64 << 10).max_send_buf_size(16 << 10);
        let (sender, driver) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ExchangeError::Failed(chain(&error)))?;
        let driver = tokio::spawn(async move {
            // How the connection ends shows at the next request.
            let _ = driver.await;
        });
        Ok(Self { kind: Kind::Two { sender, _driver: Driver(driver) }, key, proxy })
    }

    /// The answer, and whether the connection may be used again.
    async fn exchange(
        &mut self,
        authority: &str,
        outgoing: &Outgoing<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(Answer, bool), Broken> {
        match &mut self.kind {
            Kind::Two { sender, .. } => exchange_http2(sender, outgoing, body).await,
            Kind::One(stream) => {
                let path = outgoing.uri.path_and_query().map_or("/", |path| path.as_str());
                let whole = outgoing.uri.to_string();
                let (target, headers) = match &self.proxy {
                    Some(extra) => {
                        let mut headers = outgoing.headers.clone();
                        headers.extend(extra.clone());
                        (whole.as_str(), headers)
                    }
                    None => (path, outgoing.headers.clone()),
                };
                let line = (&outgoing.method, target, authority);
                let written = http1::write_request(stream, line, &headers, outgoing.body).await;
                written.map_err(|error| Broken::from(ReadError::Io(error)))?;
                let head = http1::read_head(stream, body).await?;
                let framing = http1::framing(&head)?;
                if !(outgoing.wanted)(head.status()) {
                    body.clear();
                    return Ok((head, false));
                }
                let read = http1::read_body(stream, framing, outgoing.limit, body).await;
                // Once an answer has begun, whatever goes wrong is its fault.
                read.map_err(|error| Broken::Answer(error.into()))?;
                let kept = http1::is_kept(&head, framing) && stream.is_idle().await;
                Ok((head, kept))
            }
        }
    }
}

async fn exchange_http2(
    sender: &mut http2::SendRequest<Full<Bytes>>,
    outgoing: &Outgoing<'_>,
    body: &mut Vec<u8>,
) -> Result<(Answer, bool), Broken> {
    let failed = |error: &dyn std::fmt::Display| Broken::Answer(ExchangeError::Failed(error.to_string()));
    body.clear();
    if sender.ready().await.is_err() {
        return Err(Broken::Idle);
    }
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(outgoing.body)));
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = outgoing.uri.clone();
    *request.headers_mut() = outgoing.headers.clone();
    request.headers_mut().remove(header::HOST);
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| {
        if error.is_closed() || error.is_canceled() { Broken::Idle } else { failed(&chain(&error)) }
    })?;
    let (parts, mut incoming) = answer.into_parts();
    let head = Response::from_parts(parts, ());
    if !(outgoing.wanted)(head.status()) {
        return Ok((head, true));
    }
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| failed(&chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            if (body.len() + data.len()) as u64 > outgoing.limit {
                return Err(Broken::Answer(ExchangeError::TooLarge));
            }
            body.extend_from_slice(data);
        }
    }
    Ok((head, true))
}
