//! Families of metrics, and their two forms: Prometheus' text format, and the JSON of its protobuf messages.

use std::fmt::Write as _;

use model::{Quoted, float};
use serde_json::{Map, Value, json};

/// A page under construction.
#[derive(Default)]
pub(super) struct Page(Vec<Family>);

pub(super) struct Family {
    name: String,
    kind: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

struct Sample {
    /// What stands behind the family's name: `_sum` or `_count` of a summary.
    suffix: &'static str,
    labels: Named,
    value: f64,
}

/// Labels by name.
type Named = Vec<(&'static str, String)>;

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: &'static str, help: &'static str) -> &mut Family {
        let at = self.0.len();
        self.0.push(Family { name: name.to_owned(), kind, help, samples: Vec::new() });
        &mut self.0[at]
    }

    pub(super) fn counter(&mut self, name: &str, help: &'static str, value: u64) {
        self.family(name, "counter", help).sample(&[], value as f64);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &'static str, value: f64) {
        self.family(name, "gauge", help).sample(&[], value);
    }

    /// The text format.
    pub(super) fn text(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        for Family { name, kind, help, samples } in &self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for Sample { suffix, labels, value } in samples {
                let _ = write!(out, "{name}{suffix}");
                for (index, (label, value)) in labels.iter().enumerate() {
                    let _ = write!(out, "{}{label}={}", if index == 0 { '{' } else { ',' }, Quoted(value));
                }
                let end = if labels.is_empty() { "" } else { "}" };
                let _ = writeln!(out, "{end} {}", float::format_general(*value));
            }
        }
        out
    }

    /// The families whose names are `wanted`, as JSON of the message `io.prometheus.client.MetricFamily`.
    pub(super) fn json(&self, wanted: impl Fn(&str) -> bool) -> Value {
        self.0.iter().filter(|family| wanted(&family.name)).map(Family::json).collect()
    }
}

impl Family {
    pub(super) fn sample(&mut self, labels: &[(&'static str, &str)], value: f64) -> &mut Self {
        self.part("", labels, value)
    }

    /// A part of a summary.
    pub(super) fn part(
        &mut self,
        suffix: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) -> &mut Self {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { suffix, labels, value });
        self
    }

    fn json(&self) -> Value {
        let mut metrics: Vec<(&Named, Map<String, Value>)> = Vec::new();
        for sample in &self.samples {
            let at = metrics.iter().position(|(labels, _)| **labels == sample.labels);
            let at = at.unwrap_or_else(|| {
                metrics.push((&sample.labels, Map::new()));
                metrics.len() - 1
            });
            // A 64-bit whole number is text there, as is what is not finite.
            let (key, value) = match sample.suffix {
                "_count" => ("sampleCount", json!(sample.value.to_string())),
                "_sum" => ("sampleSum", finite(sample.value)),
                _ => ("value", finite(sample.value)),
            };
            metrics[at].1.insert(key.to_owned(), value);
        }
        let metric = |(labels, value): (&Named, Map<String, Value>)| {
            let labels: Vec<Value> =
                labels.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            json!({"label": labels, self.kind: value})
        };
        json!({
            "name": self.name,
            "help": self.help,
            "type": self.kind.to_uppercase(),
            "metric": metrics.into_iter().map(metric).collect::<Vec<_>>(),
        })
    }
}

fn finite(value: f64) -> Value {
    match value {
        value if value.is_finite() => json!(value),
        value if value.is_nan() => json!("NaN"),
        value => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let mut page = Page::default();
        page.gauge("up", "Whether.", f64::NAN);
        let family = page.family("took_seconds", "summary", "How long.");
        family.part("_sum", &[("of", "a\"b")], 1.5).part("_count", &[("of", "a\"b")], 3.0);
        let text = "# HELP up Whether.\n# TYPE up gauge\nup NaN\n# HELP took_seconds How long.\n\
                    # TYPE took_seconds summary\ntook_seconds_sum{of=\"a\\\"b\"} 1.5\n\
                    took_seconds_count{of=\"a\\\"b\"} 3\n";
        assert_eq!(page.text(), text);
        let up = json!([{
            "name": "up", "help": "Whether.", "type": "GAUGE", "metric": [{"label": [], "gauge": {"value": "NaN"}}],
        }]);
        assert_eq!(page.json(|name| name == "up"), up);
        let took = json!([{
            "label": [{"name": "of", "value": "a\"b"}], "summary": {"sampleSum": 1.5, "sampleCount": "3"},
        }]);
        assert_eq!(page.json(|name| name != "up")[0]["metric"], took);
    }
}
