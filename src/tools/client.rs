//! Asking a server over HTTP.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::blocking::{Client as Http, ClientBuilder, RequestBuilder};
use reqwest::{Certificate, Identity};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::tools::{Client, Server};

/// A server that does not answer within this time is not asked any longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// HTTP client options, in the format of a scrape configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    basic_auth: Option<BasicAuth>,
    authorization: Option<Authorization>,
    bearer_token: Option<String>,
    bearer_token_file: Option<PathBuf>,
    tls_config: Tls,
    follow_redirects: Option<bool>,
    enable_http2: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BasicAuth {
    username: String,
    password: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Authorization {
    r#type: Option<String>,
    credentials: Option<String>,
    credentials_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    insecure_skip_verify: bool,
}

/// One server.
pub(crate) struct Connection {
    http: Http,
    url: String,
    headers: Vec<(String, String)>,
    basic: Option<(String, String)>,
    authorization: Option<String>,
}

fn text_of(inline: Option<String>, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    match (inline, file) {
        (Some(text), _) => Ok(Some(text)),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Ok(Some(text.trim().to_owned()))
        }
        (None, None) => Ok(None),
    }
}

impl Connection {
    /// Prepares to ask the server at `url`.
    pub(crate) fn new(url: &str, client: &Client) -> anyhow::Result<Self> {
        // The first call installs it; later ones find it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let options = match &client.config_file {
            Some(path) => read_options(path)?,
            None => Options::default(),
        };
        let mut builder = ClientBuilder::new().timeout(TIMEOUT);
        builder = with_tls(builder, &options.tls_config)?;
        if options.follow_redirects == Some(false) {
            builder = builder.redirect(reqwest::redirect::Policy::none());
        }
        if options.enable_http2 == Some(false) {
            builder = builder.http1_only();
        }
        let basic = match options.basic_auth {
            Some(basic) => {
                let password = text_of(basic.password, basic.password_file.as_deref())?;
                Some((basic.username, password.unwrap_or_default()))
            }
            None => None,
        };
        let bearer = text_of(options.bearer_token, options.bearer_token_file.as_deref())?;
        let authorization = match options.authorization {
            Some(authorization) => {
                let kind = authorization.r#type.unwrap_or_else(|| "Bearer".to_owned());
                let credentials =
                    text_of(authorization.credentials, authorization.credentials_file.as_deref())?;
                credentials.map(|credentials| format!("{kind} {credentials}"))
            }
            None => bearer.map(|token| format!("Bearer {token}")),
        };
        Ok(Self {
            http: builder.build()?,
            url: url.trim_end_matches('/').to_owned(),
            headers: pairs(&client.headers)?,
            basic,
            authorization,
        })
    }

    fn with_credentials(&self, mut request: RequestBuilder) -> RequestBuilder {
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some((user, password)) = &self.basic {
            request = request.basic_auth(user, Some(password));
        }
        match &self.authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    /// Status and text of a path below the server's URL.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let url = format!("{}{path}", self.url);
        let answer = self.with_credentials(self.http.get(&url)).send().with_context(|| url.clone())?;
        Ok((answer.status().as_u16(), answer.text().with_context(|| url.clone())?))
    }

    /// Asks the API by a form; gives the whole answer, whether it is one or an error, and its size.
    pub(crate) fn ask(&self, path: &str, form: &[(&str, String)]) -> anyhow::Result<(Value, usize)> {
        let url = format!("{}/api/v1/{path}", self.url);
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let request = self.http.post(&url).header("Content-Type", "application/x-www-form-urlencoded");
        let answer =
            self.with_credentials(request).body(body.join("&")).send().with_context(|| url.clone())?;
        let status = answer.status();
        let text = answer.text()?;
        let value = serde_json::from_str(&text)
            .with_context(|| format!("{url}: {status}: {}", text.lines().next().unwrap_or_default()))?;
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

fn read_options(path: &Path) -> anyhow::Result<Options> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if text.trim().is_empty() {
        return Ok(Options::default());
    }
    serde_saphyr::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.without_snippet()))
}

fn with_tls(mut builder: ClientBuilder, tls: &Tls) -> anyhow::Result<ClientBuilder> {
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    if let Some(path) = &tls.ca_file {
        let pem = read(path)?;
        for certificate in Certificate::from_pem_bundle(&pem).with_context(|| path.display().to_string())? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some((cert, key)) = tls.cert_file.as_ref().zip(tls.key_file.as_ref()) {
        let mut pem = read(cert)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        builder = builder.identity(Identity::from_pem(&pem).with_context(|| cert.display().to_string())?);
    }
    Ok(if tls.insecure_skip_verify { builder.danger_accept_invalid_certs(true) } else { builder })
}

/// Percent-encodes everything that is not plain.
pub(crate) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// `NAME=VALUE` texts, taken apart.
pub(crate) fn pairs(texts: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    texts
        .iter()
        .map(|text| {
            let (name, value) =
                text.split_once('=').with_context(|| format!("{text:?} is not NAME=VALUE"))?;
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

/// Sends pages of metrics by remote write, all samples with the time of now unless they have one.
pub(crate) fn push(
    client: &Client,
    url: &str,
    files: &[PathBuf],
    labels: &[(String, String)],
    timeout_ms: i64,
) -> anyhow::Result<()> {
    let connection = Connection::new(url, client)?;
    let mut pages = Vec::new();
    if files.is_empty() {
        let mut page = Vec::new();
        std::io::stdin().read_to_end(&mut page)?;
        pages.push(("standard input".to_owned(), page));
    }
    for path in files {
        pages.push((
            path.display().to_string(),
            std::fs::read(path).with_context(|| path.display().to_string())?,
        ));
    }
    for (name, page) in pages {
        let samples = super::import::page(&page).with_context(|| name.clone())?;
        let now = crate::wire::now();
        let series = samples.into_iter().map(|(series, ts, value)| {
            let mut builder = series.to_builder();
            labels.iter().for_each(|(name, value)| {
                builder.set(name, value);
            });
            (builder.build(), ts.unwrap_or(now), value)
        });
        let body = remote::send::request(series);
        let request = connection
            .http
            .post(&connection.url)
            .timeout(Duration::from_millis(timeout_ms.unsigned_abs()))
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0");
        let answer = connection.with_credentials(request).body(body).send()?;
        let status = answer.status();
        ensure!(status.is_success(), "{name}: {status}: {}", answer.text().unwrap_or_default().trim_end());
        say!("  SUCCESS: metric file {name} pushed to remote write.");
    }
    Ok(())
}
