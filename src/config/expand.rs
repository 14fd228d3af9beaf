//! Variables of the environment in external labels: `${NAME}`, `$NAME`, and `$$` for a dollar, as in Prometheus.

/// Replaces variables by what `value` says of them.
pub(super) fn expand(text: &str, value: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = after.find(|c| !is_part(c)).unwrap_or(after.len());
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some((name, after)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            out.push_str(&value(name));
            after
        } else if length > 0 {
            out.push_str(&value(&after[..length]));
            &after[length..]
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    out
}

/// Replaces variables of the environment. One that is not set is nothing, and is told of.
pub(super) fn expand_environment(text: &str) -> String {
    expand(text, |name| {
        let value = std::env::var(name).unwrap_or_default();
        if value.is_empty() {
            tracing::warn!("external labels: the environment has no variable {name:?}");
        }
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_in_prometheus() {
        let value = |name: &str| if name == "POD" { "p-0".to_owned() } else { String::new() };
        let cases = [
            ("plain", "plain"),
            ("${POD}", "p-0"),
            ("a-$POD-b", "a-p-0-b"),
            ("$PODx.$$POD", ".$POD"),
            ("${NONE}!", "!"),
            ("5 $ and ${POD", "5 $ and ${POD"),
            ("$", "$"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }
}
