//! `label_replace` and `label_join`.

use model::METRIC_NAME;
use model::regex::AnchoredRegex;

use crate::engine::QueryError;
use crate::eval::source::{Series, join_equal};
use crate::limits::Account;
use crate::text::{Quote, has_invalid_utf8};

fn check_name(function: &str, name: &str) -> Result<(), QueryError> {
    if name.is_empty() || has_invalid_utf8(name) {
        return Err(QueryError::Execution(format!(
            "invalid destination label name in {function}(): {}",
            name.chars().map(|c| crate::text::decode_byte(c).map_or(c, |_| c)).collect::<String>()
        )));
    }
    Ok(())
}

/// Sets label `name` of a series; an explicit name is not removed at the end of the query.
fn set(series: &mut Series, name: &str, value: &str) {
    let mut builder = series.labels.to_builder();
    builder.set(name, value);
    series.labels = builder.build();
    if name == METRIC_NAME {
        series.drop_name = false;
    }
}

/// Sets `target` to `replacement` with the groups of `pattern` filled in, where `source` matches it.
pub(crate) fn replace(
    mut series: Vec<Series>,
    [target, replacement, source, pattern]: [&str; 4],
    account: &Account<'_>,
) -> Result<Vec<Series>, QueryError> {
    let regex = AnchoredRegex::new(pattern).map_err(|_| {
        QueryError::Execution(format!("invalid regular expression in label_replace(): {pattern}"))
    })?;
    check_name("label_replace", target)?;
    for series in account.watched(&mut series) {
        let series = series?;
        let value = series.labels.get(source).unwrap_or("").to_owned();
        if let Some(captures) = regex.compiled().captures(&value) {
            set(series, target, &expand(replacement, &captures));
        }
    }
    join_equal(series, account)
}

/// Fills `$1`, `${1}`, `$name` and `${name}` in, as Go does: a name is as long as it can be, what is
/// unknown is empty, `$$` is a dollar sign, and a lone dollar sign stays.
fn expand(template: &str, captures: &regex::Captures<'_>) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let (name, tail) = match after.strip_prefix('{') {
            Some(braced) => match braced.split_once('}') {
                Some((name, tail)) if name.chars().all(is_name) && !name.is_empty() => (name, tail),
                _ => ("", after),
            },
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        if name.is_empty() {
            out.push('$');
        } else {
            let group = match name.parse::<usize>() {
                Ok(at) => captures.get(at),
                Err(_) => captures.name(name),
            };
            out.push_str(group.map_or("", |group| group.as_str()));
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Sets `target` to the values of `sources`, joined.
pub(crate) fn join(
    mut series: Vec<Series>,
    target: &str,
    separator: &str,
    sources: &[&str],
    account: &Account<'_>,
) -> Result<Vec<Series>, QueryError> {
    if let Some(bad) = sources.iter().find(|name| name.is_empty() || has_invalid_utf8(name)) {
        return Err(QueryError::Execution(format!(
            "invalid source label name in label_join(): {}",
            Quote(bad)
        )));
    }
    check_name("label_join", target)?;
    for series in account.watched(&mut series) {
        let series = series?;
        let values: Vec<_> = sources.iter().map(|name| series.labels.get(name).unwrap_or("")).collect();
        let value = values.join(separator);
        set(series, target, &value);
    }
    join_equal(series, account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_those_of_go() {
        let regex = regex::Regex::new("(?P<first>a)(b)").unwrap();
        let captures = regex.captures("ab").unwrap();
        for (template, wanted) in [
            ("$1-$2", "a-b"),
            ("${1}x", "ax"),
            ("$1x", ""),
            ("$first", "a"),
            ("$$1", "$1"),
            ("$", "$"),
            ("${", "${"),
            ("$3", ""),
        ] {
            assert_eq!(expand(template, &captures), wanted, "{template}");
        }
    }
}
