//! `check metrics`: whether a page follows Prometheus' conventions for names.
//!
//! Source: Prometheus' documentation, "Metric and label naming" and "Writing exporters".

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use scraper::exposition::{Event, Format, MetricType, ParseOptions, Parser, series_labels};

use super::Ending;

/// A family as far as its names are concerned.
#[derive(Default)]
struct Family {
    metric_type: MetricType,
    has_help: bool,
    labels: BTreeSet<String>,
    series: u64,
}

/// Units that are not base units, and the base unit to use.
const UNITS: &[(&str, &str)] = &[
    ("nanoseconds", "seconds"),
    ("microseconds", "seconds"),
    ("milliseconds", "seconds"),
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("kelvin", "celsius"),
    ("kelvins", "celsius"),
    ("fahrenheit", "celsius"),
    ("kilobytes", "bytes"),
    ("megabytes", "bytes"),
    ("gigabytes", "bytes"),
    ("terabytes", "bytes"),
    ("kibibytes", "bytes"),
    ("mebibytes", "bytes"),
    ("gibibytes", "bytes"),
    ("bits", "bytes"),
    ("milligrams", "grams"),
    ("kilograms", "grams"),
    ("millimeters", "meters"),
    ("centimeters", "meters"),
    ("kilometers", "meters"),
    ("millivolts", "volts"),
    ("milliamperes", "amperes"),
    ("millijoules", "joules"),
    ("kilojoules", "joules"),
];

/// Short forms of units that are better written out.
const ABBREVIATIONS: &[&str] =
    &["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];

/// Reads a page from standard input and prints what is against the conventions.
pub(super) fn metrics(extended: bool, lints: bool) -> anyhow::Result<Ending> {
    let mut page = Vec::new();
    std::io::stdin().read_to_end(&mut page)?;
    let families = read(&page).map_err(|error| anyhow::anyhow!("error while linting: {error}"))?;
    let mut found = false;
    for (name, family) in families.iter().filter(|_| lints) {
        for problem in problems(name, family) {
            found = true;
            eprintln!("{name} {problem}");
        }
    }
    if extended {
        let total: u64 = families.values().map(|family| family.series).sum();
        let mut by_count: Vec<_> = families.iter().collect();
        by_count.sort_by_key(|(name, family)| (std::cmp::Reverse(family.series), (*name).clone()));
        say!("Metric\tCardinality\tPercentage");
        for (name, family) in by_count {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let share = family.series as f64 * 100.0 / total.max(1) as f64;
            say!("{name}\t{}\t{share:.2}%", family.series);
        }
    }
    Ok(if found { Ending::Lint } else { Ending::Well })
}

fn read(page: &[u8]) -> anyhow::Result<BTreeMap<String, Family>> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let format =
        if page.trim_ascii_end().ends_with(b"# EOF") { Format::OpenMetrics100 } else { Format::Text100 };
    let mut parser = Parser::new(page, format, ParseOptions::default());
    while let Some(event) = parser.next(&mut |_| None)? {
        match event {
            Event::Type { family, metric_type } => {
                families.entry(family.into_owned()).or_default().metric_type = metric_type;
            }
            Event::Help { family, help } => {
                families.entry(family.into_owned()).or_default().has_help |= !help.is_empty();
            }
            Event::Sample(sample) => {
                let mut pairs = Vec::new();
                series_labels(sample.series, sample.metric_type, &mut pairs)?;
                let name = pairs.iter().find(|(name, _)| name == model::METRIC_NAME);
                let name = name.map(|(_, value)| value.to_string()).unwrap_or_default();
                let family = families.entry(family_of(&families, &name)).or_default();
                family.series += 1;
                let labels = pairs.iter().map(|(name, _)| name.to_string());
                family.labels.extend(labels.filter(|label| label != model::METRIC_NAME));
            }
            _ => {}
        }
    }
    Ok(families)
}

/// The family that a series belongs to: its own name, or without the suffix of a part.
fn family_of(families: &BTreeMap<String, Family>, name: &str) -> String {
    for suffix in ["_bucket", "_count", "_sum", "_total"] {
        if let Some(base) = name.strip_suffix(suffix)
            && families.get(base).is_some_and(|family| {
                matches!(
                    family.metric_type,
                    MetricType::Histogram | MetricType::Summary | MetricType::GaugeHistogram
                ) || suffix == "_total" && family.metric_type == MetricType::Counter
            })
        {
            return base.to_owned();
        }
    }
    name.to_owned()
}

fn problems(name: &str, family: &Family) -> Vec<String> {
    let mut problems = Vec::new();
    let mut say = |wrong: bool, what: &str| {
        if wrong {
            problems.push(what.to_owned());
        }
    };
    let kind = family.metric_type;
    let has = |label: &str| family.labels.contains(label);
    let distribution =
        matches!(kind, MetricType::Histogram | MetricType::Summary | MetricType::GaugeHistogram);
    let untyped = kind == MetricType::Unknown;
    say(!family.has_help, "no help text");
    say(
        kind == MetricType::Counter && !name.ends_with("_total"),
        "counter metrics should have \"_total\" suffix",
    );
    say(
        !untyped && kind != MetricType::Counter && name.ends_with("_total"),
        "non-counter metrics should not have \"_total\" suffix",
    );
    for suffix in ["_bucket", "_count", "_sum"] {
        let what = format!("non-histogram and non-summary metrics should not have \"{suffix}\" suffix");
        say(!untyped && !distribution && name.ends_with(suffix), &what);
    }
    say(
        !untyped && kind != MetricType::Histogram && kind != MetricType::GaugeHistogram && has("le"),
        "non-histogram metrics should not have \"le\" label",
    );
    say(
        !untyped && kind != MetricType::Summary && has("quantile"),
        "non-summary metrics should not have \"quantile\" label",
    );
    say(name.contains(':'), "metric names should not contain ':'");
    let camel = |text: &str| {
        text.as_bytes().windows(2).any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
    };
    say(camel(name), "metric names should be written in 'snake_case' not 'camelCase'");
    say(
        family.labels.iter().any(|label| camel(label)),
        "label names should be written in 'snake_case' not 'camelCase'",
    );
    let words: Vec<String> = name.to_ascii_lowercase().split('_').map(str::to_owned).collect();
    let type_word = kind.as_str();
    say(
        !untyped && words.iter().any(|word| word == type_word),
        &format!("metric name should not include type '{type_word}'"),
    );
    if let Some((unit, base)) = UNITS.iter().find(|(unit, _)| words.iter().any(|word| word == unit)) {
        say(true, &format!("use base unit \"{base}\" instead of \"{unit}\""));
    }
    say(
        words.iter().any(|word| ABBREVIATIONS.contains(&word.as_str())),
        "metric names should not contain abbreviated units",
    );
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conventions() {
        let page = b"# HELP good_seconds_total Fine.\n# TYPE good_seconds_total counter\ngood_seconds_total 1\n\
                     # TYPE badCounter counter\nbadCounter{someLabel=\"x\"} 1\n\
                     # HELP wait_milliseconds Waiting.\n# TYPE wait_milliseconds gauge\nwait_milliseconds 2\n";
        let families = read(page).unwrap();
        assert!(problems("good_seconds_total", &families["good_seconds_total"]).is_empty());
        let expected = [
            "no help text",
            "counter metrics should have \"_total\" suffix",
            "metric names should be written in 'snake_case' not 'camelCase'",
            "label names should be written in 'snake_case' not 'camelCase'",
        ];
        assert_eq!(problems("badCounter", &families["badCounter"]), expected);
        let unit = ["use base unit \"seconds\" instead of \"milliseconds\""];
        assert_eq!(problems("wait_milliseconds", &families["wait_milliseconds"]), unit);
    }
}
