//! `_created` lines of OpenMetrics, taken as the start of the counters beside them.

use super::lexis::series_labels;
use super::open_metrics::OpenMetrics;
use super::{Event, MetricType, ParseError, Sample};

/// How many lines ahead of a series its `_created` line is looked for. A bound, so that a page without
/// such lines costs linear time.
const LINES_AHEAD_MAX: usize = 128;

/// A counter's name without its suffix, and its labels without those that tell its parts apart.
type Identity = (String, Vec<(String, String)>);

pub(super) struct StartTimes<'a> {
    parser: OpenMetrics<'a>,
    /// The last one found.
    found: Option<(Identity, i64)>,
}

impl<'a> StartTimes<'a> {
    pub(super) fn new(parser: OpenMetrics<'a>) -> Self {
        Self { parser, found: None }
    }

    pub(super) fn next(&mut self) -> Result<Option<Event<'a>>, ParseError> {
        loop {
            let Some(event) = self.parser.next(&mut |_| None)? else { return Ok(None) };
            let Event::Sample(mut sample) = event else { return Ok(Some(event)) };
            if !has_start(sample.metric_type) {
                return Ok(Some(Event::Sample(sample)));
            }
            let (identity, is_created) = identify(&sample)?;
            if !is_created {
                sample.start_ts = self.start(identity);
                return Ok(Some(Event::Sample(sample)));
            }
        }
    }

    fn start(&mut self, identity: Identity) -> Option<i64> {
        if let Some((_, start)) = self.found.as_ref().filter(|(found, _)| *found == identity) {
            return Some(*start);
        }
        let mut ahead = self.parser.clone();
        for _ in 0..LINES_AHEAD_MAX {
            let Ok(Some(Event::Sample(sample))) = ahead.next(&mut |_| None) else { return None };
            let Ok((other, true)) = identify(&sample) else { continue };
            if other == identity {
                #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
                let start = (sample.value * 1_000.0) as i64;
                self.found = Some((identity, start));
                return Some(start);
            }
        }
        None
    }
}

fn has_start(metric_type: MetricType) -> bool {
    matches!(metric_type, MetricType::Counter | MetricType::Histogram | MetricType::Summary)
}

/// Whose sample it is, and whether it is the line that says when that began.
fn identify(sample: &Sample<'_>) -> Result<(Identity, bool), ParseError> {
    let mut labels = Vec::new();
    series_labels(sample.series, sample.metric_type, &mut labels)?;
    let part = match sample.metric_type {
        MetricType::Histogram => "le",
        MetricType::Summary => "quantile",
        _ => "",
    };
    let (mut name, mut rest) = (String::new(), Vec::new());
    for (label, value) in labels {
        if label == model::METRIC_NAME {
            name = value.into_owned();
        } else if label != part {
            rest.push((label.into_owned(), value.into_owned()));
        }
    }
    rest.sort_unstable();
    let suffix =
        ["_created", "_total", "_bucket", "_count", "_sum"].into_iter().find(|suffix| name.ends_with(suffix));
    name.truncate(name.len() - suffix.map_or(0, str::len));
    Ok(((name, rest), suffix == Some("_created")))
}
