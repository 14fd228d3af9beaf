//! Clients for requests that leave this process, from HTTP client options of the configuration.

use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use remote::send::{MetadataOptions, MetadataSource};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Identity, Proxy};
use scraper::config::{Auth, HttpOptions, Secret};

use crate::config::{RemoteReadOptions, RemoteWriteOptions};

/// A client with the TLS settings and the proxy of `options`.
fn client(options: &HttpOptions) -> anyhow::Result<Client> {
    // The first call installs it; later ones find it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder();
    let tls = &options.tls;
    if let Some(ca) = &tls.ca {
        for certificate in Certificate::from_pem_bundle(read(ca)?.as_bytes()).context("tls_config.ca")? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some((cert, key)) = tls.cert.as_ref().zip(tls.key.as_ref()) {
        let pem = format!("{}\n{}", read(cert)?, read(key)?);
        builder = builder.identity(Identity::from_pem(pem.as_bytes()).context("tls_config.cert")?);
    }
    if tls.insecure_skip_verify {
        builder = builder.danger_accept_invalid_certs(true);
    }
    if !options.http2 {
        builder = builder.http1_only();
    }
    if !options.follow_redirects {
        builder = builder.redirect(reqwest::redirect::Policy::none());
    }
    let except = || reqwest::NoProxy::from_string(&options.proxy.no_proxy);
    builder = builder.no_proxy();
    if let Some(url) = &options.proxy.http {
        builder = builder.proxy(Proxy::http(url)?.no_proxy(except()));
    }
    if let Some(url) = &options.proxy.https {
        builder = builder.proxy(Proxy::https(url)?.no_proxy(except()));
    }
    Ok(builder.build()?)
}

fn read(secret: &Secret) -> anyhow::Result<String> {
    match secret {
        Secret::Inline(text) => Ok(text.clone()),
        Secret::File(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Ok(text.trim().to_owned())
        }
    }
}

/// The headers of a request, files read anew.
fn headers(options: &HttpOptions, more: &[(String, String)]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let authorization = match &options.auth {
        Auth::Basic { username, password } => {
            let pair = format!("{}:{}", read(username)?, read(password)?);
            Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        }
        Auth::Authorization { kind, credentials } => Some(format!("{kind} {}", read(credentials)?)),
        _ => None,
    };
    if let Some(text) = authorization {
        let mut value = HeaderValue::from_str(&text).context("authorization")?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for (name, value) in more {
        headers.insert(
            HeaderName::try_from(name.as_str())?,
            HeaderValue::from_str(value).context(name.clone())?,
        );
    }
    for (name, secret) in &options.headers {
        headers.append(
            HeaderName::try_from(name.as_str())?,
            HeaderValue::from_str(&read(secret)?).context(name.clone())?,
        );
    }
    Ok(headers)
}

/// A destination of remote write, whose place in the log is kept below `dir`, and which is told what `metadata` says.
pub(crate) fn destination(
    options: &RemoteWriteOptions,
    external_labels: &model::Labels,
    dir: &std::path::Path,
    metadata: &MetadataSource,
) -> anyhow::Result<remote::send::Destination> {
    let context = || format!("remote_write {:?}", options.name);
    let client = client(&options.http).with_context(context)?;
    headers(&options.http, &options.headers).with_context(context)?;
    let (http, more) = (options.http.clone(), options.headers.clone());
    let steps = options.relabel.clone();
    let change = move |labels: &model::Labels| {
        let mut builder = labels.to_builder();
        scraper::relabel::apply(&steps, &mut builder).then(|| builder.build())
    };
    let relabels = !options.relabel.is_empty();
    let file: String =
        options.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Ok(remote::send::Destination {
        name: options.name.clone(),
        url: options.url.clone(),
        protocol: options.protocol,
        client,
        headers: Arc::new(move || headers(&http, &more).map_err(|error| format!("{error:#}"))),
        timeout: options.timeout,
        external_labels: external_labels.clone(),
        relabel: relabels.then(|| Arc::new(change) as remote::send::Relabel),
        exemplars: options.exemplars,
        histograms: options.histograms,
        metadata: options.metadata.map(|times| MetadataOptions {
            source: Arc::clone(metadata),
            every: times.every,
            per_request: times.per_request,
        }),
        queue: options.queue,
        cursor_path: dir.join("remote_write").join(format!("{file}.cursor")),
        now: crate::wire::now,
    })
}

/// A server that is asked for samples.
pub(crate) fn endpoint(
    options: &RemoteReadOptions,
    external_labels: &model::Labels,
) -> anyhow::Result<remote::read::Endpoint> {
    let context = || format!("remote_read {:?}", options.name);
    let client = client(&options.http).with_context(context)?;
    headers(&options.http, &options.headers).with_context(context)?;
    let (http, more) = (options.http.clone(), options.headers.clone());
    let external_labels =
        if options.with_external_labels { external_labels } else { &model::Labels::empty() };
    Ok(remote::read::Endpoint {
        name: options.name.clone(),
        url: options.url.clone(),
        client,
        headers: Arc::new(move || headers(&http, &more).map_err(|error| format!("{error:#}"))),
        timeout: options.timeout,
        required: options.required.clone(),
        recent: options.recent,
        external_labels: external_labels.clone(),
    })
}

/// All of them.
pub(crate) fn endpoints(loaded: &crate::config::Loaded) -> anyhow::Result<Vec<remote::read::Endpoint>> {
    loaded.remote_read.iter().map(|options| endpoint(options, &loaded.external_labels)).collect()
}

/// The servers that are asked for samples from the start. To be called on the runtime.
pub(crate) fn others(loaded: &crate::config::Loaded) -> anyhow::Result<Arc<remote::read::Endpoints>> {
    let others = remote::read::Endpoints::new(tokio::runtime::Handle::current());
    others.apply(endpoints(loaded)?);
    Ok(Arc::new(others))
}
