//! Text to tokens.
//!
//! The lexer depends on context: inside braces every word is a label name, inside brackets only
//! durations and their arithmetic are known. A lexical error is a token too, the last one, so that
//! an error of syntax before it is the one that is reported.

mod number;

use crate::ast::{AggregateOp, BinaryOp, Span};
use crate::text;

/// Words with a meaning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Aggregate(AggregateOp),
    Offset,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Bool,
    Fill,
    FillLeft,
    FillRight,
    Anchored,
    Smoothed,
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
    And,
    Or,
    Unless,
    Atan2,
}

impl Keyword {
    fn named(word: &str) -> Option<Self> {
        // Most words are names of metrics, and have another first letter or are longer.
        if word.bytes().next().is_none_or(|first| CLASSES[first as usize] & KEYWORD == 0) {
            return None;
        }
        // None is longer.
        let mut lower = [0; "count_values".len()];
        let lower = lower.get_mut(..word.len())?;
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        Some(match std::str::from_utf8(lower).ok()? {
            "offset" => Self::Offset,
            "by" => Self::By,
            "without" => Self::Without,
            "on" => Self::On,
            "ignoring" => Self::Ignoring,
            "group_left" => Self::GroupLeft,
            "group_right" => Self::GroupRight,
            "bool" => Self::Bool,
            "fill" => Self::Fill,
            "fill_left" => Self::FillLeft,
            "fill_right" => Self::FillRight,
            "anchored" => Self::Anchored,
            "smoothed" => Self::Smoothed,
            "start" => Self::Start,
            "end" => Self::End,
            "step" => Self::Step,
            "range" => Self::Range,
            "max_of" => Self::MaxOf,
            "min_of" => Self::MinOf,
            "and" => Self::And,
            "or" => Self::Or,
            "unless" => Self::Unless,
            "atan2" => Self::Atan2,
            other => Self::Aggregate(*AggregateOp::ALL.iter().find(|op| op.as_str() == other)?),
        })
    }

    /// Whether the word may also be a metric name.
    pub(crate) fn may_be_metric(self) -> bool {
        !matches!(
            self,
            Self::Bool | Self::On | Self::Ignoring | Self::GroupLeft | Self::GroupRight | Self::Atan2
        )
    }

    /// The operator that the word is.
    pub(crate) fn operator(self) -> Option<BinaryOp> {
        match self {
            Self::And => Some(BinaryOp::And),
            Self::Or => Some(BinaryOp::Or),
            Self::Unless => Some(BinaryOp::Unless),
            Self::Atan2 => Some(BinaryOp::Atan2),
            _ => None,
        }
    }
}

/// The kinds of token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenKind {
    /// A word, perhaps with colons.
    Identifier,
    Keyword(Keyword),
    /// A number; `error` says why it could not be read.
    Number(Result<f64, String>),
    /// A duration in seconds.
    Duration(Result<f64, String>),
    String(String),
    Operator(BinaryOp),
    /// `=`
    Assign,
    /// `=~`
    RegexMatch,
    /// `!~`
    RegexNoMatch,
    At,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    /// The end of the input.
    End,
    /// Something that is no token, with the message.
    Error(String),
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

/// Splits `text` into tokens; the last one is [`TokenKind::End`] or [`TokenKind::Error`].
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    // A token is three bytes or more, with what stands around it.
    let out = Vec::with_capacity(text.len() / 3 + 2);
    let mut lexer = Lexer { text, at: 0, parens: 0, context: Context::Statement, blame: None, out };
    while !matches!(lexer.out.last(), Some(Token { kind: TokenKind::End | TokenKind::Error(_), .. })) {
        lexer.skip_blanks();
        let start = lexer.at;
        let kind = match lexer.context {
            Context::Statement => lexer.statement(),
            Context::Braces => lexer.braces(),
            Context::Brackets { .. } => lexer.brackets(),
        };
        let is_error = matches!(kind, TokenKind::Error(_));
        let start = lexer.blame.filter(|_| is_error).unwrap_or(start);
        let end = if is_error { text.len() } else { lexer.at };
        lexer.out.push(Token { kind, span: Span { start, end } });
    }
    lexer.out
}

#[derive(Clone, Copy, PartialEq)]
enum Context {
    Statement,
    Braces,
    Brackets { empty: bool, colon: bool },
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    parens: usize,
    context: Context,
    /// Where an error is said to be, if not at the start of the token.
    blame: Option<usize>,
    out: Vec<Token>,
}

fn error(message: &str) -> TokenKind {
    TokenKind::Error(message.to_owned())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What a byte may be, as bits.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte: u8 = 0;
    // Beyond, all bytes are of characters that are in no class.
    while byte < 128 {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            classes[byte as usize] |= WORD;
        }
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            classes[byte as usize] |= BLANK;
        }
        if matches!(byte.to_ascii_lowercase(), b'a'..=b'c' | b'e'..=b'g' | b'i' | b'l' | b'm' | b'o' | b'q'..=b'u' | b'w')
        {
            classes[byte as usize] |= KEYWORD;
        }
        byte += 1;
    }
    classes[b':' as usize] |= COLON;
    classes
};
/// Part of a word.
const WORD: u8 = 1;
const COLON: u8 = 2;
const BLANK: u8 = 4;
/// The first letter of a keyword.
const KEYWORD: u8 = 8;

/// A character as an error message shows it.
fn shown(c: char) -> String {
    match c {
        '\0' => r"'\x00'".to_owned(),
        '\\' => r"'\\'".to_owned(),
        '\'' => r"'\''".to_owned(),
        '\u{feff}' => r"'\ufeff'".to_owned(),
        c if c.is_control() => format!("'\\x{:02x}'", u32::from(c)),
        c => format!("'{c}'"),
    }
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, c: char) -> bool {
        let hit = self.peek() == Some(c);
        self.at += if hit { c.len_utf8() } else { 0 };
        hit
    }

    /// The bytes that come next and are in one of `classes`.
    fn word(&mut self, classes: u8) -> &'a str {
        self.bytes_while(|byte| CLASSES[byte as usize] & classes != 0)
    }

    /// The bytes that come next for which `more` holds; it must not tell the bytes of one character apart.
    fn bytes_while(&mut self, more: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|byte| !more(byte)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_blanks(&mut self) {
        loop {
            self.word(BLANK);
            let comment = self.peek() == Some('#') && !matches!(self.context, Context::Brackets { .. });
            if !comment {
                return;
            }
            self.bytes_while(|c| c != b'\n' && c != b'\r');
        }
    }

    fn statement(&mut self) -> TokenKind {
        let Some(c) = self.next() else {
            return if self.parens > 0 { error("unclosed left parenthesis") } else { TokenKind::End };
        };
        match c {
            '{' => {
                self.context = Context::Braces;
                TokenKind::LeftBrace
            }
            '[' => {
                self.context = Context::Brackets { empty: true, colon: false };
                TokenKind::LeftBracket
            }
            '}' => error("unexpected character: '}'"),
            ']' => error("unexpected right bracket ']'"),
            '"' | '\'' | '`' => self.string(c),
            '@' => TokenKind::At,
            ':' if self.peek().is_none_or(|c| !is_word(c) && c != ':') => error("unexpected colon ':'"),
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                self.at -= 1;
                let word = self.word(WORD | COLON);
                self.keyword(word)
            }
            c if c.is_ascii_digit() || c == '.' && self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                self.at -= 1;
                self.number()
            }
            c => self.operator(c),
        }
    }

    fn operator(&mut self, c: char) -> TokenKind {
        match c {
            ',' => TokenKind::Comma,
            '(' => {
                self.parens += 1;
                TokenKind::LeftParen
            }
            ')' if self.parens == 0 => {
                self.blame = Some(self.at);
                error("unexpected right parenthesis ')'")
            }
            ')' => {
                self.parens -= 1;
                TokenKind::RightParen
            }
            '+' => TokenKind::Operator(BinaryOp::Add),
            '-' => TokenKind::Operator(BinaryOp::Sub),
            '*' => TokenKind::Operator(BinaryOp::Mul),
            '/' => TokenKind::Operator(BinaryOp::Div),
            '%' => TokenKind::Operator(BinaryOp::Mod),
            '^' => TokenKind::Operator(BinaryOp::Pow),
            '=' if self.accept('=') => TokenKind::Operator(BinaryOp::Equal),
            '=' if self.peek() == Some('~') => error("unexpected character after '=': '~'"),
            '=' => TokenKind::Assign,
            '!' if self.accept('=') => TokenKind::Operator(BinaryOp::NotEqual),
            '!' => {
                let next = self.peek().map_or_else(|| "end of input".into(), shown);
                TokenKind::Error(format!("unexpected character after '!': {next}"))
            }
            '<' if self.accept('=') => TokenKind::Operator(BinaryOp::LessEqual),
            '<' if self.accept('/') => TokenKind::Operator(BinaryOp::TrimUpper),
            '<' => TokenKind::Operator(BinaryOp::Less),
            '>' if self.accept('=') => TokenKind::Operator(BinaryOp::GreaterEqual),
            '>' if self.accept('/') => TokenKind::Operator(BinaryOp::TrimLower),
            '>' => TokenKind::Operator(BinaryOp::Greater),
            c => TokenKind::Error(format!("unexpected character: {}", shown(c))),
        }
    }

    fn keyword(&self, word: &str) -> TokenKind {
        if word.eq_ignore_ascii_case("nan") {
            return TokenKind::Number(Ok(f64::NAN));
        }
        if word.eq_ignore_ascii_case("inf") {
            return TokenKind::Number(Ok(f64::INFINITY));
        }
        match Keyword::named(word) {
            // A metric may be called `fill`: it is a modifier only before a parenthesis.
            Some(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)
                if !self.rest().trim_start_matches([' ', '\t', '\r', '\n']).starts_with('(') =>
            {
                TokenKind::Identifier
            }
            Some(keyword) => TokenKind::Keyword(keyword),
            None => TokenKind::Identifier,
        }
    }

    fn braces(&mut self) -> TokenKind {
        let Some(c) = self.next() else { return error("unexpected end of input inside braces") };
        match c {
            '{' => error("unexpected left brace '{'"),
            '}' => {
                self.context = Context::Statement;
                TokenKind::RightBrace
            }
            '"' | '\'' | '`' => self.string(c),
            ',' => TokenKind::Comma,
            '=' if self.accept('~') => TokenKind::RegexMatch,
            '=' => TokenKind::Assign,
            '!' if self.accept('~') => TokenKind::RegexNoMatch,
            '!' if self.accept('=') => TokenKind::Operator(BinaryOp::NotEqual),
            '!' => {
                let next = self.peek().map_or_else(|| "end of input".into(), shown);
                TokenKind::Error(format!("unexpected character after '!' inside braces: {next}"))
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                self.word(WORD);
                TokenKind::Identifier
            }
            c => TokenKind::Error(format!("unexpected character inside braces: {}", shown(c))),
        }
    }

    fn brackets(&mut self) -> TokenKind {
        let Context::Brackets { empty, colon } = self.context else { return TokenKind::End };
        let Some(c) = self.next() else {
            let what = if empty {
                "unexpected end of input in duration expression"
            } else {
                "unclosed left bracket"
            };
            return error(what);
        };
        let kind = match c {
            ']' => {
                self.context = Context::Statement;
                return TokenKind::RightBracket;
            }
            ':' if empty => {
                self.blame = Some(self.at);
                return error("unexpected colon before duration in duration expression");
            }
            ':' if colon => error("unexpected colon ':'"),
            ':' => {
                self.context = Context::Brackets { empty, colon: true };
                return TokenKind::Colon;
            }
            '(' | ')' | '+' | '-' | '*' | '/' | '%' | '^' | ',' => self.operator(c),
            c if c.is_ascii_digit() || c == '.' && self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                self.at -= 1;
                self.number()
            }
            c if c.is_ascii_alphabetic() => {
                let start = self.at;
                self.at -= 1;
                match Keyword::named(self.word(WORD)) {
                    Some(word @ (Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf)) => {
                        TokenKind::Keyword(word)
                    }
                    _ => {
                        self.at = start;
                        return TokenKind::Error(format!(
                            "unexpected character in duration expression: {}",
                            shown(c)
                        ));
                    }
                }
            }
            c => TokenKind::Error(format!("unexpected character in duration expression: {}", shown(c))),
        };
        self.context = Context::Brackets { empty: false, colon };
        kind
    }

    fn string(&mut self, quote: char) -> TokenKind {
        let start = self.at;
        if quote == '`' {
            while let Some(c) = self.next() {
                if c == '`' {
                    return TokenKind::String(self.text[start..self.at - 1].to_owned());
                }
            }
            return error("unterminated raw string");
        }
        loop {
            self.bytes_while(|byte| !matches!(byte, b'"' | b'\'' | b'\\' | b'\n'));
            match self.next() {
                None | Some('\n') => break,
                Some('\\') if self.next().is_none() => return error("escape sequence not terminated"),
                Some(c) if c == quote => {
                    let unescaped = text::unescape(&self.text[start..self.at - 1], quote);
                    return unescaped.map_or_else(TokenKind::Error, TokenKind::String);
                }
                _ => {}
            }
        }
        error("unterminated quoted string")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_found_in_any_case() {
        let words = "offset by without on ignoring group_left group_right bool fill fill_left fill_right anchored \
                     smoothed start end step range max_of min_of and or unless atan2";
        let aggregations = AggregateOp::ALL.iter().map(|op| op.as_str());
        for word in words.split_whitespace().chain(aggregations) {
            assert!(Keyword::named(word).is_some(), "{word}");
            assert!(Keyword::named(&word.to_uppercase()).is_some(), "{word}");
        }
        assert!(Keyword::named("").is_none() && Keyword::named("up").is_none());
    }
}
