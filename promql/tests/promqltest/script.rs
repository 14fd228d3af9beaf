//! The notation of the scripts.

/// A command of a script.
#[derive(Debug)]
pub enum Command {
    /// Adds series.
    Load { step_ms: i64, lines: Vec<String>, with_custom_buckets: bool },
    /// Forgets all series.
    Clear,
    /// Asks.
    Eval(Box<Eval>),
}

/// A question and what is expected.
#[derive(Debug, Default)]
pub struct Eval {
    pub line: usize,
    /// Start, end and step; an instant has a step of 0.
    pub start_ms: i64,
    pub end_ms: i64,
    pub step_ms: i64,
    pub query: String,
    pub expected: Vec<String>,
    pub ordered: bool,
    pub fail: Option<Text>,
    pub warnings: Annotations,
    pub infos: Annotations,
    pub string: Option<String>,
    /// Start, end and step of an expected range vector.
    pub range_vector: Option<(i64, i64, i64)>,
}

/// What is expected of one class of annotations.
#[derive(Debug, Default)]
pub struct Annotations {
    pub none: bool,
    pub some: bool,
    pub texts: Vec<Text>,
}

/// A text, a pattern, or anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Text {
    Any,
    Exactly(String),
    Matching(String),
}

impl Text {
    fn read(rest: &str) -> Self {
        let rest = rest.trim();
        if let Some(text) = rest.strip_prefix("msg:") {
            Self::Exactly(text.trim().to_owned())
        } else if let Some(pattern) = rest.strip_prefix("regex:") {
            Self::Matching(pattern.trim().to_owned())
        } else {
            Self::Any
        }
    }

    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => wanted == text,
            Self::Matching(pattern) => regex::Regex::new(pattern).unwrap().is_match(text),
        }
    }
}

/// A signed duration in milliseconds.
pub fn duration_ms(text: &str) -> i64 {
    let text = text.trim_start_matches('+');
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let ms = text.parse::<f64>().map_or_else(
        |_| model::duration::parse_ms(text).unwrap_or_else(|error| panic!("{text}: {error}")),
        |seconds| (seconds * 1000.0) as i64,
    );
    sign * ms
}

pub fn read(text: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    let is_blank = |line: &str| line.trim().is_empty() || line.trim().starts_with('#');
    while let Some((at, line)) = lines.next() {
        if is_blank(line) {
            continue;
        }
        let mut body = Vec::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !is_blank(line)) {
            body.push(line.trim().to_owned());
        }
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word {
            "clear" => commands.push(Command::Clear),
            "load" | "load_with_nhcb" => commands.push(Command::Load {
                step_ms: duration_ms(rest.trim()),
                lines: body,
                with_custom_buckets: word == "load_with_nhcb",
            }),
            _ => {
                let mut eval = head(word, rest.trim());
                eval.line = at + 1;
                body.into_iter().for_each(|line| expectation(&mut eval, line));
                commands.push(Command::Eval(Box::new(eval)));
            }
        }
    }
    commands
}

fn head(word: &str, rest: &str) -> Eval {
    let mut eval = Eval::default();
    match word {
        "eval" => {}
        "eval_fail" => eval.fail = Some(Text::Any),
        "eval_warn" => eval.warnings.some = true,
        "eval_info" => eval.infos.some = true,
        "eval_ordered" => eval.ordered = true,
        other => panic!("unknown command {other}"),
    }
    let mut rest = rest;
    let mut word = || {
        let (word, tail) = rest.split_once(char::is_whitespace).unwrap();
        rest = tail.trim_start();
        word
    };
    match word() {
        "instant" => {
            word();
            eval.start_ms = duration_ms(word());
            eval.end_ms = eval.start_ms;
        }
        _ => {
            word();
            eval.start_ms = duration_ms(word());
            word();
            eval.end_ms = duration_ms(word());
            word();
            eval.step_ms = duration_ms(word());
        }
    }
    eval.query = rest.to_owned();
    eval
}

fn expectation(eval: &mut Eval, line: String) {
    if let Some(text) = line.strip_prefix("expected_fail_message") {
        eval.fail = Some(Text::Exactly(text.trim().to_owned()));
        return;
    }
    if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
        eval.fail = Some(Text::Matching(pattern.trim().to_owned()));
        return;
    }
    let Some(rest) = line.strip_prefix("expect ") else {
        eval.expected.push(line);
        return;
    };
    let rest = rest.trim();
    let (word, tail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match word {
        "ordered" => eval.ordered = true,
        "fail" => eval.fail = Some(Text::read(tail)),
        "warn" | "info" => {
            let class = if word == "warn" { &mut eval.warnings } else { &mut eval.infos };
            class.some = true;
            match Text::read(tail) {
                Text::Any => {}
                text => class.texts.push(text),
            }
        }
        "no_warn" => eval.warnings.none = true,
        "no_info" => eval.infos.none = true,
        "string" => eval.string = Some(tail.trim().to_owned()),
        "range" => {
            let words: Vec<_> = tail.split_whitespace().collect();
            // vector from A to B step C
            eval.range_vector = Some((duration_ms(words[2]), duration_ms(words[4]), duration_ms(words[6])));
        }
        other => panic!("unknown expectation {other}"),
    }
}
