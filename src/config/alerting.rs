//! The section `alerting`: who is told of alerts, how, and with which labels.

use std::path::Path;
use std::time::Duration;

use scraper::config::{Discovery, HttpOptions, NameScheme, TargetGroup};
use scraper::relabel::Rule;

use super::file::{Alerting, Alertmanager};
use super::resolve::{Fault, fault, refuse, relabel as relabel_rules, targets};
use super::scalars::Scheme;
use super::sigv4::SigV4Options;

/// What is below an Alertmanager's address.
const PATH: &str = "api/v2/alerts";

/// The ways to say who asks.
const AUTH_KEYS: &str = "basic_auth, authorization, oauth2, & sigv4";

/// One of `alerting.alertmanagers`: Alertmanagers that are found and reached alike.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AlertmanagerOptions {
    pub(crate) scheme: scraper::config::Scheme,
    /// Of the URL, prefix and all.
    pub(crate) path: String,
    pub(crate) timeout: Duration,
    pub(crate) http: HttpOptions,
    /// How requests are signed.
    pub(crate) sigv4: Option<SigV4Options>,
    pub(crate) targets: Vec<TargetGroup>,
    pub(crate) discoveries: Vec<Discovery>,
    /// Applied to what is found.
    pub(crate) relabel: Vec<Rule>,
    /// Applied to alerts: the rules for all Alertmanagers, then those for these.
    pub(crate) alert_relabel: Vec<Rule>,
}

/// All sections of a file; paths are relative to `folder`.
pub(super) fn resolve(alerting: Option<&Alerting>, folder: &Path) -> Result<Vec<AlertmanagerOptions>, Fault> {
    let Some(alerting) = alerting else { return Ok(Vec::new()) };
    let empty = "empty or null alert relabeling rule";
    let for_all = relabel_rules(&alerting.alert_relabel_configs, empty, NameScheme::Utf8)?;
    let one = |section: &serde_saphyr::Spanned<Alertmanager>| {
        let (config, at) = (&section.value, section.referenced);
        refuse("alerting.alertmanagers: ", config.refused())?;
        if let Some(version) = config.api_version.as_ref().filter(|version| version.value != "v2") {
            let what =
                format!("expected Alertmanager api version to be one of [v2] but got {}", version.value);
            return fault(version.referenced, what);
        }
        let relabel = relabel_rules(
            &config.relabel_configs,
            "empty or null Alertmanager target relabeling rule",
            NameScheme::Utf8,
        )?;
        let mut alert_relabel = for_all.clone();
        alert_relabel.extend(relabel_rules(&config.alert_relabel_configs, empty, NameScheme::Utf8)?);
        let timeout = config.timeout.map_or(10_000, |timeout| timeout.0).unsigned_abs();
        let prefix = config.path_prefix.trim_matches('/');
        let (http, sigv4) = config.http().signed(config.sigv4.as_ref(), AUTH_KEYS, (folder, at))?;
        Ok(AlertmanagerOptions {
            scheme: config.scheme.map_or(scraper::config::Scheme::Http, |Scheme(scheme)| scheme),
            path: if prefix.is_empty() { format!("/{PATH}") } else { format!("/{prefix}/{PATH}") },
            timeout: Duration::from_millis(timeout),
            http,
            sigv4,
            targets: targets(&config.static_configs)?,
            discoveries: config.discoveries().resolve(folder)?,
            relabel,
            alert_relabel,
        })
    };
    alerting.alertmanagers.iter().map(one).collect()
}
