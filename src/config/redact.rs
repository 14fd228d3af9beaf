//! The configuration as it may be shown: without its secrets.

use std::collections::BTreeMap;

use serde_json::Value;

const SHOWN: &str = "<secret>";

/// Keys whose values are secret wherever they stand.
const SECRET_KEYS: [&str; 14] = [
    "password",
    "credentials",
    "bearer_token",
    "client_secret",
    "secret_key",
    "secrets",
    "key",
    "token",
    "auth_token",
    "application_secret",
    "api_key",
    "routing_key",
    "client_certificate_key",
    "session_token",
];

/// A configuration as it may be shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// The file.
    pub(crate) text: String,
    /// The section of each job, those of other files included, with defaults that the file sets or that every
    /// job has.
    pub(crate) jobs: BTreeMap<String, String>,
}

/// The same configuration with every secret replaced; `parts` are files of further jobs. What cannot be read
/// is not shown at all.
pub(crate) fn redact(text: &str, parts: &[String]) -> Shown {
    let read = |text: &str| {
        let mut value = serde_saphyr::from_str::<Value>(text).ok()?;
        hide(&mut value);
        Some(value)
    };
    let Some(main) = read(text) else { return Shown::default() };
    let others: Vec<Value> = parts.iter().filter_map(|part| read(part)).collect();
    let sections = std::iter::once(&main).chain(&others).filter_map(|file| file["scrape_configs"].as_array());
    let job = |section: &Value| {
        let name = section["job_name"].as_str()?.to_owned();
        Some((name, serde_saphyr::to_string(&with_defaults(section, &main["global"])).ok()?))
    };
    Shown {
        text: serde_saphyr::to_string(&main).unwrap_or_default(),
        jobs: sections.flatten().filter_map(job).collect(),
    }
}

/// A job's section with what goes without saying.
fn with_defaults(section: &Value, global: &Value) -> Value {
    let global = |key: &str, default: &str| match &global[key] {
        Value::Null => Value::from(default),
        value => value.clone(),
    };
    let mut out = serde_json::Map::new();
    for (key, default) in [
        ("job_name", Value::Null),
        ("honor_timestamps", Value::from(true)),
        ("track_timestamps_staleness", Value::from(false)),
        ("scrape_interval", global("scrape_interval", "1m")),
        ("scrape_timeout", global("scrape_timeout", "10s")),
        ("metrics_path", Value::from("/metrics")),
        ("scheme", Value::from("http")),
        ("follow_redirects", Value::from(true)),
        ("enable_http2", Value::from(true)),
    ] {
        out.insert(key.to_owned(), default);
    }
    for (key, value) in section.as_object().into_iter().flatten() {
        out.insert(key.clone(), value.clone());
    }
    Value::Object(out)
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if SECRET_KEYS.contains(&key.as_str()) && !inner.is_null() {
                    hide_all(inner);
                } else {
                    hide(inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::String(text) => hide_url_password(text),
        _ => {}
    }
}

/// Replaces a scalar, or each scalar of a list.
fn hide_all(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide_all),
        other => *other = Value::String(SHOWN.to_owned()),
    }
}

/// `http://user:password@host` loses its password.
fn hide_url_password(text: &mut String) {
    let Some(start) = text.find("://").map(|at| at + 3) else { return };
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let Some(at) = text[start..end].rfind('@') else { return };
    if let Some(colon) = text[start..start + at].find(':') {
        text.replace_range(start + colon + 1..start + at, SHOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_is_shown() {
        let text = "scrape_configs:\n- job_name: a\n  basic_auth: {username: u, password: hunter2}\n  \
                    authorization: {credentials: hunter3}\n  http_headers: {X: {secrets: [hunter4], values: [v]}}\n  \
                    proxy_url: http://u:hunter5@proxy:1/\n  tls_config: {key: 'hunter6'}\n";
        let Shown { text: shown, jobs } = redact(text, &["scrape_configs: [{job_name: b}]".to_owned()]);
        assert!(!shown.contains("hunter"), "{shown}");
        for kept in ["job_name", "username", "proxy:1", "<secret>"] {
            assert!(shown.contains(kept), "{shown}");
        }
        assert!(jobs["a"].contains("password: <secret>") && !jobs["a"].contains("hunter"), "{jobs:?}");
        assert!(jobs["b"].contains("scrape_interval: 1m"), "{jobs:?}");
        assert_eq!(redact("a: [", &[]).text, "");
    }
}
