//! What is asked for, checked.

use std::collections::BTreeSet;

use model::{Labels, MatchOp, Matcher, TimeRange};
use tonic::Status;
use xxhash_rust::xxh64::xxh64;

use crate::proto::{LabelMatcher, ShardInfo};

/// Matchers of one request.
pub(crate) const MATCHERS_MAX: usize = 1_000;

/// Conditions of a request, those on external labels judged already.
pub(crate) struct Conditions {
    /// Those on the series themselves.
    pub(crate) matchers: Vec<Matcher>,
    /// Whether the external labels fulfil theirs. If not, there is nothing to be found here.
    pub(crate) possible: bool,
}

impl Conditions {
    /// Reads matchers.
    ///
    /// # Errors
    /// A matcher is wrong; the message names it.
    pub(crate) fn new(given: &[LabelMatcher], external: &Labels) -> Result<Self, Status> {
        if given.len() > MATCHERS_MAX {
            let what = format!("{} matchers, at most {MATCHERS_MAX} are taken", given.len());
            return Err(Status::invalid_argument(what));
        }
        let (mut matchers, mut possible) = (Vec::new(), true);
        for matcher in given {
            let op = match matcher.kind {
                0 => MatchOp::Equal,
                1 => MatchOp::NotEqual,
                2 => MatchOp::Regex,
                3 => MatchOp::NotRegex,
                other => {
                    let what = format!("matcher of label {:?}: unknown type {other}", matcher.name);
                    return Err(Status::invalid_argument(what));
                }
            };
            let matcher = Matcher::new(&matcher.name, op, &matcher.value).map_err(|error| {
                Status::invalid_argument(format!("matcher of label {:?}: {error}", matcher.name))
            })?;
            match external.get(&matcher.name).filter(|value| !value.is_empty()) {
                // External labels override those of series.
                Some(value) => possible &= matcher.matches(value),
                None => matchers.push(matcher),
            }
        }
        Ok(Self { matchers, possible })
    }
}

/// A time range, if it is one.
pub(crate) fn range(start: i64, end: i64) -> Option<TimeRange> {
    (start <= end).then(|| TimeRange::new(start, end))
}

/// How many, if that is limited.
pub(crate) fn limit(given: i64) -> Option<usize> {
    usize::try_from(given).ok().filter(|&limit| limit > 0)
}

/// How the labels that are sent come from those of a series.
pub(crate) struct Naming {
    removed: BTreeSet<String>,
    external: Vec<(String, String)>,
}

impl Naming {
    pub(crate) fn new(external: &Labels, without: &[String]) -> Self {
        let removed: BTreeSet<String> = without.iter().cloned().collect();
        let external = external
            .iter()
            .filter(|(name, value)| !removed.contains(*name) && !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { removed, external }
    }

    /// Whether labels are sent as they are stored.
    pub(crate) fn is_identity(&self) -> bool {
        self.removed.is_empty() && self.external.is_empty()
    }

    /// Whether label `name` is left out.
    pub(crate) fn removes(&self, name: &str) -> bool {
        self.removed.contains(name)
    }

    /// The names that every series gets.
    pub(crate) fn external_names(&self) -> impl Iterator<Item = &str> {
        self.external.iter().map(|(name, _)| name.as_str())
    }

    /// The labels to send.
    pub(crate) fn apply(&self, stored: Labels) -> Labels {
        if self.is_identity() {
            return stored;
        }
        let mut external =
            self.external.iter().map(|(name, value)| (name.as_str(), value.as_str())).peekable();
        let mut merged = Vec::with_capacity(stored.len() + self.external.len());
        for (name, value) in stored.iter().filter(|(name, _)| !self.removed.contains(*name)) {
            while let Some(before) = external.next_if(|(other, _)| *other < name) {
                merged.push(before);
            }
            // The external one comes next, or replaces it.
            if external.peek().is_none_or(|(other, _)| *other != name) {
                merged.push((name, value));
            }
        }
        merged.extend(external);
        Labels::from_sorted(merged)
    }
}

/// The part of the series that somebody wants who asks several times, or several servers.
pub(crate) struct Shard {
    index: u64,
    total: u64,
    by: bool,
    labels: BTreeSet<String>,
}

impl Shard {
    /// `None`: all of them.
    pub(crate) fn new(info: Option<&ShardInfo>) -> Option<Self> {
        let info = info.filter(|info| info.total_shards >= 1)?;
        Some(Self {
            index: info.shard_index.cast_unsigned(),
            total: info.total_shards.cast_unsigned(),
            by: info.by,
            labels: info.labels.iter().cloned().collect(),
        })
    }

    /// Whether the series belongs to it: XXH64 over name and value, each followed by 0xff, of the labels that count
    /// (`storepb/shard_info.go`).
    pub(crate) fn has(&self, labels: &Labels, scratch: &mut Vec<u8>) -> bool {
        scratch.clear();
        for (name, value) in labels.iter().filter(|(name, _)| self.labels.contains(*name) == self.by) {
            for text in [name, value] {
                scratch.extend_from_slice(text.as_bytes());
                scratch.push(0xff);
            }
        }
        xxh64(scratch, 0) % self.total == self.index
    }
}
