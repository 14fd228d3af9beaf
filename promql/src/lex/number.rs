//! Numbers and durations.

use super::{Lexer, TokenKind};

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

impl Lexer<'_> {
    /// A number or a duration, standing at its first character.
    pub(super) fn number(&mut self) -> TokenKind {
        let start = self.at;
        let number_ok = self.scan_number();
        let word_follows = |this: &Self| this.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        if number_ok && !word_follows(self) && self.peek() != Some('.') {
            return TokenKind::Number(parse_number(&self.text[start..self.at]));
        }
        if number_ok && self.scan_units() && !word_follows(self) {
            return TokenKind::Duration(parse_duration(&self.text[start..self.at]));
        }
        // The offending character is shown, unless nothing of a unit was seen.
        let shown = self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        if shown && (self.at > start + 1 || self.peek() == Some('.')) {
            self.next();
        }
        TokenKind::Error(format!("bad number or duration syntax: \"{}\"", &self.text[start..self.at]))
    }

    /// Digits in which single underscores may stand between two of them.
    fn scan_digits(&mut self, is_digit: impl Fn(char) -> bool + Copy) -> bool {
        if !self.peek().is_some_and(is_digit) {
            return true;
        }
        loop {
            self.bytes_while(|byte| is_digit(char::from(byte)));
            if !self.accept('_') {
                return true;
            }
            if !self.peek().is_some_and(is_digit) {
                return false;
            }
        }
    }

    fn scan_number(&mut self) -> bool {
        let rest = self.rest();
        if rest.starts_with("0x") || rest.starts_with("0X") {
            self.at += 2;
            if self.accept('_') && !self.peek().is_some_and(|c| c.is_ascii_hexdigit()) {
                return false;
            }
            return self.scan_digits(|c| c.is_ascii_hexdigit());
        }
        let digit = |c: char| c.is_ascii_digit();
        if !self.scan_digits(digit) {
            return false;
        }
        if self.accept('.') && (self.peek() == Some('_') || !self.scan_digits(digit)) {
            return false;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.next();
            let _ = self.accept('+') || self.accept('-');
            return self.peek().is_some_and(digit) && self.scan_digits(digit);
        }
        true
    }

    /// The rest of a duration after its first number.
    fn scan_units(&mut self) -> bool {
        loop {
            if !self.peek().is_some_and(|c| "smhdwy".contains(c)) {
                return false;
            }
            self.next();
            self.accept('s');
            if self.bytes_while(|c| c.is_ascii_digit()).is_empty() {
                return true;
            }
        }
    }
}

/// Reads a number: first as an integer whose base the prefix tells, then as a decimal fraction.
fn parse_number(text: &str) -> Result<f64, String> {
    let plain = text.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let integer = if let Some(hex) = lower.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()
    } else if lower.len() > 1 && lower.starts_with('0') {
        i64::from_str_radix(&lower, 8).ok()
    } else {
        lower.parse().ok()
    };
    #[expect(clippy::cast_precision_loss, reason = "an integer literal is read as the nearest float")]
    if let Some(integer) = integer {
        return Ok(integer as f64);
    }
    let refused = |why| Err(format!("error parsing number: strconv.ParseFloat: parsing \"{plain}\": {why}"));
    match lower.parse::<f64>() {
        Ok(value) if value.is_infinite() => refused("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => refused("invalid syntax"),
    }
}

/// Reads a duration; the result is in seconds.
fn parse_duration(text: &str) -> Result<f64, String> {
    let (mut total, mut rest, mut next_unit) = (Some(0u64), text, 0);
    let mut in_order = true;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(|b| !b.is_ascii_digit()).count();
        let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        let Some(at) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit \"{unit}\" in duration \"{text}\""));
        };
        in_order &= at >= next_unit && !number.is_empty();
        next_unit = at + 1;
        let number: Option<u64> = number.parse().ok();
        total =
            total.zip(number.and_then(|n| n.checked_mul(UNITS[at].1))).and_then(|(a, b)| a.checked_add(b));
        rest = &rest[digits + letters..];
    }
    if !in_order {
        return Err(format!("not a valid duration string: \"{text}\""));
    }
    // A duration has 63 bits of nanoseconds.
    let ms = total.filter(|ms| *ms <= u64::MAX / 2 / 1_000_000).ok_or("duration out of range")?;
    #[expect(clippy::cast_precision_loss, reason = "below 2^44")]
    let seconds = ms as f64 / 1000.0;
    Ok(seconds)
}
