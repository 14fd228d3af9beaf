//! From what is configured or discovered to what is scraped.

use model::{Labels, LabelsBuilder};

use crate::config::{HistogramOptions, Identity, Scheme, ScrapeJob, Seed, TargetGroup};
use crate::relabel;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const NODE: &str = "__meta_kubernetes_node_name";
const PARAM: &str = "__param_";
const NATIVE: &str = "__scrape_native_histograms__";
const CONVERT: &str = "__convert_classic_histograms_to_nhcb__";
const ALWAYS_CLASSIC: &str = "__always_scrape_classic_histograms__";

/// One target after relabelling.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// Labels before relabelling, defaults included.
    pub(crate) discovered: Labels,
    /// Labels of its series.
    pub(crate) labels: Labels,
    pub(crate) scheme: Scheme,
    /// `host:port`
    pub(crate) address: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) interval_ms: i64,
    pub(crate) timeout_ms: i64,
    pub(crate) histograms: HistogramOptions,
    /// The node whose kubelet it is, where that decides about its certificate.
    pub(crate) node: Option<Box<str>>,
}

/// What became of one configured target.
pub(crate) enum Outcome {
    Active(Box<Target>),
    Dropped(Labels),
    Invalid { discovered: Labels, error: String },
}

impl Target {
    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.address, self.path)
    }

    /// Where in the interval its scrapes lie, in milliseconds. The same after a restart; another for
    /// each seed.
    pub(crate) fn offset_ms(&self, seed: &Seed) -> i64 {
        let mut text = self.url();
        text.push('\u{ff}');
        text.push_str(&self.labels.to_string());
        let seed = format!("{}{}", seed.host_name, seed.external_labels);
        let hash =
            xxhash_rust::xxh64::xxh64(text.as_bytes(), 0) ^ xxhash_rust::xxh64::xxh64(seed.as_bytes(), 0);
        let interval = self.interval_ms.max(1).unsigned_abs();
        (hash % interval).cast_signed()
    }
}

/// What becomes of the targets of a group.
pub(crate) fn resolve<'a>(job: &'a ScrapeJob, group: &'a TargetGroup) -> impl Iterator<Item = Outcome> + 'a {
    group.targets.iter().map(move |target| {
        let mut labels = group.labels.to_builder();
        for (name, value) in target {
            labels.set(name, value);
        }
        resolve_one(job, labels)
    })
}

fn resolve_one(job: &ScrapeJob, mut labels: LabelsBuilder) -> Outcome {
    let mut default = |name: &str, value: &str| {
        if labels.get(name).is_none() {
            labels.set(name, value);
        }
    };
    default("job", &job.name);
    default(INTERVAL, &model::duration::format_ms(job.interval_ms));
    default(TIMEOUT, &model::duration::format_ms(job.timeout_ms));
    default(METRICS_PATH, &job.metrics_path);
    default(SCHEME, job.scheme.as_str());
    for (name, values) in &job.params {
        if let Some(value) = values.first() {
            default(&format!("{PARAM}{name}"), value);
        }
    }
    let discovered = labels.build();
    if !relabel::apply(&job.relabel, &mut labels) {
        return Outcome::Dropped(discovered);
    }
    match finish(job, labels) {
        Ok(target) => Outcome::Active(Box::new(Target { discovered, ..target })),
        Err(error) => Outcome::Invalid { discovered, error },
    }
}

/// The target, without the labels that it was discovered with.
fn finish(job: &ScrapeJob, mut labels: LabelsBuilder) -> Result<Target, String> {
    let get = |name: &str| labels.get(name).unwrap_or("").to_owned();
    let address = get(ADDRESS);
    if address.is_empty() {
        return Err("no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("{address:?} is not a valid hostname"));
    }
    let scheme = match get(SCHEME).as_str() {
        "http" | "" => Scheme::Http,
        "https" => Scheme::Https,
        other => return Err(format!("unsupported scheme {other:?}")),
    };
    let duration = |name: &str| {
        let text = get(name);
        let ms = model::duration::parse_ms(&text)
            .map_err(|error| format!("error parsing {name} {text:?}: {error}"))?;
        if ms > 0 { Ok(ms) } else { Err(format!("{name} cannot be 0")) }
    };
    let (interval_ms, timeout_ms) = (duration(INTERVAL)?, duration(TIMEOUT)?);
    if timeout_ms > interval_ms {
        return Err(format!("scrape timeout {timeout_ms} ms greater than interval {interval_ms} ms"));
    }
    let flag = |name: &str, otherwise: bool| match labels.get(name) {
        None => Ok(otherwise),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(format!("error parsing {name} {other:?}: neither true nor false")),
    };
    let histograms = HistogramOptions {
        native: flag(NATIVE, job.histograms.native)?,
        always_classic: flag(ALWAYS_CLASSIC, job.histograms.always_classic)?,
        convert_classic: flag(CONVERT, job.histograms.convert_classic)?,
        ..job.histograms
    };
    let path = path_and_query(job, &labels);
    let node = labels.get(NODE).filter(|_| job.http.tls.identity == Identity::Node).map(Box::from);
    labels.retain(|name, _| !name.starts_with("__"));
    if labels.get("instance").is_none() {
        labels.set("instance", &address);
    }
    let labels = labels.build();
    let discovered = Labels::empty();
    Ok(Target { discovered, labels, scheme, address, path, interval_ms, timeout_ms, histograms, node })
}

/// Parameters ascend by name; `__param_<name>` stands for the first value of each.
fn path_and_query(job: &ScrapeJob, labels: &LabelsBuilder) -> String {
    let mut params: std::collections::BTreeMap<&str, Vec<&str>> = std::collections::BTreeMap::new();
    for (name, values) in &job.params {
        params.entry(name).or_default().extend(values.iter().map(String::as_str));
    }
    for (name, value) in labels.iter() {
        let Some(name) = name.strip_prefix(PARAM) else { continue };
        let values = params.entry(name).or_default();
        match values.first_mut() {
            Some(first) => *first = value,
            None => values.push(value),
        }
    }
    let path = labels.get(METRICS_PATH).unwrap_or("/");
    let mut out = String::new();
    if !path.starts_with('/') {
        out.push('/');
    }
    // A `?` belongs to a query only if the path was configured with one.
    push_encoded(&mut out, path, b"/?=&%:@!$'()*+,;~-._");
    let mut separator = if out.contains('?') { '&' } else { '?' };
    for (name, values) in params {
        for value in values {
            out.push(separator);
            separator = '&';
            push_encoded(&mut out, name, b"-_.~");
            out.push('=');
            push_encoded(&mut out, value, b"-_.~");
        }
    }
    out
}

fn push_encoded(out: &mut String, text: &str, plain: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NameScheme;
    use crate::relabel::{Action, Rule, RuleSpec};

    fn job() -> ScrapeJob {
        let mut job = ScrapeJob::new("node");
        let labels = Labels::from_pairs([("dc", "b"), ("__tmp", "x")]);
        job.targets = vec![TargetGroup::of_addresses(["h:1", "h:2"], labels)];
        job
    }

    /// The active targets, and how many are dropped.
    fn resolved(job: &ScrapeJob) -> (Vec<Target>, usize) {
        let (mut active, mut dropped) = (Vec::new(), 0);
        for outcome in job.targets.iter().flat_map(|group| resolve(job, group)) {
            match outcome {
                Outcome::Active(target) => active.push(*target),
                Outcome::Dropped(_) => dropped += 1,
                Outcome::Invalid { .. } => {}
            }
        }
        (active, dropped)
    }

    #[test]
    fn labels_get_their_defaults_and_lose_what_is_internal() {
        let (active, _) = resolved(&job());
        assert_eq!(active.len(), 2);
        let target = &active[0];
        assert_eq!(target.labels, Labels::from_pairs([("dc", "b"), ("instance", "h:1"), ("job", "node")]));
        assert_eq!(target.url(), "http://h:1/metrics");
        assert_eq!(target.discovered.get("__scrape_interval__"), Some("1m"));
        assert_eq!(target.discovered.get("__scheme__"), Some("http"));
    }

    #[test]
    fn relabelling_sets_url_interval_and_parameters() {
        let mut job = job();
        job.params = vec![("a".into(), vec!["1".into(), "2 3".into()])];
        let set = |target: &str, value: &str| {
            let spec = RuleSpec {
                target_label: target.into(),
                replacement: Some(value.into()),
                ..RuleSpec::default()
            };
            Rule::new(spec, NameScheme::Utf8).unwrap()
        };
        job.relabel = vec![
            set("__scheme__", "https"),
            set("__metrics_path__", "/x y"),
            set("__param_a", "é"),
            set("__param_b", "4"),
            set("__scrape_interval__", "20s"),
            set("instance", "me"),
            set("__scrape_native_histograms__", "true"),
        ];
        let target = &resolved(&job).0[0];
        assert_eq!(target.url(), "https://h:1/x%20y?a=%C3%A9&a=2%203&b=4");
        assert_eq!((target.interval_ms, target.timeout_ms), (20_000, 10_000));
        assert!(target.histograms.native && !target.histograms.always_classic);
        assert_eq!(target.labels.get("instance"), Some("me"));
    }

    #[test]
    fn targets_are_dropped_or_refused() {
        let mut job = job();
        let spec = |action, source: &str, regex: &str| RuleSpec {
            action,
            source_labels: vec![source.into()],
            regex: Some(regex.into()),
            ..RuleSpec::default()
        };
        job.relabel = vec![Rule::new(spec(Action::Drop, "__address__", "h:2"), NameScheme::Utf8).unwrap()];
        let (active, dropped) = resolved(&job);
        assert_eq!((active.len(), dropped), (1, 1));
        job.targets[0].labels = Labels::from_pairs([("__scrape_native_histograms__", "maybe")]);
        assert!(resolved(&job).0.is_empty());
        job.targets[0].labels = Labels::empty();
        job.targets = vec![TargetGroup::of_addresses(["a/b"], Labels::empty())];
        assert!(resolved(&job).0.is_empty());
        job.targets = vec![TargetGroup::of_addresses(["a"], Labels::empty())];
        job.timeout_ms = job.interval_ms + 1;
        assert!(resolved(&job).0.is_empty());
    }

    #[test]
    fn offsets_differ_by_target_and_seed_and_not_by_run() {
        let (active, _) = resolved(&job());
        let seed = |name: &str| Seed { host_name: name.into(), external_labels: Labels::empty() };
        let offsets = [
            active[0].offset_ms(&seed("a")),
            active[1].offset_ms(&seed("a")),
            active[0].offset_ms(&seed("b")),
        ];
        assert!(offsets.iter().all(|offset| (0..60_000).contains(offset)));
        assert!(offsets[0] != offsets[1] && offsets[0] != offsets[2]);
        assert_eq!(offsets[0], active[0].offset_ms(&seed("a")));
    }
}
