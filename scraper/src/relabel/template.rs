//! Replacement templates in Go's dialect: `$1`, `${1}`, `$name`, `$$`.

use regex::Captures;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
    Named(String),
}

impl Template {
    /// Never fails: a `$` that starts no variable stands for itself.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                plain.push('$');
                rest = after;
            } else if let Some((name, after)) = variable(rest) {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(group_number(name).map_or_else(|| Part::Named(name.to_owned()), Part::Group));
                rest = after;
            } else {
                plain.push('$');
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Self(parts)
    }

    /// The text with the groups of a match in place; a group that took no part is empty.
    pub(super) fn expand(&self, captures: Option<&Captures<'_>>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            let group = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Group(number) => captures.and_then(|captures| captures.get(*number)),
                Part::Named(name) => captures.and_then(|captures| captures.name(name)),
            };
            out.push_str(group.map_or("", |group| group.as_str()));
        }
        out
    }

    /// The text with `value` for each variable.
    pub(super) fn with_every_variable(&self, value: &str) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Group(_) | Part::Named(_) => value.to_owned(),
        };
        self.0.iter().map(text).collect()
    }
}

/// The name after a `$`, bare or in braces, and what follows it.
fn variable(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let start = braced.unwrap_or(text);
    let end = start.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(start.len());
    let (name, rest) = start.split_at(end);
    if name.is_empty() {
        return None;
    }
    if braced.is_some() { rest.strip_prefix('}').map(|rest| (name, rest)) } else { Some((name, rest)) }
}

/// A group's number; `01` is a name.
fn group_number(name: &str) -> Option<usize> {
    let canonical = name == "0" || !name.starts_with('0');
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && digits && name.len() <= 9).then(|| name.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_that_start_no_variable_stand_for_themselves() {
        for (template, expected) in [
            ("$", "$"),
            ("a$", "a$"),
            ("$$1", "$1"),
            ("${", "${"),
            ("${}", "${}"),
            ("$-", "$-"),
            ("${a", "${a"),
        ] {
            assert_eq!(Template::parse(template).expand(None), expected, "{template}");
        }
    }

    #[test]
    fn a_name_is_as_long_as_it_can_be() {
        assert_eq!(Template::parse("$1x").0, [Part::Named("1x".into())]);
        assert_eq!(Template::parse("${1}x").0, [Part::Group(1), Part::Text("x".into())]);
        assert_eq!(Template::parse("$01").0, [Part::Named("01".into())]);
    }
}
