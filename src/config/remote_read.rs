//! The section `remote_read`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration as StdDuration;

use model::Labels;
use scraper::config::HttpOptions;
use serde_saphyr::{Location, Spanned};

use super::http::with_http;
use super::resolve::{Fault, fault, labels};
use super::scalars::{Duration, Size};

/// Frames beyond this are refused; a smaller limit cannot be set.
const FRAME_BYTES_MAX: u64 = 50_000_000;

with_http! {
    /// One of `remote_read`
    RemoteRead {
        url: Option<String>,
        name: Option<String>,
        remote_timeout: Option<Duration>,
        headers: BTreeMap<String, String>,
        read_recent: bool,
        required_matchers: BTreeMap<String, String>,
        filter_external_labels: Option<bool>,
        chunked_read_limit: Option<Spanned<Size>>,
    }
}

/// Whom to ask for samples, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RemoteReadOptions {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) timeout: StdDuration,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) required: Labels,
    pub(crate) recent: bool,
    pub(crate) with_external_labels: bool,
    pub(crate) http: HttpOptions,
}

/// All servers of a file; paths are relative to `folder`.
pub(super) fn resolve(
    sections: &[Option<Spanned<RemoteRead>>],
    folder: &Path,
) -> Result<Vec<RemoteReadOptions>, Fault> {
    let mut out: Vec<RemoteReadOptions> = Vec::new();
    for section in sections {
        let Some(section) = section else {
            let what = "empty or null remote read config section".to_owned();
            return Err(Fault { location: None, what });
        };
        let options = section.value.resolve(folder, section.referenced)?;
        if out.iter().any(|other| other.name == options.name) {
            let what = format!("found multiple remote read configs with job name {:?}", options.name);
            return fault(section.referenced, what);
        }
        out.push(options);
    }
    Ok(out)
}

impl RemoteRead {
    fn resolve(&self, folder: &Path, at: Location) -> Result<RemoteReadOptions, Fault> {
        let Some(url) = self.url.clone().filter(|url| !url.is_empty()) else {
            return fault(at, "url for remote_read is empty");
        };
        super::remote_write::check_url("remote_read", &url, at)?;
        if let Some(limit) = self.chunked_read_limit.as_ref().filter(|limit| limit.value.0 < FRAME_BYTES_MAX)
        {
            let what =
                "remote_read.chunked_read_limit: frames of up to 50MB are read, there is no smaller limit";
            return fault(limit.referenced, what);
        }
        let http = self.http().options(folder, at)?;
        super::remote_write::check_headers(&self.headers, at)?;
        Ok(RemoteReadOptions {
            name: self.name.clone().unwrap_or_else(|| super::remote_write::short_name(&url)),
            timeout: StdDuration::from_millis(
                self.remote_timeout.map_or(60_000, |timeout| timeout.0).unsigned_abs(),
            ),
            headers: self.headers.clone().into_iter().collect(),
            required: labels("remote_read.required_matchers", &self.required_matchers)?,
            recent: self.read_recent,
            with_external_labels: self.filter_external_labels != Some(false),
            http,
            url,
        })
    }
}
