//! The commands and flags of promtool, walked through, and those that only we can be asked about.

use std::path::Path;

use serde_json::{Value, json};

use crate::process::{Server, installed, output};
use crate::prometheus::now_s;
use crate::tools::{call, ours, text};

/// Commands of promtool that ours does not have, and why.
const WITHOUT: &[(&str, &str)] = &[
    ("help", "part of every command as --help"),
    ("debug pprof", "profiles of Go's runtime, which is not here"),
];

/// What promtool 3.14 has and the installed one may be too old for.
const NEWER: &[(&str, &[&str])] = &[
    ("check service-discovery", &["timeout", "query.lookback-delta"]),
    ("check config", &["syntax-only", "lint", "lint-fatal", "ignore-unknown-fields", "agent"]),
    ("check web-config", &[]),
    ("check healthy", &["http.config.file", "url"]),
    ("check ready", &["http.config.file", "url"]),
    ("check rules", &["lint", "lint-fatal", "ignore-unknown-fields"]),
    ("check metrics", &["extended", "lint"]),
    ("query instant", &["http.config.file", "format", "time", "header"]),
    ("query range", &["http.config.file", "format", "header", "start", "end", "step"]),
    ("query series", &["http.config.file", "format", "match", "start", "end"]),
    ("query labels", &["http.config.file", "format", "match", "start", "end"]),
    ("query analyze", &["http.config.file", "server", "type", "duration", "time", "match"]),
    ("debug metrics", &[]),
    ("debug all", &[]),
    (
        "push metrics",
        &["http.config.file", "label", "timeout", "header", "protobuf_message", "remote-write.path"],
    ),
    ("test rules", &["junit", "run", "debug", "diff", "ignore-unknown-fields"]),
    ("tsdb bench write", &["out", "metrics", "scrapes"]),
    ("tsdb analyze", &["limit", "extended", "match"]),
    ("tsdb list", &["human-readable"]),
    ("tsdb dump", &["sandbox-dir-root", "min-time", "max-time", "match", "format"]),
    ("tsdb dump-openmetrics", &["sandbox-dir-root", "min-time", "max-time", "match"]),
    ("tsdb create-blocks-from openmetrics", &["human-readable", "quiet", "label"]),
    (
        "tsdb create-blocks-from rules",
        &[
            "human-readable",
            "quiet",
            "http.config.file",
            "url",
            "start",
            "end",
            "output-dir",
            "eval-interval",
        ],
    ),
    ("promql format", &[]),
    ("promql label-matchers set", &["type"]),
    ("promql label-matchers delete", &[]),
];

/// The commands of `promtool --help-long`, each with its flags.
fn commands(help: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in help.lines().skip_while(|line| *line != "Commands:").skip(1) {
        let words = line.split(' ').take_while(|word| !word.is_empty() && !word.starts_with(['[', '<', '-']));
        let words: Vec<&str> = words.collect();
        if line.starts_with(|c: char| c.is_ascii_lowercase()) {
            found.push((words.join(" "), Vec::new()));
        } else if let Some(rest) = line.trim_start().split_once("--").filter(|(before, _)| before.len() <= 4)
        {
            let flag = rest.1.trim_start_matches("[no-]");
            let flag = flag.split([' ', '=']).next().unwrap_or_default();
            // An example in a text is no flag.
            if line.starts_with("  ") && !flag.is_empty() && !line.contains('$') {
                found.last_mut().unwrap().1.push(flag.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_command_and_flag_of_promtool_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let own = ours(dir.path());
    let mut wanted: Vec<(String, Vec<String>)> = NEWER
        .iter()
        .map(|(name, flags)| ((*name).to_owned(), flags.iter().map(|flag| (*flag).to_owned()).collect()))
        .collect();
    if installed("promtool") {
        let listed = commands(&String::from_utf8_lossy(&output("promtool", &["--help-long"]).stderr));
        let listed = if listed.is_empty() {
            commands(&String::from_utf8_lossy(&output("promtool", &["--help-long"]).stdout))
        } else {
            listed
        };
        assert!(listed.len() > 15, "{listed:?}");
        wanted.extend(listed);
    }
    let mut missing = Vec::new();
    for (command, flags) in wanted.iter().filter(|(name, _)| !WITHOUT.iter().any(|(other, _)| other == name))
    {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = call(&own, &arguments, "");
        if !help.status.success() {
            missing.push(command.clone());
            continue;
        }
        let help = text(&help);
        let has = |flag: &str| help.split([' ', ',', '=', '\n']).any(|word| word == format!("--{flag}"));
        missing.extend(flags.iter().filter(|flag| !has(flag)).map(|flag| format!("{command} --{flag}")));
    }
    assert!(missing.is_empty(), "{missing:?}");
    for (command, why) in WITHOUT.iter().filter(|(command, _)| *command != "help") {
        let arguments: Vec<&str> = command.split(' ').collect();
        assert!(!call(&own, &arguments, "").status.success(), "there is {command} now, in spite of: {why}");
    }
}

#[test]
fn flags_of_a_group_stand_before_its_command_or_after() {
    let dir = tempfile::tempdir().unwrap();
    let own = ours(dir.path());
    let server = Server::start(dir.path(), &["--kubernetes=off", "--web.enable-remote-write-receiver"]);
    let url = server.url.as_str();
    let options = dir.path().join("http.yml");
    std::fs::write(
        &options,
        "basic_auth: {username: a, password: b}\nhttp_headers: {X-One: {values: ['1']}}\n",
    )
    .unwrap();
    let file = format!("--http.config.file={}", options.display());
    let at = format!("--time={}", now_s());
    for arguments in [
        &["query", "-o", "json", &file, "instant", &at, url, "vector(1)"][..],
        &["query", "instant", "-o", "json", &file, &at, url, "vector(1)"],
    ] {
        let answer = call(&own, arguments, "");
        assert!(answer.status.success() && text(&answer).starts_with("[{\"metric\":{}"), "{}", text(&answer));
    }
    let page = "# TYPE pushed gauge\npushed 7\n";
    for target in [url.to_owned(), format!("{url}/api/v1/write")] {
        let answer = call(&own, &["push", &file, "metrics", "--label=job=j", &target], page);
        assert!(answer.status.success(), "{}", text(&answer));
    }
    server.wait_for_rows("pushed{job=\"j\"} == 7");
    // What the real one makes of a page, with either message.
    let page = "# HELP h Some text.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n\
                # TYPE q summary\nq{quantile=\"0.5\"} 4\nq_sum 5\nq_count 6\n\
                # TYPE p gauge\np{job=\"own\",zone=\"a\"} 7\np{other=\"b\"} 8\n";
    let push = |program: &Path, run: &str, flags: &[&str]| {
        let labels = [&format!("--label=run={run}")[..], "--label=job=j", "--label=zone=z", "--timeout=20s"];
        let to = format!("{url}/api/v1/write");
        let answer = call(program, &[&["push", "metrics"], &labels[..], flags, &[&to]].concat(), page);
        assert!(answer.status.success(), "{}", text(&answer));
        let rows = server.wait_for_rows(&format!("{{run={run:?}}}"));
        let line = |mut row: Value| {
            row["metric"].as_object_mut().unwrap().remove("run");
            format!("{} {}", row["metric"], row["value"][1])
        };
        let mut rows: Vec<String> = rows.into_iter().map(line).collect();
        rows.sort();
        rows
    };
    let one = push(&own, "one", &["--header=X-A=b"]);
    assert!(
        one.iter().any(|row| row.contains("\"exported_job\":\"own\"") && row.contains("\"zone\":\"a\"")),
        "{one:#?}"
    );
    assert_eq!(one.len(), 9, "{one:#?}");
    assert_eq!(push(&own, "two", &["--protobuf_message=io.prometheus.write.v2.Request"]), one);
    let wrong = call(&own, &["push", "metrics", "--protobuf_message=x", url], page);
    assert!(!wrong.status.success());
    if let Some(real) = crate::process::newer("promtool") {
        assert_eq!(push(Path::new(&real), "real", &[]), one);
    }
    // A mistake in the file names its place.
    std::fs::write(&options, "basic_auth: {user: a}\n").unwrap();
    let answer = call(&own, &["query", &file, "instant", url, "1"], "");
    assert!(!answer.status.success() && text(&answer).contains("http.yml:1:14"), "{}", text(&answer));
    std::fs::write(&options, "bearer_token: a\nbasic_auth: {username: a}\n").unwrap();
    let answer = call(&own, &["query", &file, "instant", url, "1"], "");
    assert!(text(&answer).contains("at most one of"), "{}", text(&answer));
}

#[test]
fn service_discovery_is_checked_as_by_promtool() {
    let dir = tempfile::tempdir().unwrap();
    let own = ours(dir.path());
    std::fs::write(
        dir.path().join("prom.yml"),
        "scrape_configs:\n- job_name: files\n  params: {a: [b]}\n  file_sd_configs: [{files: ['*.found.yml']}]\n  \
         relabel_configs:\n  - {source_labels: [zone], regex: far, action: drop}\n  \
         - {source_labels: [__meta_filepath], regex: '.*/(.*)', target_label: file}\n- job_name: other\n  static_configs: [{targets: ['fixed:1']}]\n",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("a.found.yml"),
        "- targets: ['h:1', 'h:2']\n  labels: {zone: near}\n- targets: ['h:3']\n  labels: {zone: far}\n",
    )
    .unwrap();
    let config = dir.path().join("prom.yml").display().to_string();
    let arguments = ["check", "service-discovery", "--timeout=2s", &config, "files"];
    let found = |program: &Path| -> Vec<Value> {
        let answer = call(program, &arguments, "");
        assert!(answer.status.success(), "{}", text(&answer));
        let mut all: Vec<Value> = serde_json::from_slice(&answer.stdout).unwrap();
        all.sort_by_key(|one| one["discoveredLabels"]["__address__"].to_string());
        all
    };
    let mine = found(&own);
    assert_eq!(mine.len(), 3);
    let found_at = |one: &Value, name: &str| one["labels"][name].as_str().map(str::to_owned);
    assert_eq!(found_at(&mine[0], "file").as_deref(), Some("a.found.yml"));
    assert_eq!(found_at(&mine[0], "instance").as_deref(), Some("h:1"));
    assert_eq!(found_at(&mine[0], "__meta_filepath"), None);
    assert_eq!(mine[2]["labels"], json!({}));
    let old = installed("promtool") && {
        let version = output("promtool", &["--version"]);
        format!("{version:?}").contains("version 2.")
    };
    // promtool 2 gives no answer to a job with relative paths of files.
    if installed("promtool") && !old {
        assert_eq!(mine, found(Path::new("promtool")));
    }
    let fixed = call(&own, &["check", "service-discovery", &config, "other"], "");
    assert!(text(&fixed).contains("\"instance\": \"fixed:1\""), "{}", text(&fixed));
    let unknown = call(&own, &["check", "service-discovery", &config, "none"], "");
    assert!(!unknown.status.success() && text(&unknown).contains("\tfiles\n\tother"), "{}", text(&unknown));
}

#[test]
fn writing_is_measured_and_series_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let own = ours(dir.path());
    let out = dir.path().join("out").display().to_string();
    let series = dir.path().join("series.json");
    std::fs::write(&series, "{\"__name__\":\"a\",\"x\":\"1\"}\n{\"__name__\":\"b\"}\n{\"__name__\":\"b\"}\n")
        .unwrap();
    for (file, total) in [(None, 500 * 200), (Some(series.to_str().unwrap()), 2 * 200)] {
        let mut arguments = vec!["tsdb", "bench", "write", "--metrics=500", "--scrapes=200", "--out", &out];
        arguments.extend(file);
        let answer = call(&own, &arguments, "");
        assert!(text(&answer).contains(&format!(" > total samples: {total}\n")), "{}", text(&answer));
    }
    let storage = format!("{out}/storage");
    let listed = call(&own, &["tsdb", "dump", "--format=seriesjson", &storage], "");
    assert_eq!(text(&listed), "{\"__name__\":\"a\",\"x\":\"1\"}\n{\"__name__\":\"b\"}\n");
    let samples = call(&own, &["tsdb", "dump", &storage], "");
    assert_eq!(text(&samples).lines().count(), 400);
}

#[test]
fn fields_for_other_readers_are_looked_past_if_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let own = ours(dir.path());
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let rules = write(
        "more.rules",
        "version: 3\ngroups:\n- name: g\n  owner: {team: a}\n  rules:\n  - {record: r, expr: up, severity: 1}\n",
    );
    let config = write("prom.yml", "rule_files: ['*.rules']\n");
    let tests = write(
        "tests.yml",
        "rule_files: [more.rules]\nnote: x\ntests:\n- name: n\n  owner: a\n  input_series: [{series: up, values: '1x3', why: y}]\n  \
         promql_expr_test: [{expr: r, eval_time: 1m, exp_samples: [{labels: r, value: 1, unit: z}]}]\n",
    );
    for (command, file) in [("check rules", &rules), ("check config", &config), ("test rules", &tests)] {
        let arguments: Vec<&str> = command.split(' ').chain([file.as_str()]).collect();
        let refused = call(&own, &arguments, "");
        assert!(!refused.status.success() && text(&refused).contains("unknown field"), "{}", text(&refused));
        let arguments: Vec<&str> = command.split(' ').chain(["--ignore-unknown-fields", file]).collect();
        let taken = call(&own, &arguments, "");
        assert!(taken.status.success(), "{command}: {}", text(&taken));
    }
    // Mistakes are still found.
    let bad = write("bad.yml", "groups:\n- name: g\n  owner: a\n  rules: [{record: r, expr: 'sum('}]\n");
    let found = call(&own, &["check", "rules", "--ignore-unknown-fields", &bad], "");
    assert!(!found.status.success() && text(&found).contains("parse error"), "{}", text(&found));
}
