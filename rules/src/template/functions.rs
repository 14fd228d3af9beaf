//! Prometheus' functions for templates.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use gotmpl::{FuncMap, TemplateError, Value};
use model::Timestamp;
use regex::Regex;

use super::{Lookup, adapt, humanize, map};

/// A number as a text.
type Form = fn(f64) -> String;
type Answer = Result<Value, TemplateError>;

fn fail<T>(what: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError::Exec(what.into()))
}

/// All functions, for texts about the time `ts`.
pub(super) fn all(ts: Timestamp, external_url: &str, lookup: Lookup) -> FuncMap {
    let mut functions = FuncMap::new();
    series(&mut functions, lookup);
    texts(&mut functions);
    numbers(&mut functions);
    let url = external_url.to_owned();
    put(&mut functions, "externalURL", 0, move |_| Ok(Value::from(url.as_str())));
    let path = path_of(external_url).to_owned();
    put(&mut functions, "pathPrefix", 0, move |_| Ok(Value::from(path.as_str())));
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53")]
    let now = ts as f64 / 1_000.0;
    put(&mut functions, "now", 0, move |_| Ok(Value::Float(now)));
    put(&mut functions, adapt::LABEL, 2, |args| {
        Ok(args[0].field(text(&args[1])?).cloned().unwrap_or_else(|| Value::from("")))
    });
    put(&mut functions, adapt::SHOWN, 1, |args| Ok(adapt::show(&args[0])));
    functions.insert("print".into(), Arc::new(|args: &[Value]| Ok(Value::from(adapt::print(args)))));
    functions.insert("println".into(), Arc::new(|args: &[Value]| Ok(Value::from(adapt::println(args)))));
    functions.insert(
        "args".into(),
        Arc::new(|args: &[Value]| {
            let named = args.iter().enumerate().map(|(at, arg)| (format!("arg{at}"), arg.clone()));
            Ok(Value::from(named.collect::<BTreeMap<String, Value>>()))
        }),
    );
    functions
}

/// Adds a function of a fixed number of arguments.
fn put(
    functions: &mut FuncMap,
    name: &'static str,
    arity: usize,
    body: impl Fn(&[Value]) -> Answer + Send + Sync + 'static,
) {
    let checked = move |args: &[Value]| {
        if args.len() == arity {
            body(args)
        } else {
            fail(format!("wrong number of args for {name}: want {arity} got {}", args.len()))
        }
    };
    functions.insert(name.into(), Arc::new(checked));
}

fn series(functions: &mut FuncMap, lookup: Lookup) {
    put(functions, "query", 1, move |args| {
        let found = lookup(text(&args[0])?).map_err(TemplateError::Exec)?;
        let samples = found.into_iter().map(|sample| {
            let parts = [
                ("Labels".to_owned(), map(&sample.labels)),
                ("Value".to_owned(), Value::Float(sample.value)),
            ];
            Value::from(BTreeMap::from(parts))
        });
        Ok(Value::from(samples.collect::<Vec<_>>()))
    });
    put(functions, "first", 1, |args| match &args[0] {
        Value::List(list) if !list.is_empty() => Ok(list[0].clone()),
        _ => fail("first() called on vector with no elements"),
    });
    put(functions, "label", 2, |args| Ok(label(&args[1], text(&args[0])?)));
    put(functions, "strvalue", 1, |args| Ok(label(&args[0], "__value__")));
    put(functions, "value", 1, |args| match args[0].field("Value") {
        Some(value) => Ok(value.clone()),
        None => fail("value() called on something that is no sample"),
    });
    put(functions, "sortByLabel", 2, |args| {
        let Value::List(list) = &args[1] else { return fail("sortByLabel() called on something else") };
        let name = text(&args[0])?;
        let mut sorted = list.to_vec();
        sorted.sort_by_cached_key(|sample| label(sample, name).to_string());
        Ok(Value::from(sorted))
    });
}

fn texts(functions: &mut FuncMap) {
    put(functions, "title", 1, |args| Ok(Value::from(title(text(&args[0])?))));
    put(functions, "toUpper", 1, |args| Ok(Value::from(text(&args[0])?.to_uppercase())));
    put(functions, "toLower", 1, |args| Ok(Value::from(text(&args[0])?.to_lowercase())));
    put(functions, "safeHtml", 1, |args| Ok(args[0].clone()));
    put(functions, "stripPort", 1, |args| {
        let text = text(&args[0])?;
        Ok(Value::from(split_port(text).map_or(text, |(host, _)| host)))
    });
    put(functions, "stripDomain", 1, |args| Ok(Value::from(strip_domain(text(&args[0])?))));
    put(functions, "match", 2, |args| Ok(Value::Bool(regex(text(&args[0])?)?.is_match(text(&args[1])?))));
    put(functions, "reReplaceAll", 3, |args| {
        let replaced = regex(text(&args[0])?)?.replace_all(text(&args[2])?, text(&args[1])?).into_owned();
        Ok(Value::from(replaced))
    });
    put(functions, "graphLink", 1, |args| Ok(Value::from(link(text(&args[0])?, 0))));
    put(functions, "tableLink", 1, |args| Ok(Value::from(link(text(&args[0])?, 1))));
    put(functions, "urlQueryEscape", 1, |args| Ok(Value::from(escape(text(&args[0])?))));
    put(functions, "parseDuration", 1, |args| match model::duration::parse_ms(text(&args[0])?) {
        #[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53")]
        Ok(ms) => Ok(Value::Float(ms as f64 / 1_000.0)),
        Err(error) => fail(error.to_string()),
    });
}

fn numbers(functions: &mut FuncMap) {
    let forms: [(&'static str, Form); 5] = [
        ("humanize", humanize::metric),
        ("humanize1024", humanize::binary),
        ("humanizeDuration", humanize::duration),
        ("humanizePercentage", |value| format!("{}%", humanize::four_digits(value * 100.0))),
        ("toDuration", humanize::go_duration),
    ];
    for (name, form) in forms {
        put(functions, name, 1, move |args| Ok(Value::from(form(number(&args[0])?))));
    }
    put(functions, "humanizeTimestamp", 1, |args| {
        let seconds = number(&args[0])?;
        if !seconds.is_finite() {
            return Ok(Value::from(humanize::four_digits(seconds)));
        }
        time(seconds)
    });
    put(functions, "toTime", 1, |args| time(number(&args[0])?));
}

fn time(seconds: f64) -> Answer {
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range becomes its end")]
    let ms = (seconds * 1_000.0).floor() as i64;
    match humanize::time(ms) {
        Some(text) if seconds.is_finite() => Ok(Value::from(text)),
        _ => fail(format!("{} cannot be represented as a timestamp", humanize::four_digits(seconds))),
    }
}

/// A label of a sample; an empty text if it has none of that name.
fn label(sample: &Value, name: &str) -> Value {
    let found = sample.field("Labels").and_then(|labels| labels.field(name));
    found.cloned().unwrap_or_else(|| Value::from(""))
}

fn text(value: &Value) -> Result<&str, TemplateError> {
    match value {
        Value::Nil => Ok(""),
        value => match value.as_str() {
            Some(text) => Ok(text),
            None => fail(format!("expected string, got {}", value.type_name())),
        },
    }
}

fn number(value: &Value) -> Result<f64, TemplateError> {
    let parsed = match value {
        Value::Float(value) => Some(*value),
        #[expect(clippy::cast_precision_loss, reason = "as in Go")]
        Value::Int(value) => Some(*value as f64),
        #[expect(clippy::cast_precision_loss, reason = "as in Go")]
        Value::Uint(value) => Some(*value as f64),
        Value::String(text) => model::float::parse(text),
        _ => None,
    };
    match parsed {
        Some(number) => Ok(number),
        None => fail(format!("can't convert {value} to float")),
    }
}

fn regex(pattern: &str) -> Result<Regex, TemplateError> {
    let translated =
        model::regex::translate(pattern).map_err(|error| TemplateError::Exec(error.to_string()))?;
    Regex::new(&translated).map_err(|_| TemplateError::Exec(format!("invalid pattern {pattern:?}")))
}

/// Each word with a capital.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for letter in text.chars() {
        if in_word {
            out.push(letter);
        } else {
            out.extend(letter.to_uppercase());
        }
        in_word =
            letter.is_alphanumeric() || letter == '_' || (!letter.is_ascii() && !letter.is_whitespace());
    }
    out
}

/// Host and port, if that is what `text` is.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?, port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host, port)),
    }
}

/// The first part of a host's name; an address stays whole.
fn strip_domain(text: &str) -> String {
    let (host, port) = split_port(text).map_or((text, None), |(host, port)| (host, Some(port)));
    if host.parse::<IpAddr>().is_ok() {
        return text.to_owned();
    }
    let host = host.split('.').next().unwrap_or(host);
    port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The page of an expression's table, below the external URL.
pub(crate) fn table_link(expr: &str) -> String {
    link(expr, 1)
}

fn link(expr: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", escape(expr))
}

/// Escapes a text for the query part of a URL.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The path of a URL, without a slash at its end.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
}
