//! String literals: escapes in, escapes out.
//!
//! Strings of the language are byte strings, those of the store are UTF-8. A byte that `\xff` put
//! where no UTF-8 can have it is carried as a character of a private plane, which no label value
//! uses, and is written back as `\xff`.

use std::fmt;

/// The first of the 256 private characters that stand for single bytes.
const BYTE_PLANE: u32 = 0x0010_ff00;

/// The character that stands for a byte which is no UTF-8.
#[must_use]
pub fn encode_byte(byte: u8) -> char {
    char::from_u32(BYTE_PLANE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte for which `c` stands, if it stands for one.
#[must_use]
pub fn decode_byte(c: char) -> Option<u8> {
    u32::from(c).checked_sub(BYTE_PLANE).and_then(|byte| u8::try_from(byte).ok()).filter(|b| *b >= 0x80)
}

/// Whether `text` holds a byte that is no UTF-8.
#[must_use]
pub fn has_invalid_utf8(text: &str) -> bool {
    text.chars().any(|c| decode_byte(c).is_some())
}

/// Reads the escapes of a string between quotes of kind `quote`.
///
/// The lexer calls this with the text between the quotes; the error is a message.
pub(crate) fn unescape(text: &str, quote: char) -> Result<String, String> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            escape(&mut chars, quote, &mut bytes)?;
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|byte| encode_byte(*byte)));
    }
    Ok(out)
}

fn escape(chars: &mut std::str::Chars<'_>, quote: char, out: &mut Vec<u8>) -> Result<(), String> {
    let c = chars.next().ok_or("escape sequence not terminated")?;
    let (digits, base, max) = match c {
        'a' => return push(out, 0x07),
        'b' => return push(out, 0x08),
        'f' => return push(out, 0x0c),
        'n' => return push(out, b'\n'),
        'r' => return push(out, b'\r'),
        't' => return push(out, b'\t'),
        'v' => return push(out, 0x0b),
        '\\' => return push(out, b'\\'),
        c if c == quote => {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(());
        }
        '0'..='7' => (3, 8, 255),
        'x' => (2, 16, 255),
        'u' => (4, 16, 0x0010_ffff),
        'U' => (8, 16, 0x0010_ffff),
        c => return Err(format!("unknown escape sequence U+{:04X} '{c}'", u32::from(c))),
    };
    let mut value = if base == 8 { c.to_digit(8).unwrap_or(0) } else { 0 };
    for _ in usize::from(base == 8)..digits {
        let c = chars.next().ok_or("escape sequence not terminated")?;
        let digit = c
            .to_digit(base)
            .ok_or_else(|| format!("illegal character U+{:04X} '{c}' in escape sequence", u32::from(c)))?;
        value = value.saturating_mul(base).saturating_add(digit);
    }
    if value > max || (0xd800..0xe000).contains(&value) && matches!(c, 'u' | 'U') {
        return Err("escape sequence is an invalid Unicode code point".to_owned());
    }
    match u8::try_from(value) {
        Ok(byte) if max == 255 => out.push(byte),
        _ => {
            let c = char::from_u32(value).ok_or("escape sequence is an invalid Unicode code point")?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "keeps the table of escapes to one column")]
fn push(out: &mut Vec<u8>, byte: u8) -> Result<(), String> {
    out.push(byte);
    Ok(())
}

/// A string literal in double quotes.
pub(crate) struct Quote<'a>(pub(crate) &'a str);

impl fmt::Display for Quote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !has_invalid_utf8(self.0) {
            return model::Quoted(self.0).fmt(f);
        }
        let mut out = model::Quoted(self.0).to_string();
        for byte in 0x80..=u8::MAX {
            let c = encode_byte(byte);
            if out.contains(c) {
                out = out.replace(c, &format!("\\x{byte:02x}"));
            }
        }
        f.write_str(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_and_out() {
        let all = r#"\a\b\f\n\r\t\v\\\" - \xFF\377\u1234\U00010111☺"#;
        let text = unescape(all, '"').unwrap();
        assert_eq!(
            Quote(&text).to_string(),
            "\"\\a\\b\\f\\n\\r\\t\\v\\\\\\\" - \\xff\\xff\u{1234}\u{10111}☺\""
        );
        for bad in [r"\q", r"\x1", r"\400", r"\ud800", r"\U00110000", "\\", r"\'"] {
            assert!(unescape(bad, '"').is_err(), "{bad}");
        }
    }
}
