//! Names of OTLP as names of Prometheus.
//!
//! Source: the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility", and Prometheus'
//! documentation of `otlp.translation_strategy`.

/// How names and units become names of series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Translation {
    /// Characters that names could not have before UTF-8 become `_`; unit and kind become suffixes.
    #[default]
    UnderscoreWithSuffixes,
    /// Names stay as they are; unit and kind become suffixes.
    Utf8WithSuffixes,
    /// Characters become `_`, and there are no suffixes.
    UnderscoreWithoutSuffixes,
    /// Names stay as they are.
    None,
}

/// What a metric is, as far as its name is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Other,
}

/// Units of UCUM that have a word.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// Units below a fraction line.
const PER_UNITS: &[(&str, &str)] = &[
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn word<'a>(table: &[(&'static str, &'static str)], unit: &'a str) -> &'a str {
    table.iter().find(|(short, _)| *short == unit).map_or(unit, |(_, word)| word)
}

/// The suffixes that a unit asks for: its words, cleaned.
fn unit_suffixes(unit: &str, clean: bool) -> Vec<String> {
    let mut parts = unit.splitn(2, '/');
    let main = parts.next().unwrap_or_default().trim();
    let per = parts.next().unwrap_or_default().trim();
    let annotated = |text: &str| text.contains(['{', '}']);
    let mut suffixes = Vec::new();
    if !main.is_empty() && !annotated(main) {
        suffixes.push(word(UNITS, main).to_owned());
    }
    if !per.is_empty() && !annotated(per) {
        suffixes.push(format!("per_{}", word(PER_UNITS, per)));
    }
    if clean {
        for suffix in &mut suffixes {
            *suffix = tokens(suffix).join("_");
        }
    }
    suffixes.retain(|suffix| !suffix.is_empty());
    suffixes
}

/// Runs of letters, digits and colons.
fn tokens(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter(|token| !token.is_empty()).collect()
}

/// The name of a metric.
pub(super) fn metric(translation: Translation, name: &str, unit: &str, kind: Kind) -> String {
    match translation {
        Translation::None => name.to_owned(),
        Translation::UnderscoreWithoutSuffixes => {
            let clean = |c: char| if c.is_ascii_alphanumeric() || c == ':' || c == '_' { c } else { '_' };
            let plain: String = name.chars().map(clean).collect();
            with_letter_first(plain, "_")
        }
        Translation::Utf8WithSuffixes => {
            let mut out = name.to_owned();
            for suffix in unit_suffixes(unit, false) {
                push_suffix(&mut out, &suffix);
            }
            if kind == Kind::Counter {
                push_suffix(&mut out, "total");
            }
            if kind == Kind::Gauge && unit == "1" {
                push_suffix(&mut out, "ratio");
            }
            out
        }
        Translation::UnderscoreWithSuffixes => {
            let mut words: Vec<String> = tokens(name).into_iter().map(str::to_owned).collect();
            for suffix in unit_suffixes(unit, true) {
                let there = match suffix.strip_prefix("per_") {
                    // The unit below a fraction line counts as there if its last word is.
                    Some(per) => words.iter().any(|word| word == per),
                    None => words.contains(&suffix),
                };
                if !there {
                    words.push(suffix);
                }
            }
            if kind == Kind::Counter {
                words.retain(|word| word != "total");
                words.push("total".to_owned());
            }
            if kind == Kind::Gauge && unit == "1" {
                words.retain(|word| word != "ratio");
                words.push("ratio".to_owned());
            }
            with_letter_first(words.join("_"), "_")
        }
    }
}

fn push_suffix(name: &mut String, suffix: &str) {
    if !name.ends_with(suffix) {
        name.push('_');
        name.push_str(suffix);
    }
}

fn with_letter_first(name: String, prefix: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("{prefix}{name}") } else { name }
}

/// The name of a label.
pub(super) fn label(translation: Translation, name: &str) -> String {
    if matches!(translation, Translation::None | Translation::Utf8WithSuffixes) {
        return name.to_owned();
    }
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let plain: String = name.chars().map(clean).collect();
    if plain.starts_with('_') && !plain.starts_with("__") {
        return format!("key{plain}");
    }
    with_letter_first(plain, "key_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units() {
        let with = Translation::UnderscoreWithSuffixes;
        for (name, unit, kind, expected) in [
            ("http.server.duration", "ms", Kind::Other, "http_server_duration_milliseconds"),
            ("system.filesystem.usage", "By", Kind::Gauge, "system_filesystem_usage_bytes"),
            ("system.network.dropped", "{packets}", Kind::Counter, "system_network_dropped_total"),
            ("system.network.dropped", "packets", Kind::Counter, "system_network_dropped_packets_total"),
            ("memory.utilization", "1", Kind::Gauge, "memory_utilization_ratio"),
            ("requests_total", "1", Kind::Counter, "requests_total"),
            ("speed", "m/s", Kind::Gauge, "speed_meters_per_second"),
            ("(lambda).function.executions(#)", "", Kind::Other, "lambda_function_executions"),
            ("2xx", "", Kind::Other, "_2xx"),
            ("wait.seconds", "s", Kind::Gauge, "wait_seconds"),
        ] {
            assert_eq!(metric(with, name, unit, kind), expected);
        }
        assert_eq!(metric(Translation::Utf8WithSuffixes, "a.b", "s", Kind::Counter), "a.b_seconds_total");
        assert_eq!(metric(Translation::UnderscoreWithoutSuffixes, "a.b", "s", Kind::Counter), "a_b");
        assert_eq!(metric(Translation::None, "a.b", "s", Kind::Counter), "a.b");
        for (name, expected) in
            [("http.code", "http_code"), ("0a", "key_0a"), ("_a", "key_a"), ("__a", "__a")]
        {
            assert_eq!(label(with, name), expected);
        }
    }
}
