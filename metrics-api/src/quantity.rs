//! Kubernetes' text forms of quantities, durations and times.

use model::Timestamp;

/// Suffixes of the decimal form, a thousand apart, from a billionth up.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// The canonical decimal form of a whole number of the unit whose suffix stands at `at`.
fn canonical(mut value: i128, mut at: usize) -> String {
    if value == 0 {
        return "0".to_owned();
    }
    while at + 1 < DECIMAL.len() && value % 1000 == 0 {
        value /= 1000;
        at += 1;
    }
    format!("{value}{}", DECIMAL[at])
}

/// CPU in nanocores, canonical decimal form: `103000165n`, `500m`, `2`.
pub(crate) fn cpu(nanocores: u64) -> String {
    let mut out = Vec::with_capacity(16);
    push_cpu(&mut out, nanocores);
    String::from_utf8(out).unwrap_or_default()
}

/// The same at the end of a text.
pub(crate) fn push_cpu(out: &mut Vec<u8>, nanocores: u64) {
    let (mut value, mut at) = (nanocores, 0);
    while value != 0 && at + 1 < DECIMAL.len() && value.is_multiple_of(1000) {
        value /= 1000;
        at += 1;
    }
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.extend_from_slice(if value == 0 { b"" } else { DECIMAL[at].as_bytes() });
}

/// A value in thousandths, cut off there, as prometheus-adapter gives it: `1500m`, `2`, `10k`. What is short of a
/// thousandth by no more than arithmetic loses is taken for it: a rate of 2.5 is often 2.4999999999999996. None for
/// what is no number, or larger than a quantity may be.
pub(crate) fn decimal(value: f64) -> Option<String> {
    /// Quantities end at 2^63 - 1.
    const MAX: f64 = 9_223_372_036_854_774_784.0;
    if !(-MAX..=MAX).contains(&value) {
        return None;
    }
    // Beyond 2^52 a double has no fraction, and the product would round.
    if value.abs() >= 4_503_599_627_370_496.0 {
        return Some(canonical(whole(value), 3));
    }
    let (scaled, nearest) = (value * 1000.0, (value * 1000.0).round());
    let is_near = (scaled - nearest).abs() <= nearest.abs() * 1e-9;
    Some(canonical(whole(if is_near { nearest } else { scaled }), 2))
}

#[expect(clippy::cast_possible_truncation, reason = "cut off at the point on purpose; bounded by the caller")]
fn whole(value: f64) -> i128 {
    value as i128
}

/// Bytes in the canonical binary form: `51852Ki` if a multiple of 1024, else plain bytes.
pub(crate) fn memory(bytes: u64) -> String {
    let mut out = Vec::with_capacity(16);
    push_memory(&mut out, bytes);
    String::from_utf8(out).unwrap_or_default()
}

/// The same at the end of a text.
pub(crate) fn push_memory(out: &mut Vec<u8>, bytes: u64) {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut value, mut at) = (bytes, 0);
    while value != 0 && at + 1 < SUFFIXES.len() && value.is_multiple_of(1024) {
        value /= 1024;
        at += 1;
    }
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.extend_from_slice(SUFFIXES[at].as_bytes());
}

/// A span of milliseconds in Go's form: `14.965s`, `1m30s`, `2h0m0s`.
pub(crate) fn duration(ms: i64) -> String {
    let mut out = Vec::with_capacity(16);
    push_duration(&mut out, ms);
    String::from_utf8(out).unwrap_or_default()
}

/// The same at the end of a text.
pub(crate) fn push_duration(out: &mut Vec<u8>, ms: i64) {
    if ms < 0 {
        out.push(b'-');
    }
    let ms = ms.unsigned_abs();
    let mut digits = itoa::Buffer::new();
    let mut push = |value: u64, unit: &[u8]| {
        out.extend_from_slice(digits.format(value).as_bytes());
        out.extend_from_slice(unit);
    };
    if ms < 1000 {
        return push(ms, if ms == 0 { b"s" } else { b"ms" });
    }
    let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    if hours > 0 {
        push(hours, b"h");
    }
    if hours > 0 || minutes > 0 {
        push(minutes, b"m");
    }
    push(rest / 1000, b"");
    let mut fraction = rest % 1000;
    if fraction > 0 {
        out.push(b'.');
        let mut unit = 100;
        while fraction > 0 {
            out.extend(u8::try_from(fraction / unit).map(|digit| b'0' + digit));
            (fraction, unit) = (fraction % unit, unit / 10);
        }
    }
    out.push(b's');
}

/// A time as API objects carry it: RFC 3339, whole seconds, UTC.
pub(crate) fn time(ts: Timestamp) -> String {
    let seconds = jiff::Timestamp::from_second(ts.div_euclid(1000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    seconds.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Times of one list as texts: all but the few of midnight have one date.
pub(crate) struct Times {
    now: String,
    date: (i64, String),
}

impl Times {
    /// Of a list that is made at `now`.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now: time(now), date: (i64::MIN, String::new()) }
    }

    /// Adds the time of the list.
    pub(crate) fn push_now(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.now.as_bytes());
    }

    /// Adds a time as [`time`] writes it.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, ts: Timestamp) {
        let second = ts.div_euclid(1000);
        let (day, second) = (second.div_euclid(86_400), second.rem_euclid(86_400));
        if self.date.0 != day {
            let mut text = time(ts);
            text.truncate("2026-11-21T".len());
            self.date = (day, text);
        }
        out.extend_from_slice(self.date.1.as_bytes());
        for (part, end) in [(second / 3600, b':'), (second / 60 % 60, b':'), (second % 60, b'Z')] {
            let part = u8::try_from(part).unwrap_or_default();
            out.extend_from_slice(&[b'0' + part / 10, b'0' + part % 10, end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        assert_eq!(cpu(0), "0");
        assert_eq!(cpu(103_000_165), "103000165n");
        assert_eq!(cpu(500_000_000), "500m");
        assert_eq!(cpu(2_000_000_000), "2");
        assert_eq!(cpu(7_000), "7u");
        assert_eq!(cpu(12_000_000_000_000), "12k");
        assert_eq!(memory(0), "0");
        assert_eq!(memory(4_000_001_000), "4000001000");
        assert_eq!(memory(51_852 * 1024), "51852Ki");
        assert_eq!(memory(2 << 30), "2Gi");
        assert_eq!(memory(u64::MAX), "18446744073709551615");
    }

    #[test]
    fn values_as_quantities() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.0004, "0"),
            (0.1, "100m"),
            (2.499_999_999_999_999_6, "2500m"),
            (2.4999, "2499m"),
            (1.5, "1500m"),
            (2.0, "2"),
            (-2.5, "-2500m"),
            (10_000.0, "10k"),
            (1234.5678, "1234567m"),
            (1e9, "1G"),
            (4_503_599_627_370_497.0, "4503599627370497"),
            (9e18, "9E"),
        ] {
            assert_eq!(decimal(value).as_deref(), Some(text), "{value}");
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e19, -1e300] {
            assert_eq!(decimal(value), None, "{value}");
        }
    }

    #[test]
    fn durations_and_times() {
        for (ms, text) in [
            (14_965, "14.965s"),
            (15_000, "15s"),
            (15_434, "15.434s"),
            (90_000, "1m30s"),
            (7_200_000, "2h0m0s"),
            (250, "250ms"),
            (60_500, "1m0.5s"),
            (0, "0s"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(duration(-90_250), "-1m30.25s");
        assert_eq!(duration(3_600_007), "1h0m0.007s");
        assert_eq!(time(1_795_236_744_999), "2026-11-21T04:52:24Z");
        let mut times = Times::new(0);
        for ts in [0, 1_795_236_744_999, 1_795_236_744_999 + 3_600_000, -1, 951_782_399_999, 951_782_400_000]
        {
            let mut text = Vec::new();
            times.push(&mut text, ts);
            assert_eq!(String::from_utf8(text).unwrap(), time(ts), "{ts}");
        }
    }
}
