//! The section `remote_write`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration as StdDuration;

use remote::receive::Protocol;
use remote::send::QueueOptions;
use scraper::config::{HttpOptions, NameScheme};
use scraper::relabel::Rule;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::file::Relabel;
use super::http::with_http;
use super::resolve::{Fault, fault, relabel};
use super::scalars::Duration;
use super::sigv4::{SigV4, SigV4Options};

/// The ways to say who sends.
const AUTH_KEYS: &str = "basic_auth, authorization, oauth2, sigv4, azuread or google_iam";

with_http! {
    /// One of `remote_write`
    RemoteWrite {
        url: Option<String>,
        name: Option<String>,
        remote_timeout: Option<Duration>,
        headers: BTreeMap<String, String>,
        write_relabel_configs: Vec<Option<Spanned<Relabel>>>,
        send_exemplars: bool,
        send_native_histograms: bool,
        round_robin_dns: Option<Spanned<bool>>,
        failed_request_logging: Option<serde_json::Value>,
        protobuf_message: Option<Spanned<String>>,
        queue_config: Queue,
        metadata_config: Metadata,
        sigv4: Option<Spanned<SigV4>>,
        azuread: Option<Spanned<serde_json::Value>>,
        google_iam: Option<Spanned<serde_json::Value>>,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Queue {
    capacity: Option<Spanned<usize>>,
    max_shards: Option<Spanned<usize>>,
    min_shards: Option<Spanned<usize>>,
    max_samples_per_send: Option<Spanned<usize>>,
    batch_send_deadline: Option<Duration>,
    min_backoff: Option<Duration>,
    max_backoff: Option<Duration>,
    retry_on_http_429: bool,
    sample_age_limit: Option<Duration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Metadata {
    send: Option<bool>,
    send_interval: Option<Duration>,
    max_samples_per_send: Option<Spanned<usize>>,
}

/// How often it is said what metrics mean, and of how many families at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetadataTimes {
    pub(crate) every: StdDuration,
    pub(crate) per_request: usize,
}

/// Where to send, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RemoteWriteOptions {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) timeout: StdDuration,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) relabel: Vec<Rule>,
    pub(crate) exemplars: bool,
    pub(crate) histograms: bool,
    pub(crate) protocol: Protocol,
    /// None if nothing is said; in 2.0 it is a part of each series anyway.
    pub(crate) metadata: Option<MetadataTimes>,
    pub(crate) queue: QueueOptions,
    pub(crate) http: HttpOptions,
    /// How requests are signed.
    pub(crate) sigv4: Option<SigV4Options>,
}

/// All destinations of a file; paths are relative to `folder`.
pub(super) fn resolve(
    sections: &[Option<Spanned<RemoteWrite>>],
    folder: &Path,
) -> Result<Vec<RemoteWriteOptions>, Fault> {
    let mut out: Vec<RemoteWriteOptions> = Vec::new();
    for section in sections {
        let Some(section) = section else {
            return Err(Fault {
                location: None,
                what: "empty or null remote write config section".to_owned(),
            });
        };
        let options = section.value.resolve(folder, section.referenced)?;
        if out.iter().any(|other| other.name == options.name) {
            let what = format!("found multiple remote write configs with job name {:?}", options.name);
            return fault(section.referenced, what);
        }
        out.push(options);
    }
    Ok(out)
}

impl RemoteWrite {
    fn resolve(&self, folder: &Path, at: Location) -> Result<RemoteWriteOptions, Fault> {
        let Some(url) = self.url.clone().filter(|url| !url.is_empty()) else {
            return fault(at, "url for remote_write is empty");
        };
        check_url("remote_write", &url, at)?;
        for (key, section) in [("azuread", &self.azuread), ("google_iam", &self.google_iam)] {
            if let Some(section) = section {
                return fault(section.referenced, format!("remote_write.{key} is not supported"));
            }
        }
        if let Some(flag) = self.round_robin_dns.as_ref().filter(|flag| flag.value) {
            return fault(flag.referenced, "remote_write.round_robin_dns is not supported");
        }
        let protocol = match &self.protobuf_message {
            None => Protocol::V1,
            Some(name) => match Protocol::of_message(&name.value) {
                Some(protocol) => protocol,
                None => {
                    let what = format!("unknown remote write protobuf message {:?}", name.value);
                    return fault(name.referenced, what);
                }
            },
        };
        let mut client = self.http();
        client.enable_http2 = Some(self.enable_http2.unwrap_or(false));
        let (http, sigv4) = client.signed(self.sigv4.as_ref(), AUTH_KEYS, (folder, at))?;
        check_headers(&self.headers, at)?;
        let empty = "empty or null relabeling rule in remote write config";
        Ok(RemoteWriteOptions {
            name: self.name.clone().unwrap_or_else(|| short_name(&url)),
            timeout: StdDuration::from_millis(
                self.remote_timeout.map_or(30_000, |timeout| timeout.0).unsigned_abs(),
            ),
            headers: self.headers.clone().into_iter().collect(),
            relabel: relabel(&self.write_relabel_configs, empty, NameScheme::Utf8)?,
            exemplars: self.send_exemplars,
            histograms: self.send_native_histograms,
            protocol,
            metadata: self.metadata_config.resolve()?,
            queue: self.queue_config.resolve()?,
            http,
            sigv4,
            url,
        })
    }
}

/// Whether `url` is one that can be asked.
pub(super) fn check_url(section: &str, url: &str, at: Location) -> Result<(), Fault> {
    let is_http = url
        .parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if is_http { Ok(()) } else { fault(at, format!("{section}: {url:?} is not a URL of http or https")) }
}

/// Whether `headers` leave those alone that are ours.
pub(super) fn check_headers(headers: &BTreeMap<String, String>, at: Location) -> Result<(), Fault> {
    for name in headers.keys() {
        let lower = name.to_ascii_lowercase();
        if lower == "authorization" {
            return fault(
                at,
                "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, azuread or google_iam parameter",
            );
        }
        if super::http::RESERVED_HEADERS.contains(&lower.as_str()) {
            return fault(at, format!("{name} is a reserved header. It must not be changed"));
        }
    }
    Ok(())
}

/// A destination without a name gets one from its URL, which is the same after a restart.
pub(super) fn short_name(url: &str) -> String {
    format!("{:06x}", model::Labels::from_pairs([("url", url)]).hash64() & 0xff_ffff)
}

impl Metadata {
    fn resolve(&self) -> Result<Option<MetadataTimes>, Fault> {
        let per_request = match &self.max_samples_per_send {
            Some(given) if given.value == 0 => {
                return fault(
                    given.referenced,
                    "metadata_config.max_samples_per_send must be greater than 0",
                );
            }
            given => given.as_ref().map_or(2_000, |given| given.value),
        };
        let every = self.send_interval.map_or(60_000, |every| every.0).unsigned_abs().max(1);
        let times = MetadataTimes { every: StdDuration::from_millis(every), per_request };
        Ok((self.send != Some(false)).then_some(times))
    }
}

impl Queue {
    fn resolve(&self) -> Result<QueueOptions, Fault> {
        let defaults = QueueOptions::default();
        let positive = |key: &str, given: &Option<Spanned<usize>>, default: usize| match given {
            Some(given) if given.value == 0 => {
                fault(given.referenced, format!("queue_config.{key} must be greater than 0"))
            }
            Some(given) => Ok(given.value),
            None => Ok(default),
        };
        let duration = |given: Option<Duration>, default: StdDuration| {
            given.map_or(default, |given| StdDuration::from_millis(given.0.unsigned_abs()))
        };
        let shards_max = positive("max_shards", &self.max_shards, defaults.shards_max)?;
        Ok(QueueOptions {
            capacity: positive("capacity", &self.capacity, defaults.capacity)?,
            shards_max,
            shards_min: positive("min_shards", &self.min_shards, defaults.shards_min)?.min(shards_max),
            samples_per_request: positive(
                "max_samples_per_send",
                &self.max_samples_per_send,
                defaults.samples_per_request,
            )?,
            deadline: duration(self.batch_send_deadline, defaults.deadline),
            backoff_min: duration(self.min_backoff, defaults.backoff_min),
            backoff_max: duration(self.max_backoff, defaults.backoff_max),
            retry_on_429: self.retry_on_http_429,
            age_max: self
                .sample_age_limit
                .filter(|age| age.0 > 0)
                .map(|age| StdDuration::from_millis(age.0.unsigned_abs())),
        })
    }
}
