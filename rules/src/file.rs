//! Rule files: read whole, checked whole, or refused with line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use promql::ParseOptions;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_saphyr::{Location, Spanned};

use crate::rule::{Group, Rule, RuleKind};
use crate::template;

/// A rule file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The line, from 1; 0 where it is not known.
    pub line: u64,
    /// The column, from 1; 0 where it is not known.
    pub column: u64,
    /// What is wrong.
    pub what: String,
    /// Further mistakes in the file, which have none themselves: one a rule.
    pub others: Vec<FileError>,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for FileError {}

impl FileError {
    fn at(location: Location, what: impl Into<String>) -> Self {
        Self::new((location.line(), location.column()), what.into())
    }

    fn new((line, column): (u64, u64), what: String) -> Self {
        Self { line, column, what, others: Vec::new() }
    }

    /// The first of several mistakes, with the others.
    fn of(mut all: Vec<Self>) -> Result<(), Self> {
        if all.is_empty() {
            return Ok(());
        }
        let mut first = all.remove(0);
        first.others = all;
        Err(first)
    }

    /// All mistakes, each on its own.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.others)
    }

    /// Says in which group the mistake is.
    fn within(mut self, context: &str) -> Self {
        self.what = format!("{context}{}", self.what);
        self
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    groups: Option<Vec<Spanned<RawGroup>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGroup {
    name: Option<Spanned<String>>,
    interval: Option<Duration>,
    query_offset: Option<Duration>,
    limit: Option<usize>,
    labels: Option<Spanned<BTreeMap<String, String>>>,
    rules: Option<Vec<Spanned<RawRule>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRule {
    record: Option<Spanned<String>>,
    alert: Option<Spanned<String>>,
    expr: Option<Spanned<String>>,
    #[serde(rename = "for")]
    hold: Option<Spanned<Duration>>,
    keep_firing_for: Option<Spanned<Duration>>,
    labels: Option<Spanned<BTreeMap<String, String>>>,
    annotations: Option<Spanned<BTreeMap<String, String>>>,
}

/// A duration such as `1m30s`, in milliseconds.
#[derive(Clone, Copy)]
struct Duration(i64);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        model::duration::parse_ms(&text).map(Self).map_err(D::Error::custom)
    }
}

/// Reads the text of a rule file. The groups do not know the file's name yet: see [`Group::file`].
///
/// # Errors
/// The mistakes in the text, the first of which is shown.
pub fn parse(text: &str) -> Result<Vec<Group>, FileError> {
    parse_with(text, Dialect::default())
}

/// How rule files are read; strictly and with the language of a server without features, if nobody says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// Fields that are not known.
    pub unknown: Unknown,
    /// The language of expressions.
    pub grammar: ParseOptions,
}

/// What becomes of fields that no rule file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// They are mistakes.
    #[default]
    Refused,
    /// They are looked past. Mistakes in a file with such fields have no line.
    Ignored,
}

impl Unknown {
    /// Ignored, or not.
    #[must_use]
    pub fn new(ignored: bool) -> Self {
        if ignored { Self::Ignored } else { Self::Refused }
    }
}

/// As [`parse`], for files that may have fields for other readers, or expressions that not every server takes.
///
/// # Errors
/// The mistakes in the text, the first of which is shown.
pub fn parse_with(text: &str, Dialect { unknown, grammar }: Dialect) -> Result<Vec<Group>, FileError> {
    let parsed = parse_strictly(text, &grammar);
    match parsed {
        Err(fault) if unknown == Unknown::Ignored && fault.what.contains("unknown field") => {
            let known = serde_saphyr::from_str(text)
                .map(without_unknown)
                .map_err(|error| FileError::new((0, 0), first_line(&error.without_snippet().to_string())))?;
            let parsed = parse_strictly(&known.to_string(), &grammar);
            parsed.map_err(|mut fault| {
                (fault.line, fault.column) = (0, 0);
                fault.others.iter_mut().for_each(|other| (other.line, other.column) = (0, 0));
                fault
            })
        }
        parsed => parsed,
    }
}

/// The file with the fields alone that are known.
fn without_unknown(mut file: serde_json::Value) -> serde_json::Value {
    const GROUP: [&str; 6] = ["name", "interval", "query_offset", "limit", "labels", "rules"];
    const RULE: [&str; 7] = ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];
    let keep = |value: &mut serde_json::Value, keys: &[&str]| {
        if let Some(map) = value.as_object_mut() {
            map.retain(|key, _| keys.contains(&key.as_str()));
        }
    };
    keep(&mut file, &["groups"]);
    for group in file["groups"].as_array_mut().into_iter().flatten() {
        keep(group, &GROUP);
        group.get_mut("rules").and_then(serde_json::Value::as_array_mut).into_iter().flatten().for_each(
            |rule| {
                keep(rule, &RULE);
            },
        );
    }
    file
}

fn parse_strictly(text: &str, grammar: &ParseOptions) -> Result<Vec<Group>, FileError> {
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#') || line == "---";
    if text.lines().all(blank) {
        return Ok(Vec::new());
    }
    let file: RawFile = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        FileError::new(place, first_line(&error.without_snippet().to_string()))
    })?;
    let (mut names, mut groups, mut mistakes) = (BTreeSet::new(), Vec::new(), Vec::new());
    for raw in file.groups.unwrap_or_default() {
        let Some((at, group)) = group(raw, grammar, &mut mistakes) else { continue };
        if !names.insert(group.name.clone()) {
            let what = format!("groupname: {:?} is repeated in the same file", group.name);
            mistakes.push(FileError::at(at, what));
        }
        groups.push(group);
    }
    FileError::of(mistakes)?;
    Ok(groups)
}

/// The message without the place, which is shown in front of it.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or(line);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// A group and where its name stands. Of what is wrong with its rules `mistakes` is told; none without a name.
fn group(
    raw: Spanned<RawGroup>,
    grammar: &ParseOptions,
    mistakes: &mut Vec<FileError>,
) -> Option<(Location, Group)> {
    let (at, raw) = (raw.referenced, raw.value);
    let Some(name) = raw.name.filter(|name| !name.value.is_empty()) else {
        mistakes.push(FileError::at(at, "Groupname must not be empty"));
        return None;
    };
    let mut labels = BTreeMap::new();
    if let Some(given) = raw.labels {
        let wrong = check_labels(&given).map_err(|error| error.within(&format!("group {:?}: ", name.value)));
        mistakes.extend(wrong.err());
        labels = given.value;
    }
    let mut rules = Vec::new();
    for (index, raw) in raw.rules.unwrap_or_default().into_iter().enumerate() {
        let called = raw.value.record.as_ref().or(raw.value.alert.as_ref());
        let called = called.map_or(String::new(), |called| format!(", {:?}", called.value));
        let context = format!("group {:?}, rule {}{called}: ", name.value, index + 1);
        match rule(raw, &labels, grammar) {
            Ok(rule) => rules.push(rule),
            Err(error) => mistakes.push(error.within(&context)),
        }
    }
    let group = Group {
        file: String::new(),
        name: name.value,
        interval_ms: raw.interval.map(|interval| interval.0).filter(|ms| *ms > 0),
        query_offset_ms: raw.query_offset.map(|offset| offset.0),
        limit: raw.limit.unwrap_or(0),
        rules,
    };
    Some((name.referenced, group))
}

fn rule(
    raw: Spanned<RawRule>,
    group_labels: &BTreeMap<String, String>,
    grammar: &ParseOptions,
) -> Result<Rule, FileError> {
    let (at, raw) = (raw.referenced, raw.value);
    let is_given = |name: &Spanned<String>| !name.value.is_empty();
    let (record, alert) = (raw.record.filter(is_given), raw.alert.filter(is_given));
    let (name, is_alert) = match (record, alert) {
        (Some(_), Some(alert)) => {
            return Err(FileError::at(alert.referenced, "only one of 'record' and 'alert' must be set"));
        }
        (None, None) => return Err(FileError::at(at, "one of 'record' or 'alert' must be set")),
        (Some(record), None) => (record, false),
        (None, Some(alert)) => (alert, true),
    };
    let Some(expr) = raw.expr.filter(|expr| !expr.value.is_empty()) else {
        return Err(FileError::at(at, "field 'expr' must be set in rule"));
    };
    let parsed = promql::parse(&expr.value, grammar)
        .map_err(|error| FileError::at(expr.referenced, format!("could not parse expression: {error}")))?;
    if let Some(labels) = &raw.labels {
        check_labels(labels)?;
    }
    let for_ms = raw.hold.as_ref().map_or(0, |hold| hold.value.0);
    let keep_firing_for_ms = raw.keep_firing_for.as_ref().map_or(0, |keep| keep.value.0);
    let kind = if is_alert {
        let at = raw.labels.as_ref().map_or(at, |labels| labels.referenced);
        check_templates(at, raw.labels.iter().flat_map(|labels| &labels.value), (&name.value, "label"))?;
        if let Some(annotations) = &raw.annotations {
            if annotations.value.contains_key("") {
                return Err(FileError::at(annotations.referenced, "invalid annotation name: \"\""));
            }
            check_templates(annotations.referenced, &annotations.value, (&name.value, "annotation"))?;
        }
        let annotations = raw.annotations.map(|annotations| annotations.value).unwrap_or_default();
        RuleKind::Alerting { for_ms, keep_firing_for_ms, annotations }
    } else {
        if let Some(annotations) = raw.annotations.filter(|annotations| !annotations.value.is_empty()) {
            return Err(FileError::at(
                annotations.referenced,
                "invalid field 'annotations' in recording rule",
            ));
        }
        if let Some(hold) = raw.hold.filter(|hold| hold.value.0 != 0) {
            return Err(FileError::at(hold.referenced, "invalid field 'for' in recording rule"));
        }
        if let Some(keep) = raw.keep_firing_for.filter(|keep| keep.value.0 != 0) {
            return Err(FileError::at(keep.referenced, "invalid field 'keep_firing_for' in recording rule"));
        }
        if name.value.contains(['{', '}']) {
            let what =
                format!("braces present in the recording rule name; should it be in expr?: {}", name.value);
            return Err(FileError::at(name.referenced, what));
        }
        RuleKind::Recording
    };
    let mut labels = group_labels.clone();
    labels.extend(raw.labels.map(|labels| labels.value).unwrap_or_default());
    Ok(Rule { name: name.value, expr: parsed, labels, kind })
}

fn check_labels(labels: &Spanned<BTreeMap<String, String>>) -> Result<(), FileError> {
    let bad = labels.value.keys().find(|name| name.is_empty() || *name == model::METRIC_NAME);
    match bad {
        Some(name) => Err(FileError::at(labels.referenced, format!("invalid label name: {name}"))),
        None => Ok(()),
    }
}

fn check_templates<'a>(
    at: Location,
    texts: impl IntoIterator<Item = (&'a String, &'a String)>,
    (alert, what): (&str, &str),
) -> Result<(), FileError> {
    let alert = template::name(alert);
    for (name, text) in texts {
        template::check(&alert, text)
            .map_err(|error| FileError::at(at, format!("{what} {name:?}: {error}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (u64, u64, String) {
        let error = parse(text).unwrap_err();
        (error.line, error.column, error.what)
    }

    #[test]
    fn a_whole_file_is_read() {
        let groups = parse(
            "groups:\n- name: node\n  interval: 1m30s\n  query_offset: 5s\n  limit: 10\n  labels: {team: a, tier: b}\n  rules:\n  \
             - record: job:up:sum\n    expr: sum  by(job)(up)\n    labels: {tier: c}\n  - alert: Down\n    expr: up == 0\n    \
             for: 5m\n    keep_firing_for: 1m\n    labels: {severity: page, code: 5}\n    annotations: {summary: '{{ $labels.job }} is down'}\n",
        )
        .unwrap();
        let group = &groups[0];
        assert_eq!((group.name.as_str(), group.limit), ("node", 10));
        assert_eq!((group.interval_ms, group.query_offset_ms), (Some(90_000), Some(5_000)));
        assert_eq!(group.rules[0].query(), "sum by (job) (up)");
        assert_eq!(group.rules[0].labels["tier"], "c");
        assert_eq!(group.rules[0].labels["team"], "a");
        assert_eq!(group.rules[1].labels["code"], "5");
        let RuleKind::Alerting { for_ms, keep_firing_for_ms, annotations } = &group.rules[1].kind else {
            panic!("not an alert");
        };
        assert_eq!((*for_ms, *keep_firing_for_ms, annotations.len()), (300_000, 60_000, 1));
        for empty in ["", "# nothing\n", "groups:\n", "groups: []\n", "---\n", "{}"] {
            assert_eq!(parse(empty).unwrap(), [], "{empty:?}");
        }
        let rule = &parse(
            "groups:\n- name: yaml\n  rules:\n  - alert: A\n    expr: |\n      up\n        == 0\n    for: 0\n    \
             labels: &labels {a: 1.0, b: yes, c: 'x', d: 007}\n    annotations: *labels\n",
        )
        .unwrap()[0]
            .rules[0];
        assert_eq!(rule.query(), "up == 0");
        let labels: Vec<_> = rule.labels.values().map(String::as_str).collect();
        assert_eq!(labels, ["1.0", "yes", "x", "007"]);
        assert_eq!(parse("groups: [{name: a, rules: [{record: one, expr: 1}]}]").unwrap()[0].rules.len(), 1);
    }

    #[test]
    fn expressions_are_of_the_language_that_is_switched_on() {
        let text = "groups: [{name: a, rules: [{record: b, expr: 'mad_over_time(up[5m])'}]}]";
        assert!(parse(text).unwrap_err().what.contains("not enabled"));
        let dialect = Dialect { grammar: ParseOptions::experimental(), ..Dialect::default() };
        assert_eq!(parse_with(text, dialect).unwrap()[0].rules.len(), 1);
        let unknown = text.replace("name", "more: 1, name");
        assert!(parse_with(&unknown, dialect).is_err());
        assert_eq!(parse_with(&unknown, Dialect { unknown: Unknown::Ignored, ..dialect }).unwrap().len(), 1);
    }

    #[test]
    fn every_rule_that_is_wrong_is_told_of() {
        let text = "groups:\n- name: g\n  rules:\n  - {record: a, expr: 'sum('}\n  - {record: b, expr: up}\n  \
                    - {expr: up}\n- name: g\n- rules: []\n";
        let error = parse(text).unwrap_err();
        let all: Vec<(u64, &str)> = error.all().map(|error| (error.line, error.what.as_str())).collect();
        assert_eq!(all.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 6, 7, 8], "{all:?}");
        assert!(all[1].1.starts_with("group \"g\", rule 3: one of 'record' or 'alert'"), "{all:?}");
        assert!(error.to_string().starts_with("4:"), "{error}");
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        let rule = |rule: &str| refused(&format!("groups:\n- name: g\n  rules:\n  - {rule}\n"));
        let (line, _, what) = refused("groups:\n- name: g\n  intervall: 1m\n");
        assert_eq!(line, 3, "{what}");
        assert!(what.contains("intervall"), "{what}");
        assert_eq!(refused("groups:\n- name: g\n- name: g\n").0, 3);
        assert_eq!(refused("groups:\n- rules: []\n").2, "Groupname must not be empty");
        let (line, column, what) = rule("{record: a, expr: 'sum('}");
        assert_eq!((line, column), (4, 23), "{what}");
        assert!(what.starts_with("group \"g\", rule 1, \"a\": could not parse expression: 1:5"), "{what}");
        for (text, wanted) in [
            ("{record: a, alert: b, expr: up}", "only one of 'record' and 'alert' must be set"),
            ("{expr: up}", "one of 'record' or 'alert' must be set"),
            ("{record: a}", "field 'expr' must be set in rule"),
            ("{record: a, expr: up, for: 1m}", "invalid field 'for' in recording rule"),
            ("{record: a, expr: up, keep_firing_for: 1m}", "invalid field 'keep_firing_for'"),
            ("{record: a, expr: up, annotations: {b: c}}", "invalid field 'annotations'"),
            ("{record: 'a{b=\"c\"}', expr: up}", "braces present in the recording rule name"),
            ("{record: a, expr: up, labels: {__name__: b}}", "invalid label name: __name__"),
            ("{alert: a, expr: up, for: 1x}", "not a valid duration string"),
            ("{alert: a, expr: up, annotations: {b: '{{ $labels.'}}", "annotation \"b\": template: "),
            ("{alert: a, expr: up, annotations: {b: '{{ nope 1 }}'}}", "function \"nope\" not defined"),
        ] {
            let (line, _, what) = rule(text);
            assert!(what.contains(wanted), "{text}: {what}");
            assert_eq!(line, 4, "{text}: {what}");
        }
    }
}
