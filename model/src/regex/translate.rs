//! From Go's RE2 syntax to that of the `regex` crate.

use super::RegexError;

/// Go refuses counted repetitions above this.
const REPEAT_MAX: u32 = 1000;

/// Rewrites a pattern of Go's RE2 dialect so that the `regex` crate reads it with the same meaning.
///
/// # Errors
/// Go would refuse the pattern.
pub fn translate(pattern: &str) -> Result<String, RegexError> {
    let mut translator =
        Translator { rest: pattern, out: String::with_capacity(pattern.len() + 8), depth: 0 };
    translator.run(pattern)?;
    Ok(translator.out)
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    depth: usize,
}

/// What the last item allows next: may it be repeated, was it itself a repetition?
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Nothing,
    Item,
    Repetition,
}

fn error<T>(what: &'static str, at: &str) -> Result<T, RegexError> {
    Err(RegexError { what, at: at.to_owned() })
}

impl<'a> Translator<'a> {
    fn run(&mut self, pattern: &str) -> Result<(), RegexError> {
        let mut last = Last::Nothing;
        while let Some(c) = self.rest.chars().next() {
            last = match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.open()?,
                ')' => {
                    if self.depth == 0 {
                        return error("unexpected )", pattern);
                    }
                    self.depth -= 1;
                    self.copy(1);
                    Last::Item
                }
                '|' => {
                    self.copy(1);
                    Last::Nothing
                }
                '*' | '+' | '?' => self.repetition(1, last)?,
                '{' => match counted(self.rest) {
                    Some(length) => {
                        check_count(&self.rest[..length])?;
                        self.repetition(length, last)?
                    }
                    None => self.literal('{'),
                },
                '.' | '^' | '$' => {
                    self.copy(1);
                    Last::Item
                }
                c => self.literal(c),
            };
        }
        if self.depth > 0 { error("missing closing )", pattern) } else { Ok(()) }
    }

    /// Copies `length` bytes as they are.
    fn copy(&mut self, length: usize) {
        self.out.push_str(&self.rest[..length]);
        self.rest = &self.rest[length..];
    }

    fn literal(&mut self, c: char) -> Last {
        self.rest = &self.rest[c.len_utf8()..];
        push_literal(&mut self.out, c);
        Last::Item
    }

    fn repetition(&mut self, length: usize, last: Last) -> Result<Last, RegexError> {
        let lazy = usize::from(self.rest[length..].starts_with('?'));
        match last {
            Last::Nothing => error("missing argument to repetition operator", &self.rest[..length]),
            Last::Repetition => error("invalid nested repetition operator", &self.rest[..length + lazy]),
            Last::Item => {
                self.copy(length + lazy);
                Ok(Last::Repetition)
            }
        }
    }

    /// An opening parenthesis with what follows it: a name, flags, or nothing.
    fn open(&mut self) -> Result<Last, RegexError> {
        let Some(group) = self.rest.strip_prefix("(?") else {
            self.copy(1);
            self.depth += 1;
            return Ok(Last::Nothing);
        };
        if group.starts_with("P<") || group.starts_with('<') {
            let Some(end) = self.rest.find('>') else { return error("invalid named capture", self.rest) };
            let start = self.rest.find('<').unwrap_or(0) + 1;
            let name = &self.rest[start..end];
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return error("invalid named capture", &self.rest[..=end]);
            }
            self.copy(end + 1);
            self.depth += 1;
            return Ok(Last::Nothing);
        }
        let Some(end) = group.find([':', ')']) else {
            return error("missing argument to repetition operator", "?");
        };
        let flags = &group[..end];
        let (on, off) = flags.split_once('-').map_or((flags, None), |(on, off)| (on, Some(off)));
        let known = |flags: &str| flags.bytes().all(|b| b"imsU".contains(&b));
        if !known(on) || !off.is_none_or(|off| known(off) && !off.is_empty()) {
            return error("invalid or unsupported Perl syntax", &self.rest[..end + 3]);
        }
        if group[end..].starts_with(':') {
            self.depth += 1;
        } else if flags.is_empty() {
            self.rest = &self.rest["(?)".len()..];
            return Ok(Last::Nothing);
        }
        self.copy("(?".len() + end + 1);
        Ok(Last::Nothing)
    }

    /// A backslash outside a class.
    fn escape(&mut self) -> Result<Last, RegexError> {
        let escape: &'a str = self.rest;
        if let Some(quoted) = escape.strip_prefix("\\Q") {
            let (text, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            for c in text.chars() {
                push_literal(&mut self.out, c);
            }
            self.rest = rest;
            return Ok(if text.is_empty() { Last::Nothing } else { Last::Item });
        }
        let Some(c) = escape[1..].chars().next() else {
            return error("trailing backslash at end of expression", "");
        };
        let replacement = match c {
            'd' | 'D' | 'w' | 'W' | 's' | 'S' => Some(["[", perl_class(c), "]"].concat()),
            'b' | 'B' => Some(format!("(?-u:\\{c})")),
            'A' | 'z' => Some(format!("\\{c}")),
            'E' => Some(String::new()),
            _ => None,
        };
        if let Some(replacement) = replacement {
            self.out.push_str(&replacement);
            self.rest = &escape[2..];
        } else if matches!(c, 'p' | 'P') {
            let length = property_length(escape)?;
            self.copy(length);
        } else {
            let (c, length) = escaped_char(escape)?;
            push_literal(&mut self.out, c);
            self.rest = &escape[length..];
        }
        Ok(Last::Item)
    }

    /// A bracketed class. Every character is written escaped, so that nothing in it can be taken for
    /// the `regex` crate's class algebra.
    fn class(&mut self) -> Result<Last, RegexError> {
        let whole = self.rest;
        let missing = || error("missing closing ]", whole);
        self.copy(1);
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        let mut first = true;
        loop {
            let Some(c) = self.rest.chars().next() else { return missing() };
            if c == ']' && !first {
                self.copy(1);
                return Ok(Last::Item);
            }
            first = false;
            if let Some(length) = posix_length(self.rest)? {
                self.copy(length);
                continue;
            }
            match self.rest.as_bytes() {
                [b'\\', b'd' | b'D' | b'w' | b'W' | b's' | b'S', ..] => {
                    let class = ["[", perl_class(char::from(self.rest.as_bytes()[1])), "]"].concat();
                    self.out.push_str(&class);
                    self.rest = &self.rest[2..];
                    continue;
                }
                [b'\\', b'p' | b'P', ..] => {
                    let length = property_length(self.rest)?;
                    self.copy(length);
                    continue;
                }
                _ => {}
            }
            self.class_range()?;
        }
    }

    /// One character of a class, or a range of them.
    fn class_range(&mut self) -> Result<(), RegexError> {
        let start = self.rest;
        let low = self.class_char()?;
        let is_range = self.rest.starts_with('-') && !self.rest[1..].starts_with(']') && self.rest.len() > 1;
        push_class_char(&mut self.out, low);
        if is_range {
            self.rest = &self.rest[1..];
            let high = self.class_char()?;
            if high < low {
                let length = start.len() - self.rest.len();
                return error("invalid character class range", &start[..length]);
            }
            self.out.push('-');
            push_class_char(&mut self.out, high);
        }
        Ok(())
    }

    fn class_char(&mut self) -> Result<char, RegexError> {
        let (c, length) = match self.rest.chars().next() {
            Some('\\') => escaped_char(self.rest)?,
            Some(c) => (c, c.len_utf8()),
            None => return error("missing closing ]", ""),
        };
        self.rest = &self.rest[length..];
        Ok(c)
    }
}

fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_punctuation() && c != '<' && c != '>' {
        out.push('\\');
    }
    out.push(c);
}

fn push_class_char(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
    }
}

/// The inside of the class that `\d` and its kin stand for: ASCII only, as in Go.
fn perl_class(letter: char) -> &'static str {
    match letter {
        'd' => "0-9",
        'D' => "^0-9",
        'w' => "0-9A-Za-z_",
        'W' => "^0-9A-Za-z_",
        's' => "\\t\\n\\x0C\\r\\x20",
        _ => "^\\t\\n\\x0C\\r\\x20",
    }
}

/// Length of `{n}`, `{n,}` or `{n,m}` at the start of `text`.
fn counted(text: &str) -> Option<usize> {
    let end = text.find('}')?;
    let (low, high) = text[1..end].split_once(',').unwrap_or((&text[1..end], ""));
    let number = |digits: &str| {
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'))
    };
    (!low.is_empty() && number(low) && number(high)).then_some(end + 1)
}

fn check_count(text: &str) -> Result<(), RegexError> {
    let inner = text.trim_matches(['{', '}']);
    let (low, high) = inner.split_once(',').unwrap_or((inner, inner));
    let number = |digits: &str| digits.parse::<u32>().unwrap_or(u32::MAX);
    let (low, high) = (number(low), if high.is_empty() { number(low) } else { number(high) });
    if low > REPEAT_MAX || high > REPEAT_MAX || low > high {
        return error("invalid repeat count", text);
    }
    Ok(())
}

/// Length of `[:name:]` at the start of `text`, if it is one.
fn posix_length(text: &str) -> Result<Option<usize>, RegexError> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
        "upper", "word", "xdigit",
    ];
    let Some(inner) = text.strip_prefix("[:") else { return Ok(None) };
    let Some(end) = inner.find(":]") else { return Ok(None) };
    let name = inner[..end].strip_prefix('^').unwrap_or(&inner[..end]);
    if NAMES.contains(&name) {
        return Ok(Some(end + 4));
    }
    error("invalid character class range", &text[..end + 4])
}

/// Length of `\pL` or `\p{Name}` at the start of `text`.
fn property_length(text: &str) -> Result<usize, RegexError> {
    let length = match text[2..].chars().next() {
        Some('{') => text.find('}').map(|end| end + 1),
        Some(c) => Some(2 + c.len_utf8()),
        None => None,
    };
    let Some(length) = length else { return error("invalid character class range", text) };
    // Go knows general categories and scripts; of those the `regex` crate has all, and it refuses the rest.
    if regex_syntax::parse(&text[..length]).is_err() || text[..length].contains(['=', ':']) {
        return error("invalid character class range", &text[..length]);
    }
    Ok(length)
}

/// The character that the escape at the start of `text` stands for, and the escape's length.
fn escaped_char(text: &str) -> Result<(char, usize), RegexError> {
    let bytes = text.as_bytes();
    let octal = |at: usize| bytes.get(at).filter(|b| (b'0'..b'8').contains(b)).map(|b| u32::from(b - b'0'));
    let Some(c) = text[1..].chars().next() else {
        return error("trailing backslash at end of expression", "");
    };
    let invalid = |length: usize| error("invalid escape sequence", text.get(..length).unwrap_or(text));
    let simple = match c {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '0'..='7' => {
            // A single non-zero digit would be a back-reference, which RE2 does not have.
            if c != '0' && octal(2).is_none() {
                return invalid(2);
            }
            let (mut code, mut length) = (0, 1);
            while let Some(value) = octal(length).filter(|_| length < 4) {
                code = code * 8 + value;
                length += 1;
            }
            return char::from_u32(code).map_or_else(|| invalid(length), |c| Ok((c, length)));
        }
        'x' => return hex_char(text),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
        c => return invalid(1 + c.len_utf8()),
    };
    Ok((simple, 2))
}

/// `\x7F` or `\x{10FFFF}` at the start of `text`.
fn hex_char(text: &str) -> Result<(char, usize), RegexError> {
    let invalid = || error("invalid escape sequence", text.get(..3).unwrap_or(text));
    let (digits, length) = match text[2..].strip_prefix('{') {
        Some(inner) => match inner.find('}') {
            Some(end) => (&inner[..end], end + 4),
            None => return invalid(),
        },
        None => match text.get(2..4) {
            Some(digits) => (digits, 4),
            None => return invalid(),
        },
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return invalid();
    }
    match u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) {
        Some(c) => Ok((c, length)),
        None => invalid(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::AnchoredRegex;

    fn matches(pattern: &str, text: &str) -> bool {
        AnchoredRegex::new(pattern).unwrap_or_else(|error| unreachable!("{pattern}: {error}")).is_match(text)
    }

    #[test]
    fn reads_what_only_go_reads() {
        for (pattern, text) in [
            (r"\Qa.b*\E+", "a.b**"),
            (r"a{", "a{"),
            (r"{foo}", "{foo}"),
            (r"a{,5}", "a{,5}"),
            (r"\123", "S"),
            (r"[\d-z]+", "1-z"),
            (r"[a&&b]+", "a&b"),
            (r"[[a]+", "[a"),
            (r"\<x\>", "<x>"),
            (r"[]a]+", "]a"),
            (r"a{2,3}?", "aaa"),
            (r"[[:alpha:]_]+", "a_"),
            (r"\x{e9}\xe9", "éé"),
            (r"x\b.*", "x y"),
            (r"(?)a", "a"),
            (r"[^\S]", " "),
            (r"\pL\p{Greek}", "aα"),
            (r"(?P<n>a)(?<m>b)", "ab"),
        ] {
            assert!(matches(pattern, text), "{pattern}");
        }
        assert!(!matches(r"\d", "٣"), "digits are ASCII");
        assert!(!matches(r"\w", "é"), "word characters are ASCII");
    }

    #[test]
    fn refuses_what_go_refuses() {
        for pattern in [
            "a**",
            "a{2}{3}",
            "a{1001}",
            "(?x)a",
            "(?R)a",
            r"\u{61}",
            "(",
            ")",
            "[a",
            "*a",
            "a|*",
            r"\1",
            r"\8",
            "\\",
            "[b-a]",
            "(?i",
            "(?P<>a)",
            r"[\b]",
            r"\Z",
            r"\C",
            "[[:foo:]]",
            r"\xg0",
            "a{3,2}",
            r"\p{Nope}",
            "a+*",
            "(?=a)",
        ] {
            assert!(AnchoredRegex::new(pattern).is_err(), "{pattern}");
        }
    }
}
