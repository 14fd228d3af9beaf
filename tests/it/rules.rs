//! Rule files of Prometheus: evaluated, shown, and refused with their place.

use std::process::Command;

use crate::process::{Server, command, escape, request};

const RULES: &str = r#"
groups:
- name: example
  interval: 1s
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: {team: storage}
  - alert: TwoUp
    expr: job:up:sum{job="kubelet"} == 2
    annotations: {summary: '{{ $labels.job }} has {{ $value }} targets'}
  - alert: Patient
    expr: vector(1)
    for: 1h
"#;

#[test]
fn rules_are_evaluated_shown_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (config, rules) = (dir.path().join("prom.yml"), dir.path().join("a.rules"));
    std::fs::write(&config, "rule_files: ['*.rules']\n").unwrap();
    std::fs::write(&rules, RULES).unwrap();
    let file = format!("--config.file={}", config.display());
    let flags = ["--kubernetes=off", "--scrape.built-in=on", "--web.enable-lifecycle", &file];
    let server = Server::start(dir.path(), &flags);

    server.wait_for_rows("job:up:sum{job=\"kubelet\", team=\"storage\"} == 2");
    server.wait_for_rows("ALERTS{alertname=\"TwoUp\", alertstate=\"firing\"} == 1");
    server.wait_for_rows("ALERTS{alertname=\"Patient\", alertstate=\"pending\"} == 1");
    let groups = server.json("/api/v1/rules");
    let group = &groups["data"]["groups"][0];
    assert_eq!((&group["name"], &group["interval"]), (&"example".into(), &1.0.into()));
    let [record, firing, pending] = group["rules"].as_array().unwrap().as_slice() else { panic!("{group}") };
    assert_eq!((&record["type"], &record["health"]), (&"recording".into(), &"ok".into()));
    assert_eq!((&firing["state"], &pending["state"]), (&"firing".into(), &"pending".into()));
    assert_eq!(firing["alerts"][0]["annotations"]["summary"], "kubelet has 2 targets");
    assert_eq!(firing["alerts"][0]["value"], "2e+00");
    assert_eq!(server.json("/api/v1/alerts")["data"]["alerts"].as_array().unwrap().len(), 2);
    let recording = server.json("/api/v1/rules?type=record");
    assert_eq!(recording["data"]["groups"][0]["rules"].as_array().unwrap().len(), 1);

    // A rule file with a mistake changes nothing; without the file its series end.
    std::fs::write(&rules, "groups:\n- name: a\n  rules:\n  - record: b\n    expr: sum(\n").unwrap();
    let reload = format!("{}/-/reload", server.url);
    let (status, body) = request("POST", &reload, &[], "");
    assert_eq!(status, 500);
    assert!(body.contains("a.rules:5:"), "{body}");
    assert_eq!(server.query("ALERTS{alertname=\"TwoUp\"}").len(), 1);
    std::fs::remove_file(&rules).unwrap();
    assert_eq!(request("POST", &reload, &[], "").0, 200);
    assert_eq!(server.json("/api/v1/rules")["data"]["groups"].as_array().unwrap().len(), 0);
}

#[test]
fn groups_are_listed_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "groups:\n- {name: none, rules: []}\n".to_owned();
    for name in ["d", "a", "c", "b"] {
        text.push_str(&format!(
            "- {{name: {name}, rules: [{{record: r, expr: '1', labels: {{of: {name}}}}}]}}\n"
        ));
    }
    std::fs::write(dir.path().join("one.rules"), text).unwrap();
    std::fs::write(dir.path().join("prom.yml"), "rule_files: ['*.rules']\n").unwrap();
    let file = format!("--config.file={}", dir.path().join("prom.yml").display());
    let server = Server::start(dir.path(), &["--kubernetes=off", &file]);
    let listed = |parameters: &str| {
        let answer = server.json(&format!("/api/v1/rules?{parameters}"));
        let groups = answer["data"]["groups"].as_array().unwrap();
        let names: Vec<String> =
            groups.iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect();
        (names.concat(), answer["data"]["groupNextToken"].as_str().map(str::to_owned))
    };
    assert_eq!(listed(""), ("abcd".to_owned(), None));
    for (size, pages) in [(1, "a b c d"), (2, "ab cd"), (3, "abc d"), (4, "abcd"), (9, "abcd")] {
        let (mut found, mut parameters) = (Vec::new(), format!("group_limit={size}"));
        while let (names, Some(token)) = listed(&parameters) {
            found.push(names);
            parameters = format!("group_limit={size}&group_next_token={token}");
        }
        found.push(listed(&parameters).0);
        assert_eq!(found.join(" "), pages);
    }
    // A page counts what is left of all groups.
    let token = listed("group_limit=1").1.unwrap();
    let rest = format!("group_limit=1&group_next_token={token}&match[]={}", escape("{of=~\"a|d\"}"));
    assert_eq!(listed(&rest), ("d".to_owned(), None));
    assert_eq!(server.get("/api/v1/rules?group_limit=1&group_next_token=zz").0, 400);
}

#[test]
fn check_rules_judges_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.rules"), dir.path().join("bad.rules"));
    std::fs::write(&good, RULES).unwrap();
    std::fs::write(&bad, "groups:\n- name: a\n  rules:\n  - record: b\n    expr: up\n    for: 1m\n").unwrap();
    let check = |file| -> Command {
        let mut check = command();
        check.args(["check", "rules"]).arg(file);
        check
    };
    let output = check(&good).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("3 rules found"), "{output:?}");
    let output = check(&bad).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.rules:"), "{output:?}");
}
