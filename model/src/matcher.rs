//! Label matchers.

use std::fmt;
use std::sync::Arc;

use crate::labels::{Quoted, is_legacy_label_name};
use crate::regex::{AnchoredRegex, RegexError};

/// How a [`Matcher`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as PromQL writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A condition on one label. An absent label has the value `""`.
#[derive(Clone)]
pub struct Matcher {
    /// The label's name.
    pub name: Arc<str>,
    /// The comparison.
    pub op: MatchOp,
    /// What is compared with: a literal, or a pattern of Go's RE2 dialect.
    pub value: Arc<str>,
    regex: Option<Arc<AnchoredRegex>>,
}

impl Matcher {
    /// Builds a matcher, compiling its pattern if it has one.
    ///
    /// # Errors
    /// The pattern is not one of Go's RE2 dialect.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, RegexError> {
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(AnchoredRegex::new(value)?)),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name: name.into(), op, value: value.into(), regex })
    }

    /// An equality matcher.
    #[must_use]
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// Whether a label of value `value` (`""` if absent) fulfils the condition.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let hit = match &self.regex {
            Some(regex) => regex.is_match(value),
            None => *self.value == *value,
        };
        hit != self.is_negative()
    }

    /// Whether a series without the label fulfils the condition.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Whether the operator is `!=` or `!~`.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        matches!(self.op, MatchOp::NotEqual | MatchOp::NotRegex)
    }

    /// The compiled pattern of `=~` and `!~`.
    #[must_use]
    pub fn regex(&self) -> Option<&AnchoredRegex> {
        self.regex.as_deref()
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "{}", Quoted(&self.name))?;
        }
        write!(f, "{}{}", self.op.as_str(), Quoted(&self.value))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators() {
        let matcher = |op, value| Matcher::new("a", op, value).unwrap();
        assert!(matcher(MatchOp::Equal, "x").matches("x"));
        assert!(!matcher(MatchOp::Equal, "x").matches_empty());
        assert!(matcher(MatchOp::NotEqual, "x").matches_empty());
        assert!(matcher(MatchOp::Regex, "x|y.*").matches("yz"));
        assert!(!matcher(MatchOp::Regex, "x").matches("xx"));
        assert!(matcher(MatchOp::NotRegex, "x+").matches("y"));
        assert!(matcher(MatchOp::Regex, ".*").matches("a\nb"));
        assert_eq!(matcher(MatchOp::NotRegex, "x\"").to_string(), r#"a!~"x\"""#);
    }
}
