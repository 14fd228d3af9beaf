//! What a rule file says, as plain data.

use std::collections::BTreeMap;

use promql::Expr;

/// Rules that are evaluated at one moment, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The file it stands in; empty until whoever read the file sets it.
    pub file: String,
    /// Its name, unique in its file.
    pub name: String,
    /// Time between two evaluations, if it is not the default.
    pub interval_ms: Option<i64>,
    /// How far back it looks, if it is not the default.
    pub query_offset_ms: Option<i64>,
    /// At most this many series or alerts a rule (0: any number).
    pub limit: usize,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// One rule. Labels of its group are already among its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The name of the series or of the alert.
    pub name: String,
    /// What is evaluated.
    pub expr: Expr,
    /// Labels set on each result. An empty value removes the label.
    pub labels: BTreeMap<String, String>,
    /// What becomes of the results.
    pub kind: RuleKind,
}

/// What becomes of the results of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// They are stored under the rule's name.
    Recording,
    /// Each is an alert.
    Alerting {
        /// A result must persist this long before its alert fires.
        for_ms: i64,
        /// An alert goes on firing this long after its result is gone.
        keep_firing_for_ms: i64,
        /// Texts for people; templates, as are the labels.
        annotations: BTreeMap<String, String>,
    },
}

impl Rule {
    /// The rule's text in the language's canonical form.
    #[must_use]
    pub fn query(&self) -> String {
        self.expr.to_string()
    }
}
