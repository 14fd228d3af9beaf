//! `/api/v1/openapi.yaml`: what this server answers, for those who generate clients from it.
//!
//! The document is written from [`OPERATIONS`] at each request (about 40 KB, a fraction of a millisecond). A test holds
//! that this table and the routes name the same paths; the shapes of answers are in `openapi_schemas.yaml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::State;
use crate::params::Params;
use crate::status::COMPATIBLE_VERSION;

/// The shapes of answers.
const COMPONENTS: &str = include_str!("openapi_schemas.yaml");

/// One path.
struct Operation {
    methods: &'static [&'static str],
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    /// Names in [`PARAMETERS`]; with `!` at its end one that must be there.
    parameters: &'static str,
    answer: Answer,
}

/// What an operation gives if all is well.
enum Answer {
    /// The envelope with data of this shape.
    Data(&'static str),
    /// 204.
    Nothing,
    /// A body of this media type, and the status.
    Other(&'static str),
}

/// Takes a body of its own instead of a form.
const BODIES: [(&str, &str); 3] = [
    ("/read", "application/x-protobuf"),
    ("/write", "application/x-protobuf"),
    ("/otlp/v1/metrics", "application/x-protobuf"),
];

const GET: &[&str] = &["get"];
const BOTH: &[&str] = &["get", "post"];
const POST: &[&str] = &["post"];
const CHANGE: &[&str] = &["post", "put"];

macro_rules! operations {
    ($($methods:ident $path:literal $tag:literal $parameters:literal $answer:expr, $summary:literal;)*) => {
        &[$(Operation {
            methods: $methods, path: $path, tag: $tag, parameters: $parameters, answer: $answer, summary: $summary,
        },)*]
    };
}

use Answer::{Data, Nothing, Other};

const OPERATIONS: &[Operation] = operations! {
    BOTH "/query" "query" "query! time timeout limit lookback_delta stats partial_response" Data("QueryData"),
        "Evaluates an expression at one time";
    BOTH "/query_range" "query" "query! start! end! step! timeout limit lookback_delta stats partial_response"
        Data("QueryData"), "Evaluates an expression at each step of a range of time";
    BOTH "/query_exemplars" "query" "query! start! end!" Data("Exemplars"),
        "Exemplars of the series that an expression selects";
    BOTH "/format_query" "query" "query!" Data("Text"), "An expression in its canonical layout";
    BOTH "/parse_query" "query" "query!" Data("Anything"), "The syntax tree of an expression";
    BOTH "/labels" "labels" "start end match[] limit" Data("Texts"), "Names of labels";
    GET "/label/{name}/values" "labels" "start end match[] limit" Data("Texts"), "Values of a label";
    BOTH "/search/metric_names" "labels"
        "search[] match[] start end limit batch_size fuzz_threshold fuzz_alg case_sensitive sort_by sort_dir include_score include_metadata"
        Other("application/x-ndjson"), "Names of metrics that are like some text, in batches";
    BOTH "/search/label_names" "labels"
        "search[] match[] start end limit batch_size fuzz_threshold fuzz_alg case_sensitive sort_by sort_dir include_score"
        Other("application/x-ndjson"), "Names of labels that are like some text, in batches";
    BOTH "/search/label_values" "labels"
        "label! search[] match[] start end limit batch_size fuzz_threshold fuzz_alg case_sensitive sort_by sort_dir include_score"
        Other("application/x-ndjson"), "Values of a label that are like some text, in batches";
    BOTH "/series" "series" "match[]! start end limit" Data("LabelSets"), "Label sets of series";
    GET "/metadata" "metadata" "metric limit limit_per_metric" Data("Metadata"),
        "Type, help and unit of metrics, as scraped pages say";
    GET "/targets" "targets" "state scrapePool" Data("Targets"), "What is scraped, and how that goes";
    GET "/targets/metadata" "targets" "match_target metric limit" Data("TargetMetadata"),
        "Type, help and unit of the metrics of each target";
    GET "/targets/relabel_steps" "targets" "scrapePool! labels!" Data("Anything"),
        "What each relabelling rule of a scrape pool makes of a target's labels";
    GET "/scrape_pools" "targets" "" Data("ScrapePools"), "Names of the scrape pools";
    GET "/scrape_pools/config" "targets" "scrapePool!" Data("Yaml"),
        "The configuration of a scrape pool, without secrets";
    GET "/rules" "rules"
        "type rule_name[] rule_group[] file[] match[] exclude_alerts group_limit group_next_token" Data("Rules"),
        "Groups of recording and alerting rules, and how their evaluation goes";
    GET "/alerts" "alerts" "" Data("Alerts"), "Pending and firing alerts";
    GET "/alertmanagers" "alerts" "" Data("Alertmanagers"), "The Alertmanagers that are told of alerts";
    GET "/status/buildinfo" "status" "" Data("TextMap"), "The version";
    GET "/status/runtimeinfo" "status" "" Data("RuntimeInfo"), "The process and its configuration";
    GET "/status/config" "status" "" Data("Yaml"), "The configuration file in force, without secrets";
    GET "/status/flags" "status" "" Data("TextMap"), "Flags of the command line with their values";
    GET "/status/self_metrics" "status" "metric_name_pattern" Data("Anything"), "This server's own metrics, as JSON";
    GET "/status/tsdb" "status" "limit" Data("TsdbStatus"), "What is most numerous in the head of the store";
    GET "/status/tsdb/blocks" "status" "" Data("Blocks"), "The blocks of the store";
    GET "/status/walreplay" "status" "" Data("WalReplay"), "How far the replay of the log is";
    GET "/features" "features" "" Data("Anything"), "What this server can do and what is switched on";
    GET "/notifications" "notifications" "" Data("Notifications"), "What an operator should know of now";
    GET "/notifications/live" "notifications" "" Other("text/event-stream"), "The same as events, as it changes";
    CHANGE "/admin/tsdb/delete_series" "admin" "match[]! start end" Nothing,
        "Deletes samples of series in a range of time";
    CHANGE "/admin/tsdb/clean_tombstones" "admin" "" Nothing, "Frees the space of what has been deleted";
    CHANGE "/admin/tsdb/snapshot" "admin" "skip_head" Data("Snapshot"),
        "Makes a copy of all samples below the data directory";
    POST "/read" "remote" "" Other("application/x-protobuf"), "Remote read: samples or streamed chunks of series";
    POST "/write" "remote" "" Nothing, "Remote write: takes samples";
    POST "/otlp/v1/metrics" "otlp" "" Other("application/x-protobuf"), "Takes metrics of OpenTelemetry";
    GET "/openapi.yaml" "status" "openapi_version" Other("application/yaml"), "This document";
};

/// Name, shape, and what it means.
const PARAMETERS: &[(&str, &str, &str)] = &[
    ("query", TEXT, "An expression of PromQL"),
    ("time", TIME, "When; now by default"),
    ("start", TIME, "The first moment"),
    ("end", TIME, "The last moment"),
    ("step", DURATION, "From one point to the next"),
    ("timeout", DURATION, "How long an evaluation may take, if that is less than the server allows"),
    ("lookback_delta", DURATION, "For how long a sample counts as the newest"),
    ("stats", TEXT, "Whether statistics of the evaluation are told; with `all`, those of each step"),
    (
        "partial_response",
        FLAG,
        "For a server over shards: whether an answer that lacks some may be given, with a warning",
    ),
    ("limit", COUNT, "Most results; 0 for all"),
    ("limit_per_metric", COUNT, "Most results of a metric; 0 for all"),
    ("match[]", TEXTS, "Selectors of series; any of them must match"),
    ("match_target", TEXT, "A selector of targets by their labels"),
    ("metric", TEXT, "The name of a metric"),
    ("label", TEXT, "The name of a label"),
    ("labels", TEXT, "Labels as a JSON object"),
    ("state", "{type: string, enum: [active, dropped, any]}", "Which targets"),
    ("scrapePool", TEXT, "The name of a scrape pool"),
    ("type", "{type: string, enum: [alert, record]}", "Which rules"),
    ("rule_name[]", TEXTS, "Names of rules"),
    ("rule_group[]", TEXTS, "Names of groups"),
    ("file[]", TEXTS, "Rule files"),
    ("exclude_alerts", FLAG, "Whether alerts are left out"),
    ("group_limit", "{type: integer, minimum: 1}", "Most groups of an answer"),
    ("group_next_token", TEXT, "The `groupNextToken` of the answer before"),
    ("metric_name_pattern", TEXT, "A regular expression that the whole name must match"),
    ("skip_head", FLAG, "Whether samples that are in no block yet are left out"),
    ("search[]", TEXTS, "Texts to look for; any of them counts"),
    ("batch_size", COUNT, "Results of a batch"),
    (
        "fuzz_threshold",
        "{type: integer, minimum: 0, maximum: 100}",
        "How alike a result must be; 100 only if it holds the text",
    ),
    ("fuzz_alg", "{type: string, enum: [subsequence, jarowinkler]}", "How likeness is measured"),
    ("case_sensitive", FLAG, "Whether capital letters differ from small ones"),
    ("sort_by", "{type: string, enum: [alpha, score]}", "The order of results"),
    ("sort_dir", "{type: string, enum: [asc, dsc]}", "The direction of the order"),
    ("include_score", FLAG, "Whether each result says how alike it is"),
    ("include_metadata", FLAG, "Whether each result says type, help and unit"),
    ("openapi_version", "{type: string, enum: ['3.1', '3.2']}", "The version of OpenAPI"),
];

const TEXT: &str = "{type: string}";
const TEXTS: &str = "{type: array, items: {type: string}}";
const FLAG: &str = "{type: boolean}";
const COUNT: &str = "{type: integer, minimum: 0}";
const TIME: &str = "{$ref: '#/components/schemas/Time'}";
const DURATION: &str = "{$ref: '#/components/schemas/Duration'}";

pub(crate) async fn document(Shared(state): Shared<State>, params: Params) -> Response {
    let version = match params.get("openapi_version") {
        Some("3.2" | "3.2.0") => "3.2.0",
        _ => "3.1.0",
    };
    let headers = [
        (header::CONTENT_TYPE, "application/yaml; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    ];
    (headers, write(version, &state.options().external_url)).into_response()
}

/// A text in quotes, as YAML and JSON have it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn write(version: &str, external_url: &str) -> String {
    let mut out = format!(
        "openapi: {version}\ninfo:\n  title: Pyrometer\n  version: {COMPATIBLE_VERSION}\n  \
         description: The HTTP API of Prometheus {COMPATIBLE_VERSION} as Pyrometer serves it.\n\
         servers:\n- url: {}\npaths:\n",
        quoted(&format!("{external_url}/api/v1"))
    );
    for operation in OPERATIONS {
        // A `String` takes everything.
        let _ = writeln!(out, "  {}:", quoted(operation.path));
        for method in operation.methods {
            operation.write(&mut out, method);
        }
    }
    out.push_str(COMPONENTS);
    out
}

impl Operation {
    fn write(&self, out: &mut String, method: &str) {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let id: Vec<&str> = std::iter::once(method).chain(words).collect();
        let _ = writeln!(out, "    {method}:\n      operationId: {}", id.join("_"));
        let _ = writeln!(out, "      summary: {}\n      tags: [{}]", quoted(self.summary), self.tag);
        let by_form = method == "post" && self.methods.contains(&"get");
        let mut parameters = Vec::new();
        if self.path.contains("{name}") {
            parameters.push("{name: name, in: path, required: true, description: The label's name, schema: {type: string}}".to_owned());
        }
        let mut fields = BTreeMap::new();
        let mut required = Vec::new();
        for name in self.parameters.split(' ').filter(|name| !name.is_empty()) {
            let (name, is_required) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
            let Some((_, shape, what)) = PARAMETERS.iter().find(|(known, ..)| *known == name) else {
                continue;
            };
            if by_form {
                fields.insert(quoted(name), *shape);
                required.extend(is_required.then(|| quoted(name)));
                continue;
            }
            parameters.push(format!(
                "{{name: {}, in: query, required: {is_required}, description: {}, schema: {shape}}}",
                quoted(name),
                quoted(what)
            ));
        }
        if !parameters.is_empty() {
            out.push_str("      parameters:\n");
            parameters.iter().for_each(|parameter| out.push_str(&format!("      - {parameter}\n")));
        }
        if by_form {
            let fields: Vec<String> = fields.iter().map(|(name, shape)| format!("{name}: {shape}")).collect();
            let _ = writeln!(
                out,
                "      requestBody: {{required: true, content: {{application/x-www-form-urlencoded: {{schema: \
                 {{type: object, properties: {{{}}}, required: [{}]}}}}}}}}",
                fields.join(", "),
                required.join(", ")
            );
        } else if let Some((_, media)) = BODIES.iter().find(|(path, _)| *path == self.path) {
            let _ = writeln!(out, "      requestBody: {{required: true, content: {{{media}: {{}}}}}}");
        }
        out.push_str("      responses:\n");
        match self.answer {
            Answer::Data(shape) => {
                let _ = writeln!(
                    out,
                    "        '200': {{description: It is done, content: {{application/json: {{schema: {{allOf: [{{$ref: \
                     '#/components/schemas/Success'}}, {{properties: {{data: {{$ref: '#/components/schemas/{shape}'}}}}}}]}}}}}}}}"
                );
            }
            Answer::Nothing => out.push_str("        '204': {description: It is done}\n"),
            Answer::Other(media) => {
                let _ =
                    writeln!(out, "        '200': {{description: It is done, content: {{{media}: {{}}}}}}");
            }
        }
        out.push_str("        default: {$ref: '#/components/responses/Error'}\n");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_saphyr::from_str(&write("3.1.0", "http://here:9090/prefix")).unwrap()
    }

    #[test]
    fn the_document_and_the_routes_name_the_same_paths() {
        let document = document();
        let documented: BTreeSet<&str> =
            document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let routes = crate::routes();
        let served: BTreeSet<&str> = routes.iter().map(|(path, _)| *path).collect();
        assert_eq!(documented, served);
        assert_eq!(served.len(), routes.len(), "a path is served twice");
        assert_eq!(document["servers"][0]["url"], "http://here:9090/prefix/api/v1");
    }

    #[test]
    fn parameters_are_known_and_used() {
        let used: BTreeSet<&str> = OPERATIONS
            .iter()
            .flat_map(|operation| operation.parameters.split(' '))
            .map(|name| name.trim_end_matches('!'))
            .filter(|name| !name.is_empty())
            .collect();
        let known: BTreeSet<&str> = PARAMETERS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(used, known);
    }

    /// All references below a value.
    fn references(value: &Value, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value.as_str().filter(|_| key == "$ref") {
                        Some(target) => drop(out.insert(target.to_owned())),
                        None => references(value, out),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, out)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_nothing_is_left_over() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in &found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        for kind in ["schemas", "responses"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                assert!(found.contains(&format!("#/components/{kind}/{name}")), "{kind} {name}");
            }
        }
    }
}
