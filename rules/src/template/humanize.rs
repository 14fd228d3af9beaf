//! Numbers for people.

use model::Timestamp;

/// Go's `%.4g`.
pub(crate) fn four_digits(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:.3e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if !(-4..4).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(digits), exponent.abs());
    }
    let places = usize::try_from(3 - exponent).unwrap_or(0);
    trimmed(&format!("{value:.places$}"))
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];
const BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];

/// With a metric prefix.
pub(crate) fn metric(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return four_digits(value);
    }
    if value.abs() >= 1.0 { larger(value, 1000.0, LARGE) } else { smaller(value) }
}

/// With a binary prefix.
pub(crate) fn binary(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return four_digits(value);
    }
    larger(value, 1024.0, BINARY)
}

fn larger(mut value: f64, step: f64, prefixes: [&'static str; 8]) -> String {
    let mut prefix = "";
    for next in prefixes {
        if value.abs() < step {
            break;
        }
        prefix = next;
        value /= step;
    }
    format!("{}{prefix}", four_digits(value))
}

fn smaller(mut value: f64) -> String {
    let mut prefix = "";
    for next in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1000.0;
    }
    format!("{}{prefix}", four_digits(value))
}

/// Seconds as days, hours, minutes and seconds.
pub(crate) fn duration(value: f64) -> String {
    if !value.is_finite() {
        return four_digits(value);
    }
    if value == 0.0 {
        return format!("{}s", four_digits(value));
    }
    if value.abs() < 1.0 {
        return format!("{}s", smaller(value));
    }
    let (sign, value) = if value < 0.0 { ("-", -value) } else { ("", value) };
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range becomes its end")]
    let whole = value as i64;
    let (seconds, minutes, hours, days) = (whole % 60, whole / 60 % 60, whole / 3_600 % 24, whole / 86_400);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", four_digits(value))
    }
}

/// Milliseconds since the epoch as Go prints a time in UTC.
pub(crate) fn time(ms: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(ms).ok()?;
    let fraction = match ms.rem_euclid(1_000) {
        0 => String::new(),
        part => format!(".{part:03}").trim_end_matches('0').to_owned(),
    };
    Some(format!("{}{fraction} +0000 UTC", at.strftime("%Y-%m-%d %H:%M:%S")))
}

/// Seconds as Go prints a duration: `1h30m0s`, `1.5s`, `2ms`.
pub(crate) fn go_duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range becomes its end")]
    let ns = (seconds * 1e9) as i64;
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    let fraction = |whole: u64, part: u64, digits: usize| match part {
        0 => whole.to_string(),
        part => format!("{whole}.{}", format!("{part:0digits$}").trim_end_matches('0')),
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{ns}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(ns / 1_000, ns % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(ns / 1_000_000, ns % 1_000_000, 6)),
        _ => {
            let whole = ns / 1_000_000_000;
            let seconds = fraction(whole % 60, ns % 1_000_000_000, 9);
            match (whole / 3_600, whole / 60 % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1234.5, "1234"),
            (12345.0, "1.234e+04"),
            (0.00012345, "0.0001234"),
            (0.000012345, "1.234e-05"),
            (-2.5, "-2.5"),
            (999.96, "1000"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(four_digits(value), text);
        }
    }

    #[test]
    fn prefixes() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1_234_567.0, "1.235M"),
            (0.12, "120m"),
            (-0.000_12, "-120u"),
            (1e30, "1e+06Y"),
        ] {
            assert_eq!(metric(value), text);
        }
        for (value, text) in [(1.0, "1"), (1024.0, "1ki"), (1_048_576.0, "1Mi"), (0.5, "0.5")] {
            assert_eq!(binary(value), text);
        }
    }

    #[test]
    fn durations() {
        for (value, text) in [
            (0.0, "0s"),
            (0.1, "100ms"),
            (1.0, "1s"),
            (12.345, "12.35s"),
            (60.0, "1m 0s"),
            (3_600.0, "1h 0m 0s"),
            (-86_400.0, "-1d 0h 0m 0s"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(duration(value), text);
        }
        for (value, text) in
            [(0.0, "0s"), (1.5, "1.5s"), (0.002, "2ms"), (90.0, "1m30s"), (-3600.0, "-1h0m0s")]
        {
            assert_eq!(go_duration(value), text);
        }
    }
}
