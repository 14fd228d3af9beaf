//! The shared parser cases: verdict, type, printed and pretty form must agree; agreement of
//! messages and positions is reported.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a test may")]

#[path = "support/storage.rs"]
mod storage;
mod support;

use promql::{Engine, EngineOptions, ParseOptions, QueryOptions, parse};
use serde::Deserialize;
use storage::Memory;

#[derive(Deserialize)]
struct Case {
    expr: Option<String>,
    #[serde(flatten)]
    plain: Outcome,
    with_experimental_flags: Option<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    ok: bool,
    r#type: Option<String>,
    printed: Option<String>,
    pretty: Option<String>,
    #[serde(default)]
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    start: usize,
    end: usize,
    message: String,
}

#[derive(Default)]
struct Tally {
    failures: Vec<String>,
    refused: usize,
    same_start: usize,
    same_span: usize,
    same_message: usize,
}

impl Tally {
    fn check(&mut self, text: &str, options: ParseOptions, want: &Outcome) {
        match (parse(text, &options), want.ok) {
            (Ok(expr), true) => {
                let mut differ = |what, got: String, want: &Option<String>| {
                    if Some(&got) != want.as_ref() {
                        self.failures.push(format!("{text:?}: {what} {got:?}, want {want:?}"));
                    }
                };
                differ("printed", expr.to_string(), &want.printed);
                differ("pretty", expr.pretty(), &want.pretty);
                differ("type", expr.value_type().as_str().to_owned(), &want.r#type);
                match parse(&expr.to_string(), &options) {
                    Ok(again) if again == expr => {}
                    other => self.failures.push(format!("{text:?}: read back as {other:?}")),
                }
            }
            (Err(error), false) => {
                let first = &want.errors[0];
                self.refused += 1;
                let start = error.span.start == first.start;
                let span = start && error.span.end == first.end;
                let message = error.message == first.message;
                self.same_start += usize::from(start);
                self.same_span += usize::from(span);
                self.same_message += usize::from(message);
                if !(span && message) && text.len() < 200 {
                    eprintln!(
                        "{text:?}: {:?} {}; want {}..{} {}",
                        error.span, error.message, first.start, first.end, first.message
                    );
                }
            }
            (Ok(expr), false) => {
                self.failures.push(format!("{text:?}: accepted as {expr}, want {}", want.errors[0].message));
            }
            (Err(error), true) => self.failures.push(format!("{text:?}: {error}")),
        }
    }
}

#[test]
fn agree_with_prometheus() {
    let Some(path) = support::shared("PYROMETER_PARSER_DIR", "parser") else { return };
    let lines = std::fs::read_to_string(path.join("expr.jsonl")).unwrap();
    let mut tally = Tally::default();
    for line in lines.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        // What is not UTF-8 cannot even be asked.
        let Some(text) = &case.expr else { continue };
        tally.check(text, ParseOptions::bare(), &case.plain);
        let experimental = case.with_experimental_flags.as_ref().unwrap_or(&case.plain);
        tally.check(text, ParseOptions::experimental(), experimental);
    }
    eprintln!(
        "refusals: {} of {} start at the same byte, {} have the same span, {} the same words",
        tally.same_start, tally.refused, tally.same_span, tally.same_message
    );
    assert!(tally.failures.is_empty(), "{} failures:\n{}", tally.failures.len(), tally.failures.join("\n"));
}

#[test]
fn expressions_from_the_wild_are_read_and_read_back_and_evaluated() {
    #[derive(Deserialize)]
    struct Wild {
        expr: String,
    }
    let Some(path) = support::shared("PYROMETER_PROMQL_CORPUS_DIR", "promql-corpus") else { return };
    let engine = Engine::new(EngineOptions::default());
    let lines = std::fs::read_to_string(path.join("expressions.jsonl")).unwrap();
    for line in lines.lines() {
        let Wild { expr: text } = serde_json::from_str(line).unwrap();
        let expr = parse(&text, &ParseOptions::default()).unwrap_or_else(|error| panic!("{text}\n{error}"));
        for form in [expr.to_string(), expr.pretty()] {
            let again = parse(&form, &ParseOptions::default());
            assert_eq!(again.as_ref(), Ok(&expr), "{form}");
        }
        let (store, options) = (Memory::default(), QueryOptions::default());
        if let Err(error) = engine.range(&store, &expr, 0, 3_600_000, 60_000, &options) {
            panic!("{text}\n{error}");
        }
    }
}
