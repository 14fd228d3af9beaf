//! Label and field selectors in the API server's syntax.
//!
//! Source: the Kubernetes documentation on labels and selectors. Requirements are separated by
//! commas and all must hold: `key`, `!key`, `key = value`, `key == value`, `key != value`,
//! `key in (a,b)`, `key notin (a,b)`, `key > 1`, `key < 1`.

use std::collections::BTreeMap;

/// Why a selector could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// Conditions on an object's labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(crate) key: String,
    pub(crate) test: Test,
}

impl Requirement {
    /// The values that are named, if the test is about such.
    pub(crate) fn values(&self) -> &[String] {
        match &self.test {
            Test::In(values) | Test::NotIn(values) => values,
            _ => &[],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Reads a selector; blank text selects everything.
    ///
    /// # Errors
    /// The text is not of the syntax; the message names what was found and what was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        loop {
            match tokens.next() {
                Token::End if requirements.is_empty() => return Ok(Self::default()),
                Token::Word(key) => requirements.push(tokens.requirement(key)?),
                Token::Symbol("!") => match tokens.next() {
                    Token::Word(key) => {
                        requirements.push(Requirement { key: valid_key(key)?, test: Test::Absent });
                    }
                    other => return Err(found(&other, "identifier")),
                },
                other => return Err(found(&other, "!, identifier, or 'end of string'")),
            }
            match tokens.next() {
                Token::Symbol(",") => {}
                Token::End => return Ok(Self(requirements)),
                other => return Err(found(&other, "',' or 'end of string'")),
            }
        }
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether `labels` fulfil every requirement.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.holds(|key| labels.get(key).map(String::as_str))
    }

    /// The same of names and values in any order.
    #[must_use]
    pub fn matches_pairs(&self, labels: &[(&str, &str)]) -> bool {
        self.holds(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    fn holds<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            let among = |set: &[String], value: &str| set.iter().any(|one| one == value);
            match &requirement.test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(set) => value.is_some_and(|value| among(set, value)),
                Test::NotIn(set) => value.is_none_or(|value| !among(set, value)),
                Test::Above(bound) => number().is_some_and(|number| number > *bound),
                Test::Below(bound) => number().is_some_and(|number| number < *bound),
            }
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    End,
}

fn found(token: &Token<'_>, expected: &str) -> SelectorError {
    let text = match token {
        Token::Word(word) => word,
        Token::Symbol(symbol) => symbol,
        Token::End => "",
    };
    SelectorError(format!("found '{text}', expected: {expected}"))
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
        self.rest = self.rest.trim_start();
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| self.rest.starts_with(**symbol)) {
            self.rest = &self.rest[symbol.len()..];
            return Token::Symbol(symbol);
        }
        let end =
            self.rest.find(|c: char| c.is_whitespace() || "=!(),<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if word.is_empty() { Token::End } else { Token::Word(word) }
    }

    fn peek(&self) -> Token<'a> {
        Tokens { rest: self.rest }.next()
    }

    /// What follows a key.
    fn requirement(&mut self, key: &str) -> Result<Requirement, SelectorError> {
        let key = valid_key(key)?;
        let test = match self.peek() {
            Token::End | Token::Symbol(",") => Test::Exists,
            operator => {
                self.next();
                match operator {
                    Token::Symbol("=" | "==") => Test::In(vec![self.value()?]),
                    Token::Symbol("!=") => Test::NotIn(vec![self.value()?]),
                    Token::Symbol(">") => Test::Above(self.number(&key)?),
                    Token::Symbol("<") => Test::Below(self.number(&key)?),
                    Token::Word("in") => Test::In(self.set()?),
                    Token::Word("notin") => Test::NotIn(self.set()?),
                    other => return Err(found(&other, "in, notin, =, ==, !=, gt, lt")),
                }
            }
        };
        Ok(Requirement { key, test })
    }

    /// A value, perhaps empty.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::Word(word) => {
                self.next();
                valid_value(word)
            }
            Token::End | Token::Symbol("," | ")") => Ok(String::new()),
            other @ Token::Symbol(_) => Err(found(&other, "identifier")),
        }
    }

    fn number(&mut self, key: &str) -> Result<i64, SelectorError> {
        let text = self.value()?;
        text.parse().map_err(|_| {
            SelectorError(format!("for 'Gt', 'Lt' operators, the value must be an integer: {key} {text:?}"))
        })
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(found(&other, "'('")),
        }
        let mut set = Vec::new();
        loop {
            set.push(self.value()?);
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(set),
                other => return Err(found(&other, "',' or ')'")),
            }
        }
    }
}

/// Letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit, at most 63 bytes.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

fn valid_key(key: &str) -> Result<String, SelectorError> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| {
        (1..=253).contains(&prefix.len())
            && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    });
    if prefix_ok && is_name(name) {
        return Ok(key.to_owned());
    }
    Err(SelectorError(format!("key: Invalid value: {key:?}: not a qualified label name")))
}

fn valid_value(value: &str) -> Result<String, SelectorError> {
    if is_name(value) {
        return Ok(value.to_owned());
    }
    Err(SelectorError(format!("values[0]: Invalid value: {value:?}: not a valid label value")))
}

/// A condition on an object's name and namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector {
    terms: Vec<(Field, bool, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
}

impl FieldSelector {
    /// Whether everything fulfils it.
    pub(crate) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Reads a selector. `namespaced` objects also have `metadata.namespace`.
    pub(crate) fn parse(text: &str, namespaced: bool) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|term| !term.is_empty()) {
            let split = |operator: &str| term.split_once(operator);
            let (key, value, equal) = match (split("!="), split("=="), split("=")) {
                (Some((key, value)), _, _) => (key, value, false),
                (_, Some((key, value)), _) | (_, _, Some((key, value))) => (key, value, true),
                _ => {
                    let what = format!("invalid selector: '{term}'; can't understand '{term}'");
                    return Err(SelectorError(what));
                }
            };
            let field = match key {
                "metadata.name" => Field::Name,
                "metadata.namespace" if namespaced => Field::Namespace,
                _ if namespaced => {
                    return Err(SelectorError(format!(
                        "{key:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )));
                }
                _ => {
                    let what = format!("{key:?} is not a known field selector: only \"metadata.name\"");
                    return Err(SelectorError(what));
                }
            };
            terms.push((field, equal, value.to_owned()));
        }
        Ok(Self { terms })
    }

    pub(crate) fn matches(&self, namespace: &str, name: &str) -> bool {
        self.terms.iter().all(|(field, equal, value)| {
            let actual = if *field == Field::Name { name } else { namespace };
            (actual == value) == *equal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn selects() {
        let web = labels(&[("app", "web"), ("tier", "front"), ("n", "5"), ("k8s.io/x", "")]);
        for yes in [
            "",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "app in (db, web)",
            "app notin (db)",
            "!gone",
            "gone!=x",
            "gone notin (a)",
            "n>4",
            "n<6",
            "app=web,tier in (front,back),!gone",
            " app = web ",
            "k8s.io/x=",
        ] {
            assert!(LabelSelector::parse(yes).unwrap().matches(&web), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "!app",
            "gone",
            "gone=x",
            "app in (a,b)",
            "app notin (web)",
            "n>5",
            "app=web,gone",
        ] {
            assert!(!LabelSelector::parse(no).unwrap().matches(&web), "{no}");
        }
    }

    #[test]
    fn refuses_with_a_reason() {
        let error = |text| LabelSelector::parse(text).unwrap_err().0;
        assert_eq!(error("=="), "found '==', expected: !, identifier, or 'end of string'");
        for bad in
            ["a=b,", "a in b", "a in (b", "a b", "a===b", "!", "a>x", "a=b c", "-x", "a=-", "a/b/c", ",a"]
        {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors() {
        let parse = |text| FieldSelector::parse(text, true).unwrap();
        assert!(parse("metadata.name=a,metadata.namespace=x").matches("x", "a"));
        assert!(!parse("metadata.name!=a").matches("x", "a"));
        assert_eq!(
            FieldSelector::parse("spec.nodeName=a", true).unwrap_err().0,
            "\"spec.nodeName\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        assert!(FieldSelector::parse("metadata.namespace=a", false).is_err());
        assert!(FieldSelector::parse("x", true).is_err());
    }
}
