//! The configuration as it may be shown: without its secrets.

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

/// The same configuration with every secret replaced. What cannot be read is not shown at all.
pub(crate) fn redact(text: &str) -> String {
    let Ok(mut value) = serde_saphyr::from_str::<Value>(text) else { return String::new() };
    hide(&mut value);
    serde_saphyr::to_string(&value).unwrap_or_default()
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
        let shown = redact(text);
        assert!(!shown.contains("hunter"), "{shown}");
        for kept in ["job_name", "username", "proxy:1", "<secret>"] {
            assert!(shown.contains(kept), "{shown}");
        }
        assert_eq!(redact("a: ["), "");
    }
}
