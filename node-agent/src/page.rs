//! A page of text exposition under construction.

use std::fmt::Write as _;

/// Families in the order in which they are begun.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
    /// The family being written; its head is written with its first sample.
    head: String,
    name: &'static str,
}

impl Page {
    /// Begins a family. It leaves no trace if no sample follows.
    pub(crate) fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        self.head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a sample to the family. Labels are given in ascending order of names; a missing timestamp is
    /// left out.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: f64, ts_ms: Option<i64>) {
        self.text.push_str(&std::mem::take(&mut self.head));
        self.text.push_str(self.name);
        let mut open = '{';
        for (name, value) in labels {
            let _ = write!(self.text, "{open}{name}=\"");
            push_escaped(&mut self.text, value);
            self.text.push('"');
            open = ',';
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.push(' ');
        push_float(&mut self.text, value);
        if let Some(ts) = ts_ms {
            let _ = write!(self.text, " {ts}");
        }
        self.text.push('\n');
    }

    /// The page.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

fn push_escaped(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// The shortest digits that read back, in the form of Go's exporters: with an exponent below 1e-4 and
/// from 1e+06 on.
fn push_float(out: &mut String, value: f64) {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        out.push_str(if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        });
        return;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let _ = write!(out, "{value}");
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
}

/// A number as a float. Above 2^53 its last bits are lost, as on any page.
#[expect(clippy::cast_precision_loss, reason = "the format has floats only")]
pub(crate) fn number(value: u64) -> f64 {
    value as f64
}

/// Nanoseconds in seconds.
pub(crate) fn seconds(ns: u64) -> f64 {
    number(ns) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_look_like_those_of_a_kubelet() {
        for (value, text) in [
            (0.0, "0"),
            (479_232.0, "479232"),
            (1_002_844.0, "1.002844e+06"),
            (67_108_864.0, "6.7108864e+07"),
            (62.148_052, "62.148052"),
            (0.000_002, "2e-06"),
            (0.000_1, "0.0001"),
            (1_624_396_278.302_091_6, "1.6243962783020916e+09"),
            (-1.0, "-1"),
        ] {
            let mut out = String::new();
            push_float(&mut out, value);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn a_family_without_samples_leaves_no_trace() {
        let mut page = Page::default();
        page.family("a", "gauge", "A.");
        page.family("b", "counter", "B.");
        page.sample(&[("x", "a\"\\\n")], 1.0, Some(5));
        page.sample(&[], 2.0, None);
        assert_eq!(page.finish(), "# HELP b B.\n# TYPE b counter\nb{x=\"a\\\"\\\\\\n\"} 1 5\nb 2\n");
    }
}
