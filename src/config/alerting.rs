//! The section `alerting`: who is told of alerts, and with which labels.

use std::sync::Arc;
use std::time::Duration;

use model::{Labels, LabelsBuilder};
use scraper::config::NameScheme;
use scraper::relabel::{self, Rule};

use super::file::Alerting;
use super::resolve::{Fault, fault, refuse, relabel as relabel_rules, targets};
use super::scalars::Scheme;

/// An Alertmanager, and how alerts change on their way to it.
#[derive(Clone, Debug)]
pub(crate) struct Alertmanager {
    url: String,
    timeout: Duration,
    /// The rules for all Alertmanagers, then those for this one.
    relabel: Vec<Rule>,
}

impl Alertmanager {
    /// As the notifier takes it.
    pub(crate) fn to_rules(&self) -> rules::Alertmanager {
        let steps = self.relabel.clone();
        let change = move |labels: &Labels| {
            let mut builder = labels.to_builder();
            relabel::apply(&steps, &mut builder).then(|| builder.build())
        };
        let relabel = (!self.relabel.is_empty()).then(|| Arc::new(change) as rules::Relabel);
        rules::Alertmanager { timeout: self.timeout, relabel, ..rules::Alertmanager::new(&self.url) }
    }
}

/// All Alertmanagers of a file.
pub(super) fn resolve(alerting: Option<&Alerting>) -> Result<Vec<Alertmanager>, Fault> {
    let Some(alerting) = alerting else { return Ok(Vec::new()) };
    let empty = "empty or null alert relabeling rule";
    let for_all = relabel_rules(&alerting.alert_relabel_configs, empty, NameScheme::Utf8)?;
    let mut out = Vec::new();
    for alertmanager in &alerting.alertmanagers {
        let (config, at) = (&alertmanager.value, alertmanager.referenced);
        refuse("alerting.alertmanagers: ", config.refused())?;
        if let Some(version) = config.api_version.as_ref().filter(|version| version.value != "v2") {
            let what =
                format!("expected Alertmanager api version to be one of [v2] but got {}", version.value);
            return fault(version.referenced, what);
        }
        let scheme = match config.scheme {
            Some(Scheme(scraper::config::Scheme::Https)) => "https",
            _ => "http",
        };
        let of_targets = relabel_rules(
            &config.relabel_configs,
            "empty or null Alertmanager target relabeling rule",
            NameScheme::Utf8,
        )?;
        let mut relabel = for_all.clone();
        relabel.extend(relabel_rules(&config.alert_relabel_configs, empty, NameScheme::Utf8)?);
        let timeout = config.timeout.map_or(10_000, |timeout| timeout.0).unsigned_abs();
        targets(&config.static_configs)?;
        for group in &config.static_configs {
            for target in &group.targets {
                let Some(url) = url_of((scheme, target, &config.path_prefix), &group.labels, &of_targets)
                else {
                    continue;
                };
                if !url.starts_with("http://") {
                    return fault(at, format!("alerting.alertmanagers: {url}: https is not supported"));
                }
                out.push(Alertmanager {
                    url,
                    timeout: Duration::from_millis(timeout),
                    relabel: relabel.clone(),
                });
            }
        }
    }
    Ok(out)
}

/// Where a target is after relabelling; none if it is dropped.
fn url_of(
    (scheme, address, path_prefix): (&str, &str, &str),
    labels: &std::collections::BTreeMap<String, String>,
    rules: &[Rule],
) -> Option<String> {
    const PATH: &str = "/api/v2/alerts";
    let prefix = path_prefix.trim_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    let mut builder = LabelsBuilder::new();
    for (name, value) in labels {
        builder.set(name, value);
    }
    builder.set("__scheme__", scheme).set("__address__", address);
    builder.set("__alerts_path__", &format!("{slash}{prefix}{PATH}"));
    if !relabel::apply(rules, &mut builder) {
        return None;
    }
    let value = |name: &str| builder.get(name).unwrap_or_default().to_owned();
    let path = value("__alerts_path__");
    let path = path.strip_suffix(PATH).unwrap_or(&path);
    Some(format!("{}://{}{path}", value("__scheme__"), value("__address__")))
}
