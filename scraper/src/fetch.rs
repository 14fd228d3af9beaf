//! One HTTP/1.1 connection to a target, kept alive between scrapes.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::config::{Auth, NameScheme, ScrapeJob};
use crate::exposition::Format;
use crate::target::{Client, Target};
use crate::tls::Dialer;

/// No page is longer than this, whatever the configuration says: an endless one must not take the
/// memory of all.
const BODY_BYTES_MAX: u64 = 256 << 20;
const REDIRECTS_MAX: usize = 10;

/// Why a page could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("Get {url:?}: {what}")]
    Request { url: String, what: String },
    #[error("server returned HTTP status {0}")]
    Status(StatusCode),
    #[error("body size limit exceeded")]
    BodyTooLarge,
    #[error("Get {url:?}: context deadline exceeded")]
    Timeout { url: String },
    #[error("received unsupported Content-Type {0:?} and no fallback_scrape_protocol specified for target")]
    ContentType(String),
    #[error("{0}")]
    Config(String),
}

/// A page as it came.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) is_gzip: bool,
    pub(crate) format: Format,
}

impl Page {
    /// The page without its compression. `buffer` is where it goes if it has any.
    pub(crate) fn into_plain(
        self,
        job: &ScrapeJob,
        mut buffer: Vec<u8>,
    ) -> Result<(Vec<u8>, Vec<u8>), FetchError> {
        if !self.is_gzip {
            return Ok((self.body, buffer));
        }
        buffer.clear();
        let limit = body_limit(job);
        let decoder = flate2::read::MultiGzDecoder::new(self.body.as_slice());
        let length = decoder
            .take(limit + 1)
            .read_to_end(&mut buffer)
            .map_err(|error| FetchError::Config(format!("gzip: {error}")))?;
        if length as u64 > limit { Err(FetchError::BodyTooLarge) } else { Ok((buffer, self.body)) }
    }
}

fn body_limit(job: &ScrapeJob) -> u64 {
    let limit = job.limits.body_bytes_max;
    if limit == 0 { BODY_BYTES_MAX } else { limit.min(BODY_BYTES_MAX) }
}

/// The connection, if there is one. Dropping it closes it.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
    authority: String,
}

/// Size of a connection's read buffer, which it keeps while idle.
const READ_BYTES: usize = 16 << 10;

impl Connection {
    async fn open<S>(stream: S, authority: String) -> hyper::Result<Self>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, driver) = Builder::new().read_buf_exact_size(Some(READ_BYTES)).handshake(stream).await?;
        let driver = tokio::spawn(async move {
            // How the connection ends shows at the next request.
            let _ = driver.await;
        });
        Ok(Self { sender, driver, authority })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Fetches the pages of one target.
#[derive(Default)]
pub(crate) struct Fetcher {
    connection: Option<Connection>,
}

/// What a target's page is fetched with.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) target: &'a Target,
    pub(crate) job: &'a ScrapeJob,
    pub(crate) client: &'a Client,
    pub(crate) dialer: &'a Dialer,
}

impl Fetcher {
    /// Fetches the page into `body`, which is cleared first. Takes no longer than the target's timeout.
    pub(crate) async fn fetch(&mut self, means: Means<'_>, body: Vec<u8>) -> Result<Page, FetchError> {
        let timeout = Duration::from_millis(means.target.timeout_ms.max(1).unsigned_abs());
        let fetched = tokio::time::timeout(timeout, self.fetch_page(means, body)).await;
        let outcome = fetched.unwrap_or_else(|_| Err(FetchError::Timeout { url: means.target.url() }));
        if outcome.is_err() {
            // Whatever is left of the answer must not be taken for that to the next request.
            self.connection = None;
        }
        outcome
    }

    async fn fetch_page(&mut self, means: Means<'_>, mut body: Vec<u8>) -> Result<Page, FetchError> {
        let Means { target, job, client, dialer } = means;
        let url = target.url();
        let mut uri: Uri = url.parse().map_err(|error| request_error(&url, error))?;
        let (plain, secret) = headers(target, job, client)?;
        let origin = uri.authority().cloned();
        let mut response = None;
        for _ in 0..=REDIRECTS_MAX {
            let same_host = uri.authority() == origin.as_ref();
            let mut sent = plain.clone();
            if same_host {
                sent.extend(secret.clone());
            }
            let answer = self.request(&uri, &sent, dialer).await?;
            match redirect(&answer, &uri).filter(|_| job.http.follow_redirects) {
                Some(next) => uri = next,
                None => {
                    response = Some(answer);
                    break;
                }
            }
        }
        let response = response.ok_or_else(|| request_error(&url, "stopped after 10 redirects"))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let head = response.headers();
        let text = |name| head.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("");
        let is_gzip = text(header::CONTENT_ENCODING).eq_ignore_ascii_case("gzip");
        let content_type = text(header::CONTENT_TYPE).to_owned();
        let format = Format::of_content_type(&content_type)
            .or(job.fallback_format)
            .ok_or(FetchError::ContentType(content_type))?;
        read_body(response, body_limit(job), &url, &mut body).await?;
        Ok(Page { body, is_gzip, format })
    }

    /// Sends one request, on a new connection if the old one has been closed meanwhile.
    async fn request(
        &mut self,
        uri: &Uri,
        headers: &HeaderMap,
        dialer: &Dialer,
    ) -> Result<Response<Incoming>, FetchError> {
        let fail = |error: &dyn std::fmt::Display| request_error(&uri.to_string(), error);
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let key = format!("{}://{authority}", uri.scheme_str().unwrap_or("http"));
        if let Some(connection) = self.connection.take_if(|connection| connection.authority == key) {
            let mut connection = connection;
            let answer =
                connection.sender.send_request(request(uri, &authority, headers).map_err(|e| fail(&e))?);
            // A server may close an idle connection at any moment; that is no failure of the target.
            if let Ok(response) = answer.await {
                self.connection = Some(connection);
                return Ok(response);
            }
        }
        self.connection = None;
        let connection = if uri.scheme_str() == Some("https") {
            let connector = dialer.https().map_err(FetchError::Config)?;
            let stream = connector.oneshot(uri.clone()).await.map_err(|error| {
                dialer.distrust();
                fail(&chain(error.as_ref()))
            })?;
            Connection::open(stream, key).await
        } else {
            let stream = Dialer::http().oneshot(uri.clone()).await.map_err(|error| fail(&chain(&error)))?;
            Connection::open(stream, key).await
        };
        let connection = self.connection.insert(connection.map_err(|error| fail(&chain(&error)))?);
        let request = request(uri, &authority, headers).map_err(|error| fail(&error))?;
        connection.sender.send_request(request).await.map_err(|error| fail(&chain(&error)))
    }
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn request_error(url: &str, what: impl std::fmt::Display) -> FetchError {
    FetchError::Request { url: url.to_owned(), what: what.to_string() }
}

fn request(uri: &Uri, authority: &str, headers: &HeaderMap) -> http::Result<Request<Empty<Bytes>>> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).header(header::HOST, authority).body(Empty::new())?;
    request.headers_mut().extend(headers.clone());
    Ok(request)
}

/// Where a redirecting answer points.
fn redirect<B>(response: &Response<B>, from: &Uri) -> Option<Uri> {
    let redirects = [301, 302, 303, 307, 308];
    if !redirects.contains(&response.status().as_u16()) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let to: Uri = if location.starts_with('/') && !location.starts_with("//") {
        let (scheme, authority) = (from.scheme_str()?, from.authority()?);
        format!("{scheme}://{authority}{location}").parse().ok()?
    } else {
        location.parse().ok()?
    };
    (matches!(to.scheme_str(), Some("http" | "https")) && to.authority().is_some()).then_some(to)
}

async fn read_body(
    response: Response<Incoming>,
    limit: u64,
    url: &str,
    out: &mut Vec<u8>,
) -> Result<(), FetchError> {
    out.clear();
    let mut incoming = response.into_body();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| request_error(url, chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            if (out.len() + data.len()) as u64 > limit {
                return Err(FetchError::BodyTooLarge);
            }
            out.extend_from_slice(data);
        }
    }
    Ok(())
}

/// The headers of a scrape: those for any host, and those for the target's own host only.
fn headers(target: &Target, job: &ScrapeJob, client: &Client) -> Result<(HeaderMap, HeaderMap), FetchError> {
    let bad = |what: String| FetchError::Config(what);
    let value =
        |text: &str| HeaderValue::from_str(text).map_err(|error| bad(format!("header value: {error}")));
    let mut plain = HeaderMap::new();
    plain.insert(header::ACCEPT, value(&accept(&job.formats, job.names))?);
    let encoding = if job.compression { "gzip" } else { "identity" };
    plain.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    plain.insert(header::USER_AGENT, value(&client.user_agent)?);
    let seconds = std::time::Duration::from_millis(target.timeout_ms.max(0).unsigned_abs()).as_secs_f64();
    plain.insert("x-prometheus-scrape-timeout-seconds", value(&seconds.to_string())?);
    let mut secret = HeaderMap::new();
    let read =
        |secret: &crate::config::Secret| secret.read().map_err(|error| bad(format!("{secret:?}: {error}")));
    let authorization = match &job.http.auth {
        Auth::None => None,
        Auth::Basic { username, password } => {
            let pair = format!("{}:{}", read(username)?, read(password)?);
            Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        }
        Auth::Authorization { kind, credentials } => Some(format!("{kind} {}", read(credentials)?)),
    };
    if let Some(authorization) = authorization {
        let mut authorization = value(&authorization)?;
        authorization.set_sensitive(true);
        secret.insert(header::AUTHORIZATION, authorization);
    }
    for (name, content) in &job.http.headers {
        let name =
            HeaderName::try_from(name.as_str()).map_err(|error| bad(format!("header {name:?}: {error}")))?;
        secret.append(name, value(&read(content)?)?);
    }
    Ok((plain, secret))
}

/// The formats in order of preference, then anything.
fn accept(formats: &[Format], names: NameScheme) -> String {
    const FIRST_TENTHS: usize = 6;
    let mut out = String::new();
    for (at, format) in formats.iter().enumerate() {
        let mut media = format.accept().to_owned();
        if names == NameScheme::Legacy {
            media = media.replace("escaping=allow-utf-8", "escaping=underscores");
        }
        out.push_str(&format!("{media};q=0.{},", FIRST_TENTHS.saturating_sub(at).max(1)));
    }
    out.push_str(&format!("*/*;q=0.{}", FIRST_TENTHS.saturating_sub(formats.len()).max(1)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_names_formats_by_falling_preference() {
        assert_eq!(
            accept(&Format::DEFAULT_ORDER, NameScheme::Utf8),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert!(accept(&[Format::Text100], NameScheme::Legacy).contains("escaping=underscores;q=0.6"));
    }

    #[test]
    fn redirects_are_resolved_against_the_request() {
        let from: Uri = "http://a:1/metrics".parse().unwrap();
        let to = |status: u16, location: &str| {
            let response = Response::builder().status(status).header("location", location).body(()).unwrap();
            redirect(&response, &from).map(|uri| uri.to_string())
        };
        assert_eq!(to(302, "/x?y=1").as_deref(), Some("http://a:1/x?y=1"));
        assert_eq!(to(308, "https://b/z").as_deref(), Some("https://b/z"));
        assert_eq!(to(200, "/x"), None);
        assert_eq!(to(302, "file:///etc/passwd"), None);
        assert_eq!(to(302, "//b/x"), None);
    }

    #[test]
    fn a_page_that_inflates_beyond_its_limit_is_refused() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&vec![b'#'; 100_000]).unwrap();
        let body = encoder.finish().unwrap();
        let page = |limit| {
            let mut job = ScrapeJob::new("j");
            job.limits.body_bytes_max = limit;
            let page = Page { body: body.clone(), is_gzip: true, format: Format::Text004 };
            page.into_plain(&job, Vec::new()).map(|(plain, _)| plain.len())
        };
        assert_eq!(page(0).unwrap(), 100_000);
        assert_eq!(page(100_000).unwrap(), 100_000);
        assert!(matches!(page(99_999), Err(FetchError::BodyTooLarge)));
    }
}
