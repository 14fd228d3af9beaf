//! Text in the making.
//!
//! Arithmetic: a sample is four short texts: what stands before its time, two digits, what stands before its value, and
//! the value. A copy of unknown length is a call, some 5 ns; one of at most 32 bytes as two pieces of a fixed length that
//! may overlap is 1 ns.

use model::float;

/// What text can be appended to.
pub(crate) trait Text {
    /// Appends `text`.
    fn push_text(&mut self, text: &str);
}

impl Text for String {
    fn push_text(&mut self, text: &str) {
        self.push_str(text);
    }
}

/// Bytes of UTF-8.
#[derive(Default)]
pub(super) struct Piece(Vec<u8>);

impl Text for Piece {
    #[inline]
    fn push_text(&mut self, text: &str) {
        self.push(text.as_bytes());
    }
}

impl Piece {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    #[inline]
    pub(super) fn push(&mut self, text: &[u8]) {
        match text.len() {
            16..=32 => self.push_ends::<16>(text),
            8..=15 => self.push_ends::<8>(text),
            4..=7 => self.push_ends::<4>(text),
            1..=3 => text.iter().for_each(|byte| self.0.push(*byte)),
            _ => self.0.extend_from_slice(text),
        }
    }

    /// Appends a text of `N` to `2 * N` bytes.
    #[inline]
    fn push_ends<const N: usize>(&mut self, text: &[u8]) {
        if let (Some(head), Some(tail)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) {
            let end = self.0.len() + text.len();
            self.0.extend_from_slice(head);
            self.0.truncate(end - N);
            self.0.extend_from_slice(tail);
        }
    }

    /// Appends the first `length` bytes of `text`.
    #[inline]
    pub(super) fn push_start<const N: usize>(&mut self, text: &[u8; N], length: usize) {
        let end = self.0.len() + length;
        self.0.extend_from_slice(text);
        self.0.truncate(end);
    }

    /// Appends `value` as [`float::push_json`] does, faster where it is a whole number, or one of few decimals.
    #[inline]
    pub(super) fn push_number(&mut self, value: f64) {
        if self.push_whole(value) || self.push_thousandths(value) {
            return;
        }
        // The shortest digits without an exponent are in the form that is asked for.
        if (1e-5..1e15).contains(&value.abs()) {
            let mut digits = zmij::Buffer::new();
            let text = digits.format_finite(value).as_bytes();
            return if text.len() >= 16 { self.push_ends::<16>(text) } else { self.push(text) };
        }
        let mut text = String::new();
        float::push_json(&mut text, value);
        self.push(text.as_bytes());
    }

    /// Appends a whole number of at most fifteen digits.
    #[inline]
    fn push_whole(&mut self, value: f64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "what is cut off is found out")]
        let whole = value as i64;
        let is_minus_zero = whole == 0 && value.is_sign_negative();
        if !is_same(whole as f64, value) || whole.unsigned_abs() >= EXACT || is_minus_zero {
            return false;
        }
        self.push(itoa::Buffer::new().format(whole).as_bytes());
        true
    }

    /// Appends a number that is so many thousandths. With at most fifteen digits no two numbers are the same float, so
    /// these are the shortest that read back: the quotient of two whole floats is rounded as a number that is read.
    #[inline]
    fn push_thousandths(&mut self, value: f64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "what is cut off is found out")]
        let thousandths = (value * 1000.0 + 0.5_f64.copysign(value)) as i64;
        let count = thousandths.unsigned_abs();
        // Most that are none are far from one, which takes no division.
        if (value * 1000.0 - thousandths as f64).abs() > 1e-4 || count >= EXACT || count == 0 {
            return false;
        }
        if !is_same(thousandths as f64 / 1000.0, value) {
            return false;
        }
        if value < 0.0 {
            self.0.push(b'-');
        }
        self.push(itoa::Buffer::new().format(count / 1000).as_bytes());
        let fraction = count % 1000;
        let zeros = usize::from(fraction.is_multiple_of(10)) + usize::from(fraction.is_multiple_of(100));
        // A thousand more has the digits of the fraction, zeros and all, behind its one.
        let mut text = [b'.'; 4];
        text[1..].copy_from_slice(&itoa::Buffer::new().format(1000 + fraction).as_bytes()[1..]);
        self.push_start(&text, 4 - zeros);
        true
    }
}

/// From here on a float may lack the last of the digits of a whole number.
const EXACT: u64 = 1_000_000_000_000_000;

/// Whether two floats are the same but for the sign of zero.
#[expect(clippy::float_cmp, reason = "exactly that is asked")]
fn is_same(a: f64, b: f64) -> bool {
    a == b
}
