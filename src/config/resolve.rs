//! From what is written to what is run: defaults, checks across keys, paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::Labels;
use scraper::ScrapeJob;
use scraper::config::{Escaping, Limits, TargetGroup};
use scraper::exposition::Format;
use serde_saphyr::{Location, Spanned};

use super::Loaded;
use super::file::{File, Global, Relabel, Scrape, StaticConfig};
use super::scalars::{Duration, NameScheme, Protocol, Scheme, Size};

/// What is wrong, and where.
pub(crate) struct Fault {
    pub(crate) location: Option<Location>,
    pub(crate) what: String,
}

pub(super) fn fault<T>(location: Location, what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { location: Some(location), what: what.into() })
}

const DEFAULT_INTERVAL_MS: i64 = 60_000;
const DEFAULT_TIMEOUT_MS: i64 = 10_000;

/// The jobs of a file, and the folder that its paths are relative to.
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) scrapes: Vec<Option<Spanned<Scrape>>>,
}

/// A fault, and the file it is in if that is not the main one.
pub(crate) type FaultIn = (Option<PathBuf>, Fault);

pub(crate) fn resolve(file: File, parts: Vec<Part>, folder: &Path) -> Result<Loaded, FaultIn> {
    let scrapes = file.scrape_configs.clone().unwrap_or_default();
    let (mut loaded, global) = resolve_main(file, folder).map_err(|fault| (None, fault))?;
    let defaults = Defaults { interval_ms: global_interval(&global), global: &global, folder };
    defaults.add(&mut loaded.jobs, scrapes).map_err(|fault| (None, fault))?;
    for Part { path, scrapes } in parts {
        let folder = path.parent().unwrap_or(Path::new(""));
        let added = Defaults { folder, ..defaults }.add(&mut loaded.jobs, scrapes);
        added.map_err(|fault| (Some(path.clone()), fault))?;
    }
    Ok(loaded)
}

fn global_interval(global: &Global) -> i64 {
    positive(global.scrape_interval).unwrap_or(DEFAULT_INTERVAL_MS)
}

/// Everything but the jobs.
fn resolve_main(file: File, folder: &Path) -> Result<(Loaded, Global), Fault> {
    refuse("", file.refused())?;
    let server_only = server_only(&file);
    let global = file.global.unwrap_or_default();
    refuse("global.", global.refused())?;
    let timeout = global.scrape_timeout.as_ref();
    let interval_ms = global_interval(&global);
    if let Some(timeout) = timeout.filter(|timeout| timeout.value.0 > interval_ms) {
        return fault(timeout.referenced, "global scrape timeout greater than scrape interval");
    }
    let expand = |(name, value): (&String, &String)| (name.clone(), super::expand::expand_environment(value));
    let external = global.external_labels.iter().map(expand).collect();
    let external_labels = labels("global.external_labels", &external)?;
    let loaded = Loaded {
        jobs: Vec::new(),
        external_labels,
        rule_query_offset_ms: global.rule_query_offset.map_or(0, |offset| offset.0),
        rules: Vec::new(),
        alertmanagers: super::alerting::resolve(file.alerting.as_ref(), folder)?,
        remote_write: super::remote_write::resolve(&file.remote_write, folder)?,
        remote_read: super::remote_read::resolve(&file.remote_read, folder)?,
        storage: file.storage.unwrap_or_default().resolve()?,
        otlp: file.otlp.unwrap_or_default().resolve()?,
        evaluation_interval_ms: positive(global.evaluation_interval).unwrap_or(DEFAULT_INTERVAL_MS),
        query_log_file: global.query_log_file.clone().filter(|path| !path.as_os_str().is_empty()),
        redacted: super::redact::Shown::default(),
        fingerprint: None,
        server_only,
    };
    Ok((loaded, global))
}

/// The first section that is not for agents, in Prometheus' order.
fn server_only(file: &File) -> Option<(Location, &'static str)> {
    let alerting = file.alerting.as_ref().and_then(|alerting| {
        let servers = alerting.alertmanagers.first().map(|section| section.referenced);
        servers.or_else(|| Some(alerting.alert_relabel_configs.first()?.as_ref()?.referenced))
    });
    let rules = file.rule_files.first().map(|pattern| pattern.referenced);
    let others = file.remote_read.iter().flatten().next().map(|section| section.referenced);
    [(alerting, "alerting"), (rules, "rule_files"), (others, "remote_read")]
        .into_iter()
        .find_map(|(at, key)| Some((at?, key)))
}

/// Says of the first section that is there and not carried, where it stands.
pub(super) fn refuse<'a>(
    inside: &str,
    mut sections: impl Iterator<Item = (&'static str, &'a Spanned<serde_json::Value>)>,
) -> Result<(), Fault> {
    match sections.next() {
        Some((key, value)) => fault(value.referenced, format!("{inside}{key} is not supported")),
        None => Ok(()),
    }
}

fn positive(duration: Option<Duration>) -> Option<i64> {
    duration.map(|duration| duration.0).filter(|ms| *ms > 0)
}

pub(super) fn labels(place: &str, pairs: &BTreeMap<String, String>) -> Result<Labels, Fault> {
    if let Some(name) = pairs.keys().find(|name| name.is_empty()) {
        return Err(Fault { location: None, what: format!("{place}: {name:?} is not a valid label name") });
    }
    Ok(Labels::from_pairs(pairs))
}

/// What jobs inherit.
#[derive(Clone, Copy)]
struct Defaults<'a> {
    interval_ms: i64,
    global: &'a Global,
    folder: &'a Path,
}

impl Defaults<'_> {
    /// Adds the jobs of a file to those that are known.
    fn add(&self, jobs: &mut Vec<ScrapeJob>, scrapes: Vec<Option<Spanned<Scrape>>>) -> Result<(), Fault> {
        for scrape in scrapes {
            let Some(scrape) = scrape else {
                return Err(Fault { location: None, what: "empty or null scrape config section".to_owned() });
            };
            let at = scrape.referenced;
            if jobs.iter().any(|job| job.name == scrape.value.job_name) {
                let name = &scrape.value.job_name;
                return fault(at, format!("found multiple scrape configs with job name {name:?}"));
            }
            jobs.push(self.job(&scrape.value, at)?);
        }
        Ok(())
    }

    fn job(&self, scrape: &Scrape, at: Location) -> Result<ScrapeJob, Fault> {
        if scrape.job_name.is_empty() {
            return fault(at, "job_name is empty");
        }
        refuse(&format!("job {:?}: ", scrape.job_name), scrape.refused())?;
        let (interval_ms, timeout_ms) = self.times(scrape)?;
        let global = self.global;
        let flag = |own: Option<bool>, global: Option<bool>| own.or(global).unwrap_or(false);
        let mut job = ScrapeJob::new(&scrape.job_name);
        job.interval_ms = interval_ms;
        job.timeout_ms = timeout_ms;
        job.scheme = scrape.scheme.map_or(job.scheme, |Scheme(scheme)| scheme);
        if let Some(path) = &scrape.metrics_path {
            job.metrics_path.clone_from(path);
        }
        job.params = scrape.params.clone().into_iter().collect();
        job.honor_labels = scrape.honor_labels;
        job.honor_timestamps = scrape.honor_timestamps.unwrap_or(true);
        job.track_timestamps_staleness = scrape.track_timestamps_staleness;
        if let Some(formats) = formats(scrape.scrape_protocols.as_ref().or(global.scrape_protocols.as_ref()))?
        {
            job.formats = formats;
        }
        job.fallback_format = scrape.fallback_scrape_protocol.map(|Protocol(format)| format);
        job.compression = scrape.enable_compression.unwrap_or(true);
        job.extra_metrics = flag(scrape.extra_scrape_metrics, global.extra_scrape_metrics);
        job.histograms.native = flag(scrape.scrape_native_histograms, global.scrape_native_histograms);
        if job.histograms.native && scrape.scrape_protocols.is_none() && global.scrape_protocols.is_none() {
            // Only protobuf carries native histograms.
            job.formats = Format::NATIVE_ORDER.to_vec();
        }
        job.histograms.always_classic =
            flag(scrape.always_scrape_classic_histograms, global.always_scrape_classic_histograms);
        job.histograms.convert_classic =
            flag(scrape.convert_classic_histograms_to_nhcb, global.convert_classic_histograms_to_nhcb);
        if let Some(factor) = &scrape.native_histogram_min_bucket_factor {
            job.histograms.schema_max = scraper::config::schema_of_growth(factor.value);
        }
        job.histograms.native_buckets_max = scrape.native_histogram_bucket_limit.unwrap_or(0);
        let names = scrape.metric_name_validation_scheme.or(global.metric_name_validation_scheme);
        job.names = names.map_or(job.names, |NameScheme(names)| names);
        let escaping =
            scrape.metric_name_escaping_scheme.as_ref().or(global.metric_name_escaping_scheme.as_ref());
        job.escaping = escaping_of(escaping, job.names, at)?;
        job.limits = self.limits(scrape);
        job.relabel = relabel(&scrape.relabel_configs, "empty or null target relabeling rule", job.names)?;
        job.metric_relabel =
            relabel(&scrape.metric_relabel_configs, "empty or null metric relabeling rule", job.names)?;
        job.targets = targets(&scrape.static_configs)?;
        job.discoveries = scrape.discoveries().resolve(self.folder)?;
        job.http = scrape.http().options(self.folder, at)?;
        let failures = scrape.scrape_failure_log_file.as_ref().or(global.scrape_failure_log_file.as_ref());
        job.failure_log =
            failures.filter(|path| !path.as_os_str().is_empty()).map(|path| self.folder.join(path));
        Ok(job)
    }

    /// Interval and timeout; a timeout that is only inherited gives way to a shorter interval.
    fn times(&self, scrape: &Scrape) -> Result<(i64, i64), Fault> {
        let interval_ms = positive(scrape.scrape_interval).unwrap_or(self.interval_ms);
        if let Some(timeout) = scrape.scrape_timeout.as_ref().filter(|timeout| timeout.value.0 > 0) {
            if timeout.value.0 > interval_ms {
                let what =
                    format!("scrape timeout greater than scrape interval for job {:?}", scrape.job_name);
                return fault(timeout.referenced, what);
            }
            return Ok((interval_ms, timeout.value.0));
        }
        let inherited = self.global.scrape_timeout.as_ref().map_or(0, |timeout| timeout.value.0);
        let inherited = if inherited > 0 { inherited } else { DEFAULT_TIMEOUT_MS };
        Ok((interval_ms, inherited.min(interval_ms)))
    }

    fn limits(&self, scrape: &Scrape) -> Limits {
        let global = self.global;
        let Size(body_bytes_max) = scrape.body_size_limit.unwrap_or(global.body_size_limit);
        Limits {
            body_bytes_max,
            samples_max: scrape.sample_limit.unwrap_or(global.sample_limit),
            keeps_known: scrape.sample_limit_keeps_known,
            labels_max: scrape.label_limit.unwrap_or(global.label_limit),
            label_name_bytes_max: scrape.label_name_length_limit.unwrap_or(global.label_name_length_limit),
            label_value_bytes_max: scrape.label_value_length_limit.unwrap_or(global.label_value_length_limit),
            targets_max: scrape.target_limit.unwrap_or(global.target_limit),
            dropped_targets_kept_max: scrape.keep_dropped_targets.unwrap_or(global.keep_dropped_targets),
        }
    }
}

/// How names that the scheme does not allow are to be asked for.
fn escaping_of(
    escaping: Option<&Spanned<String>>,
    names: scraper::config::NameScheme,
    job: Location,
) -> Result<Escaping, Fault> {
    let is_legacy = names == scraper::config::NameScheme::Legacy;
    let default = if is_legacy { Escaping::Underscores } else { Escaping::AllowUtf8 };
    let Some(escaping) = escaping.filter(|escaping| !escaping.value.is_empty()) else { return Ok(default) };
    let all = [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values];
    match all.into_iter().find(|one| one.as_str() == escaping.value) {
        Some(Escaping::AllowUtf8) if is_legacy => {
            fault(job, "utf8 metric names requested but validation scheme is not set to UTF8")
        }
        Some(escaping) => Ok(escaping),
        None => fault(escaping.referenced, format!("unknown escaping scheme {:?}", escaping.value)),
    }
}

fn formats(protocols: Option<&Vec<Spanned<Protocol>>>) -> Result<Option<Vec<Format>>, Fault> {
    let Some(protocols) = protocols.filter(|protocols| !protocols.is_empty()) else { return Ok(None) };
    let mut formats = Vec::with_capacity(protocols.len());
    for protocol in protocols {
        if formats.contains(&protocol.value.0) {
            return fault(protocol.referenced, "duplicated protocol in scrape_protocols");
        }
        formats.push(protocol.value.0);
    }
    Ok(Some(formats))
}

pub(super) fn targets(configs: &[StaticConfig]) -> Result<Vec<TargetGroup>, Fault> {
    let group = |config: &StaticConfig| {
        let labels = labels("static_configs.labels", &config.labels)?;
        if let Some(target) = config.targets.iter().find(|target| target.contains('/') || target.is_empty()) {
            let what = format!("static_configs.targets: {target:?} is not a valid hostname");
            return Err(Fault { location: None, what });
        }
        Ok(TargetGroup::of_addresses(&config.targets, labels))
    };
    configs.iter().map(group).collect()
}

pub(super) fn relabel(
    rules: &[Option<Spanned<Relabel>>],
    empty: &str,
    names: scraper::config::NameScheme,
) -> Result<Vec<scraper::relabel::Rule>, Fault> {
    let mut out = Vec::with_capacity(rules.len());
    for rule in rules {
        let Some(rule) = rule else { return Err(Fault { location: None, what: empty.to_owned() }) };
        match rule_of(&rule.value, names) {
            Ok(rule) => out.push(rule),
            Err(what) => return fault(rule.referenced, what),
        }
    }
    Ok(out)
}

fn rule_of(relabel: &Relabel, names: scraper::config::NameScheme) -> Result<scraper::relabel::Rule, String> {
    let action = relabel.action.as_deref().unwrap_or("replace");
    let spec = scraper::relabel::RuleSpec {
        source_labels: relabel.source_labels.clone(),
        separator: relabel.separator.clone(),
        regex: relabel.regex.clone(),
        modulus: relabel.modulus.unwrap_or(0),
        target_label: relabel.target_label.clone().unwrap_or_default(),
        replacement: relabel.replacement.clone(),
        action: action.parse().map_err(|error: scraper::relabel::RuleError| error.to_string())?,
    };
    scraper::relabel::Rule::new(spec, names).map_err(|error| error.to_string())
}
