//! Clients for requests that leave this process, from HTTP client options of the configuration.

use std::sync::Arc;

use anyhow::Context as _;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use remote::send::{MetadataOptions, MetadataSource};

use crate::config::{RemoteReadOptions, RemoteWriteOptions};
use crate::jobs::system_roots;
use crate::sigv4::Signer;

/// Headers of a section.
fn headers(pairs: &[(String, String)]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(
            HeaderName::try_from(name.as_str())?,
            HeaderValue::from_str(value).with_context(|| name.clone())?,
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
    let steps = options.relabel.clone();
    let change = move |labels: &model::Labels| {
        let mut builder = labels.to_builder();
        scraper::relabel::apply(&steps, &mut builder).then(|| builder.build())
    };
    let relabels = !options.relabel.is_empty();
    let file: String =
        options.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut transport = scraper::transport(&options.http, system_roots());
    if let Some(sigv4) = &options.sigv4 {
        transport = crate::sigv4::carry(transport, Signer::new(sigv4).with_context(context)?);
    }
    Ok(remote::send::Destination {
        name: options.name.clone(),
        url: options.url.clone(),
        protocol: options.protocol,
        transport,
        headers: headers(&options.headers).with_context(context)?,
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
    let external_labels =
        if options.with_external_labels { external_labels } else { &model::Labels::empty() };
    Ok(remote::read::Endpoint {
        name: options.name.clone(),
        url: options.url.clone(),
        transport: scraper::transport(&options.http, system_roots()),
        headers: headers(&options.headers).with_context(context)?,
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
