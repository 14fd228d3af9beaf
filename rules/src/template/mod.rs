//! Texts with holes: Go's template language with Prometheus' functions.
//!
//! This is the only module that knows which crate runs the language.

mod adapt;
mod functions;
mod humanize;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gotmpl::{FuncMap, MissingKey, Template, Value};
use model::{Labels, Timestamp};

pub(crate) use functions::table_link;

/// Loops may turn this often in one text.
const LOOPS_MAX: u64 = 100_000;

/// At most this many `{{else}}` in one text: a chain of them is nested as deep as it is long.
const ELSE_MAX: usize = 200;

/// Prometheus' names for the parts of the data.
const VARIABLES: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                         {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// One series that the `query` function found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

/// Evaluates an expression for the `query` function.
pub(crate) type Lookup = Arc<dyn Fn(&str) -> Result<Vec<Found>, String> + Send + Sync>;

/// The same for all texts of one evaluation of a rule.
pub(crate) struct Setting<'a> {
    /// The rule's name in messages, see [`name`].
    pub(crate) name: String,
    pub(crate) external_labels: &'a Labels,
    pub(crate) external_url: &'a str,
    pub(crate) ts: Timestamp,
    pub(crate) lookup: Lookup,
}

/// Fills the holes of a rule's texts; each text is read once, however many results there are.
pub(crate) struct Expander<'a> {
    setting: Setting<'a>,
    templates: HashMap<&'a str, Result<Template, String>>,
}

/// The name of an alert's texts in messages.
pub(crate) fn name(alert: &str) -> String {
    format!("__alert_{alert}")
}

/// Whether a text can be read.
pub(crate) fn check(name: &str, text: &str) -> Result<(), String> {
    let nothing: Lookup = Arc::new(|_| Ok(Vec::new()));
    prepare(name, text, functions::all(0, "", nothing)).map(drop)
}

impl<'a> Expander<'a> {
    pub(crate) fn new(setting: Setting<'a>) -> Self {
        Self { setting, templates: HashMap::new() }
    }

    /// Fills the holes of `text`. A failure becomes the text, so that an alert is never lost for a mistake
    /// in its words.
    pub(crate) fn expand(&mut self, text: &'a str, labels: &Labels, value: f64) -> String {
        if !text.contains("{{") {
            return text.to_owned();
        }
        let filled = self.fill(text, labels, value);
        filled.unwrap_or_else(|error| format!("<error expanding template: {error}>"))
    }

    fn fill(&mut self, text: &'a str, labels: &Labels, value: f64) -> Result<String, String> {
        let Setting { name, external_labels, external_url, ts, lookup } = &self.setting;
        let template = self.templates.entry(text).or_insert_with(|| {
            prepare(name, text, functions::all(*ts, external_url, Arc::clone(lookup)))
                .map_err(|error| format!("error parsing template {name}: {error}"))
        });
        let template = template.as_ref().map_err(Clone::clone)?;
        let root = Value::from(BTreeMap::from([
            ("Labels".to_owned(), map(labels)),
            ("ExternalLabels".to_owned(), map(external_labels)),
            ("ExternalURL".to_owned(), Value::from(*external_url)),
            ("Value".to_owned(), Value::Float(value)),
        ]));
        let text = template
            .execute_template_to_string(name, &root)
            .map_err(|error| format!("error executing template {name}: {error}"))?;
        // A label that is not there is an empty text in Go, whose maps know what they hold.
        Ok(text.replace("<no value>", ""))
    }
}

fn prepare(name: &str, text: &str, functions: FuncMap) -> Result<Template, String> {
    let actions =
        text.split("{{").skip(1).map(|action| action.trim_start_matches(['-', ' ', '\t', '\n', '\r']));
    if actions.filter(|action| action.starts_with("else")).count() > ELSE_MAX {
        return Err(format!("template: {name}: more than {ELSE_MAX} {{{{else}}}}"));
    }
    let names = functions.clone();
    let template = Template::new(name)
        .missing_key(MissingKey::ZeroValue)
        .max_range_iters(LOOPS_MAX)
        .funcs(functions)
        .parse(&format!("{VARIABLES}{text}{}", adapt::END))
        .map_err(|error| error.to_string())?;
    adapt::adapt(template, name, &names).map_err(|what| format!("template: {name}: {what}"))
}

/// Labels as a template sees them.
fn map(labels: &Labels) -> Value {
    let pairs = labels.iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
    Value::from(pairs.collect::<BTreeMap<String, Value>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, value: f64) -> String {
        let labels = Labels::from_pairs([("instance", "db.example.com:9090"), ("job", "node")]);
        let external_labels = Labels::from_pairs([("cluster", "eu")]);
        let lookup: Lookup = Arc::new(|text| match text {
            "fail" => Err("no such thing".to_owned()),
            "none" => Ok(Vec::new()),
            _ => Ok([("b", 2.0), ("a", 1.0)]
                .map(|(name, value)| Found {
                    labels: Labels::from_pairs([("x", name), ("__value__", "text")]),
                    value,
                })
                .to_vec()),
        });
        let mut expander = Expander::new(Setting {
            name: name("a"),
            external_labels: &external_labels,
            external_url: "http://p.example.com:80/prom",
            ts: 1_435_065_584_128,
            lookup,
        });
        // The second result of a rule uses what was read for the first.
        let _ = expander.expand(text, &Labels::empty(), 0.0);
        expander.expand(text, &labels, value)
    }

    #[test]
    fn texts_as_in_prometheus() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("{{ $labels.job }} {{ .Labels.job }} {{ $value }} {{ .Value }}", "node node 1.5 1.5"),
            ("[{{ $labels.missing }}]", "[]"),
            ("{{ $externalLabels.cluster }} {{ $externalURL }}", "eu http://p.example.com:80/prom"),
            ("{{ externalURL }} {{ pathPrefix }}", "http://p.example.com:80/prom /prom"),
            ("{{ query \"q\" | first | value }}", "2"),
            ("{{ query \"q\" | sortByLabel \"x\" | first | label \"x\" }}", "a"),
            ("{{ query \"q\" | first | strvalue }}", "text"),
            ("{{ range query \"q\" }}{{ .Labels.x }}={{ .Value }};{{ end }}", "b=2;a=1;"),
            ("{{ with query \"none\" }}x{{ else }}y{{ end }}", "y"),
            ("{{ \"a b\" | title }} {{ \"a\" | toUpper }} {{ toLower \"A\" }}", "A B A a"),
            ("{{ stripPort $labels.instance }} {{ stripDomain $labels.instance }}", "db.example.com db:9090"),
            ("{{ stripPort \"[::1]:80\" }} {{ stripDomain \"10.0.0.1:80\" }}", "::1 10.0.0.1:80"),
            ("{{ match \"^n.de\" $labels.job }} {{ reReplaceAll \"(o)d\" \"<$1>\" \"node\" }}", "true n<o>e"),
            ("{{ graphLink \"up == 1\" }}", "/graph?g0.expr=up+%3D%3D+1&g0.tab=0"),
            ("{{ tableLink \"up\" }}", "/graph?g0.expr=up&g0.tab=1"),
            ("{{ parseDuration \"1h30m\" }} {{ urlQueryEscape \"a b&c\" }}", "5400 a+b%26c"),
            ("{{ safeHtml \"<b>\" }} {{ with args 1 \"b\" }}{{ .arg1 }}{{ end }}", "<b> b"),
            ("{{ printf \"%.2f\" $value }}", "1.50"),
            ("{{ now }} {{ print 1e8 }} {{ print 1 2 \"a\" \"b\" 3 }}", "1.435065584128e+09 1e+08 1 2ab3"),
            ("{{ printf \"%v|%.1e\" 1e7 1e7 }} {{ 1e7 | printf \"%d %v\" 1 }}", "1e+07|1.0e+07 1 1e+07"),
            ("{{ define \"T\" }}[{{ . }}]{{ end }}{{ template \"T\" 1e6 }}", "[1e+06]"),
            (
                "{{ if eq $labels.no \"\" }}y{{ end }}{{ if .Labels.no }}n{{ end }}|{{ printf \"%s|%q\" $labels.no .Labels.no }}",
                "y||\"\"",
            ),
            ("{{ range query \"q\" }}{{ printf \"%s%s;\" .Labels.x .Labels.no }}{{ end }}", "b;a;"),
            ("{{ (query \"q\" | first).Labels.x }}{{ len (query \"q\" | first).Labels.no }}", "b0"),
            ("{{ $labels }}", "map[instance:db.example.com:9090 job:node]"),
            ("{{- \" trim \" -}} x {{/* c */}} y", " trim x  y"),
            ("{{ if gt $value 1.0 }}high{{ else }}low{{ end }}", "high"),
            ("{{ toDuration 5400 }} {{ humanizeTimestamp 0 }}", "1h30m0s 1970-01-01 00:00:00 +0000 UTC"),
            ("{{ toTime 1435065584.128 }}", "2015-06-23 13:19:44.128 +0000 UTC"),
            ("{{ humanize \"1234567\" }} {{ $value | humanizePercentage }}", "1.235M 150%"),
        ] {
            assert_eq!(run(text, 1.5), wanted, "{text}");
        }
    }

    /// What promtool prints of the same texts as annotations.
    #[test]
    fn texts_compared_with_promtool() {
        for (text, wanted) in [
            (r#"{{ $value }}"#, "1.234567e+06"),
            (r#"{{ print $value }} {{ printf "%v" $value }}"#, "1.234567e+06 1.234567e+06"),
            (
                r#"{{ if eq $value 1234567.0 }}y{{end}} {{ $value | printf "%.3g" }} {{ printf "%8.2f|%-8s|%q|%t|%x" $value "ab" "q" true 255 }}"#,
                r#"y 1.23e+06 1234567.00|ab      |"q"|true|ff"#,
            ),
            (
                r#"{{ $labels.nope }} {{ .Labels.job }} {{ len $labels }} {{ index $labels "nope" }}|"#,
                " node 2 |",
            ),
            (
                r#"{{ humanize 0.000000000000000000000000001 }} {{ humanize1024 1e30 }} {{ humanizeDuration 1e9 }} {{ humanizePercentage 0.12345 }}"#,
                "0.001y 8.272e+05Yi 11574d 1h 46m 40s 12.35%",
            ),
            (r#"{{ range $i, $e := query "x" }}{{ $i }}={{ $e.Value }} {{ end }}"#, "0=2 1=1 "),
            (
                r#"{{ title "hello wOrld foo-bar it's" }} {{ "a" | toUpper | printf "%s!" }}"#,
                "Hello WOrld Foo-Bar It'S A!",
            ),
            (
                r#"{{ with $x := 5 }}{{ $x }}{{ else }}no{{ end }} {{ and true "x" }} {{ or 0 "y" }} {{ not 0 }} {{ html "<a>" }} {{ urlquery "a b" }} {{ js "a'b" }}"#,
                r#"5 x y true &lt;a&gt; a+b a\'b"#,
            ),
            (r#"{{ define "T" }}[{{ . }}]{{ end }}{{ template "T" $value }}"#, "[1.234567e+06]"),
            (
                r#"{{ stripPort "a:b:c" }} {{ stripDomain "a.b.c:80" }} {{ stripDomain "[::1]:80" }} {{ stripPort "h" }}"#,
                "a:b:c a:80 [::1]:80 h",
            ),
            (
                r#"{{ printf "%.2f%%" 12.345 }} {{ printf "%v %v %v" 1 "a" true }} {{ print 1 2 "a" "b" 3 }} {{ println "z" }}"#,
                "12.35% 1 a true 1 2ab3 z\n",
            ),
            (
                r#"{{ slice "abcdef" 1 3 }} {{ 1.0 }} {{ 1e3 }} {{ 100000000.0 }} {{ 0.00001 }} {{ 3 }} {{ true }}"#,
                "bc 1 1000 1e+08 1e-05 3 true",
            ),
        ] {
            assert_eq!(run(text, 1_234_567.0), wanted, "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_or_text_but_no_crash() {
        for depth in [50, 95, 195, 1_000, 20_000] {
            for (open, close) in [("{{ if true }}", "{{ end }}"), ("{{ with 1 }}", "{{ else }}{{ end }}")] {
                let text = format!("{}{}", open.repeat(depth), close.repeat(depth));
                let _ = run(&text, 1.0);
            }
            let _ = run(&format!("{{{{ {}1{} }}}}", "(".repeat(depth), ")".repeat(depth)), 1.0);
            let _ =
                run(&format!("{{{{ if true }}}}{}{{{{ end }}}}", "{{ else if true }}".repeat(depth)), 1.0);
        }
    }

    #[test]
    fn a_failure_becomes_the_text() {
        for text in ["{{ $labels.job", "{{ query \"fail\" }}", "{{ query \"none\" | first }}", "{{ nope }}"] {
            let text = run(text, 1.0);
            assert!(text.starts_with("<error expanding template: "), "{text}");
        }
        assert!(check("a", "{{ $labels.job | toUpper }} {{ query \"up\" | first | value }}").is_ok());
        for text in
            ["{{ if }}", "{{ end }}", "{{ nope 1 }}", "{{ if true }}{{ range (nope) }}{{ end }}{{ end }}"]
        {
            assert!(check("a", text).is_err(), "{text}");
        }
    }
}
