//! From a scraped series to the labels under which it is stored.

use model::{Labels, LabelsBuilder, METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};

use crate::config::{Limits, NameScheme, ScrapeJob};
use crate::exposition::{LabelPair, MetricType, series_labels};
use crate::relabel;

/// Why the labels of a series make its page fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SeriesError {
    #[error("label name {0:?} is not unique: invalid sample")]
    Repeated(String),
    #[error("missing metric name (__name__ label)")]
    NoName,
    #[error("invalid metric name or label names: {0}")]
    InvalidName(String),
    #[error("label_limit exceeded (metric: {series:.50}, number of labels: {count}, limit: {limit})")]
    TooManyLabels { series: String, count: usize, limit: u64 },
    #[error(
        "label_name_length_limit exceeded (metric: {series:.50}, label name: {name:.50}, limit: {limit})"
    )]
    LongName { series: String, name: String, limit: u64 },
    #[error(
        "label_value_length_limit exceeded (metric: {series:.50}, label name: {name:.50}, limit: {limit})"
    )]
    LongValue { series: String, name: String, limit: u64 },
    #[error("{0}")]
    Malformed(String),
}

impl SeriesError {
    pub(crate) fn is_limit(&self) -> bool {
        matches!(self, Self::TooManyLabels { .. } | Self::LongName { .. } | Self::LongValue { .. })
    }
}

/// The labels under which a series is stored; `None` if relabelling drops it.
pub(crate) fn labels_of(
    name: &[u8],
    metric_type: MetricType,
    target: &Labels,
    job: &ScrapeJob,
) -> Result<Option<Labels>, SeriesError> {
    let mut scraped = Vec::new();
    series_labels(name, metric_type, &mut scraped)
        .map_err(|error| SeriesError::Malformed(error.to_string()))?;
    scraped.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = scraped.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(SeriesError::Repeated(pair[0].0.clone().into_owned()));
    }
    let mut labels = merge(&scraped, target, job.honor_labels);
    if !relabel::apply(&job.metric_relabel, &mut labels) {
        return Ok(None);
    }
    let labels = labels.build();
    if labels.is_empty() {
        return Ok(None);
    }
    check_names(&labels, job.names)?;
    check_limits(&labels, &job.limits)?;
    Ok(Some(labels))
}

/// Target labels beside scraped ones. Where both have a name, either the scraped label stays, even an
/// empty one, which thereby hides the target's; or it moves to `exported_<name>`.
fn merge(scraped: &[LabelPair<'_>], target: &Labels, honor: bool) -> LabelsBuilder {
    let mut labels = LabelsBuilder::new();
    for (name, value) in scraped {
        labels.set(name, value);
    }
    if honor {
        for (name, value) in target {
            if scraped.binary_search_by(|(other, _)| other.as_ref().cmp(name)).is_err() {
                labels.set(name, value);
            }
        }
        return labels;
    }
    let mut moved: Vec<(String, String)> = Vec::new();
    for (name, value) in target {
        if let Some(clash) = labels.get(name) {
            moved.push((name.to_owned(), clash.to_owned()));
        }
        labels.set(name, value);
    }
    // Short names first, so that a longer one finds the place of a shorter one taken.
    moved.sort_by_key(|(name, _)| name.len());
    for (mut name, value) in moved {
        while labels.get(&name).is_some() {
            name.insert_str(0, "exported_");
        }
        labels.set(&name, &value);
    }
    labels
}

fn check_names(labels: &Labels, names: NameScheme) -> Result<(), SeriesError> {
    let Some(name) = labels.metric_name() else { return Err(SeriesError::NoName) };
    let legacy = names == NameScheme::Legacy;
    if legacy && !(is_legacy_metric_name(name) && labels.iter().all(|(name, _)| is_legacy_label_name(name))) {
        return Err(SeriesError::InvalidName(labels.to_string()));
    }
    Ok(())
}

fn check_limits(labels: &Labels, limits: &Limits) -> Result<(), SeriesError> {
    let series = || labels.metric_name().unwrap_or(METRIC_NAME).to_owned();
    let beyond = |length: usize, limit: u64| limit > 0 && length as u64 > limit;
    let count = labels.len();
    if beyond(count, limits.labels_max) {
        return Err(SeriesError::TooManyLabels { series: series(), count, limit: limits.labels_max });
    }
    if limits.label_name_bytes_max == 0 && limits.label_value_bytes_max == 0 {
        return Ok(());
    }
    for (name, value) in labels {
        let name_of = || name.to_owned();
        if beyond(name.len(), limits.label_name_bytes_max) {
            let limit = limits.label_name_bytes_max;
            return Err(SeriesError::LongName { series: series(), name: name_of(), limit });
        }
        if beyond(value.len(), limits.label_value_bytes_max) {
            let limit = limits.label_value_bytes_max;
            return Err(SeriesError::LongValue { series: series(), name: name_of(), limit });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(
        name: &str,
        target: &[(&str, &str)],
        change: impl Fn(&mut ScrapeJob),
    ) -> Result<String, SeriesError> {
        let mut job = ScrapeJob::new("j");
        change(&mut job);
        let target = Labels::from_pairs(target.iter().copied());
        labels_of(name.as_bytes(), MetricType::Unknown, &target, &job)
            .map(|labels| labels.map_or_else(|| "dropped".to_owned(), |labels| labels.to_string()))
    }

    #[test]
    fn clashing_labels_are_exported_or_honoured() {
        let target = [("job", "t"), ("instance", "i")];
        let name = r#"a{job="s",exported_job="x",instance=""}"#;
        assert_eq!(
            stored(name, &target, |_| {}).unwrap(),
            r#"a{exported_exported_job="s", exported_job="x", instance="i", job="t"}"#
        );
        assert_eq!(
            stored(name, &target, |job| job.honor_labels = true).unwrap(),
            r#"a{exported_job="x", job="s"}"#
        );
    }

    #[test]
    fn a_series_needs_a_name_and_unique_labels() {
        assert_eq!(stored(r#"a{b="1",b="2"}"#, &[], |_| {}), Err(SeriesError::Repeated("b".into())));
        assert_eq!(stored(r#"a{__name__="z"}"#, &[], |_| {}), Err(SeriesError::Repeated("__name__".into())));
        let utf8 = r#"{"a.b"}"#;
        assert!(stored(utf8, &[], |_| {}).is_ok());
        let refused = stored(utf8, &[], |job| job.names = NameScheme::Legacy);
        assert!(matches!(refused, Err(SeriesError::InvalidName(_))));
    }

    #[test]
    fn limits_count_the_target_s_labels_too() {
        let limited = |change: fn(&mut Limits)| {
            stored(r#"a{bb="ccc"}"#, &[("job", "t")], |job| change(&mut job.limits))
                .map_err(|error| error.is_limit())
        };
        assert!(limited(|limits| limits.labels_max = 3).is_ok());
        assert_eq!(limited(|limits| limits.labels_max = 2), Err(true));
        assert_eq!(limited(|limits| limits.label_name_bytes_max = 7), Err(true));
        assert!(limited(|limits| limits.label_name_bytes_max = 8).is_ok());
        assert_eq!(limited(|limits| limits.label_value_bytes_max = 2), Err(true));
    }
}
