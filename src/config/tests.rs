use std::path::{Path, PathBuf};

use super::*;

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
fn mistakes_are_placed() {
    for (text, place) in [
        ("global:\n  nope: 1\n", "p.yml:2:3: unknown field `nope`"),
        ("scrape_configs:\n- job_name: a\n  scheme: ftp\n", "p.yml:3:11: scheme must be 'http' or 'https'"),
        (
            "scrape_configs:\n- job_name: a\n  kubernetes_sd_configs:\n  - role: pod\n",
            "p.yml:4:5: job \"a\": kubernetes_sd_configs is not supported",
        ),
        ("remote_write:\n- url: http://x/\n", "p.yml:2:3: remote_write is not supported"),
        (
            "scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n  scrape_timeout: 6s\n",
            "p.yml:4:19: scrape timeout greater",
        ),
        ("scrape_configs:\n- job_name: a\n  metric_relabel_configs:\n  - regex: '('\n", "p.yml:4:5: "),
        (
            "scrape_configs:\n- job_name: a\n  basic_auth: {password: a, password_file: b}\n",
            "p.yml:3:15: at most one of password",
        ),
    ] {
        let message = error(text);
        assert!(message.starts_with(place), "{message}\n  for {text}");
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

/// Verdicts of Prometheus: what it refuses, we refuse; what it takes, we take or refuse as not supported.
#[test]
fn verdicts_agree_with_prometheus() {
    let Some(folder) = samples() else { return };
    let verdicts = std::fs::read_to_string(folder.join("verdicts.jsonl")).unwrap();
    let (mut agreed, mut unsupported, mut wrong) = (0, 0, Vec::new());
    for line in verdicts.lines() {
        let verdict: serde_json::Value = serde_json::from_str(line).unwrap();
        let file = verdict["file"].as_str().unwrap();
        if verdict["mode"] == "agent" {
            continue;
        }
        let outcome = load(&folder.join(file));
        let message = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        match verdict["verdict"].as_str().unwrap() {
            "valid" if message.contains("not supported") => unsupported += 1,
            "valid" if outcome.is_ok() => agreed += 1,
            "invalid" if outcome.is_err() => agreed += 1,
            "unclear" => {}
            other => wrong.push(format!("{file} is {other}, but: {message:?}")),
        }
    }
    println!("{agreed} verdicts agree, {unsupported} files use what is not supported");
    assert!(agreed > 100, "{agreed} agreed");
    assert!(wrong.is_empty(), "{} verdicts differ: {wrong:#?}", wrong.len());
}
