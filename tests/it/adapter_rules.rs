//! Rules in prometheus-adapter's format: checked, tried, and in force.

use std::path::{Path, PathBuf};

use crate::process::{Server, command};

const RULES: &str = r#"
rules:
- seriesQuery: '{__name__="container_memory_working_set_bytes",namespace!="",pod!=""}'
  resources:
    overrides: {namespace: {resource: namespace}, pod: {resource: pod}, node: {resource: node}}
  name: {matches: "^container_(.*)_bytes$"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
- seriesQuery: nothing_has_this_name
  metricsQuery: <<.Series>>
externalRules:
- seriesQuery: up
  resources: {namespaced: false}
  metricsQuery: count(<<.Series>>{<<.LabelMatchers>>} == 1)
"#;

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn run(arguments: &[&str]) -> (bool, String) {
    let output = command().args(arguments).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn a_file_is_checked_with_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "good.yaml", RULES);
    let bad = write(dir.path(), "bad.yaml", "rules:\n- seriesQuery: up\n  metricsQuery: sum(<<.Series>>\n");
    let (ok, text) = run(&["check", "adapter-rules", good.to_str().unwrap()]);
    assert!(ok && text.contains("SUCCESS: 2 rules, 1 external rules"), "{text}");
    let (ok, text) = run(&["check", "adapter-rules", good.to_str().unwrap(), bad.to_str().unwrap()]);
    assert!(!ok && text.contains("bad.yaml:3:17: rules[0].metricsQuery: "), "{text}");
    let flag = format!("--kubernetes-api.adapter-rules={}", bad.display());
    let (ok, text) = run(&[&flag]);
    assert!(!ok && text.contains("bad.yaml:3:17"), "{text}");
}

#[test]
fn rules_are_tried_on_a_server_and_on_its_directory_and_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "rules.yaml", RULES);
    let file = file.to_str().unwrap();
    let server = Server::start(dir.path(), &[&format!("--kubernetes-api.adapter-rules={file}")]);
    server.wait_for_rows("count(up == 1) == 3");
    let root = "/apis/custom.metrics.k8s.io/v1beta2";
    let list = server.wait_for("custom metrics", |server| {
        let list = server.json(root);
        (list["resources"].as_array()?.len() == 3).then_some(list)
    });
    assert_eq!(list["resources"][2]["name"], "pods/memory_working_set");
    let external = server.json("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/up");
    assert_eq!(external["items"][0]["value"], "3");

    let (ok, text) = run(&["adapter-rules", "try", "--url", &server.url, file]);
    assert!(ok, "{text}");
    for expected in [
        "container_memory_working_set_bytes becomes memory_working_set",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/",
        "query: sum(container_memory_working_set_bytes{namespace=\"",
        "WARNING: seriesQuery fits no series of the last 10 minutes",
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/up",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let pods = text.lines().find(|line| line.contains("/pods/")).unwrap().trim();
    let list = server.json(pods);
    assert!(!list["items"].as_array().unwrap().is_empty(), "{list}");

    assert_eq!(server.interrupt(), Some(0));
    let data = dir.path().join("data");
    let (ok, text) = run(&["adapter-rules", "try", "--storage.tsdb.path", data.to_str().unwrap(), file]);
    assert!(ok && text.contains(" becomes memory_working_set") && text.contains("value: "), "{text}");
}
