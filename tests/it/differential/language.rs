//! What a release of Prometheus understands of the language, and where it answers otherwise than 3.14.

use serde_json::Value;

use super::Case;

/// Features that are no words.
pub(super) const HISTOGRAMS: &str = "native histograms";
pub(super) const QUOTED_NAMES: &str = "names in quotes";
pub(super) const NUMBERS: &str = "durations as numbers, numbers as durations";
pub(super) const DURATION_EXPRESSIONS: &str = "arithmetic of durations";
pub(super) const SUBQUERIES_OF_V3: &str = "windows open at the left";

pub(super) const AGGREGATIONS: &[&str] = &[
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "group",
    "stddev",
    "stdvar",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
    "limitk",
    "limit_ratio",
    "sum",
    "avg",
];

pub(super) const OVER_TIME: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "last_over_time",
    "present_over_time",
    "quantile_over_time",
    "absent_over_time",
    "mad_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
    "ts_of_last_over_time",
    "double_exponential_smoothing",
    "changes",
    "resets",
    "deriv",
    "predict_linear",
    "rate",
    "increase",
];

pub(super) const OF_VECTOR: &[&str] = &[
    "abs",
    "ceil",
    "floor",
    "exp",
    "sqrt",
    "ln",
    "log2",
    "log10",
    "sgn",
    "round",
    "clamp",
    "clamp_min",
    "clamp_max",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "cos",
    "cosh",
    "sin",
    "sinh",
    "tan",
    "tanh",
    "deg",
    "rad",
    "timestamp",
    "minute",
    "hour",
    "day_of_week",
    "day_of_month",
    "day_of_year",
    "days_in_month",
    "month",
    "year",
    "sort",
    "sort_desc",
    "sort_by_label",
    "sort_by_label_desc",
    "absent",
    "timestamp",
];

pub(super) const OF_HISTOGRAM: &[&str] = &[
    "histogram_quantile",
    "histogram_quantile",
    "histogram_count",
    "histogram_sum",
    "histogram_avg",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_fraction",
];

/// A known difference between a release and 3.14.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// Why 3.14, and so Pyrometer, answers otherwise.
    pub(super) reason: &'static str,
    pub(super) kind: Kind,
}

/// What differs.
pub(super) enum Kind {
    /// The text of remarks: what is compared instead; nothing if the remark is left out.
    Remark(fn(&Case, &str) -> Option<String>),
    /// The answer: whether a difference is this one, given our answer and theirs.
    Answer(fn(&Case, &Value, &Value) -> bool),
}

/// A release.
pub(super) struct Language {
    /// What it lacks.
    pub(super) lacks: &'static [&'static str],
    /// Words whose meaning has changed since, so that no expression has them.
    pub(super) avoids: &'static [&'static str],
    pub(super) known: &'static [Known],
    /// The flags it is started with.
    pub(super) arguments: &'static [&'static str],
    /// Whether its warnings and infos are those of 3.14.
    pub(super) has_annotations: bool,
    /// By how much numbers may differ, relative to their size.
    pub(super) tolerance: f64,
}

impl Language {
    pub(super) fn has(&self, feature: &str) -> bool {
        !self.lacks.contains(&feature)
    }

    /// The language of the release that says `version` of itself.
    pub(super) fn of(version: &str) -> &'static Self {
        if version.contains("version 2.") { &V2 } else { &V3_5 }
    }
}

const LAST_DIGIT: Known = Known {
    name: "last digit",
    reason: "Go computes transcendental functions itself; the last digit may be another, and a difference or \
             remainder of such values shows it larger; over a range, what it computed is added in the order of a map",
    kind: Kind::Answer(|case, ours, theirs| {
        const INEXACT: &[&str] = &[
            "exp(",
            "ln(",
            "log2(",
            "log10(",
            "sin(",
            "cos(",
            "tan(",
            "asin",
            "acos",
            "atan",
            "sinh(",
            "cosh(",
            "tanh(",
            "^",
            "histogram_",
            "stddev",
            "stdvar",
            "double_exponential",
        ];
        let inexact = case.is_range() || INEXACT.iter().any(|word| case.query.contains(word));
        // A remainder of such values, and an angle made of a power, may be any other.
        let has = |words: &[&str]| words.iter().any(|word| case.query.contains(word));
        let any_other = has(&["%"]) || has(&["^"]) && has(&["sin(", "cos(", "tan("]);
        let tolerance = if any_other { f64::MAX } else { 1e-5 };
        inexact && super::answer_fault(case, ours, theirs, tolerance).is_none()
    }),
};

const PICKED_BY_CHANCE: Known = Known {
    name: "picks by chance",
    reason: "over a range, and of count_values, Prometheus holds computed series in a map: which of equals comes first is chance",
    kind: Kind::Answer(|case, ours, theirs| {
        let picks = ["limitk", "topk", "bottomk"].iter().any(|word| case.query.contains(word));
        (case.is_range() || case.query.contains("count_values")) && picks && super::both_succeed(ours, theirs)
    }),
};

const ADDED_BY_CHANCE: Known = Known {
    name: "adds by chance",
    reason: "Prometheus holds classic histograms, and over a range all series, in a map and adds them in any order; what is \
             compared with such a sum may be equal or not",
    kind: Kind::Answer(|case, ours, theirs| {
        let has = |words: &[&str]| words.iter().any(|word| case.query.contains(word));
        let adds = has(&["sum", "avg", "std"]) && (case.is_range() || has(&["histogram_quantile"]));
        adds && has(&["==", "!=", "<", ">"]) && super::both_succeed(ours, theirs)
    }),
};

const DENORMAL: Known = Known {
    name: "logarithm of a denormal",
    reason: "Go's assembly for ln takes a denormal for the smallest normal number",
    kind: Kind::Answer(|case, _, _| {
        case.query.contains("app_special")
            && ["ln(", "log2(", "log10("].iter().any(|f| case.query.contains(f))
    }),
};

const FILTERED_PAIRS: Known = Known {
    name: "filtered pairs",
    reason: "3.14 refuses several partners even where a comparison filters them out",
    kind: Kind::Answer(|_, ours, theirs| {
        let error = ours["error"].as_str().unwrap_or_default();
        error.contains("multiple matches for labels") && theirs["status"] == "success"
    }),
};

static V3_5: Language = Language {
    lacks: &[],
    avoids: &[],
    known: &[
        LAST_DIGIT,
        PICKED_BY_CHANCE,
        ADDED_BY_CHANCE,
        DENORMAL,
        FILTERED_PAIRS,
        Known {
            name: "deviation of what is no number",
            reason: "3.14 has no median absolute deviation where there is a NaN",
            kind: Kind::Answer(|case, ours, theirs| {
                case.query.contains("mad_over_time") && super::both_succeed(ours, theirs)
            }),
        },
        Known {
            name: "fraction of a classic histogram",
            reason: "before 3.14 a bound inside the first bucket made it NaN",
            kind: Kind::Answer(|case, ours, theirs| {
                case.query.contains("histogram_fraction") && super::both_succeed(ours, theirs)
            }),
        },
        Known {
            name: "digits of a histogram as a label",
            reason: "3.14 adds histograms over time with compensation",
            kind: Kind::Answer(|case, ours, theirs| {
                let sums = ["sum", "avg"].iter().any(|word| case.query.contains(word));
                case.query.contains("count_values") && sums && super::both_succeed(ours, theirs)
            }),
        },
        Known {
            name: "zero of a histogram",
            reason: "3.14 does not extrapolate a counter that is a native histogram below zero",
            kind: Kind::Answer(|case, ours, theirs| {
                let has = |words: &[&str]| words.iter().any(|word| case.query.contains(word));
                let native = ["app_native", "app_(native", "app-pb", "app_.*"];
                has(&["rate(", "increase("]) && has(&native) && super::both_succeed(ours, theirs)
            }),
        },
        Known {
            name: "sort over a range",
            reason: "3.14 warns that it has no effect",
            kind: Kind::Remark(|_, text| (!text.contains("sort is ineffective")).then(|| text.to_owned())),
        },
        Known {
            name: "forced monotonicity",
            reason: "3.14 tells the buckets, the largest difference, the number of samples and their times",
            kind: Kind::Remark(|_, text| {
                let parts = text.split_once(", from buckets ");
                let short =
                    parts.and_then(|(head, rest)| Some(format!("{head} ({}", rest.rsplit_once(" (")?.1)));
                Some(short.unwrap_or_else(|| text.to_owned()))
            }),
        },
        Known {
            name: "metric names of classic histograms",
            reason: "3.14 does not tell them, as the functions of histograms drop them, and no empty ones",
            kind: Kind::Remark(|_, text| {
                let told = text.split_once(" for metric name ");
                let of_classic = |head: &str| {
                    ["bucket label", "monotonicity", "classic and native"]
                        .iter()
                        .any(|word| head.contains(word))
                };
                let shortened = told
                    .filter(|(head, tail)| of_classic(head) || tail.starts_with("\"\""))
                    .map(|(head, tail)| format!("{head}{}", &tail[tail.find(" (").unwrap_or(tail.len())..]));
                Some(shortened.unwrap_or_else(|| text.to_owned()))
            }),
        },
        Known {
            name: "a negated histogram is a gauge",
            reason: "3.14 marks it so",
            kind: Kind::Remark(|case, text| {
                (!(text.contains("is not a counter") && case.query.contains('-'))).then(|| text.to_owned())
            }),
        },
        Known {
            name: "incompatible types",
            reason: "Prometheus keeps the last remark of each step; ours has all of them",
            kind: Kind::Remark(|_, text| {
                let types = text.split_once(": ").filter(|_| text.contains("incompatible sample types"));
                Some(
                    types
                        .map_or(text, |(head, rest)| rest.split_once(": ").map_or(head, |(rest, _)| rest))
                        .to_owned(),
                )
            }),
        },
        Known {
            name: "position inside parentheses",
            reason: "3.14 looks through parentheses around what is aggregated",
            kind: Kind::Remark(|case, text| {
                let is_inside = ["((", ", ("].iter().any(|text| case.query.contains(text));
                let head = text.rsplit_once(" (").map(|(head, _)| head).filter(|_| is_inside);
                Some(head.unwrap_or(text).to_owned())
            }),
        },
        Known {
            name: "position of a remark on a subquery",
            reason: "Prometheus gives the first character of the query; ours is that of the subquery",
            kind: Kind::Remark(|case, text| {
                let head = text.rsplit_once(" (").map(|(head, _)| head).filter(|_| case.has_subquery());
                Some(head.unwrap_or(text).to_owned())
            }),
        },
    ],
    arguments: &["--enable-feature=promql-experimental-functions,promql-duration-expr"],
    has_annotations: true,
    tolerance: 1e-12,
};

static V2: Language = Language {
    lacks: &[
        HISTOGRAMS,
        QUOTED_NAMES,
        NUMBERS,
        DURATION_EXPRESSIONS,
        SUBQUERIES_OF_V3,
        "limitk",
        "limit_ratio",
        "mad_over_time",
        "ts_of_min_over_time",
        "ts_of_max_over_time",
        "ts_of_last_over_time",
        "double_exponential_smoothing",
        "sort_by_label",
        "sort_by_label_desc",
        "histogram_count",
        "histogram_sum",
        "histogram_avg",
        "histogram_stddev",
        "histogram_stdvar",
        "histogram_fraction",
    ],
    // Windows were closed at the left, which shows where samples lie on whole seconds, and where subqueries
    // and `@` look at those; a dot did not match a line break; `atan2` kept the name; the variance of one
    // NaN was 0; the store left matchers in another order, which `absent` shows; powers had another last digit, and other NaNs were picked.
    avoids: &[
        "app_aligned",
        "container_",
        "app_.*",
        "app_exotic",
        "@ ",
        ":",
        "atan2",
        "stdvar",
        "stddev",
        "absent",
        "^",
        "topk",
        "bottomk",
    ],
    known: &[LAST_DIGIT, PICKED_BY_CHANCE, ADDED_BY_CHANCE, DENORMAL, FILTERED_PAIRS],
    arguments: &[],
    has_annotations: false,
    tolerance: 1e-9,
};
