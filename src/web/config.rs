//! The web configuration file, in the format that Prometheus' exporters and servers share.
//!
//! Source: Prometheus' documentation, "HTTPS and authentication". The file is looked at again, at most
//! once a second, when a connection comes in, and so are its certificates: rotation needs no restart.
//! A file that has become wrong leaves the settings before it in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use super::auth::Users;
use super::tls::{self, TlsServer};

/// Files are looked at no more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a web configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebConfigError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The content is wrong.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tls_server_config: Option<TlsServer>,
    http_server_config: Http,
    basic_auth_users: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    http2: bool,
    headers: BTreeMap<String, String>,
}

impl Default for Http {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

/// Headers that may be set, as in Prometheus.
const HEADERS: [&str; 5] = [
    "content-security-policy",
    "x-frame-options",
    "x-content-type-options",
    "x-xss-protection",
    "strict-transport-security",
];

/// What a file says, ready to be used.
pub(crate) struct Settings {
    /// None: plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) http2: bool,
    /// Added to every answer.
    pub(super) headers: HeaderMap,
    /// None: everybody may ask.
    pub(super) users: Option<Arc<Users>>,
    /// The files behind this, with the times of their last change.
    seen: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Settings {
    fn load(path: &Path) -> Result<Self, WebConfigError> {
        let text = read(path)?;
        let invalid = |what: String| WebConfigError::Invalid { path: path.to_owned(), what };
        let file: File = if text.trim().is_empty() {
            File::default()
        } else {
            serde_saphyr::from_str(&text).map_err(|error| invalid(error.without_snippet().to_string()))?
        };
        Self::of(file, path, vec![path.to_owned()])
    }

    /// `paths`: what `file` itself was read from.
    fn of(file: File, path: &Path, mut paths: Vec<PathBuf>) -> Result<Self, WebConfigError> {
        let invalid = |what: String| WebConfigError::Invalid { path: path.to_owned(), what };
        let tls = match &file.tls_server_config {
            Some(config) => {
                paths.extend(config.files(path));
                Some(tls::acceptor(config, path, file.http_server_config.http2)?)
            }
            None => None,
        };
        let users = Users::new(file.basic_auth_users).map_err(invalid)?;
        let seen = paths.into_iter().map(|path| (changed_at(&path), path)).map(|(at, path)| (path, at));
        Ok(Self {
            tls,
            http2: file.http_server_config.http2,
            headers: headers(&file.http_server_config.headers).map_err(invalid)?,
            users,
            seen: seen.collect(),
        })
    }

    fn is_old(&self) -> bool {
        self.seen.iter().any(|(path, at)| changed_at(path) != *at)
    }
}

fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let lower = name.to_ascii_lowercase();
        let known = HEADERS.iter().find(|known| **known == lower);
        let known =
            known.ok_or_else(|| format!("http_server_config: header {name:?} can not be configured"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("http_server_config: header {name:?} has a value that cannot be sent"))?;
        headers.insert(HeaderName::from_static(known), value);
    }
    Ok(headers)
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

pub(super) fn read(path: &Path) -> Result<String, WebConfigError> {
    std::fs::read_to_string(path).map_err(|source| WebConfigError::Read { path: path.to_owned(), source })
}

/// Where settings come from.
enum Origin {
    /// A web configuration file.
    File(PathBuf),
    /// Flags that name certificates: the flags, for messages, and what they say.
    Flags(PathBuf, Box<TlsServer>),
}

impl Origin {
    fn load(&self) -> Result<Settings, WebConfigError> {
        match self {
            Self::File(path) => Settings::load(path),
            Self::Flags(name, tls) => {
                let file = File { tls_server_config: Some((**tls).clone()), ..File::default() };
                Settings::of(file, name, Vec::new())
            }
        }
    }

    fn name(&self) -> &Path {
        match self {
            Self::File(path) | Self::Flags(path, _) => path,
        }
    }
}

/// The settings in force of files that may change.
pub(crate) struct Guard {
    origin: Origin,
    current: Mutex<(Arc<Settings>, Instant)>,
}

impl Guard {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Self, WebConfigError> {
        Self::of(Origin::File(path.to_owned()))
    }

    /// TLS with certificates that flags name; with a `client_ca`, only for clients whose certificate it has signed.
    /// `flags` is how messages call the flags.
    #[cfg_attr(not(feature = "thanos"), expect(dead_code, reason = "only Thanos' listener has its flags"))]
    pub(crate) fn tls(
        flags: &str,
        cert: &Path,
        key: &Path,
        client_ca: Option<&Path>,
    ) -> Result<Self, WebConfigError> {
        Self::of(Origin::Flags(flags.into(), Box::new(TlsServer::of_files(cert, key, client_ca))))
    }

    fn of(origin: Origin) -> Result<Self, WebConfigError> {
        let settings = Arc::new(origin.load()?);
        Ok(Self { origin, current: Mutex::new((settings, Instant::now())) })
    }

    /// Whether the file asks for TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.settings().tls.is_some()
    }

    /// What is in force now. Looks at the files, so it may wait for the disk.
    pub(super) fn settings(&self) -> Arc<Settings> {
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.1.elapsed() >= LOOK_AGAIN {
            current.1 = Instant::now();
            if current.0.is_old() {
                match self.origin.load() {
                    Ok(settings) => {
                        tracing::info!("{} is in force", self.origin.name().display());
                        current.0 = Arc::new(settings);
                    }
                    Err(error) => tracing::error!("the web configuration before stays in force: {error}"),
                }
            }
        }
        Arc::clone(&current.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Guard, WebConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.yml");
        std::fs::write(&path, text).unwrap();
        Guard::load(&path)
    }

    #[test]
    fn reads_what_prometheus_reads() {
        let users =
            "basic_auth_users:\n  alice: $2b$04$8wcFHOVVYJRqg5WMRtvFYuLRk3pqRJCwwSsNVXpOpGvkuCJx1dK9K\n";
        let guard = load(&format!(
            "{users}http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n"
        ));
        let settings = guard.unwrap().settings();
        assert!(!settings.http2 && settings.tls.is_none() && settings.users.is_some());
        assert_eq!(settings.headers["x-frame-options"], "deny");
        let settings = load("").unwrap().settings();
        assert!(settings.http2 && settings.users.is_none());
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        for (text, expected) in [
            ("basic_auth: {}\n", "basic_auth"),
            ("basic_auth_users:\n  alice: secret\n", "alice"),
            ("http_server_config:\n  headers:\n    Server: x\n", "Server"),
            ("tls_server_config:\n  cert_file: none.pem\n  key_file: none.key\n", "none.pem"),
            ("tls_server_config:\n  cert: a\n", "key"),
            ("tls_server_config:\n  min_version: TLS14\n  cert: a\n  key: b\n", "TLS14"),
        ] {
            let error = load(text).err().expect(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
