//! Relabelling: rules that rewrite or drop a label set, before a scrape (targets) and after it (series).
//!
//! A [`RuleSpec`] is what a configuration says, with absent fields absent; [`Rule::new`] checks it and
//! fills in the documented defaults; [`apply`] runs rules in order over a [`LabelsBuilder`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use md5::{Digest as _, Md5};
use model::regex::{AnchoredRegex, RegexError};
use model::{LabelsBuilder, is_legacy_label_name};

use crate::config::NameScheme;

mod template;

use template::Template;

const DEFAULT_SEPARATOR: &str = ";";
const DEFAULT_REGEX: &str = "(.*)";
const DEFAULT_REPLACEMENT: &str = "$1";

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets the target label to the expanded replacement if the source matches.
    #[default]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops what does not equal the target label.
    KeepEqual,
    /// Drops what equals the target label.
    DropEqual,
    /// Sets the target label to the MD5 of the source modulo `modulus`.
    HashMod,
    /// Copies labels whose name matches to the expanded name.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Sets the target label to the source in lower case.
    Lowercase,
    /// Sets the target label to the source in upper case.
    Uppercase,
}

impl Action {
    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    fn writes_target(self) -> bool {
        matches!(self, Self::Replace | Self::HashMod | Self::Lowercase | Self::Uppercase)
            || self.compares_target()
    }

    fn compares_target(self) -> bool {
        matches!(self, Self::KeepEqual | Self::DropEqual)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = RuleError;

    /// Reads the word in any case, as the configuration allows.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        const ALL: [Action; 11] = [
            Action::Replace,
            Action::Keep,
            Action::Drop,
            Action::KeepEqual,
            Action::DropEqual,
            Action::HashMod,
            Action::LabelMap,
            Action::LabelDrop,
            Action::LabelKeep,
            Action::Lowercase,
            Action::Uppercase,
        ];
        ALL.into_iter()
            .find(|action| action.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| RuleError(format!("unknown relabel action {text:?}")))
    }
}

/// One relabelling rule as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSpec {
    /// `source_labels`
    pub source_labels: Vec<String>,
    /// `separator`; `;` if absent.
    pub separator: Option<String>,
    /// `regex`; `(.*)` if absent.
    pub regex: Option<String>,
    /// `modulus`
    pub modulus: u64,
    /// `target_label`
    pub target_label: String,
    /// `replacement`; `$1` if absent.
    pub replacement: Option<String>,
    /// `action`
    pub action: Action,
}

/// A rule that cannot be run. The text is that of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

impl From<RegexError> for RuleError {
    fn from(error: RegexError) -> Self {
        Self(error.to_string())
    }
}

/// One checked relabelling rule. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Rule(Arc<Checked>);

#[derive(Debug)]
struct Checked {
    spec: RuleSpec,
    separator: String,
    regex: AnchoredRegex,
    target: Template,
    replacement: Template,
    names: NameScheme,
}

impl Rule {
    /// Checks a rule and compiles its pattern.
    ///
    /// # Errors
    /// A field is missing, does not belong to the action, or is malformed.
    pub fn new(spec: RuleSpec, names: NameScheme) -> Result<Self, RuleError> {
        check(&spec, names)?;
        let or = |text: &Option<String>, default: &str| text.as_deref().unwrap_or(default).to_owned();
        Ok(Self(Arc::new(Checked {
            separator: or(&spec.separator, DEFAULT_SEPARATOR),
            regex: AnchoredRegex::new(&or(&spec.regex, DEFAULT_REGEX))?,
            target: Template::parse(&spec.target_label),
            replacement: Template::parse(&or(&spec.replacement, DEFAULT_REPLACEMENT)),
            names,
            spec,
        })))
    }

    /// What the rule was made from.
    #[must_use]
    pub fn spec(&self) -> &RuleSpec {
        &self.0.spec
    }
}

/// Two rules are equal if they were configured alike.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.0.spec == other.0.spec && self.0.names == other.0.names
    }
}

/// Runs `rules` in order. Returns whether the label set is kept; if not, its content is unspecified.
#[must_use]
pub fn apply(rules: &[Rule], labels: &mut LabelsBuilder) -> bool {
    rules.iter().all(|rule| rule.0.apply(labels))
}

impl Checked {
    fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let target = self.spec.target_label.as_str();
        match self.spec.action {
            Action::Keep => return self.regex.is_match(&self.source(labels)),
            Action::Drop => return !self.regex.is_match(&self.source(labels)),
            Action::KeepEqual => return labels.get(target).unwrap_or("") == self.source(labels),
            Action::DropEqual => return labels.get(target).unwrap_or("") != self.source(labels),
            Action::Replace => self.replace(labels),
            Action::HashMod => {
                let hash = hash_md5(&self.source(labels)) % self.spec.modulus;
                labels.set(target, &hash.to_string());
            }
            Action::Lowercase => {
                let value: String = self.source(labels).chars().map(lower).collect();
                labels.set(target, &value);
            }
            Action::Uppercase => {
                let value: String = self.source(labels).chars().map(upper).collect();
                labels.set(target, &value);
            }
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => {
                labels.retain(|name, _| !self.regex.is_match(name));
            }
            Action::LabelKeep => {
                labels.retain(|name, _| self.regex.is_match(name));
            }
        }
        true
    }

    /// The values of the source labels, joined.
    fn source(&self, labels: &LabelsBuilder) -> String {
        let mut joined = String::new();
        for (at, name) in self.spec.source_labels.iter().enumerate() {
            if at > 0 {
                joined.push_str(&self.separator);
            }
            joined.push_str(labels.get(name).unwrap_or(""));
        }
        joined
    }

    /// No match or an invalid expanded name changes nothing; an empty expanded value removes the label.
    fn replace(&self, labels: &mut LabelsBuilder) {
        let source = self.source(labels);
        if !self.regex.is_match(&source) {
            return;
        }
        let captures = self.regex.compiled().captures(&source);
        let name = self.target.expand(captures.as_ref());
        if is_label_name(&name, self.names) {
            labels.set(&name, &self.replacement.expand(captures.as_ref()));
        }
    }

    fn map_names(&self, labels: &mut LabelsBuilder) {
        let mut mapped = Vec::new();
        for (name, value) in labels.iter() {
            if self.regex.is_match(name) {
                let captures = self.regex.compiled().captures(name);
                mapped.push((self.replacement.expand(captures.as_ref()), value.to_owned()));
            }
        }
        for (name, value) in mapped.iter().filter(|(name, _)| !name.is_empty()) {
            labels.set(name, value);
        }
    }
}

/// The last 8 bytes of the MD5, most significant first.
fn hash_md5(text: &str) -> u64 {
    let digest = Md5::digest(text.as_bytes());
    digest.iter().skip(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// One character for one, as Go maps case: `ß` has no upper case of its own, `İ` becomes `i`.
fn upper(c: char) -> char {
    let mut mapped = c.to_uppercase();
    if mapped.len() == 1 { mapped.next().unwrap_or(c) } else { c }
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

fn is_label_name(name: &str, names: NameScheme) -> bool {
    match names {
        NameScheme::Utf8 => !name.is_empty(),
        NameScheme::Legacy => is_legacy_label_name(name),
    }
}

/// Whether a template can expand to a label name.
fn is_label_template(template: &str, names: NameScheme) -> bool {
    match names {
        NameScheme::Utf8 => !template.is_empty(),
        NameScheme::Legacy => is_legacy_label_name(&Template::parse(template).with_every_variable("a")),
    }
}

fn check(spec: &RuleSpec, names: NameScheme) -> Result<(), RuleError> {
    let (action, target) = (spec.action, spec.target_label.as_str());
    let fail = |text: String| Err(RuleError(text));
    if action == Action::HashMod && spec.modulus == 0 {
        return fail("relabel configuration for hashmod requires non-zero modulus".to_owned());
    }
    if action.writes_target() {
        if target.is_empty() {
            return fail(format!("relabel configuration for {action} action requires 'target_label' value"));
        }
        let valid = match action {
            Action::Replace => is_label_template(target, names),
            _ => is_label_name(target, names),
        };
        if !valid {
            return fail(format!("{target:?} is invalid 'target_label' for {action} action"));
        }
    }
    let default = |text: &Option<String>, default: &str| text.as_deref().is_none_or(|text| text == default);
    let plain_regex = default(&spec.regex, DEFAULT_REGEX);
    let plain_separator = default(&spec.separator, DEFAULT_SEPARATOR);
    let plain_replacement = default(&spec.replacement, DEFAULT_REPLACEMENT);
    if matches!(action, Action::Lowercase | Action::Uppercase) && !plain_replacement {
        return fail(format!("'replacement' can not be set for {action} action"));
    }
    let plain = plain_separator && plain_replacement && spec.modulus == 0;
    if action.compares_target() && !(plain && plain_regex) {
        return fail(format!(
            "{action} action requires only 'source_labels' and 'target_label', and no other fields"
        ));
    }
    if matches!(action, Action::LabelDrop | Action::LabelKeep)
        && !(plain && spec.source_labels.is_empty() && target.is_empty())
    {
        return fail(format!("{action} action requires only 'regex', and no other fields"));
    }
    if action == Action::LabelMap {
        let replacement = spec.replacement.as_deref().unwrap_or(DEFAULT_REPLACEMENT);
        if !is_label_template(replacement, names) {
            return fail(format!("{replacement:?} is invalid 'replacement' for {action} action"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
