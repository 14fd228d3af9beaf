//! Prometheus' durations: `1h30m`, `15s`, `500ms`.
//!
//! Source of the grammar: the configuration and PromQL documentation. Units from year to
//! millisecond, each at most once, longest first, whole numbers.

/// Units with their length in milliseconds, longest first.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Why a duration could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("empty duration string")]
    Empty,
    /// Not of the grammar.
    #[error("not a valid duration string: {0:?}")]
    Invalid(String),
    /// More than 2^63 nanoseconds, about 292 years.
    #[error("duration out of range: {0:?}")]
    OutOfRange(String),
}

/// Reads a duration; the result is in milliseconds. `0` needs no unit.
///
/// # Errors
/// See [`DurationError`].
pub fn parse_ms(text: &str) -> Result<i64, DurationError> {
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let invalid = || DurationError::Invalid(text.to_owned());
    let out_of_range = || DurationError::OutOfRange(text.to_owned());
    let (mut total, mut rest, mut next_unit) = (0u64, text, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        let at = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        if number.is_empty() || at < next_unit {
            return Err(invalid());
        }
        next_unit = at + 1;
        let number: u64 = number.parse().map_err(|_| out_of_range())?;
        total =
            number.checked_mul(UNITS[at].1).and_then(|ms| total.checked_add(ms)).ok_or_else(out_of_range)?;
        rest = &rest[digits + letters..];
    }
    i64::try_from(total).ok().filter(|ms| *ms <= i64::MAX / 1_000_000).ok_or_else(out_of_range)
}

/// Writes milliseconds in Prometheus' canonical form: `1h30m`, `0s`. Years, weeks and days are used
/// only where the rest divides evenly.
#[must_use]
pub fn format_ms(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (unit, length) in UNITS {
        let whole_only = matches!(unit, "y" | "w" | "d");
        if whole_only && !rest.is_multiple_of(length) {
            continue;
        }
        let count = rest / length;
        if count > 0 {
            out.push_str(itoa::Buffer::new().format(count));
            out.push_str(unit);
            rest -= count * length;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, ms) in [
            ("0s", 0),
            ("15s", 15_000),
            ("1h30m", 5_400_000),
            ("1m30s500ms", 90_500),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
            ("1y", 31_536_000_000),
        ] {
            assert_eq!(parse_ms(text), Ok(ms), "{text}");
            assert_eq!(format_ms(ms), text);
        }
        assert_eq!(parse_ms("0"), Ok(0));
        assert_eq!(format_ms(90_000_000), "25h");
        for bad in ["1", "s", "1m1h", "1h1h", "1.5h", "-1s", "1S", "1 s", "10000000000y"] {
            assert!(parse_ms(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_ms(""), Err(DurationError::Empty));
    }
}
