//! Amounts as objects write them: `3920m`, `16Gi`, `1e3`.

/// The amount in units of one `scale`-th, rounded up; `None` if it is none or does not fit.
#[must_use]
pub fn scaled(text: &str, scale: u128) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.len() > 18 || whole.len() > 19 {
        return None;
    }
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let fraction = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (up, down) = factor(suffix)?;
    let units = mantissa.checked_mul(up)?.checked_mul(scale)?;
    u64::try_from(units.div_ceil(fraction.checked_mul(down)?)).ok()
}

/// What a suffix multiplies with and divides by.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty()) {
        let exponent: i32 = exponent.parse().ok().filter(|exponent| (-18..=18).contains(exponent))?;
        let power = 10u128.pow(exponent.unsigned_abs());
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    let thousand = |power| 1_000u128.pow(power);
    let kibi = |power| 1_024u128.pow(power);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, thousand(3)),
        "u" => (1, thousand(2)),
        "m" => (1, thousand(1)),
        "k" => (thousand(1), 1),
        "M" => (thousand(2), 1),
        "G" => (thousand(3), 1),
        "T" => (thousand(4), 1),
        "P" => (thousand(5), 1),
        "E" => (thousand(6), 1),
        "Ki" => (kibi(1), 1),
        "Mi" => (kibi(2), 1),
        "Gi" => (kibi(3), 1),
        "Ti" => (kibi(4), 1),
        "Pi" => (kibi(5), 1),
        "Ei" => (kibi(6), 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::scaled;

    #[test]
    fn amounts() {
        for (text, scale, expected) in [
            ("3920m", 1_000, Some(3_920)),
            ("4", 1_000, Some(4_000)),
            ("1.5", 1_000, Some(1_500)),
            ("16Gi", 1, Some(16 << 30)),
            ("250123456n", 1_000, Some(251)),
            ("1e3", 1, Some(1_000)),
            ("1E", 1, Some(1_000_000_000_000_000_000)),
            ("", 1, None),
            ("-1", 1, None),
            ("5Xi", 1, None),
            ("99999Ei", 1, None),
        ] {
            assert_eq!(scaled(text, scale), expected, "{text}");
        }
    }
}
