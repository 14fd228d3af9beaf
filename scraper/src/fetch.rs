//! Fetches the page of one target.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Uri};

use crate::config::{Escaping, ScrapeJob};
use crate::exposition::Format;
use crate::http::{Answer, Authorizer, Dialer, ExchangeError, Outgoing, Peer, Roots, Session};
use crate::inflate::{self, InflateError};
use crate::target::Target;

/// A page larger than this is refused if the job sets no limit.
const BODY_BYTES_DEFAULT: u64 = 256 << 20;
/// A page larger than this is refused whatever the job says.
const BODY_BYTES_MAX: u64 = 4 << 30;
pub(crate) const REDIRECTS_MAX: usize = 10;

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

/// How a page is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    Gzip,
    Zstd,
}

/// A page as it came.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) coding: Coding,
    pub(crate) format: Format,
}

impl Page {
    /// The page without its compression. `buffer` is where it goes if it has any.
    pub(crate) fn into_plain(
        self,
        job: &ScrapeJob,
        mut buffer: Vec<u8>,
    ) -> Result<(Vec<u8>, Vec<u8>), FetchError> {
        if self.coding == Coding::Plain {
            return Ok((self.body, buffer));
        }
        let limit = body_limit(job);
        let packed = self.body.as_slice();
        if self.coding == Coding::Gzip {
            inflate::gunzip(packed, &mut buffer, limit).map_err(|error| match error {
                InflateError::TooLarge => FetchError::BodyTooLarge,
                malformed => FetchError::Config(malformed.to_string()),
            })?;
            return Ok((buffer, self.body));
        }
        buffer.clear();
        let failed = |error: std::io::Error| FetchError::Config(format!("zstd: {error}"));
        let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(failed)?;
        let length = decoder.take(limit + 1).read_to_end(&mut buffer).map_err(failed)?;
        if length as u64 > limit { Err(FetchError::BodyTooLarge) } else { Ok((buffer, self.body)) }
    }
}

fn body_limit(job: &ScrapeJob) -> u64 {
    let limit = job.limits.body_bytes_max;
    if limit == 0 { BODY_BYTES_DEFAULT } else { limit.min(BODY_BYTES_MAX) }
}

/// What the targets of a job are fetched with.
pub(crate) struct Access {
    pub(crate) dialer: Dialer,
    pub(crate) authorizer: Authorizer,
    /// Headers for any host.
    headers: HeaderMap,
    roots: Arc<Roots>,
}

impl Access {
    pub(crate) fn new(job: &ScrapeJob, roots: &Arc<Roots>, user_agent: &str) -> Self {
        let mut headers = HeaderMap::new();
        // Texts of ours, and a user agent that was checked, are all valid.
        let mut set = |name, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        set(header::ACCEPT, &accept(&job.formats, job.escaping));
        // Zstd takes a third of the time that gzip does, on both sides.
        set(header::ACCEPT_ENCODING, if job.compression { "zstd,gzip;q=0.9" } else { "identity" });
        set(header::USER_AGENT, user_agent);
        Self {
            dialer: Dialer::new(job.http.clone(), Arc::clone(roots)),
            authorizer: Authorizer::new(&job.http, roots),
            headers,
            roots: Arc::clone(roots),
        }
    }

    /// Whether it was made with these.
    pub(crate) fn is_of(&self, roots: &Arc<Roots>, user_agent: &str) -> bool {
        let agent = self.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
        Arc::ptr_eq(&self.roots, roots) && agent.unwrap_or_default() == user_agent.as_bytes()
    }
}

/// Fetches the pages of one target.
#[derive(Default)]
pub(crate) struct Fetcher {
    session: Session,
}

/// What a target's page is fetched with.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) target: &'a Target,
    pub(crate) job: &'a ScrapeJob,
    pub(crate) access: &'a Access,
}

impl Fetcher {
    /// Fetches the page into `body`, which is cleared first. Takes no longer than the target's timeout.
    pub(crate) async fn fetch(&mut self, means: Means<'_>, body: Vec<u8>) -> Result<Page, FetchError> {
        let timeout = Duration::from_millis(means.target.timeout_ms.max(1).unsigned_abs());
        let fetched = tokio::time::timeout(timeout, self.fetch_page(means, body)).await;
        let outcome = fetched.unwrap_or_else(|_| Err(FetchError::Timeout { url: means.target.url() }));
        if outcome.is_err() {
            // Whatever is left of the answer must not be taken for that to the next request.
            self.session.close();
        }
        outcome
    }

    async fn fetch_page(&mut self, means: Means<'_>, mut body: Vec<u8>) -> Result<Page, FetchError> {
        let Means { target, job, access } = means;
        let url = target.url();
        let uri: Uri = url.parse().map_err(|error| request_error(&url, error))?;
        let mut plain = access.headers.clone();
        let seconds = Duration::from_millis(target.timeout_ms.max(0).unsigned_abs()).as_secs_f64();
        if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
            plain.insert("x-prometheus-scrape-timeout-seconds", value);
        }
        let secret = access.authorizer.headers().await.map_err(FetchError::Config)?;
        let request = Outgoing::get(uri, plain, body_limit(job));
        let peer = Peer { node: target.node.as_deref() };
        let answer = follow(
            &mut self.session,
            (&access.dialer, peer),
            (request, &secret, job.http.follow_redirects),
            &mut body,
        )
        .await?;
        if answer.status() != StatusCode::OK {
            if answer.status() == StatusCode::UNAUTHORIZED {
                access.authorizer.distrust().await;
            }
            return Err(FetchError::Status(answer.status()));
        }
        let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let coding = match text(header::CONTENT_ENCODING).to_ascii_lowercase().as_str() {
            "gzip" => Coding::Gzip,
            "zstd" => Coding::Zstd,
            _ => Coding::Plain,
        };
        let content_type = text(header::CONTENT_TYPE).to_owned();
        let format = Format::of_content_type(&content_type)
            .or(job.fallback_format)
            .ok_or(FetchError::ContentType(content_type))?;
        Ok(Page { body, coding, format })
    }
}

/// Sends a request and follows where the answers lead. `secret` headers go to the first host only.
pub(crate) async fn follow(
    session: &mut Session,
    (dialer, peer): (&Dialer, Peer<'_>),
    (mut request, secret, follows): (Outgoing<'_>, &HeaderMap, bool),
    body: &mut Vec<u8>,
) -> Result<Answer, FetchError> {
    let url = request.uri.to_string();
    let (origin, plain) = (request.uri.clone(), request.headers.clone());
    for _ in 0..=REDIRECTS_MAX {
        request.headers = plain.clone();
        let is_origin = request.uri.authority() == origin.authority();
        if is_same_server(&request.uri, &origin) {
            request.headers.extend(secret.clone());
        }
        // The name of a node says nothing about another host.
        let peer = if is_origin { peer } else { Peer::default() };
        let answer = session.exchange(dialer, peer, &request, body).await.map_err(|error| match error {
            ExchangeError::TooLarge => FetchError::BodyTooLarge,
            ExchangeError::Config(what) => FetchError::Config(what),
            ExchangeError::Failed(what) => request_error(&url, what),
        })?;
        match redirect(&answer, &request.uri).filter(|_| follows) {
            Some(next) => request.uri = next,
            None => return Ok(answer),
        }
    }
    Err(request_error(&url, "stopped after 10 redirects"))
}

pub(crate) fn is_same_server(one: &Uri, other: &Uri) -> bool {
    (one.scheme(), one.authority()) == (other.scheme(), other.authority())
}

fn request_error(url: &str, what: impl std::fmt::Display) -> FetchError {
    FetchError::Request { url: url.to_owned(), what: what.to_string() }
}

/// Where a redirecting answer points.
pub(crate) fn redirect<B>(response: &Response<B>, from: &Uri) -> Option<Uri> {
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
/// The formats in order of preference, then anything.
fn accept(formats: &[Format], escaping: Escaping) -> String {
    const FIRST_TENTHS: usize = 6;
    let mut out = String::new();
    for (at, format) in formats.iter().enumerate() {
        let media = format.accept().replace("allow-utf-8", escaping.as_str());
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
            accept(&Format::DEFAULT_ORDER, Escaping::AllowUtf8),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert!(accept(&[Format::Text100], Escaping::Dots).contains("escaping=dots;q=0.6"));
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
            let page = Page { body: body.clone(), coding: Coding::Gzip, format: Format::Text004 };
            page.into_plain(&job, Vec::new()).map(|(plain, _)| plain.len())
        };
        assert_eq!(page(0).unwrap(), 100_000);
        assert_eq!(page(100_000).unwrap(), 100_000);
        assert!(matches!(page(99_999), Err(FetchError::BodyTooLarge)));
    }
}
