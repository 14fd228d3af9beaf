//! How well a value fits what somebody types: from 0, not at all, to 1, exactly.

/// How values are compared with a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// All characters of the term must occur in order; runs of them count for more than single ones.
    Subsequence,
    /// The term must occur, or be similar by the measure of Jaro and Winkler.
    JaroWinkler,
}

/// What is searched for: any of several terms.
pub(super) struct Search {
    terms: Vec<Term>,
    threshold: f64,
    algorithm: Algorithm,
    case_sensitive: bool,
}

struct Term {
    text: String,
    chars: Vec<char>,
}

impl Search {
    /// Nothing if there is nothing to search for.
    pub(super) fn new(
        terms: &[&str],
        threshold: f64,
        algorithm: Algorithm,
        case_sensitive: bool,
    ) -> Option<Self> {
        let folded = |term: &&str| if case_sensitive { (*term).to_owned() } else { term.to_lowercase() };
        let terms: Vec<Term> = terms
            .iter()
            .filter(|term| !term.is_empty())
            .map(folded)
            .map(|text| Term { chars: text.chars().collect(), text })
            .collect();
        (!terms.is_empty()).then_some(Self { terms, threshold, algorithm, case_sensitive })
    }

    /// The best score of any term that `value` fits well enough.
    pub(super) fn score(&self, value: &str) -> Option<f64> {
        let lower;
        let value = if self.case_sensitive {
            value
        } else {
            lower = value.to_lowercase();
            &lower
        };
        let scores = self.terms.iter().filter_map(|term| match self.algorithm {
            Algorithm::Subsequence => self.by_subsequence(term, value),
            Algorithm::JaroWinkler => self.by_similarity(term, value),
        });
        scores.max_by(f64::total_cmp)
    }

    fn by_subsequence(&self, term: &Term, value: &str) -> Option<f64> {
        if value.starts_with(&term.text) {
            return Some(1.0);
        }
        let score = subsequence(&term.chars, &value.chars().collect::<Vec<_>>());
        (score > 0.0 && score >= self.threshold).then_some(score)
    }

    fn by_similarity(&self, term: &Term, value: &str) -> Option<f64> {
        let inside = substring(term, value);
        let similar = (self.threshold > 0.0)
            .then(|| strsim::jaro_winkler(&term.text, value))
            .filter(|score| *score >= self.threshold);
        inside.into_iter().chain(similar).max_by(f64::total_cmp)
    }
}

/// 1 at the beginning, and the less the further behind a term occurs, down to 0.1.
fn substring(term: &Term, value: &str) -> Option<f64> {
    let at = value.find(&term.text)?;
    let before = value[..at].chars().count();
    let before_max = value.chars().count() - term.chars.len();
    Some(if before_max == 0 { 1.0 } else { 1.0 - 0.9 * ratio(before, before_max) })
}

#[expect(clippy::cast_precision_loss, reason = "lengths of names")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// The score of `term` in `text`: the squares of the lengths of its runs, less the gaps before and between
/// them as parts of the text, less half of what follows; as a part of the square of its own length. Of all
/// places where it may begin the best one counts; from there on it is taken as early as it comes. An exact
/// match is 1, and any other less than that.
fn subsequence(term: &[char], text: &[char]) -> f64 {
    if term == text {
        return 1.0;
    }
    let Some(last_start) = text.len().checked_sub(term.len()) else { return 0.0 };
    let starts = (0..=last_start).filter(|at| text[*at] == term[0]);
    // Where it cannot be completed, it cannot from further behind.
    let scores = starts.map_while(|start| score_from(term, text, start));
    let best = scores.fold(-1.0, f64::max);
    if best < 0.0 { 0.0 } else { best / ratio(term.len() * term.len(), 1) * 0.999 }
}

fn score_from(term: &[char], text: &[char], start: usize) -> Option<f64> {
    let (mut score, mut rest, mut at, mut run_end) = (0.0, term, start, 0);
    while let Some(first) = rest.first() {
        let run_start = at + text[at..].iter().position(|c| c == first)?;
        let run = rest.iter().zip(&text[run_start..]).take_while(|(one, other)| one == other).count();
        score += ratio(run * run, 1) - ratio(run_start - run_end, text.len());
        (rest, run_end) = (&rest[run..], run_start + run);
        at = run_end;
    }
    Some(score - ratio(text.len() - run_end, text.len()) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn score(term: &str, value: &str) -> Option<f64> {
        Search::new(&[term], 0.0, Algorithm::Subsequence, true).unwrap().score(value)
    }

    #[test]
    fn runs_count_for_more_than_single_characters_and_gaps_for_less() {
        assert_eq!(score("http", "http"), Some(1.0));
        assert_eq!(score("http", "http_requests"), Some(1.0));
        // A run of 3 after a gap of 2, and 1 of 6 that follows.
        let wanted = (9.0 - 2.0 / 6.0 - 1.0 / 6.0 / 2.0) / 9.0 * 0.999;
        assert!((score("abc", "xxabcx").unwrap() - wanted).abs() < 1e-12);
        // The second place is better than the first.
        assert!(score("ab", "a_ab").unwrap() > score("ab", "a_b").unwrap());
        assert_eq!(score("ba", "ab"), None);
        assert_eq!(score("abc", "ab"), None);
    }

    #[test]
    fn several_terms_are_alternatives_and_case_may_be_ignored() {
        let search = Search::new(&["UP", "", "down"], 0.0, Algorithm::Subsequence, false).unwrap();
        assert_eq!(search.score("Up"), Some(1.0));
        assert_eq!(search.score("DOWN"), Some(1.0));
        assert_eq!(search.score("left"), None);
        assert!(Search::new(&[""], 0.0, Algorithm::Subsequence, true).is_none());
    }

    #[test]
    fn a_similar_name_is_found_above_the_threshold() {
        let search = |threshold| Search::new(&["requets"], threshold, Algorithm::JaroWinkler, true).unwrap();
        assert_eq!(search(0.0).score("requests"), None);
        assert!(search(0.9).score("requests").is_some());
        assert_eq!(search(0.99).score("requests"), None);
        assert_eq!(search(0.5).score("requets_total"), Some(1.0));
        let behind = search(0.0).score("http_requets").unwrap();
        assert!((behind - 0.1).abs() < 1e-12, "{behind}");
    }

    proptest! {
        #[test]
        fn scores_lie_between_0_and_1(term in "[a-cä]{1,4}", value in "[a-cä_]{0,8}", fuzzy in any::<bool>()) {
            let algorithm = if fuzzy { Algorithm::JaroWinkler } else { Algorithm::Subsequence };
            let search = Search::new(&[&term], 0.3, algorithm, true).unwrap();
            if let Some(score) = search.score(&value) {
                prop_assert!((0.0..=1.0).contains(&score), "{score}");
            }
            if value.contains(&term) && fuzzy {
                prop_assert!(search.score(&value).is_some());
            }
        }
    }
}
