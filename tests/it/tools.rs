//! Commands beside the server, compared with the installed promtool on the same input.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::process::{Server, installed};
use crate::prometheus::{now_s, page};

/// Our binary under the name of promtool.
pub(crate) fn ours(dir: &Path) -> PathBuf {
    let link = dir.join("promtool");
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_pyrometer"), &link).unwrap();
    }
    link
}

pub(crate) fn call(program: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever does not read may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const RULES: &str = "groups:\n- name: g\n  rules:\n  - record: job:up:sum\n    expr: sum by (job) (up)\n  - alert: Down\n    \
    expr: up == 0\n    for: 5m\n    labels: {severity: page}\n    annotations:\n      summary: '{{ $labels.instance }} is down, \
    {{ $value | humanize }}'\n";

/// A unit test; what it expects is given.
fn unit_test(sum: &str, state: &str) -> String {
    format!(
        "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  name: first\n  input_series:\n  \
         - series: 'up{{job=\"a\",instance=\"x\"}}'\n    values: '1 1 0x20'\n  - series: 'up{{job=\"a\",instance=\"y\"}}'\n    \
         values: '1x20'\n  alert_rule_test:\n  - eval_time: 5m\n    alertname: Down\n  - eval_time: 10m\n    alertname: Down\n    \
         exp_alerts:\n    - exp_labels: {{severity: {state}, job: a, instance: x}}\n      exp_annotations: {{summary: 'x is down, 0'}}\n  \
         promql_expr_test:\n  - expr: job:up:sum\n    eval_time: 4m\n    exp_samples:\n    \
         - labels: 'job:up:sum{{job=\"a\"}}'\n      value: {sum}\n"
    )
}

#[test]
fn unit_tests_of_rules_end_as_with_promtool() {
    if !installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yml"), RULES).unwrap();
    let file = dir.path().join("test.yml");
    for (sum, state, passes) in [("1", "page", true), ("2", "page", false), ("1", "warn", false)] {
        std::fs::write(&file, unit_test(sum, state)).unwrap();
        let arguments = ["test", "rules", file.to_str().unwrap()];
        let own = call(&ours(dir.path()), &arguments, "");
        let theirs = call(Path::new("promtool"), &arguments, "");
        assert_eq!(own.status.success(), passes, "{}", text(&own));
        assert_eq!(theirs.status.code(), own.status.code(), "{}", text(&theirs));
        // The account of what differs is the same, line by line.
        let lines = |output: &Output| -> Vec<String> {
            let all = text(output);
            let kept = all.lines().filter(|line| line.starts_with("    "));
            kept.map(|line| line.trim_end().to_owned()).collect()
        };
        assert_eq!(lines(&own), lines(&theirs));
    }
    let report = dir.path().join("report.xml");
    let junit = format!("--junit={}", report.display());
    call(&ours(dir.path()), &["test", "rules", &junit, file.to_str().unwrap()], "");
    assert!(std::fs::read_to_string(report).unwrap().contains("<testcase name=\"first\"><failure>"));
}

#[test]
fn blocks_are_made_and_dumped_as_by_promtool() {
    if !installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let page_file = dir.path().join("page.om");
    std::fs::write(&page_file, page(now_s() - 86_400)).unwrap();
    let tools = [ours(dir.path()), PathBuf::from("promtool")];
    let mut dumps = Vec::new();
    for (name, maker) in ["made-by-us", "made-by-them"].into_iter().zip(&tools) {
        let made = dir.path().join(name);
        let made_text = made.to_str().unwrap();
        let from = ["tsdb", "create-blocks-from", "openmetrics", page_file.to_str().unwrap(), made_text];
        let output = call(maker, &from, "");
        assert!(output.status.success(), "{}", text(&output));
        std::fs::create_dir_all(made.join("wal")).unwrap();
        for reader in &tools {
            let output = call(reader, &["tsdb", "dump", made_text], "");
            assert!(output.status.success(), "{}", text(&output));
            let mut lines: Vec<_> =
                String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            dumps.push(lines);
        }
        let listed = text(&call(&tools[0], &["tsdb", "list", made_text], ""));
        let analyzed = text(&call(&tools[0], &["tsdb", "analyze", made_text, "--limit=2", "--extended"], ""));
        assert!(
            analyzed.contains("samples per float chunk (") && analyzed.contains("bytes per float chunk ("),
            "{analyzed}"
        );
        assert!(listed.lines().count() >= 2 && analyzed.contains("Total Series: 24"), "{listed}{analyzed}");
    }
    assert!(dumps[0].len() > 5000, "{}", dumps[0].len());
    for dump in &dumps[1..] {
        assert_eq!(dump, &dumps[0]);
    }
    // What was dumped can be taken in again.
    let made = dir.path().join("made-by-us");
    let again = dir.path().join("again");
    let dumped = call(&tools[0], &["tsdb", "dump-openmetrics", made.to_str().unwrap()], "");
    std::fs::write(&page_file, &dumped.stdout).unwrap();
    let from =
        ["tsdb", "create-blocks-from", "openmetrics", page_file.to_str().unwrap(), again.to_str().unwrap()];
    let output = call(&tools[0], &from, "");
    assert!(output.status.success(), "{}", text(&output));
    let output = call(&tools[0], &["tsdb", "dump", again.to_str().unwrap()], "");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), dumps[0].len());
}

#[test]
fn servers_are_asked_as_by_promtool_and_compared() {
    if !installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--kubernetes=off"]);
    server.wait_for_rows("up{job=\"pyrometer\"} == 1");
    let at = now_s().to_string();
    let own = ours(dir.path());
    let time = format!("--time={at}");
    let (start, end) = (format!("--start={}", now_s() - 60), format!("--end={at}"));
    let url = server.url.as_str();
    for arguments in [
        &["query", "instant", &time, url, "1 + 1"][..],
        &["query", "instant", &time, url, "vector(0.1)"],
        &["query", "instant", "-o", "json", &time, url, "vector(0.1)"],
        &["query", "range", &start, &end, "--step=30s", url, "vector(time() % 7)"],
        &["query", "series", "--match=up", url],
        &["query", "labels", url, "job"],
        &["query", "instant", url, "sum("],
    ] {
        let (own, theirs) = (call(&own, arguments, ""), call(Path::new("promtool"), arguments, ""));
        assert_eq!(
            own.status.code(),
            theirs.status.code(),
            "{arguments:?}: {} {}",
            text(&own),
            text(&theirs)
        );
        if theirs.status.success() && arguments[0] == "query" {
            assert_eq!(text(&own).trim(), text(&theirs).trim(), "{arguments:?}");
        }
    }
    // Commands that the installed promtool may be too old for.
    assert!(call(&own, &["check", "healthy", "--url", url], "").status.success());
    assert!(call(&own, &["check", "ready", "--url", "127.0.0.1:1"], "").status.code() == Some(1));
    let expressions = dir.path().join("expressions.txt");
    std::fs::write(&expressions, "# two\nup\ncount(count by (job) (up))\n").unwrap();
    let output = call(
        Path::new(env!("CARGO_BIN_EXE_pyrometer")),
        &["verify", "--against", url, "--url", url, expressions.to_str().unwrap()],
        "",
    );
    assert!(
        output.status.success()
            && text(&output).contains("2 expressions, instant and range: 0 answers differ"),
        "{}",
        text(&output)
    );
}

#[test]
fn files_and_pages_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let own = ours(dir.path());
    let rules = dir.path().join("rules.yml");
    std::fs::write(
        &rules,
        RULES.to_owned() + "- name: h\n  rules:\n  - record: job:up:sum\n    expr: vector(1)\n",
    )
    .unwrap();
    let rules = rules.to_str().unwrap();
    let output = call(&own, &["check", "rules", rules], "");
    assert!(
        output.status.success() && text(&output).contains("1 duplicate rule(s) found"),
        "{}",
        text(&output)
    );
    assert_eq!(call(&own, &["check", "rules", "--lint-fatal", rules], "").status.code(), Some(3));
    assert_eq!(call(&own, &["check", "rules"], "groups: [{nme: x}]").status.code(), Some(1));
    assert_eq!(
        call(&own, &["check", "metrics"], "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n")
            .status
            .code(),
        Some(0)
    );
    assert_eq!(call(&own, &["check", "metrics"], "aB 1\n").status.code(), Some(3));
    assert_eq!(call(&own, &["check", "metrics"], "{{\n").status.code(), Some(1));
    let formatted = call(&own, &["promql", "format", "sum(rate(a[5m]))by(x)"], "");
    assert_eq!(text(&formatted), "sum by (x) (rate(a[5m]))\n");
    let completions = call(Path::new(env!("CARGO_BIN_EXE_pyrometer")), &["completions", "bash"], "");
    assert!(text(&completions).contains("--storage.tsdb.path"));
}
