//! Regular expressions in Go's RE2 dialect, fully anchored, run by the `regex` crate.
//!
//! The two dialects differ in small print: `\Q..\E`, octal escapes, a literal `{`, ASCII-only `\d`,
//! class algebra (`[a&&b]`), nested repetition, `\<`, the flags `x`, `u` and `R`. A pattern is
//! therefore translated before it is compiled ([`translate`]); what Go refuses, is refused.
//! Patterns match as `^(?s:pattern)$`: the whole value, and a dot matches a newline.
//!
//! Most matchers in practice are no regular expressions at all, but `a|b|c`, `prefix.*` or `.+`.
//! Those are recognised from the syntax tree ([`AnchoredRegex::set`], [`AnchoredRegex::prefix`])
//! and answered without running an automaton.

use std::sync::OnceLock;

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

mod translate;

pub use translate::translate;

/// More literals than this are not enumerated.
const SET_MAX: usize = 10_000;

/// A pattern that Go's RE2 would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {what}: `{at}`")]
pub struct RegexError {
    /// What is wrong.
    pub what: &'static str,
    /// The part of the pattern that is wrong.
    pub at: String,
}

/// A pattern that must match a whole string. It is compiled when it is first needed: many are read that are never
/// run, as those of rules are when they are only checked, and compiling is the larger part of reading.
#[derive(Debug)]
pub struct AnchoredRegex {
    /// The translated pattern with its anchors.
    anchored: String,
    shape: Shape,
    prefix: String,
    /// Whatever matches has so many bytes.
    length_min: usize,
    compiled: OnceLock<Regex>,
}

/// Patterns that need no automaton.
#[derive(Debug, PartialEq)]
enum Shape {
    /// `.*`
    Any,
    /// `.+`
    NonEmpty,
    /// A finite set, ascending.
    Set(Vec<String>),
    /// `prefix.*`
    Prefix,
    /// `.*suffix`
    Suffix(String),
    /// `.*infix.*`
    Contains(String),
    Other,
}

impl AnchoredRegex {
    /// Translates a pattern.
    ///
    /// # Errors
    /// Go's RE2 would refuse the pattern, or its automaton would be too large.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let translated = translate(pattern)?;
        let anchored = format!("^(?s:{translated})$");
        let refused = |_| RegexError { what: "invalid pattern", at: pattern.to_owned() };
        let hir = regex_syntax::ParserBuilder::new()
            .dot_matches_new_line(true)
            .build()
            .parse(&translated)
            .map_err(refused)?;
        let shape = Shape::of(&hir);
        let length_min = hir.properties().minimum_len().unwrap_or(0);
        let prefix = literal_prefix(&hir);
        let this = Self { anchored, prefix, shape, length_min, compiled: OnceLock::new() };
        if this.shape == Shape::Other && may_be_large(pattern) {
            let regex = Regex::new(&this.anchored)
                .map_err(|_| RegexError { what: "expression too large", at: pattern.to_owned() })?;
            let _ = this.compiled.set(regex);
        }
        Ok(this)
    }

    /// Whether the pattern matches all of `text`.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        match &self.shape {
            Shape::Any => true,
            Shape::NonEmpty => !text.is_empty(),
            Shape::Set(set) => set.binary_search_by(|item| item.as_str().cmp(text)).is_ok(),
            Shape::Prefix => text.starts_with(&self.prefix),
            Shape::Suffix(suffix) => text.ends_with(suffix),
            Shape::Contains(infix) => text.contains(infix),
            Shape::Other => {
                text.len() >= self.length_min
                    && text.starts_with(&self.prefix)
                    && self.compiled().is_match(text)
            }
        }
    }

    /// The automaton, for capture groups.
    #[must_use]
    pub fn compiled(&self) -> &Regex {
        self.compiled.get_or_init(|| {
            // The parser took it, and its automaton is small. If it is refused all the same, nothing matches.
            Regex::new(&self.anchored).or_else(|_| Regex::new("[^\\s\\S]")).unwrap_or_else(|_| unreachable!())
        })
    }

    /// The finite set of strings that match, ascending, if the pattern is no more than that.
    #[must_use]
    pub fn set(&self) -> Option<&[String]> {
        match &self.shape {
            Shape::Set(set) => Some(set),
            _ => None,
        }
    }

    /// A string with which every match begins, perhaps empty.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether every string matches.
    #[must_use]
    pub fn matches_everything(&self) -> bool {
        self.shape == Shape::Any
    }

    /// Whether every string but the empty one matches.
    #[must_use]
    pub fn matches_everything_but_empty(&self) -> bool {
        self.shape == Shape::NonEmpty
    }
}

impl Shape {
    fn of(hir: &Hir) -> Self {
        if is_dot_star(hir, 0) {
            return Self::Any;
        }
        if is_dot_star(hir, 1) {
            return Self::NonEmpty;
        }
        if let Some(mut set) = literals(hir) {
            set.sort_unstable();
            set.dedup();
            return Self::Set(set);
        }
        let HirKind::Concat(parts) = without_captures(hir).kind() else { return Self::Other };
        let literal = |part| literals(part).filter(|set| set.len() == 1).and_then(|mut set| set.pop());
        match parts.as_slice() {
            [first, last] if is_dot_star(last, 0) && literal(first).is_some() => Self::Prefix,
            [first, last] if is_dot_star(first, 0) => literal(last).map_or(Self::Other, Self::Suffix),
            [first, middle, last] if is_dot_star(first, 0) && is_dot_star(last, 0) => {
                literal(middle).map_or(Self::Other, Self::Contains)
            }
            _ => Self::Other,
        }
    }
}

/// Whether the automaton of a pattern may be refused for its size: that of a short one without counted repetition
/// never is.
fn may_be_large(pattern: &str) -> bool {
    pattern.len() > 200 || pattern.contains('{')
}

fn without_captures(mut hir: &Hir) -> &Hir {
    while let HirKind::Capture(capture) = hir.kind() {
        hir = &capture.sub;
    }
    hir
}

/// Whether `hir` is any character, `min` or more times.
fn is_dot_star(hir: &Hir, min: u32) -> bool {
    let HirKind::Repetition(repetition) = without_captures(hir).kind() else { return false };
    let HirKind::Class(Class::Unicode(class)) = without_captures(&repetition.sub).kind() else {
        return false;
    };
    let all = |ranges: &[regex_syntax::hir::ClassUnicodeRange]| matches!(ranges, [range] if range.start() == '\0' && range.end() == char::MAX);
    repetition.min == min && repetition.max.is_none() && all(class.ranges())
}

/// All strings that `hir` matches, if they are few.
fn literals(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(literal) => Some(vec![String::from_utf8(literal.0.to_vec()).ok()?]),
        HirKind::Class(Class::Unicode(class)) => {
            let count: u32 =
                class.ranges().iter().map(|r| u32::from(r.end()) - u32::from(r.start()) + 1).sum();
            (count <= 32)
                .then(|| class.ranges().iter().flat_map(|r| r.start()..=r.end()).map(String::from).collect())
        }
        HirKind::Capture(capture) => literals(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min == 0 && repetition.max == Some(1) => {
            let mut set = literals(&repetition.sub)?;
            set.push(String::new());
            Some(set)
        }
        HirKind::Concat(parts) => {
            let mut set = vec![String::new()];
            for part in parts {
                let tails = literals(part)?;
                if set.len() * tails.len() > SET_MAX {
                    return None;
                }
                set = set
                    .iter()
                    .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")))
                    .collect();
            }
            Some(set)
        }
        HirKind::Alternation(parts) => {
            let mut set = Vec::new();
            for part in parts {
                set.extend(literals(part)?);
                if set.len() > SET_MAX {
                    return None;
                }
            }
            Some(set)
        }
        _ => None,
    }
}

fn literal_prefix(hir: &Hir) -> String {
    match without_captures(hir).kind() {
        HirKind::Literal(literal) => String::from_utf8(literal.0.to_vec()).unwrap_or_default(),
        HirKind::Concat(parts) => {
            let mut prefix = String::new();
            for part in parts {
                match literals(part).as_deref() {
                    Some([only]) => prefix.push_str(only),
                    _ => {
                        prefix.push_str(&literal_prefix_of_rest(part));
                        break;
                    }
                }
            }
            prefix
        }
        _ => String::new(),
    }
}

/// The prefix of the first part that is no literal: `(abc.*)` inside a concatenation.
fn literal_prefix_of_rest(hir: &Hir) -> String {
    match hir.kind() {
        HirKind::Capture(_) => literal_prefix(hir),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str) -> AnchoredRegex {
        AnchoredRegex::new(pattern).unwrap_or_else(|error| unreachable!("{pattern}: {error}"))
    }

    #[test]
    fn shapes() {
        assert_eq!(regex(".*").shape, Shape::Any);
        assert_eq!(regex("(.*)").shape, Shape::Any);
        assert_eq!(regex(".+").shape, Shape::NonEmpty);
        assert_eq!(regex("a|b|cd?").set().unwrap(), ["a", "b", "c", "cd"]);
        assert_eq!(regex("").set().unwrap(), [""]);
        assert_eq!(regex("5..").set(), None);
        assert_eq!(regex("node-[12]").set().unwrap(), ["node-1", "node-2"]);
        assert_eq!(regex("kube_.*").shape, Shape::Prefix);
        assert_eq!(regex(".*_total").shape, Shape::Suffix("_total".into()));
        assert_eq!(regex(".*err.*").shape, Shape::Contains("err".into()));
        assert_eq!(regex("abc[0-9]+x").prefix(), "abc");
    }

    #[test]
    fn is_anchored_and_dot_matches_newline() {
        assert!(!regex("a").is_match("ab"));
        assert!(regex("a.b").is_match("a\nb"));
        assert!(regex("a|bc").is_match("bc"));
        assert!(!regex("a|bc").is_match("abc"));
        assert!(regex("(?i)AbC").is_match("aBc"));
        assert!(regex("x[^a]").is_match("x\n"));
    }

    #[test]
    fn short_patterns_compile() {
        for unit in [r"\pL", r"\w*", "(.|x)+", r"[^a]\b", "(?i)ß.*", "(((a*)*)*)*"] {
            let pattern = unit.repeat(200 / unit.len());
            assert!(!may_be_large(&pattern));
            assert!(Regex::new(&regex(&pattern).anchored).is_ok(), "{pattern}");
        }
        assert_eq!(AnchoredRegex::new(r"(\pL{1000}){1000}").unwrap_err().what, "expression too large");
    }

    #[test]
    fn sets_and_automata_agree() {
        for pattern in ["a|b|cd?", "kube_.*", ".*_total", ".*err.*", ".+", ".*", "", "[ab]c|d", "(a|b)(c|)"] {
            let shaped = regex(pattern);
            for text in
                ["", "a", "b", "c", "cd", "ac", "bc", "kube_", "kube_x", "_total", "x_total", "xerrx", "\n"]
            {
                assert_eq!(
                    shaped.is_match(text),
                    shaped.compiled().is_match(text),
                    "{pattern:?} on {text:?}"
                );
            }
        }
    }
}
