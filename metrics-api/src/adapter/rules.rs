//! What a rules file says: which series become which metrics of which objects.

use k8s::ResourceKind;
use model::{Matcher, is_legacy_label_name, is_legacy_metric_name};

use super::template::{QueryArguments, Text};
use crate::selector::{LabelSelector, Requirement, SelectorError, Test};

/// The rules of a file.
#[derive(Clone, Debug, Default)]
pub struct AdapterRules {
    /// Metrics of objects.
    pub custom: Vec<Rule>,
    /// Metrics of nothing in the cluster.
    pub external: Vec<Rule>,
    /// CPU and memory of containers and nodes.
    pub resource: Option<ResourceRules>,
}

/// How some series become metrics.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where it stands in the file: `rules[0]`.
    pub path: String,
    /// Its line in the file.
    pub line: u64,
    /// The selector of its series, as written.
    pub series_query: String,
    /// The conditions of that selector.
    pub matchers: Vec<Matcher>,
    pub(crate) filters: Vec<NameFilter>,
    pub(crate) naming: Naming,
    pub(crate) labelling: Labelling,
    /// Of an external metric: whether it belongs to a namespace.
    pub(crate) namespaced: bool,
    pub(crate) query: Text,
    /// Texts to replace in label values that a template asks for by name.
    pub(crate) replacements: Vec<(String, String)>,
}

/// A condition on names of series.
#[derive(Clone, Debug)]
pub(crate) struct NameFilter {
    pub(crate) regex: regex::Regex,
    pub(crate) positive: bool,
}

/// How a series' name becomes a metric's name.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    pub(crate) regex: regex::Regex,
    /// With `$1` for groups.
    pub(crate) text: String,
}

/// Which labels name which objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labelling {
    pub(crate) template: Option<Text>,
    /// Label, group, resource.
    pub(crate) overrides: Vec<(String, String, String)>,
}

/// Where CPU and memory come from for objects that no kubelet told us of.
#[derive(Clone, Debug)]
pub struct ResourceRules {
    pub(crate) cpu: ResourceRule,
    pub(crate) memory: ResourceRule,
    /// What answers say of the time that a value covers.
    pub(crate) window_ms: i64,
}

/// Where one resource's usage comes from.
#[derive(Clone, Debug)]
pub(crate) struct ResourceRule {
    pub(crate) container_query: Text,
    pub(crate) node_query: Text,
    pub(crate) labelling: Labelling,
    pub(crate) container_label: String,
}

impl Rule {
    /// The metric that a series of this name becomes, if the rule wants it.
    #[must_use]
    pub fn metric_name(&self, series: &str) -> Option<String> {
        if self.filters.iter().any(|filter| filter.regex.is_match(series) != filter.positive) {
            return None;
        }
        let captures = self.naming.regex.captures(series)?;
        let mut name = String::new();
        captures.expand(&self.naming.text, &mut name);
        Some(name).filter(|name| !name.is_empty())
    }
}

/// Kinds of objects, to be found by the names that rules and requests give them.
#[derive(Clone, Debug)]
pub(crate) struct Kinds(pub(crate) Vec<ResourceKind>);

impl Kinds {
    /// The kind of a resource given as one or many, with its group or without. Core comes first, and then the order
    /// of groups.
    pub(crate) fn find(&self, group: &str, name: &str) -> Option<&ResourceKind> {
        let name = name.to_lowercase();
        let fits = |kind: &&ResourceKind| {
            (group.is_empty() || kind.group == group) && (kind.resource == name || kind.singular == name)
        };
        self.0.iter().filter(fits).min_by_key(|kind| &kind.group)
    }

    /// As [`Kinds::find`], with a guess for what is not known.
    pub(crate) fn find_or_guess(&self, group: &str, name: &str) -> ResourceKind {
        if let Some(kind) = self.find(group, name) {
            return kind.clone();
        }
        let singular = name.strip_suffix('s').unwrap_or(name).to_lowercase();
        let mut letters = singular.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        ResourceKind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: format!("{singular}s"),
            kind: first.into_iter().chain(letters).collect(),
            singular,
            namespaced: true,
        }
    }
}

impl Labelling {
    /// Which labels name which kinds of objects; what the file gives by name comes first.
    pub(crate) fn resolve(&self, kinds: &Kinds) -> Vec<(String, ResourceKind)> {
        let mut out: Vec<(String, ResourceKind)> = Vec::new();
        for (label, group, resource) in &self.overrides {
            out.push((label.clone(), kinds.find_or_guess(group, resource)));
        }
        for kind in self.template.iter().flat_map(|_| &kinds.0) {
            let label = self.template.as_ref().and_then(|text| text.label(&kind.group, &kind.singular).ok());
            let Some(label) = label else { continue };
            if out.iter().all(|(other, of)| *other != label && of != kind) {
                out.push((label, kind.clone()));
            }
        }
        out
    }
}

/// Whose values are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// The label that names the object, and the objects' names.
    pub(crate) object: Option<(&'a str, &'a [String])>,
    /// The label that names the namespace, and the namespace.
    pub(crate) namespace: Option<(&'a str, &'a str)>,
    /// Labels to group by besides the object's.
    pub(crate) group_by: &'a [String],
}

/// The query that `text` makes for a series and its subject.
pub(crate) fn query(
    text: &Text,
    series: &str,
    subject: Subject<'_>,
    selector: &LabelSelector,
    replacements: &[(String, String)],
) -> Result<String, QueryRefused> {
    let mut arguments = QueryArguments { series: series.to_owned(), ..QueryArguments::default() };
    let mut matchers = Vec::new();
    for requirement in selector.requirements() {
        matchers.push(condition(requirement)?);
        arguments.values.insert(requirement.key.clone(), requirement.values().join("|"));
    }
    if let Some((label, namespace)) = subject.namespace {
        matchers.push(equal(label, namespace));
        arguments.values.insert(label.to_owned(), namespace.to_owned());
    }
    if let Some((label, names)) = subject.object {
        matchers.push(one_of(label, names, true));
        arguments.values.insert(label.to_owned(), names.join("|"));
        arguments.group_by.push(label.to_owned());
    }
    arguments.group_by.extend(subject.group_by.iter().cloned());
    for value in arguments.values.values_mut() {
        for (find, replace) in replacements.iter().filter(|(find, _)| !find.is_empty()) {
            *value = value.replace(find, replace);
        }
    }
    // A name beyond the classic grammar stands in quotes, and not before braces.
    if !is_legacy_metric_name(series) && !series.is_empty() {
        return Err(QueryRefused::Template(format!("{series:?} cannot stand before braces")));
    }
    arguments.matchers = matchers.join(",");
    text.query(&arguments).map_err(QueryRefused::Template)
}

/// Why there is no query.
#[derive(Debug)]
pub(crate) enum QueryRefused {
    /// The request's selector cannot be said in PromQL.
    Selector(SelectorError),
    /// The rule's template fails.
    Template(String),
}

fn name(label: &str) -> String {
    if is_legacy_label_name(label) { label.to_owned() } else { model::Quoted(label).to_string() }
}

fn equal(label: &str, value: &str) -> String {
    format!("{}={}", name(label), model::Quoted(value))
}

/// The label has one of `values`, or none of them. Values are meant literally.
fn one_of(label: &str, values: &[String], is: bool) -> String {
    match values {
        [value] => format!("{}{}{}", name(label), if is { "=" } else { "!=" }, model::Quoted(value)),
        values => {
            let escaped: Vec<String> = values.iter().map(|value| regex::escape(value)).collect();
            let pattern = escaped.join("|");
            // What is escaped beyond Go's need would be refused by it.
            let pattern = pattern.replace("\\-", "-");
            format!("{}{}{}", name(label), if is { "=~" } else { "!~" }, model::Quoted(&pattern))
        }
    }
}

fn condition(requirement: &Requirement) -> Result<String, QueryRefused> {
    let key = &requirement.key;
    Ok(match &requirement.test {
        Test::Exists => format!("{}!=\"\"", name(key)),
        Test::Absent => format!("{}=\"\"", name(key)),
        Test::In(values) => one_of(key, values, true),
        Test::NotIn(values) => one_of(key, values, false),
        Test::Above(_) | Test::Below(_) => {
            let what = format!("{key}: metrics cannot be selected with > and <");
            return Err(QueryRefused::Selector(SelectorError(what)));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::parse;

    fn ask(selector: &str, names: &[&str]) -> String {
        let text = Text::parse("q", "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)").unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let subject = Subject {
            object: Some(("pod", &names)),
            namespace: Some(("kube_namespace", "ns")),
            group_by: &[],
        };
        query(&text, "x", subject, &LabelSelector::parse(selector).unwrap(), &[]).unwrap()
    }

    #[test]
    fn conditions_mean_what_the_selector_means() {
        assert_eq!(ask("", &["a"]), r#"sum(x{kube_namespace="ns",pod="a"}) by (pod)"#);
        for (selector, expected) in [
            ("verb=GET", r#"verb="GET""#),
            ("verb!=GET", r#"verb!="GET""#),
            ("verb in (GET,POST)", r#"verb=~"GET|POST""#),
            ("verb notin (GET,POST)", r#"verb!~"GET|POST""#),
            ("verb", r#"verb!="""#),
            ("!verb", r#"verb="""#),
            ("v in (1.0,2-x)", r#"v=~"1\\.0|2-x""#),
            ("k8s.io/x=1", r#""k8s.io/x"="1""#),
        ] {
            let query = ask(selector, &["a.1", "b"]);
            let expected = format!(r#"sum(x{{{expected},kube_namespace="ns",pod=~"a\\.1|b"}}) by (pod)"#);
            assert_eq!(query, expected);
            promql::parse(&query, &promql::ParseOptions::default()).unwrap();
        }
    }

    #[test]
    fn names_and_labels_as_the_adapter_makes_them() {
        let text = r#"
rules:
- seriesQuery: '{__name__=~"^container_.*",container!="POD",namespace!="",pod!=""}'
  seriesFilters:
  - isNot: ^container_.*_seconds_total$
  resources:
    template: kube_<<.Group>>_<<.Resource>>
    overrides:
      namespace: {resource: namespace}
      pod: {resource: pods}
      deploy: {group: apps, resource: deployment}
      brand: {group: cheese.io, resource: brand}
  name: {matches: "^container_(.*)_total$"}
  metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>,container!="POD"}[2m])) by (<<.GroupBy>>)'
- seriesQuery: cheddar{sharp="true"}
  name: {as: cheesy_goodness}
  metricsQuery: count(cheddar)
- seriesQuery: x
  name: {matches: "^(.*)_(.*)$", as: "${2}_of_$1"}
  metricsQuery: <<.Series>>
"#;
        let rules = parse(text).unwrap();
        let rule = &rules.custom[0];
        assert_eq!(rule.metric_name("container_x_total").as_deref(), Some("x"));
        assert_eq!(rule.metric_name("container_x_seconds_total"), None);
        assert_eq!(rule.metric_name("container_x"), None);
        assert_eq!(rules.custom[1].metric_name("cheddar").as_deref(), Some("cheesy_goodness"));
        assert_eq!(rules.custom[2].metric_name("a_b").as_deref(), Some("b_of_a"));
        let labels = rule.labelling.resolve(&Kinds(ResourceKind::usual()));
        let of =
            |name: &str| labels.iter().find(|(label, _)| label == name).map(|(_, kind)| kind.qualified());
        assert_eq!(of("namespace").as_deref(), Some("namespaces"));
        assert_eq!(of("deploy").as_deref(), Some("deployments.apps"));
        assert_eq!(of("brand").as_deref(), Some("brands.cheese.io"));
        assert_eq!(of("kube_batch_job").as_deref(), Some("jobs.batch"));
        assert_eq!(of("kube__pod"), None, "a label given by name stands for the template's");
        assert_eq!(of("kube_networking_k8s_io_ingress").as_deref(), Some("ingresses.networking.k8s.io"));
    }

    proptest::proptest! {
        /// Pieces of rules in any order: taken, and then naming metrics, or refused with a message.
        #[test]
        fn any_text_is_taken_or_refused(pieces in proptest::collection::vec(0usize..16, 0..24)) {
            const PIECES: [&str; 16] = [
                "rules:\n", "externalRules:\n", "resourceRules:\n", "- seriesQuery: x\n", "  metricsQuery: <<.Series>>\n",
                "  metricsQuery: '<<index .LabelValuesByName \"a\">>'\n", "  name: {matches: '(.*)_(.*)'}\n", "  name: {as: '$1'}\n",
                "  resources: {template: <<.Resource>>}\n", "  seriesFilters: [{is: '^a'}, {isNot: b}]\n", "  window: 5m\n", "- {}\n",
                "  cpu: {containerLabel: c}\n", "&a\n", "*a\n", "\t'\n",
            ];
            let text: String = pieces.iter().map(|at| PIECES[*at]).collect();
            match parse(&text) {
                Ok(rules) => {
                    for rule in rules.custom.iter().chain(&rules.external) {
                        proptest::prop_assert!(rule.metric_name("a_b").is_none_or(|name| !name.is_empty()));
                    }
                }
                Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn mistakes_name_line_and_key() {
        for (text, expected) in [
            ("", "the file is empty"),
            ("rules:\n- metricsQuery: x\n", "2:3: rules[0].seriesQuery: is missing"),
            ("rules:\n- seriesQuery: x\n", "2:3: rules[0].metricsQuery: is missing"),
            ("rules:\n- seriesQuery: x{\n  metricsQuery: x\n", "2:16: rules[0].seriesQuery: 1:"),
            (
                "rules:\n- seriesQuery: x\n  metricsQuery: sum(<<.Series>>\n",
                "3:17: rules[0].metricsQuery: it would ask \"sum(series\": 1:",
            ),
            (
                "rules:\n- seriesQuery: x\n  metricsQuery: <<.Serie>>\n",
                "3:17: rules[0].metricsQuery: there is no .Serie",
            ),
            ("rules:\n- seriesQuery: x\n  metricsQuery: <<.Series\n", "3:17: rules[0].metricsQuery: "),
            ("rules:\n- seriesQuery: x\n  metricQuery: x\n", "metricQuery"),
            (
                "rules:\n- seriesQuery: x\n  metricsQuery: x\n  name: {matches: '(a)(b)'}\n",
                "rules[0].name.as: is missing",
            ),
            (
                "rules:\n- seriesQuery: x\n  metricsQuery: x\n  name: {matches: '(a'}\n",
                "rules[0].name.matches: ",
            ),
            (
                "rules:\n- seriesQuery: x\n  metricsQuery: x\n  seriesFilters: [{}]\n",
                "rules[0].seriesFilters[0]: needs",
            ),
            (
                "rules:\n- seriesQuery: x\n  metricsQuery: x\n  resources: {template: pod}\n",
                "rules[0].resources.template: gives the same",
            ),
            (
                "rules:\n- seriesQuery: x\n  metricsQuery: x\n  resources: {overrides: {pod: {}}}\n",
                "rules[0].resources.overrides.pod: resource is missing",
            ),
            ("externalRules:\n- seriesQuery: x\n", "externalRules[0].metricsQuery"),
            ("resourceRules:\n  window: 5m\n", "resourceRules.cpu: is missing"),
            ("resourceRules:\n  window: soon\n", "resourceRules.window"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
