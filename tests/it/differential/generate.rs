//! Random expressions that type-check, over the series of the recorded block.

use super::language::{self, Language};

/// A small generator of random numbers (xorshift); the same seed gives the same expressions.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first numbers of near seeds are near.
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 11) % (bound.max(1) as u64)).unwrap()
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A metric of the block, and labels of its series with values they have.
type Metric = (&'static str, &'static [(&'static str, &'static [&'static str])]);

const COUNTERS: &[Metric] = &[
    ("app_http_requests_total", &[("code", &["200", "404", "500"]), ("method", &["GET", "POST"])]),
    ("app_jobs_processed_total", &[("queue", &["high", "low"]), ("worker", &["0", "1", "2", "3"])]),
    ("app_network_bytes_total", &[("device", &["eth0", "eth1", "lo"]), ("direction", &["rx", "tx"])]),
    ("container_cpu_usage_seconds_total", PODS),
    ("demo_cpu_usage_seconds_total", &[("mode", &["idle", "system", "user"])]),
    ("app_big_counter_total", &[("job", &["app"])]),
    ("app_flaky_total", &[("k", &["1"])]),
    ("app_om_requests_total", &[("k", &["a", "b"])]),
    ("app_request_duration_seconds_count", &[("handler", &["/", "/api/v1/write"])]),
];

const PODS: &[(&str, &[&str])] =
    &[("namespace", &["batch", "default", "kube-system", "shop"]), ("pod", &["api-0ef35c58-272d3"])];

const GAUGES: &[Metric] = &[
    ("app_aligned", &[("n", &["0", "1", "2", "3"])]),
    (
        "app_special",
        &[("kind", &["denormal", "e22", "flipinf", "flipnan", "nan", "inf", "neginf", "negzero"])],
    ),
    ("app_wave", &[("shape", &["cos", "saw", "sin", "square"]), ("period", &["10", "60", "300"])]),
    ("app_temperature_celsius", &[("room", &["attic", "hall"]), ("floor", &["0", "1", "2"])]),
    ("app_node_usage", &[("node", &["node-1", "node-2"]), ("resource", &["cpu", "disk", "mem"])]),
    ("app_node_capacity", &[("node", &["node-1", "node-4"]), ("zone", &["z0", "z1"])]),
    ("app_flapping", &[("id", &["a", "b"])]),
    ("app_pb_gauge", &[("k", &["a", "b", "c"])]),
    ("app_rpc_latency_seconds", &[("service", &["idle", "orders", "users"]), ("quantile", &["0.5", "0.9"])]),
    ("container_memory_working_set_bytes", PODS),
    ("demo_memory_usage_bytes", &[("type", &["buffers", "cached", "free", "used"])]),
    ("demo_intermittent_metric", &[("job", &["demo"])]),
    ("demo_is_holiday", &[("job", &["demo"])]),
    ("demo_num_cpus", &[("job", &["demo"])]),
    ("kube_pod_info", PODS),
    (
        "kube_pod_container_resource_requests",
        &[("resource", &["cpu", "memory"]), ("unit", &["byte", "core"])],
    ),
    ("app_wide", &[("label_01", &["value-0-1", "value-1-1"])]),
    ("app:with:colons", &[("job", &["app"])]),
    ("app_exotic_labels", &[("idx", &["0", "1", "10", "11"]), ("value", &["#hash", "-1.5e3", "%2F%20"])]),
    ("app_om_state", &[("app_om_state", &["running", "starting", "stopped"])]),
    ("demo_batch_last_success_timestamp_seconds", &[("job", &["demo"])]),
    ("up", &[("job", &["app", "demo", "flaky", "node"])]),
    ("nonexistent", &[("job", &["app"])]),
];

const BUCKETS: &[Metric] = &[
    ("app_request_duration_seconds_bucket", &[("method", &["GET"]), ("le", &["0.005", "+Inf", "0.1"])]),
    ("app_broken_histogram_bucket", &[("kind", &["empty", "negbounds", "noinf", "nonmono"])]),
    ("app_om_queue_bucket", &[("le", &["1.0", "10.0", "+Inf"])]),
    ("app_pb_classic_seconds_bucket", &[("le", &["0.005", "0.01", "0.025"])]),
    ("demo_api_request_duration_seconds_bucket", &[("status", &["200", "404"]), ("method", &["GET"])]),
];

const NATIVE: &[Metric] = &[
    ("app_native_latency_seconds", &[("region", &["ap", "eu", "sa", "us"])]),
    ("app_native_float", &[("job", &["app-pb"])]),
    ("app_native_gauge_hist", &[("kind", &["g"])]),
    ("app_native_wide", &[("job", &["app-pb"])]),
];

/// Several metrics at once; with native histograms where there are any.
const MIXED: &[&str] = &[
    "{job=\"app-pb\"}",
    "{__name__=~\"app_native.*|app_wave\"}",
    "{__name__=~\"app_pb_.*\"}",
    "{__name__=~\"app_(native|pb_classic).*\"}",
];

const MIXED_FLOATS: &[&str] = &[
    "{__name__=~\"app_w.*\"}",
    "{__name__=~\"demo_(num_cpus|is_holiday)\"}",
    "{__name__=~\"app_.*\", method=\"GET\"}",
    "{job=\"demo\", instance=~\".*0\", __name__!~\".*bucket\"}",
];

const LABELS: &[&str] = &[
    "job",
    "instance",
    "method",
    "code",
    "handler",
    "node",
    "resource",
    "namespace",
    "pod",
    "le",
    "k",
    "kind",
    "shape",
    "period",
    "quantile",
    "zone",
    "mode",
    "__name__",
    "absent_label",
    "region",
    "room",
    "type",
];

const REGEXES: &[&str] = &[
    ".*",
    ".+",
    "",
    "[0-9]+",
    "[a-m].*",
    ".*[t-z0]",
    "(?i)GET|get",
    "a|b|c",
    "^.$",
    "(app|demo|ksm)",
    ".*-1.*",
    "\\\\d+(\\\\.\\\\d+)?",
    "[[:alpha:]-]+",
    "[^/]*",
    "node-[12]",
    "200|5..",
    "x*",
    "(s|c)(in|os)",
    "\\\\w+",
];

const NUMBERS: &[&str] = &[
    "0", "1", "-1", "2", "0.5", "3", "10", "100", "1e3", "0x1F", "1e-9", "Inf", "-Inf", "NaN", "0.1", "7.25",
    "1e300", "-0", "1_000", "010", "5m", "1h30m", ".5", "5.",
];

const RANGES: &[&str] =
    &["5s", "10s", "13s", "30s", "1m", "90s", "2m", "5m", "10m", "1s", "250ms", "1h", "60", "7.5"];

/// What writes expressions of one dialect.
pub(super) struct Generator<'a> {
    pub(super) random: Random,
    pub(super) language: &'a Language,
}

impl Generator<'_> {
    /// A query of any type; a range query takes scalars and vectors only.
    pub(super) fn query(&mut self, is_range: bool) -> String {
        match self.random.below(40) {
            0 => self.scalar(2),
            1 if !is_range => "\"a string\"".to_owned(),
            2 if !is_range => self.matrix(1),
            3..=6 => self.vector(1),
            7..=20 => self.vector(2),
            21..=34 => self.vector(3),
            _ => self.vector(4),
        }
    }

    fn number(&mut self) -> &'static str {
        let number = self.random.one_of(NUMBERS);
        if self.language.has(language::NUMBERS) || !number.contains(['_', 'm']) { number } else { "42" }
    }

    fn scalar(&mut self, depth: usize) -> String {
        match self.random.below(if depth == 0 { 4 } else { 9 }) {
            0..=2 => self.number().to_owned(),
            3 => self.random.one_of(&["time()", "pi()", "1", "-(2)"]).to_owned(),
            4 | 5 => format!("scalar({})", self.vector(depth - 1)),
            6 => format!("-{}", self.scalar(depth - 1)),
            7 => format!("({})", self.scalar(depth - 1)),
            _ => {
                let op = self
                    .random
                    .one_of(&["+", "-", "*", "/", "%", "^", "atan2", "== bool", "> bool", "<= bool"]);
                format!("({} {op} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
        }
    }

    fn metric(&mut self) -> Metric {
        let native = self.language.has(language::HISTOGRAMS);
        match self.random.below(12) {
            0..=3 => self.random.one_of(COUNTERS),
            4..=8 => self.random.one_of(GAUGES),
            9 => self.random.one_of(BUCKETS),
            _ if native => self.random.one_of(NATIVE),
            _ => self.random.one_of(GAUGES),
        }
    }

    fn matchers(&mut self, known: &[(&str, &[&str])]) -> String {
        let mut out = Vec::new();
        while out.len() < 3 && self.random.chance(2) {
            let (label, values) = self.random.one_of(known);
            let label = if self.random.chance(5) { self.random.one_of(&LABELS[..17]) } else { label };
            let op = self.random.one_of(&["=", "!=", "=~", "!~"]);
            let value = match (op, self.random.below(4)) {
                ("=" | "!=", 0) => "",
                ("=" | "!=", _) => self.random.one_of(values),
                (_, 0) => self.random.one_of(values),
                _ => self.random.one_of(REGEXES),
            };
            // A value is no pattern: what is special in it is put between brackets.
            let value = if op.contains('~') && !REGEXES.contains(&value) {
                value.replace('+', "[+]").replace('.', "[.]")
            } else {
                value.to_owned()
            };
            out.push(format!("{label}{op}\"{value}\""));
        }
        out.join(self.random.one_of(&[",", ", "]))
    }

    fn bare_selector(&mut self) -> String {
        if self.random.chance(12) {
            let native = self.language.has(language::HISTOGRAMS) && self.random.chance(2);
            return self.random.one_of(if native { MIXED } else { MIXED_FLOATS }).to_owned();
        }
        let (name, known) = self.metric();
        self.selector_of((name, known))
    }

    fn selector_of(&mut self, (name, known): Metric) -> String {
        let matchers = self.matchers(known);
        match (matchers.is_empty(), self.random.below(10)) {
            (true, 0) if self.language.has(language::QUOTED_NAMES) => format!("{{\"{name}\"}}"),
            (true, 1) => format!("{{__name__=\"{name}\"}}"),
            (true, _) => name.to_owned(),
            (false, 0) if self.language.has(language::QUOTED_NAMES) => format!("{{\"{name}\",{matchers}}}"),
            (false, _) => format!("{name}{{{matchers}}}"),
        }
    }

    fn modifiers(&mut self) -> String {
        let offset = match self.random.below(14) {
            0 => " offset 1m",
            1 => " offset -30s",
            2 => " offset 7s",
            3 if self.language.has(language::DURATION_EXPRESSIONS) => " offset (30s + 5)",
            _ => "",
        };
        let at = match self.random.below(16) {
            0 => " @ 1795236800".to_owned(),
            1 => format!(" @ {}", 1_795_236_505 + self.random.below(470)),
            2 => " @ start()".to_owned(),
            3 => " @ end()".to_owned(),
            4 => " @ 1795236700.123".to_owned(),
            _ => String::new(),
        };
        if self.random.chance(2) { format!("{at}{offset}") } else { format!("{offset}{at}") }
    }

    fn selector(&mut self) -> String {
        format!("{}{}", self.bare_selector(), self.modifiers())
    }

    fn range(&mut self) -> &'static str {
        if self.language.has(language::DURATION_EXPRESSIONS) && self.random.chance(25) {
            return self.random.one_of(&["30s+30s", "2*45s", "5m/2", "(2m-10s)", "10s^1", "100 % 60"]);
        }
        let range = self.random.one_of(RANGES);
        if self.language.has(language::NUMBERS) || range.ends_with(['s', 'm', 'h']) { range } else { "45s" }
    }

    fn matrix(&mut self, depth: usize) -> String {
        if depth > 0 && self.random.chance(4) {
            let inner = self.vector(depth - 1);
            let range = self.random.one_of(&["30s", "1m", "2m", "5m", "4m"]);
            let step = self.random.one_of(&["", "10s", "7s", "15s", "1m", "30s"]);
            return format!("({inner})[{range}:{step}]{}", self.modifiers());
        }
        format!("{}[{}]{}", self.bare_selector(), self.range(), self.modifiers())
    }

    fn grouping(&mut self) -> String {
        let labels: Vec<_> = (0..self.random.below(4)).map(|_| self.random.one_of(LABELS)).collect();
        match self.random.below(3) {
            0 => String::new(),
            1 => format!(" by ({})", labels.join(", ")),
            _ => format!(" without ({})", labels.join(",")),
        }
    }

    fn aggregation(&mut self, depth: usize) -> String {
        let op = self.random.one_of(language::AGGREGATIONS);
        if !self.language.has(op) {
            return format!("sum({})", self.vector(depth));
        }
        let grouping = self.grouping();
        let inner = self.vector(depth);
        let param = match op {
            "topk" | "bottomk" | "limitk" => {
                self.random.one_of(&["1", "2", "3", "5", "0", "-1", "2.7"]).to_owned()
            }
            "limit_ratio" => self.random.one_of(&["0.5", "-0.5", "0.1", "1", "-1", "0", "1.5"]).to_owned(),
            "quantile" => self.quantile(),
            "count_values" => self.random.one_of(&["\"value\"", "\"job\"", "\"v_1\""]).to_owned(),
            _ if self.random.chance(4) => return format!("{op}({inner}){grouping}"),
            _ => return format!("{op}{grouping} ({inner})"),
        };
        format!("{op}{grouping} ({param}, {inner})")
    }

    fn quantile(&mut self) -> String {
        self.random.one_of(&["0.5", "0.9", "0", "1", "0.99", "-0.5", "1.5", "NaN", "0.333"]).to_owned()
    }

    /// A vector.
    pub(super) fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.selector();
        }
        let inner = depth - 1;
        match self.random.below(28) {
            24.. => self.repeated(inner),
            0 | 1 => self.selector(),
            2 => format!("({})", self.vector(inner)),
            3 => format!("-{}", self.vector(inner)),
            4..=6 => self.over_time(inner),
            7..=9 => self.function(inner),
            10 => self.labelled(inner),
            11 => self.of_histogram(inner),
            12..=15 => self.aggregation(inner),
            16..=17 => self.with_scalar(inner),
            18..=21 => self.joined(inner),
            22 => format!("vector({})", self.scalar(inner)),
            _ => self.dashboard(),
        }
    }

    /// An expression that names a part several times.
    fn repeated(&mut self, depth: usize) -> String {
        let (part, other, grouping) = (self.vector(depth), self.selector(), self.grouping());
        match self.random.below(8) {
            0 => format!("({part}) / ({part})"),
            1 => format!("(({part}) - ({other})) / ({part})"),
            2 => format!("sum{grouping} ({part}) / count{grouping} ({part})"),
            3 => format!("({part}) > on (job) group_left () max by (job) ({part})"),
            4 => format!("min{grouping} (abs({part})) + max{grouping} (abs({part})) or ({part})"),
            5 => format!("sum ({part}) + (count ({part}) or sum ({other})) * sum ({part})"),
            6 => format!("max_over_time(({part})[1m:15s]) - min_over_time(({part})[1m:15s])"),
            _ => format!("({other}) and ({part}) unless (({part}) > 3)"),
        }
    }

    fn over_time(&mut self, depth: usize) -> String {
        let function = self.random.one_of(language::OVER_TIME);
        if !self.language.has(function) {
            return format!("rate({})", self.matrix(depth));
        }
        let matrix = self.matrix(depth);
        match function {
            "quantile_over_time" => format!("{function}({}, {matrix})", self.quantile()),
            "predict_linear" => {
                format!("{function}({matrix}, {})", self.random.one_of(&["60", "0", "-30", "3600"]))
            }
            "double_exponential_smoothing" | "holt_winters" => {
                format!("{function}({matrix}, {}, 0.3)", self.random.one_of(&["0.5", "0.1", "0.9"]))
            }
            _ => format!("{function}({matrix})"),
        }
    }

    fn function(&mut self, depth: usize) -> String {
        let function = self.random.one_of(language::OF_VECTOR);
        if !self.language.has(function) {
            return format!("abs({})", self.vector(depth));
        }
        let vector = self.vector(depth);
        let number = self.number();
        match function {
            "round" if self.random.chance(2) => format!("round({vector}, {number})"),
            "clamp" => format!("clamp({vector}, {number}, {})", self.number()),
            "clamp_min" | "clamp_max" => format!("{function}({vector}, {number})"),
            "sort_by_label" | "sort_by_label_desc" => {
                format!(
                    "{function}({vector}, \"{}\", \"{}\")",
                    self.random.one_of(LABELS),
                    self.random.one_of(LABELS)
                )
            }
            _ => format!("{function}({vector})"),
        }
    }

    fn labelled(&mut self, depth: usize) -> String {
        let vector = self.vector(depth);
        let (from, to) =
            (self.random.one_of(LABELS), self.random.one_of(&["new", "job", "method", "__name__"]));
        if self.random.chance(3) {
            let other = self.random.one_of(LABELS);
            return format!("label_join({vector}, \"{to}\", \"-\", \"{from}\", \"{other}\")");
        }
        let regex = self.random.one_of(&["(.*)", "(.+)", "([a-z]+).*", "(.)(.*)", "", "x", "(?P<first>.).*"]);
        let with = self.random.one_of(&["$1", "${1}x", "", "fixed", "$2", "$first", "$$"]);
        format!("label_replace({vector}, \"{to}\", \"{with}\", \"{from}\", \"{regex}\")")
    }

    fn of_histogram(&mut self, depth: usize) -> String {
        let metric = if self.language.has(language::HISTOGRAMS) && self.random.chance(2) {
            self.random.one_of(NATIVE)
        } else {
            self.random.one_of(BUCKETS)
        };
        let selector = self.selector_of(metric);
        let range = self.range();
        let histogram = match self.random.below(6) {
            0 => selector,
            1 => format!("rate({selector}[{range}])"),
            2 => format!("increase({selector}[{range}])"),
            3 => format!("sum by (le) (rate({selector}[{range}]))"),
            4 => format!("sum without (instance) ({selector})"),
            _ => self.vector(depth),
        };
        let function = self.random.one_of(language::OF_HISTOGRAM);
        match function {
            "histogram_fraction" if self.language.has(function) => {
                let (low, high) = (self.number(), self.number());
                format!("{function}({low}, {high}, {histogram})")
            }
            "histogram_quantile" => format!("{function}({}, {histogram})", self.quantile()),
            other if self.language.has(other) => format!("{other}({histogram})"),
            _ => format!("histogram_quantile(0.9, {histogram})"),
        }
    }

    fn comparison_or_arithmetic(&mut self) -> &'static str {
        self.random.one_of(&[
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "== bool", "!= bool",
            "> bool", "<= bool",
        ])
    }

    fn with_scalar(&mut self, depth: usize) -> String {
        let op = self.comparison_or_arithmetic();
        let (vector, scalar) = (self.vector(depth), self.scalar(depth.min(1)));
        if self.random.chance(2) {
            format!("({vector}) {op} {scalar}")
        } else {
            format!("{scalar} {op} ({vector})")
        }
    }

    fn joined(&mut self, depth: usize) -> String {
        if self.random.chance(3) {
            let op = self.random.one_of(&["and", "or", "unless"]);
            let labels = self.random.one_of(LABELS);
            let matching = match self.random.below(4) {
                0 => format!(" on ({labels})"),
                1 => format!(" ignoring ({labels})"),
                2 => " on ()".to_owned(),
                _ => String::new(),
            };
            return format!("({}) {op}{matching} ({})", self.vector(depth), self.vector(depth));
        }
        let op = self.comparison_or_arithmetic();
        if self.random.chance(2) {
            // The same series on both sides do meet.
            let vector = self.vector(depth);
            let matching = self.random.one_of(&["", " ignoring (absent_label)", ""]);
            return format!("({vector}) {op}{matching} ({vector})");
        }
        let labels = format!("{}, {}", self.random.one_of(LABELS), self.random.one_of(LABELS));
        let include = self.random.one_of(&["", "zone", "node", "absent_label", "job"]);
        let include = if labels.contains(include) { "" } else { include };
        let matching = match self.random.below(5) {
            0 => String::new(),
            1 => format!(" on ({labels})"),
            2 => format!(" ignoring ({labels})"),
            3 => format!(" on ({labels}) group_left ({include})"),
            _ => format!(" ignoring ({labels}) group_right ({include})"),
        };
        format!("({}) {op}{matching} ({})", self.vector(depth), self.vector(depth))
    }

    /// Joins and ratios as people write them; with pieces that vary.
    fn dashboard(&mut self) -> String {
        let range = self.range();
        let op = self.comparison_or_arithmetic();
        let by = self.random.one_of(&["job", "namespace", "method", "node", "resource, node"]);
        match self.random.below(9) {
            0 => format!("app_node_usage {op} on (node) group_left (zone) app_node_capacity"),
            1 => format!("app_node_capacity {op} on (node, job) group_right (absent_label) app_node_usage"),
            2 => format!(
                "sum by (namespace) (rate(container_cpu_usage_seconds_total[{range}])) {op} on (namespace) count by (namespace) (kube_pod_info)"
            ),
            3 => format!(
                "sum by ({by}) (rate(app_http_requests_total{{code=\"500\"}}[{range}])) {op} sum by ({by}) (rate(app_http_requests_total[{range}]))"
            ),
            4 => format!(
                "container_memory_working_set_bytes {op} on (namespace, pod) group_left (node, uid) kube_pod_info"
            ),
            5 => format!(
                "max_over_time(sum by ({by}) (rate(container_cpu_usage_seconds_total[{range}]))[2m:20s])"
            ),
            6 => format!(
                "container_memory_working_set_bytes {op} on (namespace, pod, container) kube_pod_container_resource_requests{{resource=\"memory\"}}"
            ),
            7 => format!("demo_cpu_usage_seconds_total {op} ignoring (mode) group_left () demo_num_cpus"),
            _ => format!(
                "absent({}) or absent_over_time({}[{range}])",
                self.bare_selector(),
                self.bare_selector()
            ),
        }
    }
}
