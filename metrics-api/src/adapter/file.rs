//! The rules' file in prometheus-adapter's format: read whole, checked whole, or refused with line, column and key.
//!
//! Source of the format: prometheus-adapter's documentation (`docs/config.md`) and its configuration types.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::rules::{AdapterRules, Labelling, NameFilter, Naming, ResourceRule, ResourceRules, Rule};
use super::template::{QueryArguments, Text};

/// A rules file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The line, from 1; 0 where it is not known.
    pub line: u64,
    /// The column, from 1; 0 where it is not known.
    pub column: u64,
    /// The key and what is wrong with it.
    pub what: String,
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

fn fault(at: Location, key: &str, what: impl fmt::Display) -> FileError {
    FileError { line: at.line(), column: at.column(), what: format!("{key}: {what}") }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct RawFile {
    rules: Option<Vec<Spanned<RawRule>>>,
    external_rules: Option<Vec<Spanned<RawRule>>>,
    resource_rules: Option<Spanned<RawResourceRules>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct RawRule {
    series_query: Option<Spanned<String>>,
    series_filters: Option<Vec<Spanned<RawFilter>>>,
    resources: Option<Spanned<RawResources>>,
    name: Option<RawName>,
    metrics_query: Option<Spanned<String>>,
    label_value_replacements: Option<Vec<Replacement>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct RawFilter {
    is: String,
    is_not: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawResources {
    template: Option<Spanned<String>>,
    overrides: Option<BTreeMap<String, Spanned<RawResource>>>,
    namespaced: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawResource {
    group: String,
    resource: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawName {
    matches: Option<Spanned<String>>,
    r#as: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Replacement {
    find: String,
    replace: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawResourceRules {
    cpu: Option<Spanned<RawResourceRule>>,
    memory: Option<Spanned<RawResourceRule>>,
    window: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct RawResourceRule {
    container_query: Option<Spanned<String>>,
    node_query: Option<Spanned<String>>,
    resources: Option<Spanned<RawResources>>,
    container_label: String,
}

/// Reads the text of a rules file.
///
/// # Errors
/// The first mistake in the text.
pub fn parse(text: &str) -> Result<AdapterRules, FileError> {
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#') || line == "---";
    if text.lines().all(blank) {
        return Err(FileError { line: 0, column: 0, what: "the file is empty".to_owned() });
    }
    let file: RawFile = serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        FileError { line, column, what: first_line(&error.without_snippet().to_string()) }
    })?;
    let all = |list: &str, raw: Option<Vec<Spanned<RawRule>>>| {
        let numbered = raw.unwrap_or_default().into_iter().enumerate();
        numbered.map(|(at, raw)| rule(&format!("{list}[{at}]"), raw)).collect::<Result<Vec<_>, _>>()
    };
    Ok(AdapterRules {
        custom: all("rules", file.rules)?,
        external: all("externalRules", file.external_rules)?,
        resource: file.resource_rules.map(resource_rules).transpose()?,
    })
}

/// The message without the place, which is shown in front of it.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or(line);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn rule(path: &str, raw: Spanned<RawRule>) -> Result<Rule, FileError> {
    let (at, raw) = (raw.referenced, raw.value);
    let key = |name: &str| format!("{path}.{name}");
    let query = raw.series_query.filter(|query| !query.value.is_empty());
    let query = query.ok_or_else(|| fault(at, &key("seriesQuery"), "is missing"))?;
    let selector = promql::parse_selector(&query.value)
        .map_err(|error| fault(query.referenced, &key("seriesQuery"), error))?;
    let mut filters = Vec::new();
    for (index, filter) in raw.series_filters.unwrap_or_default().into_iter().enumerate() {
        let key = key(&format!("seriesFilters[{index}]"));
        filters.push(name_filter(&filter.value).map_err(|what| fault(filter.referenced, &key, what))?);
    }
    let naming = naming(&key("name"), at, raw.name.unwrap_or_default())?;
    let (labelling, namespaced) = labelling(&key("resources"), raw.resources)?;
    let metrics_query = raw.metrics_query.filter(|query| !query.value.is_empty());
    // The adapter starts without one, and then answers every request with an error.
    let metrics_query = metrics_query.ok_or_else(|| fault(at, &key("metricsQuery"), "is missing"))?;
    let text = query_text(&key("metricsQuery"), &metrics_query)?;
    let replacements = raw.label_value_replacements.unwrap_or_default();
    Ok(Rule {
        path: path.to_owned(),
        line: at.line(),
        series_query: query.value,
        matchers: selector.matchers,
        filters,
        naming,
        labelling,
        namespaced,
        query: text,
        replacements: replacements.into_iter().map(|it| (it.find, it.replace)).collect(),
    })
}

fn regex(pattern: &str) -> Result<regex::Regex, String> {
    let translated = model::regex::translate(pattern).map_err(|error| error.to_string())?;
    regex::Regex::new(&translated).map_err(|_| format!("error parsing regexp: too large: `{pattern}`"))
}

fn name_filter(raw: &RawFilter) -> Result<NameFilter, String> {
    let (pattern, positive) = match (raw.is.as_str(), raw.is_not.as_str()) {
        ("", "") => return Err("needs is or isNot".to_owned()),
        (is, "") => (is, true),
        ("", is_not) => (is_not, false),
        _ => return Err("cannot have both is and isNot".to_owned()),
    };
    Ok(NameFilter { regex: regex(pattern)?, positive })
}

fn naming(key: &str, at: Location, raw: RawName) -> Result<Naming, FileError> {
    let matches = raw.matches.filter(|pattern| !pattern.value.is_empty());
    let at = matches.as_ref().map_or(at, |pattern| pattern.referenced);
    let pattern = matches.as_ref().map_or(".*", |pattern| pattern.value.as_str());
    let regex = regex(pattern).map_err(|what| fault(at, &format!("{key}.matches"), what))?;
    let text = match (raw.r#as.filter(|text| !text.value.is_empty()), regex.captures_len()) {
        (Some(text), _) => text.value,
        (None, 1) => "$0".to_owned(),
        (None, 2) => "$1".to_owned(),
        (None, groups) => {
            let what = format!("is missing, and {pattern:?} has {} groups to choose from", groups - 1);
            return Err(fault(at, &format!("{key}.as"), what));
        }
    };
    Ok(Naming { regex, text })
}

fn labelling(key: &str, raw: Option<Spanned<RawResources>>) -> Result<(Labelling, bool), FileError> {
    let Some(raw) = raw.map(|raw| raw.value) else { return Ok((Labelling::default(), true)) };
    let mut labelling = Labelling::default();
    if let Some(template) = raw.template.filter(|template| !template.value.is_empty()) {
        let key = format!("{key}.template");
        let failed = |what| fault(template.referenced, &key, what);
        let text = Text::parse("template", &template.value).map_err(failed)?;
        let sample = text.label("a.b", "thing").map_err(failed)?;
        if sample == text.label("a.b", "other").map_err(failed)? {
            return Err(failed("gives the same label for every resource: use <<.Resource>>".to_owned()));
        }
        labelling.template = Some(text);
    }
    for (label, resource) in raw.overrides.unwrap_or_default() {
        let key = format!("{key}.overrides.{label}");
        if resource.value.resource.is_empty() {
            return Err(fault(resource.referenced, &key, "resource is missing"));
        }
        if label.is_empty() {
            return Err(fault(resource.referenced, &key, "a label must have a name"));
        }
        labelling.overrides.push((label, resource.value.group, resource.value.resource));
    }
    Ok((labelling, raw.namespaced.unwrap_or(true)))
}

/// Reads a template, and a query that it gives.
fn query_text(key: &str, source: &Spanned<String>) -> Result<Text, FileError> {
    let failed = |what: String| fault(source.referenced, key, what);
    let text = Text::parse("query", &source.value).map_err(failed)?;
    // What single values make of a query is not known before a request.
    if source.value.contains(".LabelValuesByName") {
        return Ok(text);
    }
    let sample = QueryArguments {
        series: "series".to_owned(),
        matchers: r#"label="value""#.to_owned(),
        values: BTreeMap::new(),
        group_by: vec!["label".to_owned()],
    };
    let query = text.query(&sample).map_err(failed)?;
    let options = promql::ParseOptions { experimental_functions: true, ..Default::default() };
    promql::parse(&query, &options).map_err(|error| failed(format!("it would ask {query:?}: {error}")))?;
    Ok(text)
}

fn resource_rules(raw: Spanned<RawResourceRules>) -> Result<ResourceRules, FileError> {
    let (at, raw) = (raw.referenced, raw.value);
    let window_ms = match &raw.window {
        None => 60_000,
        Some(window) => model::duration::parse_ms(&window.value)
            .map_err(|error| fault(window.referenced, "resourceRules.window", error))?,
    };
    let one = |name: &str, raw: Option<Spanned<RawResourceRule>>| {
        let raw = raw.ok_or_else(|| fault(at, &format!("resourceRules.{name}"), "is missing"))?;
        resource_rule(&format!("resourceRules.{name}"), raw)
    };
    Ok(ResourceRules { cpu: one("cpu", raw.cpu)?, memory: one("memory", raw.memory)?, window_ms })
}

fn resource_rule(path: &str, raw: Spanned<RawResourceRule>) -> Result<ResourceRule, FileError> {
    let (at, raw) = (raw.referenced, raw.value);
    let query = |name: &str, query: Option<Spanned<String>>| {
        let key = format!("{path}.{name}");
        let query = query.ok_or_else(|| fault(at, &key, "is missing"))?;
        query_text(&key, &query)
    };
    if raw.container_label.is_empty() {
        return Err(fault(at, &format!("{path}.containerLabel"), "is missing"));
    }
    Ok(ResourceRule {
        container_query: query("containerQuery", raw.container_query)?,
        node_query: query("nodeQuery", raw.node_query)?,
        labelling: labelling(&format!("{path}.resources"), raw.resources)?.0,
        container_label: raw.container_label,
    })
}
