//! Random stores and random queries that type-check.

use std::sync::Arc;

use model::{Labels, Samples, stale_nan};
use promql::series::{self, SeriesValue};

use super::storage::Memory;

/// A small generator of random numbers (xorshift); the same seed gives the same numbers.
pub struct Random {
    state: u64,
    /// Whether queries name parts of theirs several times.
    repeats: bool,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, repeats: false }
    }

    /// One whose queries name parts of theirs several times, every third or fifth.
    pub fn repeating(seed: u64) -> Self {
        Self { repeats: true, ..Self::new(seed) }
    }

    pub fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    pub fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Series `a` and `b` with labels `x` and `y`, over ten minutes, with gaps, resets, markers and NaN.
pub fn store(random: &mut Random) -> Memory {
    let mut memory = Memory::default();
    for name in ["a", "b"] {
        for x in ["1", "2", "3"] {
            for y in ["1", "2"] {
                if random.below(5) == 0 {
                    continue;
                }
                let labels = Labels::from_pairs([("__name__", name), ("x", x), ("y", y)]);
                memory.0.insert(labels, samples(random));
            }
        }
    }
    memory
}

fn samples(random: &mut Random) -> Samples {
    let mut samples = Samples::default();
    let (mut ts, mut value) = (random.below(60_000) as i64, random.below(10) as f64);
    while ts < 600_000 {
        match random.below(20) {
            0 => samples.push_float(ts, stale_nan()),
            1 => value = random.below(5) as f64,
            2 => ts += random.below(200_000) as i64,
            3 => samples.push_float(ts, f64::NAN),
            _ => {
                value += random.below(8) as f64 / 2.0;
                samples.push_float(ts, value);
            }
        }
        ts += 5_000 + random.below(20_000) as i64;
    }
    samples
}

/// Adds native histograms `h`, of which one changes its resolution and one its kind, and a classic one.
pub fn add_histograms(memory: &mut Memory, random: &mut Random) {
    let lines = [
        "h{x=\"1\",y=\"1\"} {{schema:1 sum:1 count:3 buckets:[1 2]}}+{{schema:1 sum:1 count:1 buckets:[1]}}x20",
        "h{x=\"2\",y=\"1\"} {{schema:1 sum:1 count:3 buckets:[1 2]}}x9 {{schema:0 sum:5 count:3 buckets:[1 2]}}x9",
        "h{x=\"3\",y=\"2\"} {{schema:-53 sum:1 count:3 custom_values:[1 2] buckets:[1 2]}}x9 7x9",
        "c_bucket{x=\"1\",le=\"1\"} 1+1x20",
        "c_bucket{x=\"1\",le=\"+Inf\"} 2+2x20",
    ];
    for line in lines {
        let described = series::parse(line).unwrap();
        let mut samples = Samples::default();
        for (at, value) in described.values.into_iter().enumerate() {
            let ts = at as i64 * 30_000 + random.below(1000) as i64;
            match value {
                SeriesValue::Float(value) => samples.push_float(ts, value),
                SeriesValue::Histogram(h, _) => samples.push_histogram(ts, Arc::new(*h)),
                SeriesValue::Omitted | SeriesValue::Stale => {}
            }
        }
        memory.0.insert(described.labels, samples);
    }
}

/// A query of any kind.
pub fn anything(random: &mut Random, depth: u64) -> String {
    if random.repeats && depth > 0 && random.below(3) == 0 {
        let part = anything(random, depth - 1);
        let other = anything(random, 0);
        return repeated(random, &part, &other);
    }
    let inner = match random.below(4) {
        0 => vector(random, depth),
        1 => random.one_of(&["h", "h{x=\"1\"}", "{__name__=~\"a|h\"}", "c_bucket"]).to_owned(),
        _ if depth > 0 => anything(random, depth - 1),
        _ => vector(random, 0),
    };
    let other = random.one_of(&["a", "h", "rate(h[2m])", "2", "h{x=\"1\"}"]);
    match random.below(26) {
        0 => format!("topk(2, {inner})"),
        1 => format!("bottomk by (x) (1, {inner})"),
        2 => format!("quantile by (y) (0.3, {inner})"),
        3 => format!("count_values(\"v\", {inner})"),
        4 => format!("stddev without (x) ({inner})"),
        5 => format!("histogram_quantile(0.9, {inner})"),
        6 => format!("histogram_fraction(0, 2, {inner})"),
        7 => format!("histogram_count({inner})"),
        8 => format!("histogram_stddev({inner})"),
        9 => format!("label_replace({inner}, \"z\", \"$1\", \"x\", \"(.*)\")"),
        10 => format!("label_join({inner}, \"y\", \"-\", \"x\", \"y\")"),
        11 => format!("absent({inner})"),
        12 => format!("limitk(2, {inner})"),
        13 => format!("limit_ratio(0.5, {inner})"),
        14 => format!("round({inner}, 0.5)"),
        15 => format!("clamp({inner}, 0, 5)"),
        16 => format!("timestamp({inner})"),
        17 => format!("predict_linear(({inner})[3m:20s], 60)"),
        18 => format!("quantile_over_time(0.5, ({inner})[3m:20s])"),
        19 => format!("avg_over_time(({inner})[3m:20s])"),
        20 => format!("increase(({inner})[3m:20s])"),
        21 => format!("({inner}) + on (x, y) rate(h[2m])"),
        22 => format!("({inner}) * {other}"),
        23 => format!("({inner}) </ 1.5"),
        24 => format!("sum by (x) ({inner})"),
        _ => format!("avg ({inner}) or vector(time())"),
    }
}

/// A query that names `part` several times.
fn repeated(random: &mut Random, part: &str, other: &str) -> String {
    let grouping = random.one_of(&["", "by (x) ", "without (y) "]);
    match random.below(9) {
        0 => format!("({part}) / ({part})"),
        1 => format!("(({part}) - ({other})) / ({part})"),
        2 => format!("sum {grouping}({part}) / count {grouping}({part})"),
        3 => format!("({part}) - on (x, y) group_left () max by (x, y) ({part})"),
        4 => format!("({part}) > avg {grouping}({part}) or ({part})"),
        5 => format!("sum ({part}) + (count ({part}) or sum ({other})) * sum ({part})"),
        6 => format!("max_over_time(({part})[2m:20s]) - min_over_time(({part})[2m:20s])"),
        7 => format!("min {grouping}(abs({part})) + max {grouping}(abs({part})) - ({part})"),
        _ => format!("({other}) and ({part}) unless (({part}) > 3)"),
    }
}

/// `text` with a condition on each selector that all series fulfil: the same one everywhere, or, if they are to
/// be `distinct`, one that differs from selector to selector. Both are of the same length.
pub fn marked(text: &str, distinct: bool) -> String {
    let mut out = String::new();
    let (mut word, mut quoted, mut count) = (String::new(), false, 0);
    for c in text.chars().chain([' ']) {
        if !quoted && (c.is_ascii_alphanumeric() || c == '_') {
            word.push(c);
            continue;
        }
        let named = ["a", "b", "h", "c_bucket"].contains(&word.as_str());
        let opens = c == '{' && !quoted;
        out.push_str(&std::mem::take(&mut word));
        if named || opens {
            let mark = if distinct { count % 100 } else { 0 };
            count += 1;
            let end = if opens { "," } else { "}" };
            out.push_str(&format!("{{q!=\"{mark:02}\"{end}"));
        }
        if !opens {
            out.push(c);
        }
        quoted ^= c == '"';
    }
    out
}

/// A query of the kind that the model of the tests evaluates.
pub fn vector(random: &mut Random, depth: u64) -> String {
    if depth == 0 {
        return selector(random);
    }
    let inner = depth - 1;
    if random.repeats && random.below(5) == 0 {
        let (part, other) = (vector(random, inner), selector(random));
        return repeated(random, &part, &other);
    }
    match random.below(12) {
        0 => selector(random),
        1 => format!("({})", vector(random, inner)),
        2 => format!("-{}", selector(random)),
        3 if random.below(2) == 0 => format!("abs({})", vector(random, inner)),
        // What rounds is asked of exact values only.
        3 => format!("{}({})", random.one_of(&["ceil", "floor", "sgn"]), selector(random)),
        4 => {
            let function = random.one_of(&["rate", "increase", "delta", "irate", "changes", "resets"]);
            format!("{function}({})", matrix(random, 0))
        }
        5 => {
            let function = random.one_of(&[
                "sum_over_time",
                "avg_over_time",
                "min_over_time",
                "max_over_time",
                "count_over_time",
                "last_over_time",
            ]);
            format!("{function}({})", matrix(random, inner))
        }
        6 | 7 => {
            let op = random.one_of(&["sum", "avg", "min", "max", "count", "group", "stdvar"]);
            let grouping = random.one_of(&["", " by (x)", " by (y, x)", " without (x)", " by (__name__)"]);
            format!("{op}{grouping} ({})", vector(random, inner))
        }
        8 => {
            let op = random.one_of(&["+", "-", "*", "/", "==", "!=", ">", "<=", "> bool", "== bool"]);
            if random.below(2) == 0 {
                format!("({}) {op} {}", vector(random, inner), number(random))
            } else {
                format!("{} {op} ({})", number(random), vector(random, inner))
            }
        }
        9 | 10 => {
            let op = random.one_of(&["+", "-", "/", "==", ">", "!= bool", "< bool"]);
            let matching = random.one_of(&[
                "",
                " on (x, y)",
                " on (x)",
                " ignoring (y)",
                " on (x) group_left ()",
                " on (y) group_right ()",
                " on (x) group_left (y)",
                " ignoring (x) group_left ()",
            ]);
            format!("({}) {op}{matching} ({})", vector(random, inner), vector(random, inner))
        }
        _ => {
            let op = random.one_of(&["and", "or", "unless"]);
            let matching = random.one_of(&["", " on (x)", " ignoring (y)", " on ()"]);
            format!("({}) {op}{matching} ({})", vector(random, inner), vector(random, inner))
        }
    }
}

fn selector(random: &mut Random) -> String {
    let base =
        random.one_of(&["a", "b", "a{x=\"1\"}", "b{y!=\"2\"}", "{__name__=~\"a|b\"}", "a{x=~\"1|2\"}"]);
    format!("{base}{}", modifiers(random))
}

fn modifiers(random: &mut Random) -> &'static str {
    match random.below(8) {
        0 => " offset 1m",
        1 => " offset -30s",
        2 => " @ 300.000",
        3 => " @ end() offset 10s",
        _ => "",
    }
}

fn matrix(random: &mut Random, depth: u64) -> String {
    if random.below(3) == 0 {
        let range = random.one_of(&["[2m:30s]", "[5m:]", "[90s:7s]"]);
        // Differences of computed values depend on their last bits; so depth 0 asks for exact ones.
        let inner = if depth > 0 { vector(random, depth - 1) } else { selector(random) };
        return format!("({inner}){range}{}", modifiers(random));
    }
    let base = random.one_of(&["a", "b", "a{x=\"1\"}", "{__name__=~\"a|b\"}"]);
    let range = random.one_of(&["[1m]", "[2m30s]", "[5m]"]);
    format!("{base}{range}{}", modifiers(random))
}

fn number(random: &mut Random) -> &'static str {
    random.one_of(&["0", "1", "2.5", "-3", "NaN", "+Inf", "10"])
}
