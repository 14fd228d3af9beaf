//! HTTP/1.1 from a client's side, one request at a time.

use std::io;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// An answer's head larger than this is refused.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 128;
/// A line that gives the size of a chunk, or a trailer, is no longer than that.
const CHUNK_LINE_BYTES_MAX: usize = 4 << 10;
/// How much is read at once, at least and at most.
const READ_BYTES_MIN: usize = 16 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// Why an answer could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The connection was closed before the first byte of an answer: the server was tired of waiting.
    #[error("EOF")]
    Closed,
    #[error("unexpected EOF")]
    Cut,
    #[error("malformed HTTP response: {0}")]
    Malformed(String),
    #[error("body size limit exceeded")]
    TooLarge,
}

/// Writes a request. `target` is the path, or the whole URL towards a proxy.
pub(crate) async fn write_request<W: AsyncWrite + Unpin>(
    stream: &mut W,
    (method, target, authority): (&Method, &str, &str),
    headers: &HeaderMap,
    body: &[u8],
) -> io::Result<()> {
    let mut text = Vec::with_capacity(512);
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\nHost: "] {
        text.extend_from_slice(part.as_bytes());
    }
    let host = headers.get(header::HOST).map_or(authority.as_bytes(), HeaderValue::as_bytes);
    text.extend_from_slice(host);
    text.extend_from_slice(b"\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::HOST) {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        text.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body);
    stream.write_all(&text).await?;
    stream.flush().await
}

/// A head is read in steps of that many bytes: one is enough for nearly all.
const HEAD_READ_BYTES: usize = 2 << 10;

/// Reads the head of an answer. What has come of the body already is left in `buffer`.
pub(crate) async fn read_head<R: AsyncRead + Unpin>(
    stream: &mut R,
    buffer: &mut Vec<u8>,
) -> Result<Response<()>, ReadError> {
    buffer.clear();
    loop {
        // What has come of the body moves to the front once the head is taken off, so little of it is read here: the
        // buffer, which is used again, has room for all of it.
        buffer.reserve(HEAD_READ_BYTES);
        if (&mut *stream).take(HEAD_READ_BYTES as u64).read_buf(buffer).await? == 0 {
            return Err(if buffer.is_empty() { ReadError::Closed } else { ReadError::Cut });
        }
        while let Some((response, length)) = parse_head(buffer)? {
            buffer.drain(..length);
            // Interim answers come before the final one.
            if !response.status().is_informational() {
                return Ok(response);
            }
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(ReadError::Malformed("the head is too large".to_owned()));
        }
    }
}

/// The head and its length, if all of it is there.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Response<()>, usize)>, ReadError> {
    let malformed = |what: &dyn std::fmt::Display| ReadError::Malformed(what.to_string());
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(|error| malformed(&error))? else {
        return Ok(None);
    };
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(head.code.unwrap_or(0)).map_err(|error| malformed(&error))?;
    *response.version_mut() = if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| malformed(&error))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|error| malformed(&error))?;
        response.headers_mut().append(name, value);
    }
    Ok(Some((response, length)))
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// How the end of an answer's body is known.
pub(crate) fn framing(response: &Response<()>) -> Result<Framing, ReadError> {
    let status = response.status();
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::Length(0));
    }
    if let Some(coding) = response.headers().get(header::TRANSFER_ENCODING) {
        return if coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            Ok(Framing::Chunked)
        } else {
            Err(ReadError::Malformed(format!("unsupported transfer encoding {coding:?}")))
        };
    }
    let mut lengths = response.headers().get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(Framing::UntilClose) };
    let bad = || ReadError::Malformed(format!("bad Content-Length {length:?}"));
    let text = length.to_str().map_err(|_| bad())?;
    if lengths.any(|other| other != length) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    text.parse().map(Framing::Length).map_err(|_| bad())
}

/// Whether the connection may carry another request after this answer.
pub(crate) fn is_kept(response: &Response<()>, framing: Framing) -> bool {
    let connection =
        response.headers().get(header::CONNECTION).map(HeaderValue::as_bytes).unwrap_or_default();
    let says = |word: &[u8]| {
        connection.split(|byte| *byte == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(word))
    };
    let by_version =
        if response.version() == Version::HTTP_10 { says(b"keep-alive") } else { !says(b"close") };
    by_version && framing != Framing::UntilClose
}

/// Reads the body behind the bytes that `body` already holds of it.
pub(crate) async fn read_body<R: AsyncRead + Unpin>(
    stream: &mut R,
    framing: Framing,
    limit: u64,
    body: &mut Vec<u8>,
) -> Result<(), ReadError> {
    match framing {
        Framing::Length(length) => {
            // What a server announces is believed step by step only: memory is taken as bytes come.
            let length = usize::try_from(length).ok().filter(|length| *length as u64 <= limit);
            let length = length.ok_or(ReadError::TooLarge)?;
            while body.len() < length {
                let missing = length - body.len();
                body.reserve(missing.min(READ_BYTES_MAX));
                if (&mut *stream).take(missing as u64).read_buf(body).await? == 0 {
                    return Err(ReadError::Cut);
                }
            }
            if body.len() > length {
                return Err(ReadError::Malformed("more bytes than announced".to_owned()));
            }
            Ok(())
        }
        Framing::UntilClose => loop {
            if body.len() as u64 > limit {
                return Err(ReadError::TooLarge);
            }
            body.reserve(READ_BYTES_MIN);
            if stream.read_buf(body).await? == 0 {
                return Ok(());
            }
        },
        Framing::Chunked => read_chunks(stream, limit, body).await,
    }
}

/// Chunks are put together in place: `body` is first what has been decoded, then what has not.
async fn read_chunks<R: AsyncRead + Unpin>(
    stream: &mut R,
    limit: u64,
    body: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let mut chunks = Chunks::default();
    loop {
        match chunks.decode(body)? {
            Progress::Done => {
                body.truncate(chunks.decoded);
                return Ok(());
            }
            Progress::More => {}
        }
        if chunks.decoded as u64 > limit || chunks.decoded as u64 + chunks.remaining > limit {
            return Err(ReadError::TooLarge);
        }
        body.reserve(READ_BYTES_MIN);
        if stream.read_buf(body).await? == 0 {
            return Err(ReadError::Cut);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    More,
}

/// Decodes chunks in the buffer they arrive in.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// So many bytes at the beginning are decoded.
    pub(crate) decoded: usize,
    /// So many bytes of the chunk under way are missing.
    remaining: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data,
    /// The line end behind a chunk.
    End,
    Trailer,
}

impl Chunks {
    /// Decodes what has been appended to `buffer`.
    pub(crate) fn decode(&mut self, buffer: &mut Vec<u8>) -> Result<Progress, ReadError> {
        let malformed = |what: &str| Err(ReadError::Malformed(what.to_owned()));
        let mut at = self.decoded;
        loop {
            if self.state == State::Data {
                let available =
                    (buffer.len() - at).min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
                if at != self.decoded {
                    buffer.copy_within(at..at + available, self.decoded);
                }
                self.decoded += available;
                at += available;
                self.remaining -= available as u64;
                if self.remaining > 0 {
                    break;
                }
                self.state = State::End;
            }
            let Some(length) = buffer[at..].iter().position(|byte| *byte == b'\n') else {
                if buffer.len() - at > CHUNK_LINE_BYTES_MAX {
                    return malformed("chunk line too long");
                }
                break;
            };
            let line = buffer[at..at + length].trim_ascii_end();
            match self.state {
                State::Size => {
                    self.remaining = chunk_size(line)?;
                    self.state = if self.remaining == 0 { State::Trailer } else { State::Data };
                }
                State::End if line.is_empty() => self.state = State::Size,
                State::End | State::Data => return malformed("no line end behind a chunk"),
                State::Trailer if line.is_empty() => {
                    return if at + length + 1 == buffer.len() {
                        Ok(Progress::Done)
                    } else {
                        malformed("bytes behind the last chunk")
                    };
                }
                State::Trailer => {}
            }
            at += length + 1;
        }
        // What is not decoded moves up, so that the next bytes are read behind it.
        if at != self.decoded {
            buffer.drain(self.decoded..at);
        }
        Ok(Progress::More)
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, ReadError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).unwrap_or_default();
    let is_number = !text.is_empty() && text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let size = if is_number { u64::from_str_radix(text, 16).ok() } else { None };
    size.ok_or_else(|| ReadError::Malformed("bad chunk size".to_owned()))
}
