//! Asking a server over HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cli::tools::{Client, Server};
use crate::jobs::system_roots;

/// A server that does not answer within this time is not asked any longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// One server.
pub(crate) struct Connection {
    runtime: Runtime,
    http: scraper::Client,
    url: String,
    headers: HeaderMap,
}

impl Connection {
    /// Prepares to ask the server at `url`. Must not be used on a runtime.
    pub(crate) fn new(url: &str, client: &Client) -> anyhow::Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let options = match &client.config_file {
            Some(path) => crate::config::http_options(path)?,
            None => scraper::config::HttpOptions::default(),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs(&client.headers)? {
            let name = HeaderName::try_from(name.as_str()).with_context(|| format!("--header={name}"))?;
            let value = HeaderValue::from_str(&value).with_context(|| format!("--header={name}"))?;
            headers.append(name, value);
        }
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            http: scraper::Client::new(&options, system_roots()),
            url: url.trim_end_matches('/').to_owned(),
            headers,
        })
    }

    /// The answer of a path below the server's URL, whatever its status.
    pub(super) fn send(
        &self,
        (method, path): (Method, &str),
        headers: &[(HeaderName, &str)],
        body: &[u8],
        patience: Duration,
    ) -> anyhow::Result<Response<Vec<u8>>> {
        let url = format!("{}{path}", self.url);
        let mut request = http::Request::builder().method(method).uri(&url).body(body).context(url)?;
        *request.headers_mut() = self.headers.clone();
        for (name, value) in headers {
            request.headers_mut().insert(name, HeaderValue::from_str(value)?);
        }
        self.runtime.block_on(self.http.send(request, patience)).map_err(anyhow::Error::msg)
    }

    /// Whether the server's URL has a path.
    pub(super) fn has_path(&self) -> bool {
        self.url.splitn(4, '/').nth(3).is_some()
    }

    /// Status and text of a path below the server's URL.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let answer = self.send((Method::GET, path), &[], &[], TIMEOUT)?;
        let status = answer.status().as_u16();
        Ok((status, text(answer)))
    }

    /// Asks the API by a form; gives the whole answer, whether it is one or an error, and its size.
    pub(crate) fn ask(&self, path: &str, form: &[(&str, String)]) -> anyhow::Result<(Value, usize)> {
        let path = format!("/api/v1/{path}");
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let kind = [(header::CONTENT_TYPE, "application/x-www-form-urlencoded")];
        let answer = self.send((Method::POST, &path), &kind, body.join("&").as_bytes(), TIMEOUT)?;
        let status = answer.status();
        let text = text(answer);
        let value = serde_json::from_str(&text).with_context(|| {
            format!("{}{path}: {status}: {}", self.url, text.lines().next().unwrap_or_default())
        })?;
        Ok((value, text.len()))
    }

    /// The data of an answer.
    pub(crate) fn data(&self, path: &str, form: &[(&str, String)]) -> anyhow::Result<Value> {
        let (mut answer, _) = self.ask(path, form)?;
        for kind in ["warnings", "infos"] {
            for note in answer[kind].as_array().into_iter().flatten() {
                eprintln!("{}", note.as_str().unwrap_or_default());
            }
        }
        if answer["status"] != "success" {
            bail!(
                "{}: {}",
                answer["errorType"].as_str().unwrap_or_default(),
                answer["error"].as_str().unwrap_or_default()
            );
        }
        Ok(answer["data"].take())
    }
}

/// The text of an answer; what is no text of it is replaced.
pub(super) fn text(answer: Response<Vec<u8>>) -> String {
    String::from_utf8_lossy(&answer.into_body()).into_owned()
}

/// Percent-encodes everything that is not plain.
pub(crate) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// `NAME=VALUE` or `NAME:VALUE` texts, taken apart.
pub(crate) fn pairs(texts: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    texts
        .iter()
        .map(|text| {
            let (name, value) =
                text.split_once(['=', ':']).with_context(|| format!("{text:?} is not NAME=VALUE"))?;
            Ok((name.to_owned(), value.trim_matches('"').to_owned()))
        })
        .collect()
}

/// `check healthy` and `check ready`.
pub(crate) fn probe(server: &Server, what: &str) -> anyhow::Result<()> {
    let connection = Connection::new(&server.url, &server.client)?;
    let (status, text) = connection.get(&format!("/-/{what}"))?;
    ensure!(status == 200, "check failed: URL={}, status={status}", connection.url);
    say!("  SUCCESS: {}", text.trim_end());
    Ok(())
}

/// Prints what a server says under each path.
pub(crate) fn print_paths(url: &str, paths: &[&str]) -> anyhow::Result<()> {
    let connection = Connection::new(url, &Client::default())?;
    for path in paths {
        let (status, text) = connection.get(path)?;
        ensure!(status == 200, "{}{path}: status {status}", connection.url);
        if paths.len() > 1 {
            say!("== {path}");
        }
        say!("{}", text.trim_end());
    }
    Ok(())
}
