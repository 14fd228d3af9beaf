//! The configuration file, in Prometheus' format: read whole, checked whole, or refused with the file,
//! line, column and key.

mod alerting;
pub(crate) mod cluster;
mod discovery;
mod expand;
mod file;
mod http;
mod redact;
mod remote_read;
mod remote_write;
mod resolve;
mod rule_files;
mod scalars;
pub(crate) mod sigv4;
mod storage;

use std::path::{Path, PathBuf};

use serde_saphyr::Location;

pub(crate) use alerting::AlertmanagerOptions;
pub(crate) use redact::{Shown, redact};
pub(crate) use remote_read::RemoteReadOptions;
pub(crate) use remote_write::RemoteWriteOptions;
pub(crate) use rule_files::{load as load_rules, matching};
pub(crate) use scalars::parse_bytes;
pub(crate) use storage::StorageOptions;

/// What a configuration file says, checked and with defaults applied.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// Jobs to scrape.
    pub(crate) jobs: Vec<scraper::ScrapeJob>,
    /// Labels added to what leaves this process, and a part of the scrape offsets' seed.
    pub(crate) external_labels: model::Labels,
    /// How often rules are evaluated, and the default step of subqueries.
    pub(crate) evaluation_interval_ms: i64,
    /// How far back rules look.
    pub(crate) rule_query_offset_ms: i64,
    /// The groups of all rule files.
    pub(crate) rules: Vec<rules::Group>,
    /// Who is told of alerts.
    pub(crate) alertmanagers: Vec<AlertmanagerOptions>,
    /// Where queries are logged; relative to the file.
    pub(crate) query_log_file: Option<PathBuf>,
    /// Where samples are sent.
    pub(crate) remote_write: Vec<RemoteWriteOptions>,
    /// Who is asked for samples.
    pub(crate) remote_read: Vec<RemoteReadOptions>,
    /// How samples are kept.
    pub(crate) storage: storage::StorageOptions,
    /// How OTLP metrics become series.
    pub(crate) otlp: remote::otlp::Options,
    /// The file without its secrets.
    pub(crate) redacted: redact::Shown,
    /// Of the files, before they were read.
    pub(crate) fingerprint: Option<u64>,
    /// Why an agent cannot use the file: the first section that is for a server only, and where it is.
    pub(crate) server_only: Option<(Location, &'static str)>,
}

impl Loaded {
    /// Whether an agent, which keeps nothing to ask for, can use the file at `path`.
    ///
    /// # Errors
    /// The section that it cannot.
    pub(crate) fn check_agent(&self, path: &Path) -> Result<(), ConfigError> {
        let Some((location, key)) = self.server_only else { return Ok(()) };
        let what = format!("field {key} is not allowed in agent mode");
        Err(ConfigError::Invalid { path: path.to_owned(), location: Some(location), what })
    }
}

impl Default for Loaded {
    fn default() -> Self {
        Self {
            jobs: Vec::new(),
            external_labels: model::Labels::empty(),
            evaluation_interval_ms: 60_000,
            rule_query_offset_ms: 0,
            rules: Vec::new(),
            alertmanagers: Vec::new(),
            query_log_file: None,
            remote_write: Vec::new(),
            remote_read: Vec::new(),
            storage: storage::StorageOptions::default(),
            otlp: remote::otlp::Options::default(),
            redacted: redact::Shown::default(),
            fingerprint: None,
            server_only: None,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it must be.
    #[error("{}: {what}", place(path, location))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where in it, if known.
        location: Option<Location>,
        /// What is wrong.
        what: String,
    },
    /// A rule file is not what it must be.
    #[error("{}:{fault}", path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        fault: rules::FileError,
    },
}

/// `file:line:column`, as editors understand it.
fn place(path: &Path, location: &Option<Location>) -> String {
    match location {
        Some(location) if location.line() > 0 => {
            format!("{}:{}:{}", path.display(), location.line(), location.column())
        }
        _ => path.display().to_string(),
    }
}

/// Reads and checks a file, and the rule files that it names.
pub(crate) fn load(path: &Path, dialect: rules::Dialect) -> Result<Loaded, ConfigError> {
    let fingerprint = fingerprint(path);
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(Loaded { fingerprint, ..parse(path, &text, dialect)? })
}

/// Reads and checks a file, but not the rule files that it names.
pub(crate) fn load_syntax(path: &Path) -> Result<Loaded, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let (loaded, patterns) = parse_file(path, &text)?;
    for pattern in patterns {
        files_of(path, &pattern)?;
    }
    Ok(loaded)
}

/// The rule files that a file names by `pattern`.
fn files_of(path: &Path, pattern: &serde_saphyr::Spanned<String>) -> Result<Vec<PathBuf>, ConfigError> {
    let files = rule_files::matching(path.parent().unwrap_or(Path::new("")), &pattern.value);
    files.map_err(|what| ConfigError::Invalid {
        path: path.to_owned(),
        location: Some(pattern.referenced),
        what,
    })
}

/// Reads a file of HTTP client options, as tools take it.
pub(crate) fn http_options(path: &Path) -> Result<scraper::config::HttpOptions, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if text.trim().is_empty() {
        return Ok(scraper::config::HttpOptions::default());
    }
    http::of_file(path, &text, path.parent().unwrap_or(Path::new("")))
}

/// What tells whether a file or one that it includes has changed: a hash of their names and contents. `None` if
/// the file itself cannot be read.
pub(crate) fn fingerprint(path: &Path) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let text = std::fs::read_to_string(path).ok()?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap_or_default();
    let folder = path.parent().unwrap_or(Path::new(""));
    let patterns = ["rule_files", "scrape_config_files"].iter().filter_map(|key| value[*key].as_array());
    for pattern in patterns.flatten().filter_map(serde_json::Value::as_str) {
        for file in rule_files::matching(folder, pattern).unwrap_or_default() {
            file.hash(&mut hasher);
            std::fs::read(&file).unwrap_or_default().hash(&mut hasher);
        }
    }
    Some(hasher.finish())
}

pub(crate) fn parse(path: &Path, text: &str, dialect: rules::Dialect) -> Result<Loaded, ConfigError> {
    let (mut loaded, patterns) = parse_file(path, text)?;
    for pattern in patterns {
        for path in files_of(path, &pattern)? {
            loaded.rules.extend(rule_files::load(&path, dialect)?);
        }
    }
    Ok(loaded)
}

/// The file itself, and the patterns of its rule files.
fn parse_file(path: &Path, text: &str) -> Result<(Loaded, Vec<serde_saphyr::Spanned<String>>), ConfigError> {
    let invalid = |location, what| ConfigError::Invalid { path: path.to_owned(), location, what };
    if text.trim().is_empty() {
        return Err(invalid(None, "the file is empty".to_owned()));
    }
    let file: file::File = read(path, text)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let patterns = file.rule_files.clone();
    let (mut parts, mut texts) = (Vec::new(), Vec::new());
    for (at, pattern) in file.scrape_config_files.iter().enumerate() {
        if file.scrape_config_files[..at].iter().any(|other| other.value == pattern.value) {
            let what = format!("scrape_config_files: {:?} is named twice", pattern.value);
            return Err(invalid(Some(pattern.referenced), what));
        }
        let files = rule_files::matching(folder, &pattern.value);
        let files = files.map_err(|what| invalid(Some(pattern.referenced), what))?;
        // As in Prometheus this is no error, but its jobs are not left out without a word.
        if files.is_empty() {
            tracing::warn!("{}: scrape_config_files: there is no file {:?}", path.display(), pattern.value);
        }
        for path in files {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            let part: file::ScrapeFile = read(&path, &text)?;
            texts.push(text);
            parts.push(resolve::Part { path, scrapes: part.scrape_configs });
        }
    }
    let mut loaded =
        resolve::resolve(file, parts, folder).map_err(|(other, fault)| ConfigError::Invalid {
            path: other.unwrap_or_else(|| path.to_owned()),
            location: fault.location,
            what: fault.what,
        })?;
    loaded.redacted = redact(text, &texts);
    Ok((loaded, patterns))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    serde_saphyr::from_str(text).map_err(|error| ConfigError::Invalid {
        path: path.to_owned(),
        location: error.location(),
        what: first_line(&error.without_snippet().to_string()),
    })
}

/// The message without the place, which is shown in front of it.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or(line);
    nearest(line.strip_prefix("error: ").unwrap_or(line))
}

/// Of a long list of keys that would be known, those most like the one that is not.
fn nearest(line: &str) -> String {
    const SHOWN: usize = 3;
    // A letter more or less, or two in the wrong order.
    const LIKE_ENOUGH: f64 = 0.95;
    let whole = || line.to_owned();
    let Some((head, list)) = line.split_once(", expected one of ") else { return whole() };
    let mut keys: Vec<&str> = list.split(", ").map(|key| key.trim_matches('`')).collect();
    let Some(unknown) = head.split('`').nth(1).filter(|_| keys.len() > 2 * SHOWN) else { return whole() };
    let likeness = |key: &str| strsim::jaro_winkler(key, unknown);
    keys.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
    let meant: Vec<&str> = keys[..SHOWN].iter().copied().filter(|key| likeness(key) >= LIKE_ENOUGH).collect();
    match meant.is_empty() {
        true => format!("{head}; the nearest known ones are {}", keys[..SHOWN].join(", ")),
        false => format!("{head}; did you mean {}?", meant.join(" or ")),
    }
}

#[cfg(test)]
mod tests;
