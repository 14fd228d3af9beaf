//! Floats as Go writes them, which is how Prometheus shows every number.
//!
//! The digits are the shortest that read back to the same bits (computed by `zmij`); only the
//! layout is decided here.

use std::fmt::Write as _;

/// Go's `strconv.FormatFloat(v, 'f', -1, 64)`: never an exponent.
#[must_use]
pub fn format_fixed(value: f64) -> String {
    let mut out = String::with_capacity(24);
    push_fixed(&mut out, value);
    out
}

/// Go's `'g'` with the shortest digits, as used by `%v`: an exponent if below -4 or at least 6.
#[must_use]
pub fn format_general(value: f64) -> String {
    let mut out = String::with_capacity(24);
    match Decimal::of(value) {
        Ok(decimal) if (-4..6).contains(&decimal.exponent()) => decimal.push_fixed(&mut out),
        Ok(decimal) => decimal.push_scientific(&mut out),
        Err(special) => out.push_str(special),
    }
    out
}

/// Go's `strconv.FormatFloat(v, 'e', -1, 64)`: always an exponent of at least two digits.
#[must_use]
pub fn format_scientific(value: f64) -> String {
    let mut out = String::with_capacity(24);
    match Decimal::of(value) {
        Ok(decimal) => decimal.push_scientific(&mut out),
        Err(special) => out.push_str(special),
    }
    out
}

/// Appends `value` as the HTTP API's JSON writes it: `'f'`, or `'e'` where the magnitude is below
/// 1e-6 or at least 1e21; `NaN`, `+Inf`, `-Inf`.
pub fn push_json(out: &mut String, value: f64) {
    if push_whole(out, value) || push_plain(out, value) {
        return;
    }
    match Decimal::of(value) {
        Ok(decimal) if value == 0.0 || (1e-6..1e21).contains(&value.abs()) => decimal.push_fixed(out),
        Ok(decimal) => decimal.push_scientific(out),
        Err(special) => out.push_str(special),
    }
}

/// Appends `value` if it is a whole number of at most fifteen digits, as counters usually are: their digits
/// need no search for the shortest that read back.
fn push_whole(out: &mut String, value: f64) -> bool {
    /// Below it, every whole number is a float, and no form has an exponent.
    const BOUND: f64 = 1e15;
    if !(-BOUND..BOUND).contains(&value) || value.fract() != 0.0 || value == 0.0 && value.is_sign_negative() {
        return false;
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within the bound")]
    out.push_str(itoa::Buffer::new().format(value as i64));
    true
}

/// Appends `value` if its shortest digits come without an exponent: then they are in Go's form already.
fn push_plain(out: &mut String, value: f64) -> bool {
    if !(1e-5..1e15).contains(&value.abs()) {
        return false;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    debug_assert!(!text.contains('e'), "{text}");
    out.push_str(text.strip_suffix(".0").unwrap_or(text));
    true
}

/// Appends `value` in Go's `'f'` form.
pub fn push_fixed(out: &mut String, value: f64) {
    if push_whole(out, value) || push_plain(out, value) {
        return;
    }
    match Decimal::of(value) {
        Ok(decimal) => decimal.push_fixed(out),
        Err(special) => out.push_str(special),
    }
}

/// The value of a `le` or `quantile` label in its canonical form: an exponent if below -4 or at least 6,
/// and otherwise always with a point, so that it shows that it is a float (`1` becomes `1.0`).
#[must_use]
pub fn format_open_metrics(value: f64) -> String {
    let mut out = format_general(value);
    if value.is_finite() && !out.contains(['.', 'e']) {
        out.push_str(".0");
    }
    out
}

/// Reads a float as Go's `strconv.ParseFloat` does in the forms that label values use: decimal,
/// exponent, `Inf`, `+Inf`, `-Inf`, `infinity`, `NaN` in any case.
#[must_use]
pub fn parse(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.is_empty() || unsigned.starts_with(['+', '-']) {
        return None;
    }
    text.parse().ok().filter(|value: &f64| !value.is_nan() || unsigned.len() == text.len())
}

/// Shortest decimal digits and where the point lies: `0.d1d2d3... * 10^point`.
struct Decimal {
    negative: bool,
    point: i32,
    store: [u8; 20],
    length: usize,
}

impl Decimal {
    fn of(value: f64) -> Result<Self, &'static str> {
        if value.is_nan() {
            return Err("NaN");
        }
        if value.is_infinite() {
            return Err(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value.abs());
        let (mantissa, exponent) = match text.split_once('e') {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().unwrap_or(0)),
            None => (text, 0),
        };
        let mut store = [0u8; 20];
        let (mut length, mut point, mut seen_point) = (0usize, exponent, false);
        for byte in mantissa.bytes() {
            if byte == b'.' {
                seen_point = true;
                continue;
            }
            point += i32::from(!seen_point);
            if length == 0 && byte == b'0' {
                point -= 1; // a leading zero is no digit
                continue;
            }
            if length < store.len() {
                store[length] = byte;
                length += 1;
            }
        }
        while length > 0 && store[length - 1] == b'0' {
            length -= 1;
        }
        if length == 0 {
            (store[0], length, point) = (b'0', 1, 1);
        }
        Ok(Self { negative: value.is_sign_negative(), point, store, length })
    }

    fn digits(&self) -> &str {
        std::str::from_utf8(&self.store[..self.length]).unwrap_or("0")
    }

    fn exponent(&self) -> i32 {
        self.point - 1
    }

    fn push_sign(&self, out: &mut String) {
        if self.negative {
            out.push('-');
        }
    }

    fn push_fixed(&self, out: &mut String) {
        self.push_sign(out);
        let digits = self.digits();
        let Ok(point) = usize::try_from(self.point) else {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', self.point.unsigned_abs() as usize));
            out.push_str(digits);
            return;
        };
        if point == 0 {
            out.push_str("0.");
            out.push_str(digits);
        } else if digits.len() <= point {
            out.push_str(digits);
            out.extend(std::iter::repeat_n('0', point - digits.len()));
        } else {
            out.push_str(&digits[..point]);
            out.push('.');
            out.push_str(&digits[point..]);
        }
    }

    fn push_scientific(&self, out: &mut String) {
        self.push_sign(out);
        let digits = self.digits();
        out.push_str(&digits[..1]);
        if digits.len() > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        let exponent = self.exponent();
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a String cannot fail.
        let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_form_is_that_of_prometheus() {
        let json = |value| {
            let mut out = String::new();
            push_json(&mut out, value);
            out
        };
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (1e-7, "1e-07"),
            (1e-6, "0.000001"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (5e-324, "5e-324"),
            (0.1, "0.1"),
            (123_456_789.0, "123456789"),
            (1234.5678, "1234.5678"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(json(value), text);
        }
    }

    #[test]
    fn other_forms() {
        assert_eq!(format_fixed(1e21), "1000000000000000000000");
        assert_eq!(format_fixed(1.5e-7), "0.00000015");
        assert_eq!(format_scientific(1.0), "1e+00");
        assert_eq!(format_scientific(1234.5), "1.2345e+03");
        assert_eq!(format_general(1e-5), "1e-05");
        assert_eq!(format_general(0.0001), "0.0001");
        assert_eq!(format_general(123_456.0), "123456");
        assert_eq!(format_general(1_234_567.0), "1.234567e+06");
        assert_eq!(format_general(0.0), "0");
    }

    #[test]
    fn bounds_show_that_they_are_floats() {
        for (value, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.000_1, "0.0001"),
            (0.000_01, "1e-05"),
            (-0.0, "-0.0"),
            (100_000.0, "100000.0"),
            (999_999.999_999_999_9, "999999.9999999999"),
            (1e6, "1e+06"),
            (1.25e7, "1.25e+07"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(format_open_metrics(value), text);
        }
    }

    #[test]
    fn parses_label_values() {
        assert_eq!(parse("+Inf"), Some(f64::INFINITY));
        assert_eq!(parse("1e0"), Some(1.0));
        assert_eq!(parse(".2"), Some(0.2));
        assert!(parse("NaN").is_some_and(f64::is_nan));
        for bad in ["", "+", "x", "1 ", "++1", "+NaN"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_short_way_ends_where_exponents_begin() {
        for (value, text) in [(1e-5, "0.00001"), (1e15f64.next_down(), "999999999999999.9")] {
            let mut short = String::new();
            assert!(push_plain(&mut short, value), "{value}");
            assert_eq!(short, text);
        }
        assert!(!push_plain(&mut String::new(), 1e-5f64.next_down()));
    }

    proptest! {
        #[test]
        fn the_short_way_gives_the_same(mantissa in 1u64..1 << 53, exponent in -75i32..52, negative: bool) {
            let value = mantissa as f64 * 2f64.powi(exponent - 52) * if negative { -1.0 } else { 1.0 };
            let (mut short, mut long) = (String::new(), String::new());
            if push_plain(&mut short, value) {
                Decimal::of(value).unwrap_or_else(|_| unreachable!()).push_fixed(&mut long);
                prop_assert_eq!(short, long);
            }
        }

        #[test]
        fn every_form_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format_fixed(value), format_general(value), format_scientific(value)] {
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits, "{}", text);
            }
        }
    }
}
