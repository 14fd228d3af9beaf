use std::path::{Path, PathBuf};

use super::*;

fn parse(path: &Path, text: &str) -> Result<Loaded, ConfigError> {
    super::parse(path, text, rules::Dialect::default())
}

fn error(text: &str) -> String {
    match parse(Path::new("p.yml"), text) {
        Ok(loaded) => unreachable!("accepted {} jobs: {text}", loaded.jobs.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn defaults_are_inherited_and_overridden() {
    let text = "global: {scrape_interval: 20s, scrape_timeout: 15s, sample_limit: 7, external_labels: {dc: x}}\n\
                scrape_configs:\n- {job_name: a}\n- {job_name: b, scrape_interval: 5s, sample_limit: 9, scheme: https}\n";
    let loaded = parse(Path::new("p.yml"), text).unwrap();
    let [a, b] = loaded.jobs.as_slice() else { unreachable!() };
    assert_eq!((a.interval_ms, a.timeout_ms, a.limits.samples_max), (20_000, 15_000, 7));
    assert_eq!((b.interval_ms, b.timeout_ms, b.limits.samples_max), (5_000, 5_000, 9));
    assert_eq!(b.scheme, scraper::config::Scheme::Https);
    assert_eq!(loaded.external_labels.get("dc"), Some("x"));
}

#[test]
fn histograms_are_taken_as_the_file_says() {
    let text = "global: {convert_classic_histograms_to_nhcb: true}\nscrape_configs:\n\
                - {job_name: a, native_histogram_min_bucket_factor: 1.5}\n\
                - {job_name: b, convert_classic_histograms_to_nhcb: false, sample_limit: 5, sample_limit_keeps_known: true}\n";
    let loaded = parse(Path::new("p.yml"), text).unwrap();
    let [a, b] = loaded.jobs.as_slice() else { unreachable!() };
    assert!(a.histograms.convert_classic && !b.histograms.convert_classic);
    assert_eq!((a.histograms.schema_max, b.histograms.schema_max), (0, 8));
    assert!(b.limits.keeps_known && !a.limits.keeps_known);
}

#[test]
fn names_are_asked_for_as_the_file_says() {
    let text = "global: {metric_name_escaping_scheme: dots}\nscrape_configs:\n- {job_name: a}\n\
                - {job_name: b, metric_name_escaping_scheme: values}\n\
                - {job_name: c, metric_name_escaping_scheme: '', metric_name_validation_scheme: legacy}\n";
    let loaded = parse(Path::new("p.yml"), text).unwrap();
    let asked: Vec<_> = loaded.jobs.iter().map(|job| job.escaping.as_str()).collect();
    assert_eq!(asked, ["dots", "values", "underscores"]);
}

#[test]
fn destinations_say_which_message_they_take_and_how_often_metadata() {
    let text = "remote_write:\n- url: http://a/\n- url: http://b/\n  protobuf_message: io.prometheus.write.v2.Request\n  \
                metadata_config: {send_interval: 5s, max_samples_per_send: 7}\n- url: http://c/\n  metadata_config: {send: false}\n";
    let loaded = parse(Path::new("p.yml"), text).unwrap();
    let found: Vec<_> = loaded
        .remote_write
        .iter()
        .map(|one| (one.protocol, one.metadata.map(|times| (times.every.as_secs(), times.per_request))))
        .collect();
    use remote::receive::Protocol::{V1, V2};
    assert_eq!(found, [(V1, Some((60, 2000))), (V2, Some((5, 7))), (V1, None)]);
}

#[test]
fn grants_of_oauth2_are_read_and_checked() {
    use scraper::config::{Auth, Grant, Secret, SignatureAlgorithm};
    const JWT: &str = "grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer'";
    let grant = |keys: &str| {
        let text = format!(
            "scrape_configs:\n- job_name: a\n  oauth2: {{client_id: me, token_url: 'http://t/', {keys}}}\n"
        );
        let loaded = parse(Path::new("/d/p.yml"), &text).map_err(|error| error.to_string())?;
        let Auth::OAuth2(oauth2) = &loaded.jobs[0].http.auth else { unreachable!() };
        Ok::<_, String>(oauth2.grant.clone())
    };
    // As in Prometheus this shows when a token is wanted.
    assert_eq!(grant("scopes: [a]"), Ok(Grant::Credentials(None)));
    assert_eq!(grant("client_secret: s"), Ok(Grant::Credentials(Some(Secret::Inline("s".into())))));
    let keys = format!(
        "{JWT}, client_certificate_key_file: k.pem, client_certificate_key_id: x, signature_algorithm: RS512, \
         iss: i, audience: u, claims: {{a: {{b: [1]}}}}"
    );
    let Ok(Grant::Assertion(it)) = grant(&keys) else { unreachable!() };
    assert_eq!(it.key, Some(Secret::File("/d/k.pem".into())));
    assert_eq!((it.key_id.as_str(), it.issuer.as_str(), it.audience.as_str()), ("x", "i", "u"));
    assert_eq!((it.algorithm, it.claims["a"]["b"][0].as_i64()), (SignatureAlgorithm::Rs512, Some(1)));
    assert!((it.clock.0)() > 1_700_000_000_000);
    for (keys, wanted) in [
        ("client_secret: a, client_secret_file: b", "at most one of oauth2 client_secret"),
        (&format!("{JWT}, signature_algorithm: ES256"), "valid signature algorithms are"),
        (
            &format!("{JWT}, client_certificate_key: a, client_certificate_key_file: b"),
            "at most one of oauth2 client_certificate_key",
        ),
    ] {
        let error = grant(keys).unwrap_err();
        assert!(error.starts_with("/d/p.yml:3:11: ") && error.contains(wanted), "{error}");
    }
}

/// An API server may be reached with all options, and targets carry of other objects what is asked for.
#[test]
fn clusters_are_reached_with_every_option() {
    let text = "scrape_configs:\n- job_name: a\n  kubernetes_sd_configs:\n  - role: pod\n    api_server: https://k/\n    \
                proxy_url: socks5://p:1\n    oauth2: {client_id: a, client_secret: b, token_url: 'http://t/'}\n    \
                http_headers: {X-A: {values: [b]}}\n    \
                attach_metadata: {node: true, namespace: true, deployment: true, job: true, cronjob: true}\n";
    let loaded = parse(Path::new("p.yml"), text).unwrap();
    let [scraper::config::Discovery::Kubernetes(it)] = &loaded.jobs[0].discoveries[..] else {
        unreachable!()
    };
    let attach = it.attach;
    assert!(attach.node && attach.namespace && attach.deployment && attach.job && attach.cronjob);
    let http = it.http.as_ref().unwrap();
    assert_eq!((http.proxy.https.as_deref(), http.headers.len()), (Some("socks5://p:1"), 1));
    assert!(matches!(http.auth, scraper::config::Auth::OAuth2(_)));
    assert_eq!(it.access.as_ref().unwrap().server, "https://k");
}

#[test]
fn proxies_are_those_of_the_environment() {
    let proxy = |pairs: &'static [(&str, &str)]| {
        http::proxy_of_environment(|name| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    };
    let found = proxy(&[
        ("HTTP_PROXY", "p:1"),
        ("http_proxy", "q:1"),
        ("https_proxy", "socks5://s:2"),
        ("no_proxy", "a,b"),
    ]);
    assert_eq!(found.http.as_deref(), Some("http://p:1"));
    assert_eq!((found.https.as_deref(), found.no_proxy.as_str()), (Some("socks5://s:2"), "a,b"));
    assert!(found.is_from_environment);
    let found = proxy(&[("HTTP_PROXY", ""), ("http_proxy", "http://q:1")]);
    assert_eq!((found.http.as_deref(), found.https), (Some("http://q:1"), None));
}

#[test]
fn mistakes_are_placed() {
    for (text, place) in [
        ("global:\n  nope: 1\n", "p.yml:2:3: unknown field `nope`"),
        ("scrape_configs:\n- job_name: a\n  scheme: ftp\n", "p.yml:3:11: scheme must be 'http' or 'https'"),
        (
            "scrape_configs:\n- job_name: a\n  ec2_sd_configs:\n  - region: x\n",
            "p.yml:4:5: job \"a\": ec2_sd_configs is not supported",
        ),
        ("tracing:\n  endpoint: x\n", "p.yml:2:3: tracing is not supported"),
        ("remote_read:\n- name: x\n", "p.yml:2:3: url for remote_read is empty"),
        (
            "remote_read:\n- {url: 'http://x/', name: a}\n- {url: 'http://y/', name: a}\n",
            "p.yml:3:3: found multiple",
        ),
        ("remote_read:\n- url: ftp://x/\n", "p.yml:2:3: remote_read: \"ftp://x/\" is not a URL"),
        (
            "remote_read:\n- url: http://x/\n  headers: {Authorization: x}\n",
            "p.yml:2:3: authorization header must",
        ),
        (
            "scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n  scrape_timeout: 6s\n",
            "p.yml:4:19: scrape timeout greater",
        ),
        ("scrape_configs:\n- job_name: a\n  metric_relabel_configs:\n  - regex: '('\n", "p.yml:4:5: "),
        (
            "scrape_configs:\n- job_name: a\n  kubernetes_sd_configs:\n  - role: pots\n",
            "p.yml:4:11: unknown Kubernetes SD role \"pots\"",
        ),
        (
            "scrape_configs:\n- job_name: a\n  kubernetes_sd_configs:\n  - role: pod\n    selectors:\n    \
             - {role: pod, label: 'a in (b'}\n",
            "p.yml:6:7: invalid label selector \"a in (b\": ",
        ),
        (
            "scrape_configs:\n- job_name: a\n  file_sd_configs:\n  - files: [x.txt]\n",
            "p.yml:4:5: path name \"x.txt\" is not valid for file discovery",
        ),
        (
            "scrape_configs:\n- job_name: a\n  proxy_url: ftp://x\n",
            "p.yml:3:14: proxy_url: \"ftp://x\" is not a URL of a proxy",
        ),
        (
            "scrape_config_files: [a.yml, a.yml]\n",
            "p.yml:1:30: scrape_config_files: \"a.yml\" is named twice",
        ),
        (
            "scrape_configs:\n- job_name: a\n  basic_auth: {password: a, password_file: b}\n",
            "p.yml:3:15: at most one of password",
        ),
    ] {
        let message = error(text);
        assert!(message.starts_with(place), "{message}\n  for {text}");
    }
}

/// Included jobs are like those of the file itself, with paths relative to where they stand.
#[test]
fn jobs_are_included_from_other_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("jobs")).unwrap();
    write(
        "main.yml",
        "global: {scrape_interval: 20s}\nscrape_config_files: ['jobs/*.yml']\nscrape_configs:\n- job_name: a\n",
    );
    write(
        "jobs/1.yml",
        "scrape_configs:\n- job_name: b\n  bearer_token_file: token\n  file_sd_configs:\n  - files: [t.json]\n",
    );
    let loaded = load(&dir.path().join("main.yml"), rules::Dialect::default()).unwrap();
    assert_eq!(loaded.jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let b = &loaded.jobs[1];
    assert_eq!(b.interval_ms, 20_000);
    let file = format!("{:?}", b.http.auth);
    assert!(file.contains(&dir.path().join("jobs/token").display().to_string()), "{file}");
    assert!(
        matches!(&b.discoveries[..], [scraper::config::Discovery::File(it)] if it.files == [dir.path().join("jobs/t.json")])
    );
    write("jobs/2.yml", "scrape_configs:\n- job_name: a\n");
    let error = load(&dir.path().join("main.yml"), rules::Dialect::default()).unwrap_err().to_string();
    assert!(error.contains("jobs/2.yml:2:3: found multiple scrape configs with job name \"a\""), "{error}");
    write("jobs/2.yml", "global: {}\n");
    assert!(
        load(&dir.path().join("main.yml"), rules::Dialect::default())
            .unwrap_err()
            .to_string()
            .contains("unknown field `global`")
    );
}

#[test]
fn a_change_of_any_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let main = dir.path().join("main.yml");
    assert_eq!(fingerprint(&main), None);
    write("main.yml", "rule_files: ['*.rules']\nscrape_config_files: [jobs.yml]\n");
    let mut seen = std::collections::HashSet::from([fingerprint(&main)]);
    for (name, text) in [
        ("jobs.yml", "scrape_configs: []\n"),
        ("a.rules", "groups: []\n"),
        ("a.rules", "groups:\n- name: x\n"),
        ("b.rules", ""),
        ("main.yml", "rule_files: ['*.rules']\n"),
    ] {
        write(name, text);
        assert!(seen.insert(fingerprint(&main)), "{name}");
        assert!(!seen.insert(fingerprint(&main)));
    }
}

#[test]
fn sizes() {
    assert_eq!(parse_bytes("15MB"), Ok(15 << 20));
    assert_eq!(parse_bytes("1.5KiB"), Ok(1536));
    assert_eq!(parse_bytes("0"), Ok(0));
    assert_eq!(parse_bytes("3B"), Ok(3));
    for bad in ["100", "1mb", "MB", "1XB", "-1MB", "99999999EB"] {
        assert!(parse_bytes(bad).is_err(), "{bad}");
    }
}

/// The shared samples, or nothing (loudly) where they are not; in CI they must be there.
fn samples() -> Option<PathBuf> {
    let root = std::env::var_os("PYROMETER_SHARED").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let folder = root.join("config-samples");
    if folder.join("verdicts.jsonl").exists() {
        return Some(folder);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", folder.display());
    eprintln!("SKIPPED: {} is missing", folder.display());
    None
}

/// Samples whose fault lies in a file that is not among them: with which one, and what it says.
const INCLUDED: [(&str, &str, &str); 2] = [
    (
        "scrape_config_files_duplicate.bad.yml",
        "scrape_config_files.good.yml",
        "scrape_configs:\n- job_name: prometheus\n",
    ),
    (
        "scrape_config_files_global.bad.yml",
        "scrape_config_files.bad.yml",
        "scrape_configs:\n- {job_name: prometheus, scrape_interval: 10s, scrape_timeout: 20s}\n",
    ),
];

/// Reads a sample beside a file that it includes.
fn load_with_included(main: &Path, name: &str, text: &str) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("main.yml");
    std::fs::copy(main, &copy).unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    let outcome = load(&copy, rules::Dialect::default());
    let error = outcome.as_ref().unwrap_err().to_string();
    assert!(error.contains(&format!("{name}:2:3: ")) || error.contains(&format!("{name}:2:")), "{error}");
    outcome
}

#[test]
fn sections_that_are_not_for_agents_are_placed() {
    for (text, wanted) in [
        ("alerting:\n  alert_relabel_configs:\n  - {action: drop}\n", "p.yml:3:5: field alerting"),
        ("rule_files:\n- none.yml\n", "p.yml:2:3: field rule_files"),
        ("remote_read:\n- url: http://x/\n", "p.yml:2:3: field remote_read"),
    ] {
        let path = Path::new("p.yml");
        let error = parse(path, text).unwrap().check_agent(path).unwrap_err().to_string();
        assert_eq!(error, format!("{wanted} is not allowed in agent mode"));
    }
    let path = Path::new("p.yml");
    parse(path, "alerting: {}\nremote_write:\n- url: http://x/\n").unwrap().check_agent(path).unwrap();
}

/// Verdicts of Prometheus: what it refuses, we refuse; what it takes, we take or refuse as not supported.
#[test]
fn verdicts_agree_with_prometheus() {
    let Some(folder) = samples() else { return };
    let verdicts = std::fs::read_to_string(folder.join("verdicts.jsonl")).unwrap();
    let (mut agreed, mut unsupported, mut wrong) = (0, 0, Vec::new());
    for line in verdicts.lines() {
        let verdict: serde_json::Value = serde_json::from_str(line).unwrap();
        let file = verdict["file"].as_str().unwrap();
        let mut outcome = match INCLUDED.iter().find(|(main, ..)| *main == file) {
            Some((_, name, text)) => load_with_included(&folder.join(file), name, text),
            None => load(&folder.join(file), rules::Dialect::default()),
        };
        if verdict["mode"] == "agent" {
            outcome = outcome.and_then(|loaded| loaded.check_agent(Path::new(file)).map(|()| loaded));
        }
        let message = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        match verdict["verdict"].as_str().unwrap() {
            "valid" if message.contains("not supported") => unsupported += 1,
            "valid" if outcome.is_ok() => agreed += 1,
            // An agent without a destination is of no use, but in Prometheus' own test the file is taken.
            "invalid" if file == "agent_mode.without_remote_writes.yml" && outcome.is_ok() => agreed += 1,
            "invalid" if outcome.is_err() => agreed += 1,
            "unclear" => {}
            other => wrong.push(format!("{file} is {other}, but: {message:?}")),
        }
    }
    println!("{agreed} verdicts agree, {unsupported} files use what is not supported");
    assert!(agreed > 100, "{agreed} agreed");
    assert!(wrong.is_empty(), "{} verdicts differ: {wrong:#?}", wrong.len());
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_known_ones() {
    let why = |key: &str| {
        let text = format!("scrape_configs:\n- job_name: a\n  {key}: 5s\n");
        parse(Path::new("p.yml"), &text).unwrap_err().to_string()
    };
    for (key, known) in [
        ("scrape_intervall", "scrape_interval"),
        ("metric_path", "metrics_path"),
        ("honour_labels", "honor_labels"),
        ("kubernetes_sd_config", "kubernetes_sd_configs"),
    ] {
        let expected = format!("p.yml:3:3: unknown field `{key}`; did you mean {known}");
        assert!(why(key).starts_with(&expected), "{}", why(key));
        assert!(why(key).len() < expected.len() + 40, "{}", why(key));
    }
    let text = why("foo");
    assert!(text.starts_with("p.yml:3:3: unknown field `foo`; the nearest known ones are "), "{text}");
}
