//! The adapter's templates: Go's template language between `<<` and `>>`.
//!
//! This is the only module that knows which crate runs the language.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, Value};

/// A template longer than this is no query.
const BYTES_MAX: usize = 16 << 10;
/// Loops may turn this often in one query.
const LOOPS_MAX: u64 = 100_000;
/// The parser calls itself once for each of these, so a hostile text must not have many.
const NESTING_MAX: usize = 100;

/// What a query's template may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueryArguments {
    /// The name of the series.
    pub(crate) series: String,
    /// Conditions as they stand between braces.
    pub(crate) matchers: String,
    /// Values of the labels in the conditions.
    pub(crate) values: BTreeMap<String, String>,
    /// Labels to group by.
    pub(crate) group_by: Vec<String>,
}

/// A template that has been read.
#[derive(Clone)]
pub(crate) struct Text {
    source: Arc<str>,
    template: Arc<Template>,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

impl Text {
    /// Reads a template; `name` stands in messages.
    pub(crate) fn parse(name: &str, source: &str) -> Result<Self, String> {
        if source.len() > BYTES_MAX {
            return Err(format!("longer than {BYTES_MAX} bytes"));
        }
        let nests = |word: &str| source.matches(word).count() > NESTING_MAX;
        if let Some(word) = ["else", "(", "if", "with", "range"]
            .into_iter()
            .find(|word| nests_inside(source, word) && nests(word))
        {
            return Err(format!("more than {NESTING_MAX} times {word:?}"));
        }
        let template = Template::new(name)
            .delims("<<", ">>")
            .missing_key(MissingKey::ZeroValue)
            .max_range_iters(LOOPS_MAX)
            .parse(source)
            .map_err(|error| error.to_string())?;
        Ok(Self { source: source.into(), template: Arc::new(template) })
    }

    /// A query.
    pub(crate) fn query(&self, arguments: &QueryArguments) -> Result<String, String> {
        let list = arguments.group_by.iter().map(|label| Value::from(label.as_str())).collect::<Vec<_>>();
        let values = arguments.values.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        self.fill(BTreeMap::from([
            ("Series".to_owned(), Value::from(arguments.series.as_str())),
            ("LabelMatchers".to_owned(), Value::from(arguments.matchers.as_str())),
            ("LabelValuesByName".to_owned(), Value::from(values.collect::<BTreeMap<String, Value>>())),
            ("GroupBy".to_owned(), Value::from(arguments.group_by.join(",").as_str())),
            ("GroupBySlice".to_owned(), Value::from(list)),
        ]))
    }

    /// The label of a resource: its group as it may stand in a name, and one of it.
    pub(crate) fn label(&self, group: &str, singular: &str) -> Result<String, String> {
        self.fill(BTreeMap::from([
            ("Group".to_owned(), Value::from(group.replace(['.', '-'], "_").as_str())),
            ("Resource".to_owned(), Value::from(singular)),
        ]))
    }

    fn fill(&self, fields: BTreeMap<String, Value>) -> Result<String, String> {
        let known: Vec<&str> = fields.keys().map(String::as_str).collect();
        if let Some(field) = unknown_field(&self.source, &known) {
            return Err(format!("there is no .{field}: only .{}", known.join(", .")));
        }
        let text =
            self.template.execute_to_string(&Value::from(fields)).map_err(|error| error.to_string())?;
        // A label that is not there is an empty text in Go, whose maps know what they hold.
        let text = text.replace("<no value>", "");
        if text.trim().is_empty() { Err("the template gives an empty text".to_owned()) } else { Ok(text) }
    }
}

/// Whether `word` stands in an action.
fn nests_inside(source: &str, word: &str) -> bool {
    source
        .split("<<")
        .skip(1)
        .any(|action| action.split(">>").next().is_some_and(|inner| inner.contains(word)))
}

/// The first `.Name` of a plain action `<<.Name>>` that is not known. In Go, whose data have a type, this is an error.
fn unknown_field<'a>(source: &'a str, known: &[&str]) -> Option<&'a str> {
    let actions =
        source.split("<<").skip(1).filter_map(|action| action.split_once(">>").map(|(inner, _)| inner));
    let fields =
        actions.filter_map(|inner| inner.trim_matches(['-', ' ', '\t', '\n', '\r']).strip_prefix('.'));
    let plain =
        |field: &&str| !field.is_empty() && field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    fields.filter(plain).find(|field| !known.contains(field))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arguments() -> QueryArguments {
        QueryArguments {
            series: "http_requests_total".into(),
            matchers: r#"namespace="default",pod=~"a|b""#.into(),
            values: BTreeMap::from([("namespace".into(), "default".into()), ("pod".into(), "a|b".into())]),
            group_by: vec!["pod".into(), "container".into()],
        }
    }

    fn fill(source: &str) -> Result<String, String> {
        Text::parse("t", source)?.query(&arguments())
    }

    #[test]
    fn every_field_and_the_usual_forms() {
        for (source, expected) in [
            (
                "sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)",
                r#"sum(rate(http_requests_total{namespace="default",pod=~"a|b"}[2m])) by (pod,container)"#,
            ),
            ("<< .Series >>", "http_requests_total"),
            (r#"x{a="<<index .LabelValuesByName "pod">>"}"#, r#"x{a="a|b"}"#),
            (r#"x{a="<<index .LabelValuesByName "nope">>"}"#, r#"x{a=""}"#),
            ("<<range $i, $l := .GroupBySlice>><<if $i>>,<<end>><<$l>><<end>>", "pod,container"),
            ("<<index .GroupBySlice 0>>", "pod"),
            (r#"<<range $k, $v := .LabelValuesByName>><<$k>>=<<$v>>;<<end>>"#, "namespace=default;pod=a|b;"),
            ("a << 1 >> b {{ c }}", "a 1 b {{ c }}"),
        ] {
            assert_eq!(fill(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for source in
            ["<<.Serie>>", "<<", "<<if>>", "<<end>>", "<<nope .Series>>", "", "<<if false>>x<<end>>"]
        {
            assert!(fill(source).is_err(), "{source}");
        }
        assert!(fill(&"<<if true>>".repeat(200)).unwrap_err().contains("more than"));
        assert!(fill(&"x".repeat(20_000)).is_err());
    }

    #[test]
    fn labels_of_resources() {
        let label = |source: &str| Text::parse("t", source).unwrap().label("cheese.io", "brand");
        assert_eq!(label("kube_<<.Group>>_<<.Resource>>").as_deref(), Ok("kube_cheese_io_brand"));
        assert_eq!(label("<<.Resource>>").as_deref(), Ok("brand"));
        assert!(label("<<.Series>>").is_err());
    }

    proptest! {
        /// What stands between the fields comes through as it is, and each field in its place.
        #[test]
        fn a_template_is_its_text_with_the_fields_in_place(parts in prop::collection::vec(("[^<>\\-]{0,12}", 0usize..3), 0..8)) {
            let a = arguments();
            let fields = [("<<.Series>>", a.series.clone()), ("<<.LabelMatchers>>", a.matchers.clone()), ("<<.GroupBy>>", a.group_by.join(","))];
            let source: String = parts.iter().map(|(text, field)| format!("{text}{}", fields[*field].0)).collect();
            let expected: String = parts.iter().map(|(text, field)| format!("{text}{}", fields[*field].1)).collect();
            let filled = fill(&source);
            if expected.trim().is_empty() {
                prop_assert!(filled.is_err());
            } else {
                prop_assert_eq!(filled, Ok(expected));
            }
        }

        #[test]
        fn nothing_panics(source in "(<<|>>|[ -~]|\\.Series|range|index|if|end|else|\\(|\\||:=|\\$x){0,40}") {
            let _ = fill(&source);
        }
    }
}
